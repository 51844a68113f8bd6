"""Requirements of runtimes on this machine: how to find them and how to install them."""

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
"""Function that returns a message about what is missing and how to install it, or None."""

JAVASCRIPT: Final = Path(__file__).parent / "javascript"
"""Directory of the JavaScript runners, `package.json` and its lock file."""

_C_SOURCE: Final = Path(__file__).parent / "c" / "runner.c"
_C_LIBRARY: Final = "libtensorflow_cc.so.2"
_CHROMIUM: Final = ("chromium", "chromium-browser", "google-chrome")
_INSTALL: Final = "python -m export.runtimes install"


def python(package: str) -> Need:
    """Makes the need for a Python package."""

    def missing() -> str | None:
        if importlib.util.find_spec(package):
            return None
        return f"the Python package {package} is not installed; run `pip install {package}`"

    return missing


def program(name: str, *debian: str) -> Need:
    """Makes the need for a program on the path, which the Debian packages install."""

    def missing() -> str | None:
        if shutil.which(name):
            return None
        return f"there is no {name} on the path; run `apt-get install {' '.join(debian)}`"

    return missing


def javascript(package: str) -> Need:
    """Makes the need for an installed package of `package.json`."""

    def missing() -> str | None:
        if (node_modules() / package / "package.json").is_file():
            return None
        return f"{package} is not installed; run `{_INSTALL}`"

    return missing


def chromium() -> str | None:
    """Returns the path of Chromium or of a browser based on it."""
    return next(filter(None, map(shutil.which, _CHROMIUM)), None)


def chromium_missing() -> str | None:
    """Returns a message if there is no Chromium."""
    return None if chromium() else "there is no Chromium; run `apt-get install chromium`"


def version_of(package: str) -> str:
    """Returns name and version of an installed package, of Python or else of JavaScript."""
    manifest = node_modules() / package / "package.json"
    if manifest.is_file():
        return f"{package} {json.loads(manifest.read_text())['version']}"
    return f"{package} {metadata.version(package)}"


def cache() -> Path:
    """Returns the directory of installed and compiled files: KERAS_VAE_CACHE or the user's."""
    if chosen := os.environ.get("KERAS_VAE_CACHE"):
        return Path(chosen).absolute()
    user = os.environ.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path.home() / ".cache") / "keras-vae"


def node_modules() -> Path:
    """Returns the directory of the JavaScript packages in `package-lock.json`; it may not exist.

    The packages are kept out of the source tree, because they take 440 MB and a wheel includes
    every file there. The name of the directory holds a digest of the lock file, so another lock
    file gets another installation.
    """
    lock = (JAVASCRIPT / "package-lock.json").read_bytes()
    return cache() / f"javascript-{hashlib.sha256(lock).hexdigest()[:16]}" / "node_modules"


def install() -> None:
    """Installs the JavaScript packages if they are missing, completely or not at all.

    Raises:
        RuntimeError: if npm is missing or fails.
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
        # The scripts would download files that only a GPU uses.
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(
            command, cwd=made, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            raise RuntimeError(f"npm failed: {' '.join(done.stderr.split())[-500:]}")
        _publish(made, target)


def c_runner() -> Path:
    """Returns the runner in C, compiled against the installed TensorFlow if necessary.

    Raises:
        RuntimeError: if TensorFlow or the compiler is missing, or the compiler fails.
    """
    source, tensorflow = _C_SOURCE.read_bytes(), _tensorflow()
    what = b"\0".join([source, str(tensorflow).encode(), metadata.version("tensorflow").encode()])
    target = cache() / f"c-{hashlib.sha256(what).hexdigest()[:16]}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="compile-") as temporary:
        library, made = Path(temporary) / _C_LIBRARY, Path(temporary) / "made"
        # Reading the symbols of the real library of 1.1 GB takes 14 seconds. A program only needs
        # its name and those of the functions used, so an empty library with these will do.
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
    """Finds the installed TensorFlow without importing it."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise RuntimeError("the Python package tensorflow is not installed")
    return Path(spec.origin).parent


def _publish(made: Path, target: Path) -> None:
    """Renames a finished file into place; another process may have been faster."""
    try:
        made.rename(target)
    except OSError:
        if not target.exists():
            raise


def runner_environment() -> dict[str, str]:
    """Returns the environment of runners: one thread, no GPU, few messages, our modules."""
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
    """Makes the command of a Python runner; `-P` keeps the working directory off its path."""
    return lambda: [sys.executable, "-P", "-m", f"export.runtimes.python.{name}"]
