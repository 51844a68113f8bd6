"""Table of all values of a few codes."""

import numpy as np

__all__ = ["MOST", "configurations"]

MOST = 4096
"""Most values that are enumerated."""


def configurations(count: int, size: int, most: int = MOST) -> np.ndarray:
    """Returns all values of `count` codes below `size`, int32 [size^count, count].

    Raises:
        ValueError: if there are more than `most`.

    Example:
        >>> configurations(2, 3)[:4].tolist()
        [[0, 0], [0, 1], [0, 2], [1, 0]]
    """
    number = size**count
    if number > most:
        raise ValueError(
            f"{count} codes of {size} have {size}^{count} = {number:.3g} values, more than the "
            f"{most} that can be enumerated: use importance sampling, or fewer codes."
        )
    places = np.unravel_index(np.arange(number), (size,) * count)
    return np.stack(places, axis=-1).astype(np.int32)
