"""Pictures of the columns of a table as it is, and of draws of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_vae.report.figures import BLUE, GREY, Picture, axes_of, bars, drawn, label, legend
from keras_vae.report.subject import Subject

__all__ = ["table_draws"]

_COLUMNS = 24
_BARS = 12
_LONGEST = 14
_LEVEL = 24  # letters of the labels that fit side by side


def table_draws(subject: Subject) -> list[Picture]:
    """Plots each column of the test rows beside as many draws from p(x)."""
    schema = subject.run.table_schema
    raw, found = subject.raw, subject.vae.sample(len(subject.raw), subject.seed)
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
    names = [str(each) for each in kept]
    names = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]
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
