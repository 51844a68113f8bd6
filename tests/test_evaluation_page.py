"""The page that explains the bound runs, prints what it says, and shows its pictures."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]\d+)?")


@pytest.fixture(scope="module")
def pictures():
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "make_pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_code_prints_what_the_page_says(pictures):
    names = {}
    blocks = pictures.blocks()
    assert len(blocks) == 11
    for code, said in blocks:
        printed = pictures.run(code, names)
        if said is None:
            assert printed == ""
            continue
        assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", said).split()
        found, written = ([float(n) for n in NUMBER.findall(text)] for text in (printed, said))
        # Draws are seeded; training differs by the order of sums, from machine to machine. What is
        # below 1e-6 is rounding and may be any such number.
        for a, b in zip(found, written, strict=True):
            assert a == pytest.approx(b, rel=0.2, abs=0.1)


def test_pictures_of_the_page_are_there_and_small():
    page = (ROOT / "docs" / "why-the-elbo-is-tractable.md").read_text()
    shown = set(re.findall(r"\]\((images/[\w.-]+)\)", page))
    assert shown == {
        f"images/{name}.png" for name in ("evidence", "gradient", "bounds", "posteriors", "family")
    }
    for name in shown:
        assert 1_000 < (ROOT / "docs" / name).stat().st_size < 150_000
