"""Pictures of a report: turns lines, bars and pixels into data URIs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from keras_vae.runs.pictures import tile

__all__ = [
    "BLUE",
    "GREY",
    "ORANGE",
    "Picture",
    "Words",
    "axes_of",
    "bars",
    "drawn",
    "edges",
    "label",
    "legend",
    "pixels",
]

BLUE, ORANGE, GREY = "#2a6fbb", "#d9822b", "#8a8a8a"
_SIZE = (4.1, 2.8)
_EACH = 60.0
_MOST_INSIDE = 0.5


@dataclass(frozen=True)
class Picture:
    """One figure of the report.

    Attributes:
        title: a few words.
        caption: units and method, one or two sentences.
        image: data URI.
        kind: CSS class, "", "wide" or "wide pixels".
    """

    title: str
    caption: str
    image: str
    kind: str = ""


@dataclass(frozen=True)
class Words:
    """A table of texts in the place of a figure.

    Attributes:
        title: a few words.
        caption: method, one or two sentences.
        header: names of the columns.
        rows: texts, one for each column.
    """

    title: str
    caption: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def axes_of() -> tuple[Figure, Any]:
    """Makes an empty figure and its axes."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def bars(count: int) -> int:
    """Returns how many bars the histogram of so many values has."""
    return int(np.clip(2.0 * math.sqrt(count), 8, 40))


def edges(real: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Returns the edges of a histogram of data and draws.

    Bars of whole numbers hold equally many of them, one if there are few. The rarest numbers of the
    data, half a percent at either end, set no edge. Draws set edges if most of them lie elsewhere.
    """
    low, high = np.quantile(real, [0.005, 0.995])
    if len(made) and np.mean((low <= made) & (made <= high)) < _MOST_INSIDE:
        ends = np.quantile(made, [0.05, 0.95])
        low, high = min(low, ends[0]), max(high, ends[1])
    if (real == np.round(real)).all():
        few = high - low <= min(_EACH, 2 * bars(len(real)))
        step = 1.0 if few else np.ceil((high - low) / bars(len(real)))
        margin = 1.0 if few else 0.0
        return np.arange(np.floor(low) - 0.5 - margin, high + step + margin, step)
    if not high > low:
        low, high = real.min() - 0.5, real.max() + 0.5
    return np.histogram_bin_edges(np.clip(np.concatenate([real, made]), low, high), bars(len(real)))


def label(axes: Any, x: str, y: str) -> None:
    """Names the axes."""
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)


def legend(axes: Any) -> None:
    """Adds a legend."""
    axes.legend(fontsize=8, frameon=False)


def drawn(title: str, caption: str, figure: Figure) -> Picture:
    """Renders a figure as a picture."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return Picture(title, caption, _uri("svg+xml", stream.getvalue()))


def pixels(
    title: str, caption: str, images: np.ndarray, value_range: tuple[float, float]
) -> Picture:
    """Renders images [N, H, W, C] as one picture, 20 in a row.

    Args:
        title: title of the picture.
        caption: caption of the picture.
        images: [N, H, W, C].
        value_range: values shown as black and as white.
    """
    canvas = np.round(255.0 * tile(images, 20, value_range)).astype(np.uint8)
    return Picture(title, caption, _uri("png", tf.io.encode_png(canvas).numpy()), "wide pixels")


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
