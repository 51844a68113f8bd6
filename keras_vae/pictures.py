"""Pictures of a run: samples, reconstructions and learning curves, as PNG files."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

__all__ = ["image_grid", "learning_curves", "reconstructions", "tile"]


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """One image [rows H + gaps, columns W + gaps, C] out of many [N, H, W, C], one pixel apart.

    Values are taken from their common range to [0, 1]; gaps are a light tone.
    """
    images = np.asarray(images, np.float64)
    low, high = images.min(), images.max()
    images = (images - low) / (high - low if high > low else 1.0)
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), 0.2)
    for index, image in enumerate(images):
        top = 1 + (index // columns) * (height + 1)
        left = 1 + (index % columns) * (width + 1)
        canvas[top : top + height, left : left + width] = image
    return canvas


def image_grid(panels: dict[str, np.ndarray], path: Path, columns: int = 10) -> None:
    """Grids of images [N, H, W, C] side by side, each under its title."""
    canvases = {title: tile(images, columns) for title, images in panels.items()}
    height, width = next(iter(canvases.values())).shape[:2]
    inches = 4.2
    figure = Figure(figsize=(inches * len(panels), inches * height / width + 0.4), dpi=130)
    for position, (title, canvas) in enumerate(canvases.items(), start=1):
        axes = figure.add_subplot(1, len(panels), position)
        axes.imshow(canvas.squeeze(-1) if canvas.shape[-1] == 1 else canvas, cmap="gray_r")
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
    figure.tight_layout()
    figure.savefig(path)


def reconstructions(data: np.ndarray, means: np.ndarray, path: Path, columns: int = 20) -> None:
    """Rows of data over rows of reconstructions, [N, H, W, C] each."""
    pairs = []
    for start in range(0, len(data), columns):
        pairs += [data[start : start + columns], means[start : start + columns]]
    canvas = tile(np.concatenate(pairs), columns)
    figure = Figure(figsize=(9.0, 9.0 * canvas.shape[0] / canvas.shape[1] + 0.5), dpi=130)
    axes = figure.add_subplot()
    axes.imshow(canvas.squeeze(-1) if canvas.shape[-1] == 1 else canvas, cmap="gray_r")
    axes.set_title("test data (odd rows) and decoder mean at the posterior mean (even rows)")
    axes.set_axis_off()
    figure.tight_layout()
    figure.savefig(path)


def learning_curves(history: list[dict[str, Any]], path: Path) -> None:
    """Curves of the bound and of its two terms against epochs, training and held-out."""
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
