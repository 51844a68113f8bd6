"""Comparison of two runs on the same test examples: paired differences, and one page of both."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from keras_vae import evaluation
from keras_vae.report import tables
from keras_vae.report.figures import BLUE, GREY, ORANGE, Picture, axes_of, drawn, label, legend
from keras_vae.report.page import document, figure_of
from keras_vae.report.subject import described
from keras_vae.runs import bounds, measurements
from keras_vae.runs.bounds import Bounds
from keras_vae.runs.config import RunConfig, RunError
from keras_vae.runs.run import Run
from keras_vae.runs.units import Units
from keras_vae.training.backup import write_atomically

__all__ = ["Comparison", "compare", "write"]

_CLEAR: Final = 2.0
"""Standard errors from which on a difference is called one."""
_DOTS: Final = 2000


@dataclass(frozen=True)
class _Side:
    """One of the two runs on the test examples.

    Attributes:
        name: its name, which tells it from the other.
        run: the run.
        units: units of its bounds.
        latents: its latents in a few words.
        weights: number of its weights.
        bounds: its bounds, in nats per test example in the units of the file.
    """

    name: str
    run: Run
    units: Units
    latents: str
    weights: int
    bounds: Bounds

    @property
    def bound(self) -> np.ndarray:
        """The tightest bound that was measured, on which the verdict rests."""
        return self.bounds.elbo if self.bounds.marginal is None else self.bounds.log_p


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same test examples, in nats per example.

    Attributes:
        sides: the two runs.
        units: what was measured, in words.
        difference: mean of the second run's bound minus the first's.
        standard_error: standard error of that mean over the examples.
        ahead: number of examples with a higher bound in the second run.
        rows: nats: name, first run, second run, second minus first.
        about: what the two models and their trainings are: name, first run, second run.
    """

    sides: tuple[_Side, _Side]
    units: str
    difference: float
    standard_error: float
    ahead: int
    rows: list[tuple[str, ...]]
    about: list[tuple[str, ...]]

    @property
    def header(self) -> tuple[str, str, str, str]:
        """Names of the columns of `rows`."""
        first, second = (side.name for side in self.sides)
        return "", first, second, f"{second} minus {first}"

    @property
    def quantity(self) -> str:
        """What the verdict rests on: log p(x) if it was measured, else the ELBO."""
        return "ELBO" if self.sides[0].bounds.marginal is None else "log p(x)"

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        first, second = self.sides
        count = len(first.bound)
        measure = self.quantity
        if first.bounds.marginal is not None:
            measure += " by importance sampling"
        words = f"{abs(self.difference):.2f} ± {self.standard_error:.2f} nats per example"
        if not self.standard_error > 0.0:
            return f"The bounds of {first.name} and {second.name} differ by {words}."
        if abs(self.difference) < _CLEAR * self.standard_error:
            return (
                f"No difference is certain: the {measure} of {second.name} is {words} "
                f"{'higher' if self.difference > 0.0 else 'lower'} than that of {first.name}, "
                f"less than {_CLEAR:g} standard errors."
            )
        better, worse = (second, first) if self.difference > 0.0 else (first, second)
        wins = self.ahead if better is second else count - self.ahead
        return (
            f"{better.name} is ahead: its {measure} is {words} higher than that of "
            f"{worse.name}, and higher for {wins} of {count} test examples."
        )


def compare(
    first: Run,
    second: Run,
    *,
    num_samples: int = 0,
    limit: int = 0,
    seed: int = 0,
    report: Callable[[str], None] = lambda sentence: None,
) -> Comparison:
    """Measures two runs on the same test examples, pair by pair.

    The bounds are those of one draw of the latents for each example. The mean difference has the
    standard error of the differences, which is smaller than those of the two means: hard examples
    are hard for both. The distance of the ELBO from log p(x) is not the same in two models, so the
    one with the higher ELBO may have the lower log p(x): with `num_samples` that is measured too.

    Args:
        first: the run that the other is compared with.
        second: the other.
        num_samples: importance samples per example for log p(x); 0 compares the ELBO alone.
        limit: number of test examples, from the first on, for log p(x); 0 for all.
        seed: seed of the draws.
        report: called with messages about the progress.

    Raises:
        RunError: if their test examples or the quantities they bound are not the same.
    """
    names = _names(first, second)
    if first.tokens and second.tokens and first.tokens != second.tokens:
        raise RunError(
            f"Expected texts of the same tokens; those of {' and '.join(names)} differ. Give both "
            "trainings the same --data and --tokens."
        )
    models = [run.load() for run in (first, second)]
    read = [_examples(run, vae) for run, vae in zip((first, second), models, strict=True)]
    _check(names, [units for *_, units in read], [raw for _, raw, _ in read])
    sides = []
    for name, run, vae, (x, _, units) in zip(names, (first, second), models, read, strict=True):
        report(f"Bounds of {name}")
        found = bounds.measure(
            run, vae, x, num_samples=num_samples, limit=limit, seed=seed, report=report
        )
        sides.append(
            _Side(
                name=name,
                run=run,
                units=units,
                latents=described(vae),
                weights=sum(math.prod(weight.shape) for weight in vae.trainable_weights),
                bounds=found,
            )
        )
    a, b = sides
    gaps = b.bound - a.bound
    difference, error = evaluation.mean_and_error(gaps)
    return Comparison(
        sides=(a, b),
        units=f"{a.units}; {measurements.examples(len(a.bounds.elbo), len(a.bounds.elbo))}",
        difference=difference,
        standard_error=error,
        ahead=int((gaps > 0.0).sum()),
        rows=_rows(a, b, num_samples),
        about=_about(a, b),
    )


