"""Writes the pages of the API reference: every public name in exactly one section.

The sections follow from the classes themselves, so a new public name needs no line here.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

__all__ = ["Section", "sections", "write"]

_ROOT = Path(__file__).resolve().parent.parent.parent
_MODULES = {
    "evaluation": ("Evaluation", "keras_vae.evaluation"),
    "data": ("Data", "keras_vae.data"),
    "callbacks": ("Callbacks", "keras_vae.callbacks"),
    "choosing": ("Choosing a model", "keras_vae.choosing"),
    "networks": ("Networks", "keras_vae.networks"),
    "sklearn": ("scikit-learn estimators", "keras_vae.sklearn"),
    "export": ("Export", "export.pipeline"),
    "serving": ("Serving clients", "serving"),
}
_TITLES = {
    "models": ("Models", "Whole models. Each is a `keras.Model` that is trained with `fit`."),
    "factories": ("Factories", "Functions that build a whole model from a shape or a schema."),
    "likelihoods": (
        "Likelihoods",
        "Distributions p(x given z), as layers. `Likelihood` has their methods.",
    ),
    "posteriors": (
        "Posteriors",
        "Distributions q(z given x), as layers. `Posterior` has their methods.",
    ),
    "priors": ("Priors", "Distributions p(z), as layers. `Prior` has their methods."),
    "objectives": ("Objectives", "What training minimises. `Objective` has their methods."),
    "layers": ("Layers", "Layers for encoders, decoders and levels."),
    "results": (
        "Results, errors and helpers",
        "What methods return and raise, and other functions.",
    ),
}


class Section(NamedTuple):
    """A page of the reference."""

    title: str
    text: str
    names: list[str]
    """Qualified names, in the order of the page."""


def _public(module: ModuleType) -> list[str]:
    """Lists the public names that a module defines or offers, without its modules."""
    offered = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and _home(value).split(".")[0] in ("keras_vae", "export")
    ]
    return sorted(name for name in offered if not inspect.ismodule(getattr(module, name)))


def _home(value: Any) -> str:
    """Returns the module in which a class or function is defined; "" for other values."""
    return getattr(value, "__module__", None) or ""


def _kind(value: Any) -> str:
    """Returns the section that a public name of `keras_vae` belongs to."""
    import keras

    import keras_vae

    families = (
        ("likelihoods", keras_vae.Likelihood),
        ("posteriors", keras_vae.Posterior),
        ("priors", keras_vae.Prior),
        ("objectives", (keras_vae.Objective, keras.losses.Loss)),
        ("models", (keras.Model, keras_vae.LinearGaussian)),
        ("layers", keras.layers.Layer),
    )
    if inspect.isfunction(value):
        return "factories" if value.__name__.endswith("_vae") else "results"
    for kind, bases in families:
        if inspect.isclass(value) and issubclass(value, bases):
            return kind
    return "results"


def sections() -> dict[str, Section]:
    """Returns the pages of the reference by the names of their files, in order."""
    import keras_vae

    found: dict[str, list[str]] = {kind: [] for kind in _TITLES}
    for name in sorted(keras_vae.__all__):
        value = getattr(keras_vae, name)
        if not inspect.ismodule(value):
            found[_kind(value)].append(f"keras_vae.{name}")
    pages = {kind: Section(*_TITLES[kind], names) for kind, names in found.items()}
    at_the_top = {id(getattr(keras_vae, name)) for name in keras_vae.__all__}
    for file, (title, path) in _MODULES.items():
        module = importlib.import_module(path)
        text = inspect.getdoc(module) or ""
        names = [
            f"{path}.{name}"
            for name in _public(module)
            if id(getattr(module, name)) not in at_the_top
        ]
        pages[file] = Section(title, text.split("\n\n")[0].replace("\n", " "), names)
    return pages


def _find(qualified: str) -> Any:
    module, _, name = qualified.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _page(section: Section) -> Iterator[str]:
    yield f"# {section.title}\n\n{section.text}\n\n```{{eval-rst}}\n"
    for qualified in section.names:
        value = _find(qualified)
        if inspect.isclass(value):
            yield f".. autoclass:: {qualified}\n"
            if not _is_described_by_its_base(value):
                yield f"   :members:\n   :inherited-members: {_FOREIGN}\n"
            yield "\n"
        elif callable(value):
            yield f".. autofunction:: {qualified}\n\n"
        else:
            yield f".. autodata:: {qualified}\n\n"
    yield "```\n"


_FOREIGN = "Model,Layer,BackendLayer,Operation,Loss,Callback,BaseEstimator,tuple,object,Exception"


def _is_described_by_its_base(value: type) -> bool:
    """Whether the methods of a class are those of a base class that stands on the same page."""
    import keras_vae

    bases = (keras_vae.Likelihood, keras_vae.Posterior, keras_vae.Prior, keras_vae.Objective)
    return issubclass(value, bases) and value not in bases


def _commands() -> Iterator[str]:
    """Yields the help of every command."""
    import click

    from keras_vae.cli import main

    yield "# Commands\n\nWhat `--help` prints. [Command line](../command-line.md) has examples.\n\n"
    pending: list[tuple[str, click.Command, int]] = [("keras-vae", main, 1)]
    while pending:
        path, command, depth = pending.pop(0)
        context = click.Context(command, info_name=path, terminal_width=88, max_content_width=88)
        yield f"## {path}\n\n```text\n{command.get_help(context)}\n```\n\n"
        if isinstance(command, click.Group):
            inner = [
                (name, command.get_command(context, name))
                for name in command.list_commands(context)
            ]
            pending += [(f"{path} {name}", found, depth + 1) for name, found in inner if found]


def write(target: Path) -> None:
    """Writes the pages of the reference, and copies of the changelog and of CONTRIBUTING.md."""
    target.mkdir(exist_ok=True)
    pages = {file: "".join(_page(section)) for file, section in sections().items()}
    pages["commands"] = "".join(_commands())
    for file in ("CHANGELOG", "CONTRIBUTING"):
        text = (_ROOT / f"{file}.md").read_text()
        pages[file.lower()] = text.replace("](docs/", "](../").replace(
            "](CHANGELOG.md", "](changelog.md"
        )
    for file, text in pages.items():
        path = target / f"{file}.md"
        if not path.exists() or path.read_text() != text:  # Sphinx reads again what is newer
            path.write_text(text)
