"""Spelling: hints at the name that was probably meant."""

import difflib
from collections.abc import Iterable

__all__ = ["meant"]


def meant(name: str, known: Iterable[str]) -> str:
    """Returns a hint at the known name that is most like an unknown one, or nothing.

    Example:
        >>> meant("epoch", ["epochs", "seed"])
        ' (did you mean epochs?)'
    """
    close = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""
