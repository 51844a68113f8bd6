"""Spelling: hints at the name that was probably meant, and numbers before nouns."""

import difflib
from collections.abc import Iterable

__all__ = ["counted", "meant"]


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
