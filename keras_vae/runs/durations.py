"""Durations as users write them."""

from __future__ import annotations

import re

from keras_vae.runs.setting import RunError

__all__ = ["as_seconds"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def as_seconds(budget: str | float) -> float:
    """Returns a duration such as "90s", "30m", "1h" or "1h30m" in seconds; a number is seconds.

    Raises:
        RunError: if it is none, or not positive.

    Example:
        >>> as_seconds("30m"), as_seconds("1h30m"), as_seconds(20)
        (1800.0, 5400.0, 20.0)
    """
    found = 0.0
    if isinstance(budget, str):
        text = budget.strip().lower()
        if re.fullmatch(r"(?:\d+(?:\.\d+)?[smh])+", text):
            found = sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"([\d.]+)([smh])", text))
    elif not isinstance(budget, bool):
        found = float(budget)
    if not 0.0 < found < float("inf"):
        raise RunError(
            f"Expected a budget such as 90s, 30m or 1h, longer than nothing; got {budget!r}."
        )
    return found