def write(found: Comparison, path: Path) -> None:
    """Writes a comparison as one HTML page with its pictures inside."""
    first, second = found.sides
    lines = [
        "<h2>Nats per test example</h2>",
        *tables.numbers(found.header, found.rows),
        "<p>Differences are means over pairs, an example under both models, with the standard "
        "error of that mean, which is mostly smaller than those of the two bounds.</p>",
        "<h2>The two runs</h2>",
        *tables.words(found.header[:3], found.about),
        '<h2>Pictures</h2><div class="figures">',
        *(figure_of(picture) for picture in _pictures(found)),
        "</div>",
    ]
    text = document(
        name=f"{second.name} beside {first.name}",
        summary=html.escape(found.units) + ".",
        verdict=found.verdict,
        body=lines,
    )
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _names(first: Run, second: Run) -> tuple[str, str]:
    """Returns the names of the directories, with those above them as far as they are the same."""
    a, b = (run.path.resolve().parts for run in (first, second))
    if a == b:
        raise RunError(f"{first.path} is named twice: name two runs.")
    count = next(i for i in range(1, max(len(a), len(b)) + 1) if a[-i:] != b[-i:])
    return "/".join(a[-count:]), "/".join(b[-count:])


def _examples(run: Run, vae: Any) -> tuple[Any, Any, Units]:
    """Reads the test set: prepared and raw, and the units of its bounds."""
    units = run.units(vae)
    if run.schema is not None:
        table = run.table()
        return table.test.x, table.test.few().frame, units
    sets = run.read()
    raw, x = sets.test, run.test_inputs(sets)
    # Draws of the preparation, such as binarised pixels, belong to the data that is compared.
    prepared = x["x"] if run.config.condition else x
    return x, prepared if run.preparation.step == "binarize" else raw, units


def _check(names: Sequence[str], units: Sequence[Units], data: Sequence[Any]) -> None:
    """Refuses runs whose bounds are not of the same thing."""
    a, b = names
    one, other = units
    if str(one) != str(other):
        raise RunError(
            f"Expected bounds on the same quantity; {a} has one on the {one.quantity} of "
            f"{one.data} and {b} on the {other.quantity} of {other.data}. Train both "
            "with likelihoods of the same kind of data."
        )
    first, second = (keras.tree.flatten(_plain(each)) for each in data)
    same = len(first) == len(second) and all(
        np.shape(mine) == np.shape(theirs) and bool(_equal(mine, theirs))
        for mine, theirs in zip(first, second, strict=True)
    )
    if not same:
        raise RunError(
            f"Expected the same test examples; those of {a} and {b} differ. Give both "
            "trainings the same --data, --test-data, --test-fraction and --seed."
        )


def _plain(data: Any) -> Any:
    """Returns the columns of a table by name, and an array as it is."""
    return {str(k): v.to_numpy() for k, v in data.items()} if hasattr(data, "items") else data


def _equal(one: Any, other: Any) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    if one.dtype == object or other.dtype == object:
        absent = [np.array([value != value or value is None for value in x]) for x in (one, other)]
        return bool(((one == other) | (absent[0] & absent[1])).all())
    return np.array_equal(one, other, equal_nan=one.dtype.kind == other.dtype.kind == "f")


def _rows(a: _Side, b: _Side, num_samples: int) -> list[tuple[str, ...]]:
    """Returns the key figures as text."""
    titles = {"elbo": "ELBO", "distortion": "distortion", "rate": "rate"}
    if a.bounds.marginal is not None:
        examples = measurements.examples(len(a.bounds.log_p), len(a.bounds.elbo))
        titles = {"log_p": f"log p(x) by {num_samples} draws, {examples}", **titles}
    rows: list[tuple[str, ...]] = []
    for name, title in titles.items():
        one, other = getattr(a.bounds, name), getattr(b.bounds, name)
        mean, error = evaluation.mean_and_error(other - one)
        shown = (f"{np.mean(one):.2f}", f"{np.mean(other):.2f}", f"{mean:+.2f} ± {error:.2f}")
        rows.append((title, *shown))
    bits = [side.units.bits_per_dim(float(np.mean(side.bounds.elbo))) for side in (a, b)]
    words = [f"{value:.3f}" for value in bits if value is not None]
    return rows + ([("bits per dimension, at most", *words, "")] if words else [])


