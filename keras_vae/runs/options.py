"""Options: the settings of a run on a command line."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import click

from keras_vae.distributions.names import LIKELIHOODS
from keras_vae.runs import config as configs
from keras_vae.runs.config import RunConfig
from keras_vae.runs.config_file import read_config

__all__ = ["Listed", "add_settings", "integers", "settings_of"]

_LIKELIHOOD_OPTIONS = {
    name: option for family in LIKELIHOODS.values() for name, option in family.options.items()
}


class Listed(click.ParamType):
    """Type of options that are values separated by commas."""

    def __init__(self, item: type) -> None:
        self.name = "integers" if item is int else "names"
        self._item = item

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[Any, ...]:
        """Returns the values."""
        if isinstance(value, tuple):
            return value
        if self._item is int:
            return integers(value, param.opts[0])
        return tuple(word.strip() for word in value.split(","))


class OfColumn(click.ParamType):
    """Type of options that are a value of a column."""

    name = "COLUMN=VALUE"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        """Returns the name of the column and the value."""
        column, equals, of_column = value.rpartition("=")
        if not (equals and column):
            self.fail(f"expected COLUMN=VALUE, as in age=-999; got {value!r}.", param, ctx)
        return column, of_column


class _NumberOrWord(click.ParamType):
    """Type of options that are a number, or a word that stands for one."""

    def __init__(self, kind: click.ParamType, words: tuple[str, ...]) -> None:
        self.name = f"{kind.name} or {' or '.join(words)}"
        self._kind = kind
        self._words = words

    def convert(self, value: Any, param: Any, ctx: Any) -> float | str:
        """Returns the number or the word."""
        return value if value in self._words else self._kind.convert(value, param, ctx)


def add_settings(
    command: Callable[..., Any], leave_out: Collection[str] = ()
) -> Callable[..., Any]:
    """Adds an option to a command for each setting of a run but some."""
    defaults = {entry.name: entry.default for entry in dataclasses.fields(RunConfig)}
    options = []
    for name, setting in configs.settings().items():
        if name == "likelihood_options":
            options += [
                click.option(
                    _dashed(option),
                    type=int if about.is_whole else str,
                    help=f"{', '.join(_takers(option))}: {about.help}.",
                )
                for option, about in _LIKELIHOOD_OPTIONS.items()
            ]
        if not setting.is_option or name in leave_out:
            continue
        (item, is_list), default = configs.kinds()[name], defaults[name]
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        about = f"{setting.help}  [default: {shown}]" if shown else setting.help
        if item is bool:
            options.append(click.option(_dashed(name), is_flag=True, default=None, help=about))
            continue
        kind: type | click.ParamType = Listed(item) if is_list else item
        if setting.choices and item is not str:
            kind = _NumberOrWord(click.types.convert_type(item), setting.choices)
        elif setting.choices:
            kind = click.Choice([word for word in setting.choices if word])
        options.append(click.option(_dashed(name), type=kind, help=about.strip()))
    for option in reversed(options):
        command = option(command)
    return command


def _takers(option: str) -> list[str]:
    """Returns the names of the likelihoods that take an option."""
    return [name for name, family in LIKELIHOODS.items() if option in family.options]


def _dashed(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def integers(text: str, option: str) -> tuple[int, ...]:
    """Parses integers such as 200,200.

    Raises:
        BadParameter: if the text is anything else, naming the option.
    """
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not like 200,200.", param_hint=option) from error


def settings_of(
    config: Path | None, options: dict[str, Any], resume_from: Path | None
) -> RunConfig:
    """Returns the configuration to train, from a recipe or a run and the command line.

    Args:
        config: the recipe, or None.
        options: values by the name of the setting; None if the option was not given.
        resume_from: run directory to continue; None for a new run.

    Raises:
        UsageError: if the options do not go together.
        RunError: if a value is wrong or has no effect.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if resume_from is not None and (resume_from / "config.toml").is_file():
        base = read_config(resume_from / "config.toml")
        changed = [_dashed(name) for name in given if name not in configs.RESUMABLE]
        if config is not None:
            recipe = read_config(config, needs_data=False)
            changed += [f"{name} in {config}" for name in recipe.beyond(base)]
            base = dataclasses.replace(base, epochs=recipe.epochs)
        if changed:
            raise click.UsageError(
                "--resume continues the run with its own configuration; leave out "
                f"{', '.join(changed)}."
            )
        return dataclasses.replace(base, **given)
    likelihood_options = {name: given.pop(name) for name in _LIKELIHOOD_OPTIONS if name in given}
    for name, value in likelihood_options.items():
        if not _LIKELIHOOD_OPTIONS[name].is_whole:
            with contextlib.suppress(ValueError):
                likelihood_options[name] = float(value)
    if config is not None:
        base = read_config(config, needs_data="data" not in given)
        base.refuse_idle()
    elif "data" in given:
        base = RunConfig()
    else:
        raise click.UsageError("Name the data to train on: --data PATH, or --data digits.")
    merged = configs.override(base, {**given, "likelihood_options": likelihood_options})
    merged.refuse_idle(given)
    return merged
