"""The page on the architecture names what is there, and its lists are the ways that calls take."""

import re
import sys
import threading
import tomllib
from pathlib import Path

import numpy as np
from models import tiny_vae

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = f"{ROOT}/keras_vae/"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
FILE = re.compile(r"`((?:keras_vae|export|serving)/[\w/]+\.py)`")


def modules_in(section):
    """Lists the files that a section names, in order."""
    return list(dict.fromkeys(FILE.findall(SECTIONS[section])))


def test_layers_are_those_that_the_linter_holds():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    held = {
        contract["containers"][0]: [re.sub(r"[()]", "", line) for line in contract["layers"]]
        for contract in contracts["contracts"]
        if "containers" in contract
    }
    shown = re.findall(r"^`(\w+)`:\n\n```text\n(.*?)```", SECTIONS["Layers"], re.M | re.S)
    assert {package: lines.splitlines() for package, lines in shown} == held


def test_steps_name_what_their_modules_hold():
    steps = re.findall(r"^\d+\. (`\S+\.py`.*?)(?=\n\d+\. |\n\n)", PAGE, re.M | re.S)
    assert len(steps) > 35
    for step in steps:
        words = re.findall(r"`([^`]+)`", step)
        text = "".join((ROOT / word).read_text() for word in words if FILE.fullmatch(f"`{word}`"))
        for word in words:
            if word.isidentifier():
                assert re.search(rf"\b{word}\b", text), step


class _Passes:
    """Modules of `keras_vae` whose functions are called in a block, until one of another file."""

    def __init__(self, width=None, until=None):
        self.called, self.given = set(), set()
        self._width, self._until, self._done = width, until, False

    def __enter__(self):
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *error):
        sys.setprofile(None)
        threading.setprofile(None)

    def _note(self, frame, event, argument):
        if event != "call" or self._done:
            return
        code = frame.f_code
        path = code.co_filename
        if not path.startswith(PACKAGE):
            self._done = self._until is not None and (
                code.co_name == "apply" and path.endswith(self._until)
            )
            return
        module = path.removeprefix(f"{ROOT}/")
        self.called.add(module)
        arguments = (value for name, value in frame.f_locals.items() if name != "self")
        if self._width and module not in self.given and any(map(self._holds, arguments)):
            self.given.add(module)

    def _holds(self, value, depth=3):
        """Tells whether an argument is the data, or a structure that contains it."""
        if isinstance(value, dict):
            value = tuple(value.values())
        if isinstance(value, (tuple, list)):
            return depth > 0 and any(self._holds(part, depth - 1) for part in value)
        shape = getattr(value, "shape", None)
        rank = getattr(shape, "rank", None) if hasattr(shape, "rank") else np.ndim(value)
        return rank is not None and rank > 1 and shape[-1] == self._width


def test_batch_takes_the_listed_way_through_fit():
    listed = set(modules_in("A batch through `fit`"))
    width = 61  # of nothing but x
    vae = tiny_vae("bernoulli", (width,))
    vae.compile()
    x = np.zeros((64, width), "float32")
    with _Passes(width, until="/base_optimizer.py") as passes:
        vae.fit(x, verbose=0)
    assert passes.given <= listed
    assert listed <= passes.called


def test_seed_takes_the_listed_way_through_sample():
    vae = tiny_vae("bernoulli", (3,))
    with _Passes() as passes:
        vae.sample(3000, seed=1)
    assert set(modules_in("A seed through `sample`")) <= passes.called
