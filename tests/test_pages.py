"""The pages with Python in them run as they are written, and print what they say."""

import re
import shlex
from pathlib import Path

import click
import keras
import pytest

from keras_vae import extras
from keras_vae.cli import main
from keras_vae.runs import siblings

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PAGES += sorted((ROOT / "docs").glob("*.md")) + TUTORIALS
BLOCK = re.compile(
    r"^```python\n(.*?)^```\n(?:\nprints( about)?(?:[^\n]|\n(?!\n))*\n\n((?:    [^\n]*\n)+))?",
    re.M | re.S,
)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?")


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/architecture.md",
        "docs/baselines.md",
        "docs/counts.md",
        "docs/data.md",
        "docs/faq.md",
        "docs/keras.md",
        "docs/latents.md",
        "docs/novelty.md",
        "docs/parts.md",
        "docs/scikit-learn.md",
        "docs/sequences.md",
        "docs/tracking.md",
        *(f"docs/tutorials/{page.name}" for page in TUTORIALS if "```python" in page.read_text()),
    ],
)
def test_page_runs_and_prints_what_it_says(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    blocks = BLOCK.findall((ROOT / page).read_text())
    assert blocks
    names: dict[str, object] = {}
    checked = 0
    for code, about, said in blocks:
        exec(compile(code, page, "exec"), names)
        printed = capsys.readouterr().out
        if said:
            if about:  # training sums in another order on another machine
                numbers = [[float(n) for n in NUMBER.findall(text)] for text in (printed, said)]
                assert numbers[0] == pytest.approx(numbers[1], rel=0.1, abs=0.1)
                printed, said = (NUMBER.sub("#", text) for text in (printed, said))
            assert printed.split() == said.split()
            checked += 1
    assert checked


NEEDED = {
    **dict.fromkeys(("export", "verify", "parity", "quickstart"), "export"),
    **siblings.EXTRAS,
}


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").glob("*.md")), *TUTORIALS], ids=lambda page: page.name
)
def test_page_names_the_extras_that_its_commands_need(page):
    text = page.read_text()
    commands = re.findall(r"^(?:    )?(?:\.venv/bin/)?keras-vae ([a-z]+)", text, re.M)
    needed = {NEEDED[command] for command in commands if command in NEEDED}
    if re.search(r"from serving import|serving\.Client\(", text):
        needed.add("serving")
    named = set(re.findall(r"`(\w+)`", text))
    for listed in re.findall(r'pip install "\.\[([\w,]+)\]"', text):
        named |= set(extras.MODULES) if listed == "all" else set(listed.split(","))
    assert needed <= named


def anchors(text):
    """Lists the anchors of a page's headings, as GitHub and the documentation site name them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if re.match(r"https?:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.exists(), f"{page.relative_to(ROOT)} links to {link}"
            if anchor:
                found = anchors(target.read_text())
                assert anchor in found, f"{page.relative_to(ROOT)} links to {link}: {found}"


def test_commands_take_the_options_that_pages_give_them():
    checked = 0
    for page in PAGES:
        text = re.sub(r"\\\n\s*", "", page.read_text())  # lines that go on
        for line in re.findall(r"^(?: {4})?(?:\.venv/bin/)?keras-vae (.+)$", text, re.M):
            words = shlex.split(re.split(r" {3,}(?!-)", line)[0], comments=True)
            command, context = main, click.Context(main, info_name="keras-vae")
            while isinstance(command, click.Group) and words and not words[0].startswith("-"):
                name = words.pop(0)
                command = command.get_command(context, name)
                assert command is not None, f"{page.name}: {line}"
                context = click.Context(command, info_name=name, parent=context)
            command.make_parser(context).parse_args(words)  # NoSuchOption for one that is not there
            checked += 1
    assert checked > 60


def test_what_commands_read_is_made_by_the_quickstart_or_on_the_same_page():
    """A reader who copies a command has what it reads."""
    for page in PAGES:
        text = page.read_text()
        named = set(re.findall(r"\b(?:artifacts|runs)/[\w-]+", text))
        made = {path for _, path in re.findall(r"--(out|to) ((?:artifacts|runs)/[\w-]+)", text)}
        known = {"artifacts/quickstart", "runs/quickstart", "artifacts/NAME"}
        assert named <= made | known, page.name
