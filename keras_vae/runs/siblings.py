"""Commands of `export` and `serving`, the packages beside this one, and of modules of its own.

A user's own directory may have the same name, and Python would find it first. So the commands load
the packages by their path, and never run another package of the same name.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import click

__all__ = ["COMMANDS", "EXTRAS", "command", "package"]

COMMANDS: dict[str, str] = {
    "export": "export.cli:publish_command",
    "verify": "export.cli:verify_command",
    "parity": "export.cli:parity_command",
    "explore": "serving.explore.command:explore",
    "score": "serving.score.command:score_command",
    "serve": "serving.cli:serve",
    "push": "keras_vae.hub_commands:push_command",
    "pull": "keras_vae.hub_commands:pull_command",
    "choose": "keras_vae.choose_command:choose_command",
}
"""Location of each command, as MODULE:NAME."""

EXTRAS: dict[str, str] = {
    "explore": "serving",
    "serve": "serving",
    "score": "batch",
    "push": "hub",
    "pull": "hub",
}
"""The extra that a command needs, if not `export`."""


def command(name: str) -> click.Command:
    """Imports the command of a name in `COMMANDS`.

    Raises:
        ImportError: if its package is missing, or hidden by another that was imported before.
    """
    module, attribute = COMMANDS[name].split(":")
    package(module.split(".")[0])
    return getattr(importlib.import_module(module), attribute)


def package(name: str) -> ModuleType:
    """Imports the package beside this one, whatever else has its name on the module path.

    Raises:
        ImportError: if it is missing, or hidden by another that was imported before.
    """
    place = Path(__file__).resolve().parents[2] / name / "__init__.py"
    known = sys.modules.get(name)
    if known is not None:
        if Path(known.__file__ or "").resolve() == place:
            return known
        raise ImportError(
            f"{known.__file__ or name} was imported before the package {name!r} of keras-vae and "
            "hides it: rename it, or do not import it here."
        )
    spec = importlib.util.spec_from_file_location(name, place)
    if spec is None or spec.loader is None or not place.is_file():
        raise ImportError(f"The package {name!r} is not beside keras_vae; install keras-vae again.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
