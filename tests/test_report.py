"""The report: one file, nothing fetched, for images and for tables."""

import dataclasses
import json
import math
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from chromium import ALL_VIEWS, browser
from scipy.stats import norm

from keras_vae import commands, random, report
from keras_vae.data.proposal import prepare
from keras_vae.distributions.noise import from_rows
from keras_vae.factories import LIKELIHOODS
from keras_vae.report import bounds, draws
from keras_vae.report.figures import Picture
from keras_vae.report.subject import Subject, described
from keras_vae.runs.building import build
from keras_vae.runs.config import RunConfig, RunError
from keras_vae.runs.run import Run
from keras_vae.runs.train import train
from tests.test_units import untrained


class Page(HTMLParser):
    """What a browser would see: tags that match, titles, and what they point to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.captions = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.captions += tag == "figcaption"
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "table"])
def test_report_is_one_self_contained_page(kind: str, tmp_path: Path) -> None:
    config = RunConfig(
        data="digits",
        likelihood="bernoulli",
        hidden=(8,),
        latent=3,
        epochs=2,
        batch_size=300,
        beta=2.0,
    )
    config = dataclasses.replace(config, monitor=True)
    if kind == "table":
        path = tmp_path / "table.npz"
        np.savez(path, x=np.random.default_rng(0).normal(size=(400, 4)))
        config = RunConfig(
            data=str(path), likelihood="normal", hidden=(8,), latent=2, epochs=2, batch_size=100
        )
    run = train(config, tmp_path / "run")
    artifact = None
    if kind == "images":
        row = {"runtime": "onnxruntime", "precision": "float32", "signature": "decode"}
        rows = [{**row, "max_abs": error, "passed": True} for error in (0.0, 2e-6)]
        artifact = tmp_path / "digits" / "1"
        artifact.mkdir(parents=True)
        (artifact / "parity.json").write_text(json.dumps(rows))
        commands.rate_distortion(run, betas=(4.0,), seed=0, report=lambda sentence: None)
    path = Path(report.write(run, artifact=artifact))
    text = path.read_text()
    page = Page(text)
    assert page.open == []
    assert page.links
    assert all(link.startswith("data:image/") for link in page.links)
    assert not re.findall(r"https?://(?!www\.w3\.org)", re.sub(r'src="[^"]*"', "", text))
    assert page.captions == len(page.links) >= 8
    # With beta 2 the loss is not the negative ELBO, and has a picture of its own.
    assert ("Loss, which is not the ELBO" in text) == (kind == "images")
    assert "Not measured yet" in text
    available = 180 if kind == "images" else 40
    assert f"Looked at: all {available} test examples." in text
    assert f"the first 32 of {available} test examples" in text
    assert ("Draws, each number 0 or 1" in text) == (kind == "images")
    assert ("Each pair of 4 columns" in text) == (kind == "table")
    if kind == "images":
        assert "Interpolations on geodesics" in text
        with browser() as tab:
            tab.open(path.resolve().as_uri())
            assert tab.faults(ALL_VIEWS) == []
    for part in ("Rate against distortion", "Active latents", "2.0e-06", "2 of 2 comparisons"):
        assert (part in text) == (kind == "images")


@pytest.mark.parametrize(("shape", "count"), [((64,), 64), ((16, 16, 3), 21), ((64, 64, 3), 16)])
def test_fewer_examples_are_annealed_where_they_are_large(
    shape: tuple[int, ...], count: int
) -> None:
    for network, expected in (("mlp", count), ("recurrent", 16)):
        subject = SimpleNamespace(
            vae=SimpleNamespace(numbers_per_example=math.prod(shape)),
            x=np.arange(100),
            run=SimpleNamespace(config=RunConfig(network=network)),
        )
        assert len(bounds._few(subject, 64)) == expected


def test_report_needs_a_model(tmp_path: Path) -> None:
    config = RunConfig(
        data="digits", likelihood="bernoulli", hidden=(8,), latent=2, epochs=1, batch_size=300
    )
    run = train(config, tmp_path / "run")
    run.model_path.unlink()
    with pytest.raises(RunError, match=r"holds no model\.keras yet"):
        report.write(run)
    assert not (run.path / "report.html").exists()


def test_series_are_lines_and_the_columns_that_tell_most_are_shown(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    run = untrained(tmp_path / "series", rng.normal(size=(40, 6, 2)), "normal")
    titles = [picture.title for picture in draws.draws(Subject.of(run, 0))]
    assert titles == [
        f"{kind}, channel {channel}"
        for channel in (0, 1)
        for kind in ("Test data", "Draws from p(x)")
    ]
    varied = rng.permuted(np.tile(np.arange(40), (23, 1)), axis=1).T
    binary = rng.permuted(np.tile(np.arange(40) % 2, (2, 1)), axis=1).T
    table = np.concatenate([binary, varied], axis=1)
    for width, shown in ((24, range(24)), (25, [0, *range(2, 25)])):
        run = untrained(tmp_path / f"table{width}", table[:, :width], "poisson")
        found = draws.draws(Subject.of(run, 0))
        titles = [picture.title for picture in found]
        assert titles == [*(f"number {column}" for column in shown), "Correlations"]
        says = "Shown are 24 of 25 columns, those that take the most values." in found[0].caption
        assert says == (width == 25)


def untrained_on_images(path: Path, **settings: Any) -> Run:
    raw = np.random.default_rng(0).integers(0, 2, (60, 4, 4, 1))
    np.save(path / "data.npy", raw)
    preparation, _ = prepare(LIKELIHOODS["bernoulli"], raw)
    config = RunConfig(
        data=str(path / "data.npy"),
        likelihood="bernoulli",
        hidden=(4,),
        test_fraction=0.5,
        preparation=preparation,
        **settings,
    )
    (path / "config.toml").write_text(config.to_toml())
    run = Run(path)
    run.save(build(config, raw.shape[1:]))
    return run


def test_a_prior_that_is_no_standard_normal_is_shown_beside_the_posterior(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = untrained_on_images(tmp_path, prior="normal_mixture", components=2, latent=3)
    vae = run.load()
    vae.prior.loc.assign(np.add(vae.prior.loc, [[30.0], [0.0]]))
    run.save(vae)
    figures: dict[str, Any] = {}

    def kept(title: str, caption: str, figure: Any) -> Picture:
        figures[title] = figure
        return Picture(title, caption, "")

    monkeypatch.setattr(report.latents, "drawn", kept)
    pictures = {picture.title: picture for picture in report.latents.latents(Subject.of(run, 0))}
    assert pictures["Posterior and prior overlap"].caption.endswith(
        "the two most used latents. The prior is shown by 1000 draws."
    )
    logits, loc, scale = (np.array(value) for value in vae.prior.components())
    weights = np.exp(logits) / np.sum(np.exp(logits))
    steps = figures["Posterior and prior overlap"].axes[0].patches
    assert len(steps) == 2
    for patch in steps:
        latent = int(patch.get_label().removeprefix("p(z), latent "))
        heights, ends, _ = patch.get_data()
        expected = np.diff(weights @ norm.cdf((ends - loc[:, [latent]]) / scale[:, [latent]]))
        found = heights * np.diff(ends)
        assert found[ends[1:] > 20.0].sum() == pytest.approx(0.5, abs=0.1)
        # Five standard errors of a share of 1000 draws.
        assert (np.abs(found - expected) < 5.0 * np.sqrt(expected / 1000) + 0.001).all()


@pytest.mark.parametrize("latents", ["codes", "ladder"])
def test_codes_and_levels_have_pictures_of_their_own(latents: str, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"latent": 5, "codes": 7, "code_size": 3} if latents == "codes" else {}
    sizes |= {"level_sizes": (2, 4)} if latents == "ladder" else {}
    run = untrained_on_images(tmp_path, latents=latents, **sizes)
    subject = Subject.of(run, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the model is untrained
        shown = {picture.title: picture.caption for picture in draws.draws(subject)}
    used = {picture.title: picture.caption for picture in report.latents.latents(subject)}
    assert ("What each level adds" in shown) == (latents == "ladder")
    if latents == "codes":
        assert list(used) == ["Use of the codes", "Codes by position", "PCA of the latents"]
        assert shown["Least likely examples"].endswith("nats (the ELBO).")
        assert "embeddings of the codes of all 30 test examples" in used["PCA of the latents"]
        assert described(subject.vae).startswith("5 codes of 7; prior UniformCodes")
        return
    assert list(used) == [
        "Nats per level",
        "Map of the latents, level z1",
        "PCA of the latents, level z2",
    ]
    assert described(subject.vae) == "6 latents on 2 levels: z1 of 2, z2 of 4"
    # With every level known the mean is the reconstruction, and a known level stays as it is.
    above, both = subject.by_level(3)
    np.testing.assert_allclose(both, subject.reconstructed(3), atol=1e-6)  # float32 sums
    assert above.shape == both.shape == (3, 4, 4, 1)
    known = subject.vae.encode(subject.x[:3])["z1"].mean()
    noise = from_rows(subject.vae.generation_noise(), random.row_seeds(0, 3), dtype="float32")
    np.testing.assert_array_equal(
        subject.vae.generated(noise, latents={"z1": known}).latents["z1"], known
    )
