"""Pictures of the columns of a table as it is, and of draws of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_vae.evaluation import SyntheticReport
from keras_vae.report.figures import BLUE, GREY, Picture, axes_of, drawn, edges, label, legend
from keras_vae.report.subject import Subject
from keras_vae.spelling import counted

__all__ = ["compared", "table_draws"]

_COLUMNS = 24
_BARS = 12
_DISTANCES = 12
_MOST, _FEWEST = 0.5, 10
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
        more = ""
        if column.is_coded:
            more = _bars(axes, real, made, column.categories)
            label(axes, name, "share")
        else:
            real, made, more = _without_most_frequent(real, made)
            ends = edges(*(each.to_numpy(np.float64) for each in (real, made)))
            for values, title, style in (
                (real, "test data", {"color": GREY, "alpha": 0.6}),
                (made, "draws", {"color": BLUE, "histtype": "step"}),
            ):
                axes.hist(values.to_numpy(np.float64), ends, density=True, label=title, **style)
            axes.xaxis.get_major_locator().set_params(nbins=5)
            label(axes, name, "density")
        legend(axes)
        missing = raw[name].isna().mean()
        more += f" {missing:.1%} of the test data is missing." if missing else ""
        pictures.append(drawn(name, about + more, figure))
    return pictures


def _without_most_frequent(real: Any, made: Any) -> tuple[Any, Any, str]:
    """Takes out a number that most rows have, beside which no other would be seen, and says so."""
    shares = real.value_counts(normalize=True)
    value = shares.index[0]
    others = [each[each != value] for each in (real, made)]
    if shares.iloc[0] < _MOST or min(map(len, others)) < _FEWEST:
        return real, made, ""
    words = (
        f" Shown are the values other than {value:g}, which {shares.iloc[0]:.1%} of the test data "
        f"and {(made == value).mean():.1%} of the draws have."
    )
    return others[0], others[1], words


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
    few = (
        f"The {counted(len(distances), 'column')}"
        if len(distances) < len(report.columns)
        else "All columns"
    )
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


def _bars(axes: Any, real: Any, made: Any, categories: tuple[Any, ...]) -> str:
    """Draws the shares of the most frequent labels; returns how many are left out, if any."""
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
    names = [_short(f"{each:g}" if isinstance(each, float) else str(each)) for each in kept]
    axes.set_xticks(places, names)
    if sum(map(len, names)) > _LEVEL:
        for text in axes.get_xticklabels():
            text.set(rotation=35, ha="right", rotation_mode="anchor")
    left_out = len(categories) > len(kept)
    return f" The {len(kept)} most frequent of {len(categories)} labels." if left_out else ""