def _about(a: _Side, b: _Side) -> list[tuple[str, ...]]:
    """Returns what the two runs are, and the settings that differ."""
    rows: list[tuple[str, ...]] = [("model", a.latents, b.latents)]
    known = [measurements.read(side.run.path / "evaluation.json") for side in (a, b)]
    for name, get in _MEASURED.items():
        if any(known):
            rows.append((name, *("not measured" if each is None else get(each) for each in known)))
    history = [side.run.history() for side in (a, b)]
    rows += [
        ("weights", f"{a.weights:,}", f"{b.weights:,}"),
        ("epochs", *(str(len(each)) for each in history)),
    ]
    return rows + differing(a.run.config, b.run.config)


def differing(one: RunConfig, other: RunConfig) -> list[tuple[str, ...]]:
    """Returns the settings that differ, those without effect left out, as name and two words.

    Names of columns differ only where both files have them.
    """
    first, second = one.effective(), other.effective()
    rows = []
    for name in vars(one):
        if name == "epochs":
            continue
        values = first.get(name), second.get(name)
        is_same = values[0] == values[1] or (
            None in values and getattr(one, name) == getattr(other, name)
        )
        if is_same or (name in _NAMES and not all(values)):
            continue
        rows.append((name, *("-" if value is None else _word(value) for value in values)))
    return rows


def _marginal(values: dict[str, Any]) -> str:
    found = values["log_marginal"]
    error = found["standard_error"]
    value = f"{found['mean']:.2f}" + ("" if error is None else f" ± {error:.2f}")
    return f"{value} of {values['examples']}"


_NAMES: Final = ("features", "entries")
"""Settings that are names of columns, which an array does not have."""

_MEASURED: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "log p(x), nats, by evaluate": _marginal,
    "use of the latents": measurements.use_in_words,
}


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items()) or "-"
    return ", ".join(map(str, value)) or "-" if isinstance(value, tuple) else str(value) or "-"


def _pictures(found: Comparison) -> list[Picture]:
    a, b = found.sides
    return [_courses(a, b), _pairs(found), _differences(found)]


def _courses(a: _Side, b: _Side) -> Picture:
    """Plots the bounds of both against epochs."""
    figure, axes = axes_of()
    for side, color in ((a, ORANGE), (b, BLUE)):
        history = side.run.history()
        name = "val_elbo" if "val_elbo" in history[0] else "elbo"
        values = side.units.log_p([row[name] for row in history])
        axes.plot([row["epoch"] for row in history], values, color=color, label=side.name)
    axes.xaxis.get_major_locator().set_params(integer=True)
    legend(axes)
    label(axes, "epoch", "held-out ELBO, nats per example")
    return drawn("Course of the bounds", "One draw of the latents for each example.", figure)


def _pairs(found: Comparison) -> Picture:
    """Plots the bound of each example under one model against that under the other."""
    a, b = found.sides
    figure, axes = axes_of()
    few = slice(None, None, -(-len(a.bound) // _DOTS))
    low, high = np.quantile(np.concatenate([a.bound, b.bound]), [0.002, 1.0])
    axes.plot([low, high], [low, high], "--", color=GREY)
    axes.scatter(a.bound[few], b.bound[few], s=9, color=BLUE, alpha=0.5)
    margin = 0.03 * (high - low) + 1e-9
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(low - margin, high + margin)
    label(axes, f"{found.quantity}, {a.name}", f"{found.quantity}, {b.name}")
    caption = f"Each test example; {b.name} has the higher bound above the dashed line."
    return drawn("Example by example", caption, figure)


def _differences(found: Comparison) -> Picture:
    """Plots how the differences are distributed."""
    a, b = found.sides
    gaps = b.bound - a.bound
    figure, axes = axes_of()
    axes.hist(np.clip(gaps, *np.quantile(gaps, [0.005, 0.995])), 40, color=GREY, alpha=0.6)
    axes.axvline(0.0, color=GREY, linewidth=0.8)
    axes.axvline(found.difference, color=BLUE)
    label(axes, f"{found.quantity}, {b.name} minus {a.name}, nats", "test examples")
    caption = f"Mean {found.difference:+.2f} ± {found.standard_error:.2f} nats, the blue line."
    return drawn("Differences", caption, figure)
