"""ONNX Runtime Web: the two files that the page runs on, downloaded by npm once per machine."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from serving.errors import ServingError

__all__ = ["FILES", "INTEGRITY", "VERSION", "find"]

VERSION: Final = "1.30.0"
"""Version of onnxruntime-web."""

INTEGRITY: Final = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4r"
    "KY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
"""Digest of its package, as in an npm lock file."""

FILES: Final = {
    "ort.wasm.bundle.min.mjs": "ort.js",
    "ort-wasm-simd-threaded.wasm": "ort.wasm",
}
"""Files of its `dist`, and their names on the page; every host knows the type of `.js`."""

_ELSEWHERE: Final = (
    f"or get the package onnxruntime-web {VERSION} on another machine and name its folder with "
    "`--ort DIR`."
)


def find(directory: Path | None = None, echo: Callable[[str], None] = print) -> Path:
    """Finds the directory that holds `FILES`, and downloads it if necessary.

    Args:
        directory: the package onnxruntime-web or its `dist`; None uses the user's cache, which npm
            fills the first time.
        echo: called with a message before a download.

    Raises:
        ServingError: if the files are not there and cannot be downloaded.
    """
    if directory is not None:
        for candidate in (directory, directory / "dist"):
            if _is_whole(candidate):
                return candidate
        raise ServingError(
            f"{directory} has no {next(iter(FILES))}; name the folder `dist` of the npm package "
            f"onnxruntime-web {VERSION}."
        )
    target = _cache() / f"onnxruntime-web-{VERSION}"
    if not _is_whole(target):
        echo(f"Downloading ONNX Runtime Web {VERSION} with npm (33 MB, once).")
        _bring(target)
    return target


def _is_whole(directory: Path) -> bool:
    return all((directory / name).is_file() for name in FILES)


def _cache() -> Path:
    if chosen := os.environ.get("KERAS_VAE_CACHE"):
        return Path(chosen).absolute()
    user = os.environ.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path.home() / ".cache") / "keras-vae"


def _bring(target: Path) -> None:
    """Downloads the package and keeps `FILES`, whole or not at all."""
    if shutil.which("npm") is None:
        raise ServingError(
            "The page runs on ONNX Runtime Web, which npm downloads, and npm is not on the path: "
            f"install Node.js, {_ELSEWHERE}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="download-") as name:
        temporary = Path(name)
        done = subprocess.run(
            ["npm", "pack", f"onnxruntime-web@{VERSION}", "--silent", "--ignore-scripts"],
            cwd=temporary,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        packages = list(temporary.glob("*.tgz"))
        if done.returncode or len(packages) != 1:
            words = " ".join((done.stderr or done.stdout).split())[-300:] or "no reason given"
            raise ServingError(
                f"npm could not download onnxruntime-web {VERSION} ({words}): try again with a "
                f"network, {_ELSEWHERE}"
            )
        content = packages[0].read_bytes()
        found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
        if found != INTEGRITY:
            raise ServingError(
                f"npm downloaded another onnxruntime-web {VERSION} than the one this version was "
                f"tested with: expected {INTEGRITY}; got {found}. It was not kept."
            )
        made = temporary / "made"
        made.mkdir()
        with tarfile.open(packages[0]) as archive:
            for file in FILES:
                member = archive.extractfile(f"package/dist/{file}")
                if member is None:
                    raise ServingError(f"onnxruntime-web {VERSION} holds no dist/{file}.")
                (made / file).write_bytes(member.read())
        try:
            made.rename(target)
        except OSError:
            if not _is_whole(target):  # another process may have been faster
                raise
