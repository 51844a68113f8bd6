"""Command line: `python -m serving`, and `keras-vae serve` for the commands about servers.

Commands are imported when they are called.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import click

from keras_vae.extras import advice

__all__ = ["main", "serve"]

_COMMANDS: dict[str, str] = {
    "local": "serving.local.command:local",
    "explore": "serving.explore.command:explore",
    "config": "serving.deploy.command:config_command",
    "tls": "serving.deploy.command:tls_command",
    "label": "serving.rollout.command:label_command",
    "compare": "serving.rollout.command:compare_command",
    "promote": "serving.rollout.command:promote_command",
    "rollback": "serving.rollout.command:rollback_command",
    "score": "serving.score.command:score_command",
}
"""Location of each command, as MODULE:NAME."""
_ELSEWHERE = ("explore", "score")  # top-level commands of `keras-vae`


class _Group(click.Group):
    """Command group whose errors end in one message without a traceback, unless `--debug`."""

    def __init__(self, *args: Any, without: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._names = [name for name in _COMMANDS if name not in without]

    def list_commands(self, context: click.Context) -> list[str]:
        """Lists the names of the commands."""
        return self._names

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Imports and returns the command of that name."""
        if name not in self._names:
            return None
        module, attribute = _COMMANDS[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def invoke(self, context: click.Context) -> Any:
        """Runs the command."""
        debug = context.params["debug"] or context.meta.get("debug", False)
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if debug:
                raise
            extra = "batch" if context.invoked_subcommand == "score" else "serving"
            raise click.ClickException(advice(error, extra) or _sentence(error)) from error


def _sentence(error: Exception) -> str:
    sentence = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}."
    if not isinstance(error, ValueError):
        return f"{type(error).__name__}: {sentence} (Run with --debug for the traceback.)"
    return sentence


_SETTINGS = {"help_option_names": ["-h", "--help"]}
_debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")


@click.group(cls=_Group, context_settings=_SETTINGS)
@_debug
def main(debug: bool) -> None:
    """Serve artifacts, call servers, explore and score with what `keras-vae export` published."""


@click.group("serve", cls=_Group, without=_ELSEWHERE, context_settings=_SETTINGS)
@_debug
def serve(debug: bool) -> None:
    """Serve artifacts: TensorFlow Serving, or this machine.

    TensorFlow Serving is for production, the local server for development.
    """
