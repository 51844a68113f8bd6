"""Comparison of two runs: paired differences on the same test examples, or a refusal."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import ALL_VIEWS, browser
from click.testing import CliRunner

from keras_vae import evaluation
from keras_vae.cli import main
from keras_vae.report import comparison
from keras_vae.runs.config import RunConfig, RunError
from keras_vae.runs.run import Run
from keras_vae.tokens import END, UNKNOWN, Tokens
from tests.test_report import Page
from tests.test_units import untrained

X = np.random.default_rng(0).normal([3.0, -1.0, 5.0], [1.0, 2.0, 0.5], (80, 3))


def of(path: Path, raw: np.ndarray = X, likelihood: str = "normal", **options: object) -> Run:
    run = untrained(path, raw, likelihood, **options)
    run.write_history([{"epoch": 1, "elbo": -9.0, "val_elbo": -8.0}])
    return run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return of(folder / "a"), of(folder / "b", scale="decoder")


def bounds(run: Run) -> np.ndarray:
    vae = run.load()
    x = run.preparation.array(run.raw()[1], run.config.seed)
    return run.units(vae).log_p(vae.elbo(x, seed=3).elbo)


def test_difference_is_that_of_pairs_in_the_units_of_the_file(pair: tuple[Run, Run]) -> None:
    found = comparison.compare(*pair, seed=3)
    gaps = np.subtract(*(bounds(run) for run in reversed(pair)))
    assert found.difference == pytest.approx(gaps.mean(), abs=1e-12)
    assert found.standard_error == pytest.approx(gaps.std(ddof=1) / np.sqrt(40), abs=1e-12)
    assert found.ahead == (gaps > 0).sum()
    assert found.header == ("", "a", "b", "b minus a")
    assert found.rows[0][1:] == (
        f"{bounds(pair[0]).mean():.2f}",
        f"{bounds(pair[1]).mean():.2f}",
        f"{gaps.mean():+.2f} ± {gaps.std(ddof=1) / np.sqrt(40):.2f}",
    )
    assert -2 * found.standard_error < gaps.mean() < 0  # the models are untrained
    assert found.verdict.startswith("No difference is certain: the ELBO of b is ")
    clear = dataclasses.replace(found, difference=3 * found.standard_error)
    error = found.standard_error
    assert clear.verdict == (
        f"b is ahead: its ELBO is {3 * error:.2f} ± {error:.2f} nats per example higher than that "
        f"of a, and higher for {found.ahead} of 40 test examples."
    )
    turned = comparison.compare(*reversed(pair), seed=3)
    assert turned.difference == pytest.approx(-found.difference, abs=1e-12)
    settings = {name: values for name, *values in found.about}
    assert settings["likelihood_options"] == ["scale per_feature", "scale decoder"]
    assert settings["model"] == 2 * ["2 latents; prior StandardNormal, posterior DiagonalNormal"]


def test_log_marginal_decides_where_it_is_measured(pair: tuple[Run, Run], tmp_path: Path) -> None:
    found = comparison.compare(*pair, num_samples=50, limit=30, seed=3)
    values = []
    for run in pair:
        x = run.preparation.array(run.raw()[1], run.config.seed)[:30]
        marginal = evaluation.log_marginal(run.load(), x, num_samples=50, seed=3)
        values.append(run.units(run.load()).log_p(marginal.value))
    gaps = values[1] - values[0]
    assert found.difference == pytest.approx(gaps.mean(), abs=1e-12)
    assert found.standard_error == pytest.approx(gaps.std(ddof=1) / np.sqrt(30), abs=1e-12)
    assert found.ahead == (gaps > 0).sum()
    assert found.rows[0] == (
        "log p(x) by 50 draws, the first 30 of 40 test examples",
        f"{values[0].mean():.2f}",
        f"{values[1].mean():.2f}",
        f"{gaps.mean():+.2f} ± {found.standard_error:.2f}",
    )
    assert found.rows[1:] == comparison.compare(*pair, seed=3).rows
    assert "log p(x) by importance sampling" in found.verdict
    comparison.write(found, tmp_path / "both.html")
    assert found.verdict in (tmp_path / "both.html").read_text()


def test_limit_without_samples_is_refused(pair: tuple[Run, Run]) -> None:
    words = ["compare", *(str(run.path) for run in pair), "--limit", "10"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "--limit is for log p(x), which is measured with --num-samples." in result.output


def test_settings_without_effect_are_no_difference() -> None:
    def shown(first: dict[str, Any], second: dict[str, Any]) -> list[tuple[str, ...]]:
        about: dict[str, Any] = {"network": "recurrent", "output_bias": "zeros"}
        configs = [RunConfig("a.npy", **about, **given) for given in (first, second)]
        return comparison.differing(*configs)

    entries = {"entries": ("load",)}
    assert shown({"window": 8, **entries}, {"window": 8, "stride": 8}) == []
    assert shown({"window": 8, "stride": 4}, {"window": 8}) == [("stride", "4", "8")]
    assert shown({"prior_layers": 3}, {}) == []
    assert shown({"prior": "flow", "prior_layers": 3}, {"prior": "flow"}) == [
        ("prior_layers", "3", "4")
    ]
    assert shown({"prior": "flow"}, {}) == [("prior", "flow", "standard_normal")]
    assert shown(entries, {"entries": ("heat",)}) == [("entries", "load", "heat")]


def test_command_prints_both_and_writes_one_page(pair: tuple[Run, Run], tmp_path: Path) -> None:
    out = tmp_path / "both.html"
    words = ["compare", *(str(run.path) for run in pair), "--out", str(out)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "b minus a" in result.output
    assert comparison.compare(*pair).verdict in " ".join(result.output.split())
    page = Page(out.read_text())
    assert page.open == []
    assert page.captions == len(page.links) == 3
    assert all(link.startswith("data:image/") for link in page.links)
    with browser() as tab:
        tab.open(out.resolve().as_uri())
        assert tab.faults(ALL_VIEWS) == []


def test_runs_that_cannot_be_compared_are_refused(pair: tuple[Run, Run], tmp_path: Path) -> None:
    first = pair[0]
    with pytest.raises(RunError, match="is named twice: name two runs"):
        comparison.compare(first, first)
    other = of(tmp_path / "other", X[::-1])
    with pytest.raises(RunError, match=r"same test examples; those of a and other differ"):
        comparison.compare(first, other)
    counts = of(tmp_path / "counts", np.round(np.abs(X)), "poisson")
    with pytest.raises(RunError, match=r"a has one on the log-density .* log-probability"):
        comparison.compare(first, counts)


def test_texts_of_other_tokens_are_refused(pair: tuple[Run, Run], monkeypatch) -> None:
    coded = {"a": Tokens((END, UNKNOWN, "a"), "characters", unknown=True)}
    coded["b"] = dataclasses.replace(coded["a"], unit="words")
    monkeypatch.setattr(Run, "tokens", property(lambda run: coded[run.path.name]))
    with pytest.raises(RunError, match=r"texts of the same tokens; those of a and b differ. Give"):
        comparison.compare(*pair)
