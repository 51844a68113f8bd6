"""Spelling: hints at the name that was meant, numbers before nouns, and text that is a number."""

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = ["as_number", "counted", "meant", "numbers_in"]


def as_number(value: Any) -> float | None:
    """Returns the number that a value is, or that its text reads as; None for other text.

    Example:
        >>> as_number("-999"), as_number("n/a")
        (-999.0, None)
    """
    try:
        return float(value)
    except ValueError:
        return None


def numbers_in(values: Iterable[Any]) -> list[float]:
    """Returns the numbers among some values, as `as_number` reads them."""
    return [number for number in map(as_number, values) if number is not None]


def counted(count: int, noun: str, spec: str = "", *, plural: str | None = None) -> str:
    """Returns a number and its noun, which is singular for one.

    Args:
        count: the number.
        noun: the noun in the singular.
        spec: format of the number.
        plural: the plural, if it is not made with an s.

    Example:
        >>> counted(1, "row"), counted(0, "row"), counted(2, "category", plural="categories")
        ('1 row', '0 rows', '2 categories')
    """
    named = noun if count == 1 else plural or f"{noun}s"
    return f"{count:{spec}} {named}"


def meant(name: str, known: Iterable[str]) -> str:
    """Returns a hint at the known name that is most like an unknown one, or nothing.

    Example:
        >>> meant("epoch", ["epochs", "seed"])
        ' (did you mean epochs?)'
    """
    close = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""
