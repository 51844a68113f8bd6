"""Names and messages that stay on one line, in a URL, in a file's name and in a graph."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["as_word", "is_name", "one_line"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MOST_CHARACTERS = 300  # maximum length of another library's message


def is_name(name: str) -> bool:
    """Tells whether an artifact may have that name: it survives URLs, files and configurations."""
    return _NAME.fullmatch(name) is not None


def as_word(name: str) -> str:
    """Returns the name of a part of the data as the names of its tensors have it.

    Accents are dropped, other characters of ASCII than letters, digits and _ become _, and those
    of other scripts become their codes, as in u5e74.
    """
    plain = unicodedata.normalize("NFKD", name)
    letters = (c if re.match("[A-Za-z0-9_]", c) else "_" for c in plain)
    return "".join(
        letter if c.isascii() else f"u{ord(c):x}"
        for c, letter in zip(plain, letters, strict=True)
        if not unicodedata.combining(c)
    )


def one_line(error: BaseException) -> str:
    """Returns another library's message on one printable line, cut if it is long."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."
