"""Notes on values of a column that may stand for a missing one, or differ in spelling alone."""

from __future__ import annotations

import math
import re
import shlex
from typing import Any

from keras_vae.data.content import listed
from keras_vae.data.schema.seen import End, Seen

__all__ = ["declaration", "note"]

_WORDS = re.compile(
    r"\?*|\.+|-+|n/?a|n\.a\.|nan|nil|null|none|missing|unknown|unk|undefined|unspecified"
    r"|unavailable|not (available|known|specified|stated)|no (answer|data)"
)
_NINES = re.compile(r"-?(9+|8{2,}|7{2,})")
_FEWEST = 3
_FREQUENT = 0.001
_OFTEN = 0.01
_MANY = 10
_WIDE = 5.0


def declaration(name: str, value: Any) -> str:
    """Returns how to declare a value that stands for a missing one."""
    option = shlex.quote(f"{name}={value}")
    return (
        f"keras-vae schema FILE --missing-value {option} --out schema.toml, in Python "
        f"Schema.of(..., missing_values={{{name!r}: [{value!r}]}})"
    )


def note(seen: Seen) -> str:
    """Returns what the values of a column may mean that nobody has said; "" for nothing.

    A number is suspected to stand for a missing value if it is the smallest or largest one, in at
    least 3 rows and 1 of 1000, and

    - its digits are all 9 (or 8, or 7), as in -999, and the others are nearer to one another,
    - it is -1, in 1 of 100 rows, and the others reach from 0 on to 5 or more, or
    - it is another number but 0, farther from the others than they from one another.
    """
    found = _of_numbers(seen) if seen.form == "numbers" else [_of_words(seen), _of_spelling(seen)]
    return " ".join(filter(None, found))


def _of_numbers(seen: Seen) -> list[str]:
    ends = [(seen.low, seen.lowest, seen.high), (seen.high, seen.highest, seen.low)]
    return [
        f"holds {value:g} in {_share(end.rows, seen)}, far from its other numbers, "
        f"{min(end.next, farthest):g} to {max(end.next, farthest):g}. If it stands for a missing "
        f"value, declare it: {declaration(seen.name, int(value) if value.is_integer() else value)}."
        for value, end, farthest in ends
        if _stands_out(value, end, farthest, seen)
    ]


def _stands_out(value: float, end: End, farthest: float, seen: Seen) -> bool:
    if not math.isfinite(end.next) or end.next == farthest:
        return False
    if end.rows < max(_FEWEST, _FREQUENT * seen.present):
        return False
    gap, spread = abs(end.next - value), abs(farthest - end.next)
    if _NINES.fullmatch(f"{value:.15g}"):
        return gap >= spread
    if value == -1.0:
        is_often = end.rows >= _OFTEN * seen.present
        return is_often and end.next >= 0.0 and farthest >= _WIDE
    has_many = seen.counts is None or len(seen.counts) > _MANY
    return value != 0.0 and has_many and gap > spread


def _of_words(seen: Seen) -> str:
    for label, rows in (seen.counts or {}).items():
        if isinstance(label, str) and _WORDS.fullmatch(label.strip().casefold()):
            return (
                f"has the label {label!r} in {_share(rows, seen)}. If it stands for a missing "
                f"value, declare it: {declaration(seen.name, label)}."
            )
    return ""


def _of_spelling(seen: Seen) -> str:
    alike: dict[str, list[str]] = {}
    for label in seen.categories or seen.counts or ():
        if isinstance(label, str):
            alike.setdefault(" ".join(label.split()).casefold(), []).append(label)
    found = [
        repr(label) for labels in alike.values() if len(labels) > 1 for label in sorted(labels)
    ]
    if not found:
        return ""
    return (
        f"has labels that differ in case or blanks alone: {listed(found)}. They are separate "
        "categories; if they mean the same, write them alike first, for example with "
        f"frame[{seen.name!r}].str.strip().str.lower()."
    )


def _share(rows: int, seen: Seen) -> str:
    return f"{rows / max(seen.rows, 1):.1%} of its rows"
