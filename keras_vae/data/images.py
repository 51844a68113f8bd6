"""Reader of a directory of image files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from keras_vae.data.cache import Rows
from keras_vae.data.content import Content, DataError, reading

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


def images(root: Path) -> Content:
    """All images under a directory, with the names of their sub-directories as labels."""
    rows = image_rows(root, image_paths(root))
    x = np.empty(rows.shape, rows.dtype)
    labels: list[np.ndarray] = []
    for i, (image, label) in enumerate(rows.parts):
        x[i] = image
        labels += [] if label is None else [label]
    return Content(x, np.concatenate(labels) if labels else None)


def image_rows(root: Path, paths: Sequence[Path]) -> Rows:
    """The same, one image after the other."""
    mode, first = _image(paths[0])
    folders = [path.relative_to(root).parent.as_posix() for path in paths]
    if "." in folders and len(set(folders)) > 1:
        raise DataError(
            f"{root} holds images both directly and in sub-directories such as "
            f"{max(folders)}. Put all of them in sub-directories named by label, or none."
        )

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for path, folder in zip(paths, folders, strict=True):
            other_mode, image = _image(path)
            if (other_mode, image.shape) != (mode, first.shape):
                raise DataError(
                    f"{path} is {_size(image)} {other_mode} but {paths[0].name} is {_size(first)} "
                    f"{mode}. Bring all images in {root} to one size and mode."
                )
            yield image[np.newaxis], None if folder == "." else np.array([folder])

    return Rows((len(paths), *first.shape), first.dtype, parts())


def image_paths(root: Path) -> list[Path]:
    """Paths of the images under a directory, in order, one at least."""

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


def _image(path: Path) -> tuple[str, np.ndarray]:
    """Mode and pixels of an image file; a palette is replaced by its colours."""
    from PIL import Image

    with reading(path, "an image"), Image.open(path) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise DataError(f"{path} is an animation of {frames} frames. Save one image per frame.")
        if image.mode == "P":
            colours = image.convert("RGBA" if "transparency" in image.info else "RGB")
            return colours.mode, np.asarray(colours)
        return image.mode, np.asarray(image)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
