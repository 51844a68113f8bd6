"""Refusal of classes that were written for an earlier version."""

import inspect

__all__ = ["refuse_old_methods"]

_OLD_METHODS = {
    "law": "make_distribution",
    "constants": "shared_parameters",
    "transport": "draw(noise, **parameters)",
    "log_volume": "Draw(value, log_prob)",
    "law_dtype": "float_dtype",
}


def refuse_old_methods(kind: type) -> None:
    """Refuses a class that defines what an earlier version called and this one does not.

    Raises:
        TypeError: naming the methods and what they are called now.
    """
    old = [name for name in _OLD_METHODS if name in vars(kind)]
    draw = vars(kind).get("draw")
    if draw is not None and "seed" in inspect.signature(draw).parameters:
        raise TypeError(
            f"{kind.__name__}.draw takes a seed, as in an earlier version; a draw is a function of "
            "noise now: define draw(noise, **parameters) that returns Draw(value), and noise()."
        )
    if old:
        renamed = ", ".join(f"{name} is now {_OLD_METHODS[name]}" for name in old)
        raise TypeError(
            f"{kind.__name__} defines {', '.join(old)}, which nothing calls any more: {renamed}."
        )
