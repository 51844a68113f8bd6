"""What runtimes need on this machine, where it is found, and how it gets there."""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Final, TypeAlias

__all__ = [
    "JAVASCRIPT",
    "Need",
    "c_runner",
    "chromium",
    "chromium_missing",
    "install",
    "javascript",
    "node_modules",
    "program",
    "python",
    "python_runner",
    "runner_environment",
    "version_of",
]

Need: TypeAlias = Callable[[], str | None]
"""One sentence that says what is missing and how to bring it; None if nothing is."""

JAVASCRIPT: Final = Path(__file__).parent / "javascript"
"""The runners in JavaScript, `package.json` and its lock."""

_C_SOURCE: Final = Path(__file__).parent / "c" / "runner.c"
_C_LIBRARY: Final = "libtensorflow_cc.so.2"
_CHROMIUM: Final = ("chromium", "chromium-browser", "google-chrome")
_INSTALL: Final = "python -m export.runtimes install"


def python(package: str) -> Need:
    """Need for a Python package."""

    def missing() -> str | None:
        if importlib.util.find_spec(package):
            return None
        return f"the Python package {package} is not installed; run `pip install {package}`"

    return missing


def program(name: str, *debian: str) -> Need:
    """Need for a program on the path, which the Debian packages bring."""

    def missing() -> str | None:
        if shutil.which(name):
            return None
        return f"there is no {name} on the path; run `apt-get install {' '.join(debian)}`"

    return missing


def javascript(package: str) -> Need:
    """Need for an installed package of `package.json`."""

    def missing() -> str | None:
        if (node_modules() / package / "package.json").is_file():
            return None
        return f"{package} is not installed; run `{_INSTALL}`"

    return missing


def chromium() -> str | None:
    """Path of Chromium or of a browser made from it."""
    return next(filter(None, map(shutil.which, _CHROMIUM)), None)


def chromium_missing() -> str | None:
    """Need for a Chromium."""
    return None if chromium() else "there is no Chromium; run `apt-get install chromium`"


def version_of(package: str) -> str:
    """Name and version of an installed package, of Python or else of JavaScript."""
    manifest = node_modules() / package / "package.json"
    if manifest.is_file():
        return f"{package} {json.loads(manifest.read_text())['version']}"
    return f"{package} {metadata.version(package)}"


def cache() -> Path:
    """Where runners keep what they install and compile: KERAS_VAE_CACHE, or the user's cache."""
    if chosen := os.environ.get("KERAS_VAE_CACHE"):
        return Path(chosen).absolute()
    user = os.environ.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path.home() / ".cache") / "keras-vae"


def node_modules() -> Path:
    """Where the JavaScript packages belong that `package-lock.json` names; it may not exist.

    They are kept out of the source tree, since they are 440 MB and a wheel takes what lies there.
    The name of the directory holds a digest of the lock, so that another lock asks for another
    installation.
    """
    lock = (JAVASCRIPT / "package-lock.json").read_bytes()
    return cache() / f"javascript-{hashlib.sha256(lock).hexdigest()[:16]}" / "node_modules"


def install() -> None:
    """Installs the JavaScript packages if they are missing; whole or not at all.

    Raises:
        RuntimeError: if there is no npm, or it fails.
    """
    target = node_modules().parent
    if target.exists():
        return
    if lack := program("npm", "npm")():
        raise RuntimeError(lack)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="install-") as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(JAVASCRIPT / name, made)
        # The scripts would fetch what only runs on a GPU.
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(
            command, cwd=made, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            raise RuntimeError(f"npm failed: {' '.join(done.stderr.split())[-500:]}")
        _publish(made, target)


def c_runner() -> Path:
    """The runner in C, compiled against the TensorFlow that is installed here if it is not yet.

    Raises:
        RuntimeError: if TensorFlow is missing, or the compiler is or fails.
    """
    source, tensorflow = _C_SOURCE.read_bytes(), _tensorflow()
    what = b"\0".join([source, str(tensorflow).encode(), metadata.version("tensorflow").encode()])
    target = cache() / f"c-{hashlib.sha256(what).hexdigest()[:16]}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="compile-") as temporary:
        library, made = Path(temporary) / _C_LIBRARY, Path(temporary) / "made"
        # To read the symbols of the real library, of 1.1 GB, takes 14 seconds. Only its name and
        # those of the functions used go into a program, so an empty one with these will do.
        functions = sorted(set(re.findall(r"\bTF_\w+(?=\()", source.decode())))
        _gcc(
            ["-shared", f"-Wl,-soname,{_C_LIBRARY}", "-x", "c", "-", "-o", str(library)],
            "".join(f"void {function}(void) {{}}\n" for function in functions),
        )
        include = ["-isystem", str(tensorflow / "include")]
        linked = [str(library), f"-Wl,-rpath,{tensorflow}"]
        _gcc(["-std=gnu11", "-O2", *include, str(_C_SOURCE), *linked, "-o", str(made)])
        _publish(made, target)
    return target


def _gcc(arguments: list[str], source: str = "") -> None:
    done = subprocess.run(["gcc", *arguments], capture_output=True, text=True, input=source)
    if done.returncode:
        raise RuntimeError(f"gcc failed: {' '.join(done.stderr.split())[:500]}")


def _tensorflow() -> Path:
    """Where TensorFlow is installed, found without importing it."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise RuntimeError("the Python package tensorflow is not installed")
    return Path(spec.origin).parent


def _publish(made: Path, target: Path) -> None:
    """Gives what was made its name, in one step; someone else may have been faster."""
    try:
        made.rename(target)
    except OSError:
        if not target.exists():
            raise


def runner_environment() -> dict[str, str]:
    """Variables that runners are started with: one thread, no GPU, no chatter, our modules."""
    here = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "NODE_PATH": str(node_modules()),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, here)),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
    }


def python_runner(name: str) -> Callable[[], list[str]]:
    """Command of a runner in Python; `-P` keeps the working directory off its module path."""
    return lambda: [sys.executable, "-P", "-m", f"export.runtimes.python.{name}"]
