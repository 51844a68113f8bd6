"""Pictures of a run: samples, reconstructions and learning curves, as PNG files."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_vae.distributions.supports import Support

__all__ = ["image_grid", "is_image", "learning_curves", "reconstructions", "tile", "titles"]

_GAP = 0.35


def is_image(shape: Sequence[int]) -> bool:
    """Tells whether an example of this shape can be shown: [H, W, C] with 1, 3 or 4 channels."""
    return len(shape) == 3 and shape[-1] in (1, 3, 4)


def titles(support: Support) -> tuple[str, str]:
    """Returns titles of pictures of draws and of decoder means."""
    if support.is_discrete and support.high == 1.0:
        return "draws, each number 0 or 1", "their probabilities of a 1 (decoder means)"
    return "draws from p(x)", "decoder means at the same z"


def tile(images: np.ndarray, columns: int, value_range: tuple[float, float]) -> np.ndarray:
    """Joins images [N, H, W, C] to one, [rows H + gaps, columns W + gaps, 1 or 3] in [0, 1].

    Args:
        images: [N, H, W, C]; of four channels, the last one, opacity, is left out.
        columns: images in a row.
        value_range: the numbers that become 0, black, and 1, white; others are clipped.
    """
    low, high = value_range
    images = np.asarray(images, np.float64)[..., :3]
    images = np.clip((images - low) / (high - low if high > low else 1.0), 0.0, 1.0)
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), _GAP)
    for index, image in enumerate(images):
        top = 1 + (index // columns) * (height + 1)
        left = 1 + (index % columns) * (width + 1)
        canvas[top : top + height, left : left + width] = image
    return canvas


def image_grid(
    panels: dict[str, np.ndarray],
    path: Path,
    value_range: tuple[float, float],
    turns: int = 1,
) -> None:
    """Writes grids of images [N, H, W, C] side by side, each under its title, about square.

    Args:
        panels: images by title.
        path: path of the picture.
        value_range: as for `tile`.
        turns: number of labels that take turns; a column holds images of one label.
    """
    side = math.ceil(math.sqrt(len(next(iter(panels.values())))))
    columns = turns * max(1, round(side / turns))
    canvases = {title: tile(images, columns, value_range) for title, images in panels.items()}
    height, width = next(iter(canvases.values())).shape[:2]
    inches = 4.2
    figure = Figure(figsize=(inches * len(panels), inches * height / width + 0.4), dpi=130)
    for position, (title, canvas) in enumerate(canvases.items(), start=1):
        _show(figure.add_subplot(1, len(panels), position), canvas, title)
    figure.tight_layout()
    figure.savefig(path)


def reconstructions(
    data: np.ndarray,
    means: np.ndarray,
    path: Path,
    value_range: tuple[float, float],
    columns: int = 20,
) -> None:
    """Writes rows of data over rows of reconstructions, [N, H, W, C] each."""
    pairs = []
    for start in range(0, len(data), columns):
        pairs += [data[start : start + columns], means[start : start + columns]]
    canvas = tile(np.concatenate(pairs), columns, value_range)
    figure = Figure(figsize=(9.0, 9.0 * canvas.shape[0] / canvas.shape[1] + 0.5), dpi=130)
    title = "test data (odd rows) and decoder mean at the posterior mean (even rows)"
    _show(figure.add_subplot(), canvas, title)
    figure.tight_layout()
    figure.savefig(path)


def _show(axes: Any, canvas: np.ndarray, title: str) -> None:
    axes.imshow(canvas.repeat(3, axis=-1) if canvas.shape[-1] == 1 else canvas)
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()


def learning_curves(history: list[dict[str, Any]], path: Path, offset: float = 0.0) -> None:
    """Writes curves of the bound and of its two terms against epochs, training and held-out.

    Args:
        history: rows of logs.
        path: path of the picture.
        offset: nats to add to a bound for the units of the file.
    """
    sign = {"elbo": 1.0, "distortion": -1.0, "rate": 0.0}
    history = [
        {
            key: value + offset * sign.get(key.removeprefix("val_"), 0.0)
            for key, value in row.items()
        }
        for row in history
    ]
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9.0, 3.4), dpi=130)
    for position, (title, names) in enumerate(
        {"bound": ["elbo"], "its terms": ["distortion", "rate"]}.items(), start=1
    ):
        axes = figure.add_subplot(1, 2, position)
        for color, name in zip(("tab:blue", "tab:orange"), names, strict=False):
            axes.plot(epochs, [row[name] for row in history], color=color, label=name)
            if f"val_{name}" in history[0]:
                held_out = [row[f"val_{name}"] for row in history]
                axes.plot(epochs, held_out, "--", color=color, label=f"{name}, held-out")
        axes.set_xlabel("epoch")
        axes.set_ylabel("nats per example")
        axes.set_title(title, fontsize=10)
        tail = [row[key] for row in history[len(history) // 10 :] for key in row if key in names]
        margin = 0.1 * (max(tail) - min(tail)) + 1e-9
        if names == ["elbo"] and len(history) > 10:
            axes.set_ylim(min(tail) - margin, max(tail) + margin)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path)
