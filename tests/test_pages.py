"""The pages with Python in them run as they are written, and print what they say."""

import re
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(
    r"^```python\n(.*?)^```\n(?:\nprints(?:[^\n]|\n(?!\n))*\n\n((?:    [^\n]*\n)+))?", re.M | re.S
)


@pytest.mark.parametrize(
    "page",
    [
        "architecture",
        "baselines",
        "counts",
        "data",
        "keras",
        "latents",
        "novelty",
        "parts",
        "scikit-learn",
        "sequences",
    ],
)
def test_page_runs_and_prints_what_it_says(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    blocks = BLOCK.findall((ROOT / "docs" / f"{page}.md").read_text())
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    checked = 0
    for code, said in blocks:
        exec(compile(code, f"{page}.md", "exec"), names)
        printed = capsys.readouterr().out
        if said:
            assert printed.split() == said.split()
            checked += 1
    assert checked >= 2


def test_what_commands_read_is_made_by_the_quickstart_or_on_the_same_page():
    """A reader who copies a command has what it reads."""
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = page.read_text()
        named = set(re.findall(r"\b(?:artifacts|runs)/[\w-]+", text))
        made = {path for _, path in re.findall(r"--(out|to) ((?:artifacts|runs)/[\w-]+)", text)}
        known = {"artifacts/quickstart", "runs/quickstart", "artifacts/NAME"}
        assert named <= made | known, page.name
