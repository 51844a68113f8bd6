"""Command line: `python -m serving`. Commands are imported when they are called."""

from __future__ import annotations

import importlib
from typing import Any, NoReturn

import click

__all__ = ["main"]

_COMMANDS: dict[str, str] = {
    "local": "serving.local.command:local",
    "explore": "serving.explore.command:explore",
    "config": "serving.deploy.cli:config_command",
    "tls": "serving.deploy.cli:tls_command",
    "label": "serving.deploy.cli:label_command",
    "compare": "serving.deploy.cli:compare_command",
    "promote": "serving.deploy.cli:promote_command",
    "rollback": "serving.deploy.cli:rollback_command",
    "score": "serving.score.command:score_command",
}
"""Where each command is, as MODULE:NAME."""


class _Group(click.Group):
    """Commands that end in one sentence instead of a traceback, unless `--debug`."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Names of the commands."""
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def invoke(self, context: click.Context) -> Any:
        """Runs the command."""
        debug = context.params.get("debug", False)
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if debug:
                raise
            _fail(error)


def _fail(error: Exception) -> NoReturn:
    sentence = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.filename:
        sentence = f"{error.filename}: {error.strerror}."
    elif not isinstance(error, ValueError):
        sentence = f"{type(error).__name__}: {sentence} (Run with --debug for the traceback.)"
    raise click.ClickException(sentence)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Serve artifacts, call servers, explore and score with what `python -m export` published."""
