"""One setting of a run: its declaration, and the check of a value."""

from __future__ import annotations

import dataclasses
import math
import numbers
from dataclasses import dataclass
from typing import Any

__all__ = ["KINDS", "RunError", "Setting", "checked", "is_a", "setting"]

KINDS: dict[str, tuple[type, bool]] = {
    "int": (int, False),
    "int | str": (int, False),
    "float": (float, False),
    "float | str": (float, False),
    "str": (str, False),
    "bool": (bool, False),
    "tuple[int, ...]": (int, True),
    "tuple[float, ...]": (float, True),
    "tuple[str, ...]": (str, True),
    "dict[str, Any]": (dict, False),
}
"""By annotation: the type of a value or of its items, and whether it is a list.

A number or a word is a number here; its words are the choices of the setting.
"""

_NAMES = {
    (int, False): "a whole number",
    (float, False): "a finite number",
    (str, False): "text",
    (bool, False): "true or false",
    (int, True): "a list of whole numbers",
    (float, True): "a list of numbers",
    (str, True): "a list of names",
    (dict, False): "a table",
}


class RunError(ValueError):
    """Error about a run directory or configuration that cannot be used as asked."""


@dataclass(frozen=True)
class Setting:
    """Help, choices and range of one setting.

    Attributes:
        help: description for the command line.
        choices: allowed words; empty for any. Of a number, words that may stand for it.
        interval: allowed interval of its numbers, such as "(0, 1]" or "[1, inf)".
        only: another setting, and its values with which this one has an effect; None for any value
            that is not empty.
        is_option: whether it is a command line option.
    """

    help: str = ""
    choices: tuple[str, ...] = ()
    interval: str = ""
    only: tuple[str, tuple[str, ...] | None] | None = None
    is_option: bool = True


def setting(default: Any, help: str = "", **about: Any) -> Any:
    """Declares a field of a dataclass whose metadata has its `Setting`."""
    return dataclasses.field(default=default, metadata={"setting": Setting(help, **about)})


def checked(name: str, value: Any, about: Setting, kind: type, is_list: bool) -> Any:
    """Converts a value to the type of its setting.

    Raises:
        RunError: if it has another type, or lies outside the choices or the interval.
    """
    if kind is not str and value in about.choices:
        return value
    items = value if is_list and isinstance(value, (list, tuple)) else (value,)
    if not all(is_a(kind, item) for item in items):
        words = "".join(f" or {word!r}" for word in about.choices) if kind is not str else ""
        raise RunError(f"Expected {name} to be {_NAMES[kind, is_list]}{words}; got {value!r}.")
    typed = tuple(kind(item) for item in items)
    value = typed if is_list else typed[0]
    if kind is str and about.choices and value not in about.choices:
        allowed = ", ".join(filter(None, about.choices))
        raise RunError(f"Expected {name} to be one of {allowed}; got {value!r}.")
    for number in typed:
        if about.interval and not _is_inside(number, about.interval):
            raise RunError(f"Expected {_words(name, about.interval)}; got {number}.")
    return value


def is_a(kind: type, value: Any) -> bool:
    """Tells whether a value is of a kind: an integer is a float, and a bool is only a bool."""
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, numbers.Real) and math.isfinite(value)
    return isinstance(value, numbers.Integral if kind is int else kind)


def _is_inside(number: Any, interval: str) -> bool:
    low, high = map(float, interval[1:-1].split(","))
    above = number > low if interval[0] == "(" else number >= low
    return above and (number < high if interval[-1] == ")" else number <= high)


def _words(name: str, interval: str) -> str:
    if interval == "(0, inf)":
        return f"a positive {name}"
    if interval.endswith("inf)"):
        return f"{name} of at least {interval[1:].split(',')[0]}"
    return f"{name} in {interval}"
