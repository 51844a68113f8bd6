"""Pictures of the columns of a table as it is, and of draws of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_vae.evaluation import SyntheticReport
from keras_vae.report.figures import BLUE, GREY, Picture, axes_of, bars, drawn, label, legend
from keras_vae.report.subject import Subject

__all__ = ["compared", "table_draws"]

_COLUMNS = 24
_BARS = 12
_DISTANCES = 12
_LONGEST = 14
_LEVEL = 24  # letters of the labels that fit side by side


def table_draws(subject: Subject) -> list[Picture]:
    """Plots each column of the test rows beside as many draws from p(x)."""
    schema = subject.run.table_schema
    raw, found = subject.raw, subject.drawn_rows[: len(subject.raw)]
    about = f"{subject.examples()} and as many draws from p(x)."
    about = about[0].upper() + about[1:]
    pictures = []
    for name, column in list(schema.columns.items())[:_COLUMNS]:
        real, made = raw[name].dropna(), found[name].dropna()
        if not len(real):
            continue
        figure, axes = axes_of()
        if column.is_coded:
            _bars(axes, real, made, column.categories)
            label(axes, name, "share")
        else:
            edges = _edges(*(each.to_numpy(np.float64) for each in (real, made)))
            for values, title, style in (
                (real, "test data", {"color": GREY, "alpha": 0.6}),
                (made, "draws", {"color": BLUE, "histtype": "step"}),
            ):
                axes.hist(values.to_numpy(np.float64), edges, density=True, label=title, **style)
            label(axes, name, "density")
        legend(axes)
        missing = raw[name].isna().mean()
        more = f" {missing:.1%} of the test data is missing." if missing else ""
        pictures.append(drawn(name, about + more, figure))
    return pictures


def compared(report: SyntheticReport) -> list[Picture]:
    """Plots how far drawn rows are from the training rows, column by column and pair by pair."""
    distances = report.columns.sort_values("synthetic", ascending=False)[:_DISTANCES]
    figure, axes = axes_of()
    places = np.arange(len(distances))
    for name, shift, color, title in (
        ("synthetic", -0.2, BLUE, "draws"),
        ("real", 0.2, GREY, "test data"),
    ):
        axes.barh(places + shift, distances[name], 0.4, color=color, label=title)
    axes.set_yticks(places, [_short(str(name)) for name in distances.index])
    axes.invert_yaxis()
    axes.set_xlim(left=0.0)
    legend(axes)
    label(axes, "distance from the training data", "")
    few = f"The {len(distances)} columns" if len(distances) < len(report.columns) else "All columns"
    caption = (
        f"{few}, the farthest first: of numbers the largest difference of the distribution "
        "functions, of categories half the sum of the differences of their shares. 0 is equal; "
        "test data shows what the number of rows allows."
    )
    pictures = [drawn("Columns, one by one", caption, figure)]
    pairs = report.pairs.dropna()
    if len(pairs):
        figure, axes = axes_of()
        low = min(0.0, float(pairs.to_numpy().min()))
        axes.plot([low, 1.0], [low, 1.0], "--", color=GREY)
        axes.scatter(pairs["train"], pairs["synthetic"], s=9, color=BLUE, alpha=0.6)
        label(axes, "association in the training data", "in the draws")
        gap = (pairs["train"] - pairs["synthetic"]).abs()
        first, second = gap.idxmax()
        caption = (
            f"{len(pairs)} pairs of columns: rank correlation of numbers, Cramér's V of "
            "categories, correlation ratio of a number and a category. Farthest from the dashed "
            f"line: {first} and {second}, {pairs.loc[gap.idxmax(), 'train']:.2f} in the data and "
            f"{pairs.loc[gap.idxmax(), 'synthetic']:.2f} in the draws."
        )
        pictures.append(drawn("Columns, two by two", caption, figure))
    return pictures


def _short(name: str) -> str:
    """Cuts a label to the length that fits beside others."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _bars(axes: Any, real: Any, made: Any, categories: tuple[Any, ...]) -> None:
    """Draws the shares of the most frequent labels."""
    shares = real.value_counts(normalize=True)
    kept = sorted(categories, key=lambda each: -float(shares.get(each, 0.0)))[:_BARS]
    kept = [each for each in categories if each in kept]
    places = np.arange(len(kept))
    for values, shift, color, title in (
        (real, -0.2, GREY, "test data"),
        (made, 0.2, BLUE, "draws"),
    ):
        found = values.value_counts(normalize=True)
        heights = [float(found.get(each, 0.0)) for each in kept]
        axes.bar(places + shift, heights, 0.4, color=color, label=title)
    names = [_short(str(each)) for each in kept]
    axes.set_xticks(places, names)
    if sum(map(len, names)) > _LEVEL:
        for text in axes.get_xticklabels():
            text.set(rotation=35, ha="right", rotation_mode="anchor")


def _edges(real: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Returns edges of a histogram: one bar for each whole number if there are few."""
    low, high = np.quantile(real, [0.005, 0.995])
    if (real == np.round(real)).all() and high - low <= 60.0:
        return np.arange(low - 1.5, high + 2.5)
    if not high > low:
        low, high = real.min() - 0.5, real.max() + 0.5
    return np.histogram_bin_edges(np.clip(np.concatenate([real, made]), low, high), bars(len(real)))
