"""The API reference has every public name once, and its pages know the structure of the site."""

import doctest
import importlib
import re
import sys
from pathlib import Path

import pytest

import keras_vae

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def reference():
    sys.path.insert(0, str(DOCS))
    yield importlib.import_module("site_tools.reference")
    sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def docstrings(reference):
    return importlib.import_module("site_tools.docstrings")


def test_every_public_name_is_on_one_page(reference):
    named = [name for section in reference.sections().values() for name in section.names]
    assert len(named) == len(set(named))
    classes = {name for name in keras_vae.__all__ if f"keras_vae.{name}" in named}
    modules = {"callbacks", "data", "evaluation", "networks"}
    assert classes == set(keras_vae.__all__) - modules
    assert {"keras_vae.evaluation.log_marginal", "keras_vae.data.load", "serving.Client"} <= set(
        named
    )


def test_every_public_name_says_what_it_is(reference):
    for section in reference.sections().values():
        for name in section.names:
            value = reference._find(name)
            assert (value.__doc__ or "").strip(), name


def test_every_public_name_has_an_example_that_runs(reference):
    parser = doctest.DocTestParser()
    names = [name for section in reference.sections().values() for name in section.names]
    lacking = {
        name
        for name in names
        if all(
            doctest.SKIP in example.options
            for example in parser.get_examples(reference._find(name).__doc__ or "")
        )
    }
    assert not lacking, lacking
    assert len(names) > 150


def test_pages_of_the_reference_are_in_the_menu(reference, tmp_path):
    reference.write(tmp_path)
    menu = set(re.findall(r"^reference/(\w+)$", (DOCS / "index.md").read_text(), re.M))
    assert menu == {path.stem for path in tmp_path.glob("*.md")}
    assert "--kl-weight" in (tmp_path / "commands.md").read_text()


def test_every_page_is_in_the_menu():
    entries = re.findall(r"^(?:tutorials/)?[\w-]+$", (DOCS / "index.md").read_text(), re.M)
    pages = [*DOCS.glob("*.md"), *DOCS.glob("tutorials/*.md")]
    named = {path.relative_to(DOCS).with_suffix("").as_posix() for path in pages}
    assert named - {"index"} <= set(entries)


def test_plain_docstrings_become_markup(docstrings):
    plain = ["Computes a*b of |x| and x_.", "", "    p = x_1 * y", "", "With `code`:", "", ">>> 1"]
    assert docstrings.plain_to_rst([*plain, "1"]) == [
        r"Computes a\*b of \|x\| and x\_.",
        "",
        "::",
        "",
        "    p = x_1 * y",
        "",
        "With ``code``:",
        "",
        ">>> 1",
        "1",
    ]


def test_attributes_that_share_an_entry_get_one_each(docstrings):
    """Sphinx would show `low, high: ...` as an attribute `high` of the type `low`."""
    plain = [
        "A range.",
        "",
        "Attributes:",
        "    low, high: its ends,",
        "        in nats.",
        "    n: size.",
    ]
    assert docstrings.one_by_one(plain) == [
        *plain[:3],
        *("    low: its ends,", "        in nats.", "    high: its ends,", "        in nats."),
        "    n: size.",
    ]
    arguments = ["Args:", "    low, high: its ends."]
    assert docstrings.one_by_one(arguments) == arguments
