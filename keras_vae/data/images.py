"""Reader of a directory of image files, with optional conversion and resizing."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_vae.data.cache import Rows
from keras_vae.data.content import Content, DataError, reading

__all__ = ["IMAGE_MODES", "Form", "image_paths", "image_rows", "images"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")

IMAGE_MODES = ("1", "L", "RGB", "RGBA", "I;16")
"""Modes of Pillow that images can be converted to: black and white, grey, colour, 16-bit grey."""

_TO_BYTE = 257
"""Factor 65535 / 255 from levels of 8 bits to levels of 16 bits."""


class Form(NamedTuple):
    """Size and mode that images are converted to.

    Attributes:
        size: height and width in pixels, or None to keep them.
        mode: one of `IMAGE_MODES`, or None to keep it.
    """

    size: tuple[int, int] | None = None
    mode: str | None = None

    def check(self) -> None:
        """Refuses sizes and modes that no image could have.

        Raises:
            DataError: if the size is not a pair of positive integers, or the mode is unknown.
        """
        if self.size is not None and (
            len(self.size) != 2 or not all(isinstance(n, int) and n > 0 for n in self.size)
        ):
            raise DataError(
                f"Expected image_size as height and width in pixels, such as (64, 64); got "
                f"{self.size!r}."
            )
        if self.mode is not None and self.mode not in IMAGE_MODES:
            raise DataError(
                f"Expected image_mode to be one of {', '.join(IMAGE_MODES)}; got {self.mode!r}."
            )


def images(root: Path, form: Form) -> Content:
    """Reads all images under a directory, with the names of their sub-directories as labels."""
    rows = image_rows(root, image_paths(root), form)
    x = np.empty(rows.shape, rows.dtype)
    labels: list[np.ndarray] = []
    for i, (image, label) in enumerate(rows.chunks):
        x[i] = image
        labels += [] if label is None else [label]
    return Content(x, np.concatenate(labels) if labels else None, left_out=rows.left_out)


def image_rows(root: Path, paths: Sequence[Path], form: Form) -> Rows:
    """Reads the same images one after the other."""
    mode, first = _image(paths[0], form)
    folders = [path.relative_to(root).parent.as_posix() for path in paths]
    if "." in folders and len(set(folders)) > 1:
        raise DataError(
            f"{root} holds images both directly and in sub-directories such as "
            f"{max(folders)}. Put all of them in sub-directories named by label, or none."
        )

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for path, folder in zip(paths, folders, strict=True):
            other_mode, image = _image(path, form)
            if (other_mode, image.shape) != (mode, first.shape):
                height, width = first.shape[:2]
                raise DataError(
                    f"{path} is {_size(image)} {other_mode} but {paths[0].name} is {_size(first)} "
                    f"{mode}. Bring all images to one size and mode with image_size=({height}, "
                    f"{width}) and image_mode={mode!r} (--image-size {height},{width} "
                    f"--image-mode {shlex.quote(mode)}), or others."
                )
            yield image[np.newaxis], None if folder == "." else np.array([folder])

    left_out = {} if folders[0] == "." else {"sub-directories": "labels"}
    return Rows((len(paths), *first.shape), first.dtype, chunks(), left_out=left_out)


def image_paths(root: Path) -> list[Path]:
    """Lists the paths of the images under a directory, in order; there must be at least one."""

    def refuse(error: OSError) -> None:
        raise error

    with reading(root, "a directory"):
        paths = sorted(
            Path(folder, name)
            for folder, _, names in os.walk(root, onerror=refuse)
            for name in names
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        )
    if not paths:
        raise DataError(
            f"{root} holds no images (looked for {', '.join(IMAGE_SUFFIXES)}, also in its "
            "sub-directories) and no MNIST-style IDX files. Give a directory that does."
        )
    return paths


def _image(path: Path, form: Form) -> tuple[str, np.ndarray]:
    """Reads mode and pixels of an image file, upright; replaces a palette by its colours."""
    from PIL import Image, ImageOps

    with reading(path, "an image"), Image.open(path) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise DataError(f"{path} is an animation of {frames} frames. Save one image per frame.")
        if form.mode is None and _loses_bits(image):
            raise DataError(
                f"{path} has colours of 16 bits, of which only 8 can be read. Accept the loss with "
                'image_mode="RGB" (--image-mode RGB), or save the array as .npy.'
            )
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "P":
            upright = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
        if form.mode is not None:
            upright = _converted(path, upright, form.mode)
        if form.size is not None and (upright.height, upright.width) != form.size:
            method = Image.Resampling.NEAREST if upright.mode == "1" else Image.Resampling.BILINEAR
            upright = ImageOps.fit(upright, form.size[::-1], method)
        return upright.mode, np.asarray(upright)


def _loses_bits(image: Any) -> bool:
    """Tells whether Pillow, which has no colours of 16 bits, would read only 8 of them."""
    depths = [str(part[3]) for part in image.tile]
    return not image.mode.startswith("I;16") and any("16" in depth for depth in depths)


def _converted(path: Path, image: Any, mode: str) -> Any:
    """Converts an image to another mode; between 8 and 16 bits white stays white."""
    from PIL import Image

    if image.mode == mode:
        return image
    if image.mode in ("I", "F"):
        raise DataError(
            f"{path} holds {'32-bit integers' if image.mode == 'I' else 'floating-point numbers'}, "
            f"whose range is unknown, so they cannot become {mode}. Save the array as .npy."
        )
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.uint32)
        if mode == "I;16":
            return Image.fromarray(levels.astype(np.uint16))
        grey = Image.fromarray(((levels + _TO_BYTE // 2) // _TO_BYTE).astype(np.uint8))
        return grey.convert(mode)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * _TO_BYTE)
    return image.convert(mode)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
