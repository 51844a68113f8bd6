"""Arguments and types of options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from keras_vae.runs.config_file import read_run

__all__ = [
    "AtLeast",
    "RunDirectory",
    "numbers",
    "of_run",
    "table_endings",
    "with_limit",
    "with_samples",
    "with_seed",
]


class AtLeast(click.IntRange):
    """Type of options that are integers with a minimum."""

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Returns the integer."""
        number = click.INT.convert(value, param, ctx)
        if number < (self.min or 0):
            self.fail(f"expected an integer of at least {self.min}; got {number}.", param, ctx)
        return number


def table_endings() -> tuple[str, ...]:
    """Returns the endings of files of tables."""
    from keras_vae.data.tables import TABLE_SUFFIXES

    return TABLE_SUFFIXES


class RunDirectory(click.Path):
    """Type of arguments that name a run, whose configuration is read before TensorFlow is."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        """Returns the path."""
        read_run(Path(value))
        return Path(value)


of_run = click.argument("run", type=RunDirectory())
with_seed = click.option("--seed", default=0, show_default=True, help="Seed of all draws.")

with_limit = click.option(
    "--limit",
    type=AtLeast(0),
    default=1000,
    show_default=True,
    help="Number of test examples to measure log p(x) of; 0 for all.",
)


def with_samples(per: str) -> Callable[[Any], Any]:
    """Returns the option of the number of importance samples per row or example."""
    return click.option(
        "--num-samples",
        type=AtLeast(1),
        default=1000,
        show_default=True,
        help=f"Importance samples per {per}.",
    )


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Returns the numbers in a text such as 0.5,2,4, all at least 0."""
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not like 0.5,2,4.", param_hint=option) from error
    if not all(0.0 <= number < math.inf for number in found):
        raise click.BadParameter("expected numbers of at least 0.", param_hint=option)
    return found
