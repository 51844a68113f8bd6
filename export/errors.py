"""The exception of the pipeline, and messages of other exceptions in one line."""

import re

__all__ = ["ExportError", "sentence"]

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(
    r"^Exception encountered when calling .*?\.call\(\)\.|Arguments received by .*$"
)
_MOST = 400


class ExportError(ValueError):
    """A refused export; the target directory is unchanged."""


def sentence(error: BaseException) -> str:
    """Returns the message of an exception as one line, without colours and at most 400 characters.

    Keras wraps errors of layers between the name of the layer and all its arguments; only the error
    itself is kept.
    """
    text = " ".join(_COLOURS.sub("", str(error)).split()) or type(error).__name__
    while (shorter := _FRAME.sub("", text).strip()) != text:
        text = shorter
    return text if len(text) <= _MOST else f"{text[: _MOST - 4]} ..."
