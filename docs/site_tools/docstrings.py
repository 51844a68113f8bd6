"""Turns the docstrings of this project into what Sphinx reads.

They are plain text: equations are indented, code stands between single backticks, and a star, a bar
or a trailing underscore means itself.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

__all__ = ["plain_to_rst", "process", "signature", "skip"]

_CODE = re.compile(r"(``[^`]+``|`[^`]+`)")
_SEVERAL = re.compile(r"(?P<indent>\s+)(?P<names>\w+(?:, \w+)+):(?P<rest> .*)")
_SPECIAL = re.compile(r"(?<!\\)([*|])|(?<=\w)_(?=\W|$)")
_KERAS = {
    "build",
    "compute_loss",
    "compute_metrics",
    "call",
    "compute_output_shape",
    "compute_output_spec",
    "from_config",
    "get_config",
    "get_build_config",
    "build_from_config",
}


def _escape(line: str) -> str:
    """Escapes what reStructuredText would take for markup, outside of code."""
    pieces = _CODE.split(line)
    for index, piece in enumerate(pieces):
        if index % 2:
            pieces[index] = f"``{piece.strip('`')}``"
        else:
            pieces[index] = _SPECIAL.sub(lambda found: "\\" + found[0], piece)
    return "".join(pieces)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def plain_to_rst(lines: list[str]) -> list[str]:
    """Returns the lines of a docstring in reStructuredText.

    Paragraphs that are indented more than the one before become literal blocks, examples and
    section headings of the Google style stay as they are.
    """
    out: list[str] = []
    index = 0
    headed = 0  # indentation of the text of the present section
    while index < len(lines):
        line = lines[index]
        blank = index == 0 or not lines[index - 1].strip()
        if (
            re.fullmatch(r"\s*[A-Z][A-Za-z ]+:", line)
            and index + 1 < len(lines)
            and (_indent(lines[index + 1]) > _indent(line))
        ):
            headed = _indent(lines[index + 1])
            out.append(line)
            index += 1
            continue
        if line.strip() and not line.startswith(" "):
            headed = 0
        if line.strip().startswith(">>>"):
            while index < len(lines) and lines[index].strip():
                out.append(lines[index])
                index += 1
            continue
        if blank and line.strip() and _indent(line) >= headed + 4:
            out += [" " * headed + "::", ""]
            while index < len(lines) and (
                not lines[index].strip() or _indent(lines[index]) >= headed + 4
            ):
                out.append(lines[index])
                index += 1
            if out[-1].strip():
                out.append("")
            continue
        out.append(_escape(line))
        index += 1
    return out


def one_by_one(lines: list[str]) -> list[str]:
    """Returns a docstring with an entry for each attribute that shares one with others.

    Sphinx would take the first of the names for the type of the second.
    """
    out: list[str] = []
    section, index = "", 0
    while index < len(lines):
        line = lines[index]
        if line.strip() and not line.startswith(" "):
            section = line.strip()
        found = _SEVERAL.fullmatch(line) if section == "Attributes:" else None
        index += 1
        if found is None:
            out.append(line)
            continue
        text = [found["rest"]]
        while index < len(lines) and _indent(lines[index]) > _indent(line):
            text.append(lines[index])
            index += 1
        for name in found["names"].split(", "):
            out += [f"{found['indent']}{name}:{text[0]}", *text[1:]]
    return out


def process(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Changes the lines of a docstring in place, before napoleon reads its sections."""
    lines[:] = plain_to_rst(one_by_one(lines))


def skip(app: Any, what: str, name: str, value: Any, skipped: bool, options: Any) -> bool | None:
    """Leaves out methods that Keras calls and users do not."""
    return True if name in _KERAS else None


def signature(
    app: Any, what: str, name: str, value: Any, options: Any, found: str | None, returns: str | None
) -> tuple[str, None] | None:
    """Returns the arguments of `__init__` for a class whose `__new__` of Keras hides them."""
    if what != "class" or not (found or "").startswith("(*args"):
        return None
    parameters = list(inspect.signature(value.__init__).parameters.values())[1:]
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in parameters]
    return str(inspect.Signature(plain)), None
