"""Tokens: the characters or words of texts as numbers, by the standard library alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["END", "TEXT", "TEXT_SUFFIXES", "UNKNOWN", "Tokens", "split", "text_of_json"]

END, UNKNOWN = "<end>", "<unknown>"

_SHOWN = 40

TEXT_SUFFIXES = (".txt", ".jsonl")
"""Endings of files of texts."""

TEXT = "text"
"""Key of a text in a line of JSON, and its column in a table, unless another is named."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of texts, each with a number: characters, or words between spaces.

    Token 0 ends a text, and token 1 stands for what is not among them.

    Attributes:
        tokens: the tokens in the order of their numbers, the two special ones first.
        unit: "characters" or "words".
        unknown: whether token 1 may stand for others; otherwise a text with others is refused.

    Raises:
        ValueError: if the unit is another, or a token occurs twice.

    Example:
        >>> tokens = Tokens((END, UNKNOWN, "a", "b"), "characters", unknown=False)
        >>> tokens.numbers("ab"), tokens.text([2, 3, 0, 1])
        ([2, 3, 0], 'ab')
        >>> tokens.problem("abc", 5)
        "holds the character 'c', which is not in the vocabulary of the model"
    """

    tokens: tuple[str, ...]
    unit: str = "characters"
    unknown: bool = True
    _places: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuses tokens that no texts can have."""
        if self.unit not in ("characters", "words"):
            raise ValueError(
                "Invalid value for argument `unit`. Expected 'characters' or 'words'. Received: "
                f"unit={self.unit!r}"
            )
        places = {token: number for number, token in enumerate(self.tokens)}
        if len(places) != len(self.tokens):
            twice = next(token for token, n in Counter(self.tokens).items() if n > 1)
            raise ValueError(f"Expected each token once; got {twice!r} twice.")
        if self.tokens[:2] != (END, UNKNOWN):
            raise ValueError(f"Expected the tokens {END} and {UNKNOWN} first; got others.")
        object.__setattr__(self, "_places", places)

    def __len__(self) -> int:
        """Returns the number of tokens, with the two special ones."""
        return len(self.tokens)

    def numbers(self, text: str) -> list[int]:
        """Returns the numbers of the tokens of a text, with that of its end."""
        return [*(self._places.get(token) or 1 for token in split(text, self.unit)), 0]

    def text(self, numbers: Sequence[int]) -> str:
        """Returns the text of tokens up to the first end."""
        words = []
        for number in numbers:
            if number == 0:
                break
            words.append(self.tokens[number])
        return ("" if self.unit == "characters" else " ").join(words)

    def problem(self, text: str, steps: int) -> str | None:
        """Returns why a text has no probability under a model, as the end of a sentence; or None.

        Args:
            text: the text.
            steps: number of steps of the model's sequences, of which the end of a text takes one.
        """
        words = split(text, self.unit)
        if not words:
            return "is empty"
        if len(words) >= steps:
            return f"has {len(words)} {self.unit}, and the most are {steps - 1}"
        if not self.unknown:
            for word in words:
                if self._places.get(word, 0) < 2:
                    kind = self.unit.removesuffix("s")
                    shown = word if len(word) <= _SHOWN else f"{word[:_SHOWN]}..."
                    return (
                        f"holds the {kind} {shown!r}, which is not in the vocabulary of the model"
                    )
        return None

    def padded(self, text: str, steps: int) -> list[float]:
        """Returns the numbers of a text, with NaN after its end."""
        numbers = self.numbers(text)
        return [*map(float, numbers), *[float("nan")] * (steps - len(numbers))]

    def stated(self) -> dict[str, object]:
        """Returns what a manifest says of them."""
        return {"unit": self.unit, "unknown": self.unknown, "tokens": list(self.tokens)}


def split(text: str, unit: str) -> Sequence[str]:
    """Returns the tokens of a text."""
    return text if unit == "characters" else text.split()


def text_of_json(line: str, key: str = TEXT) -> str:
    """Returns the text in a line of JSON Lines, a JSON string or an object with a key.

    Raises:
        ValueError: if there is none; the message is the end of a sentence that begins with the
            place of the line.

    Example:
        >>> text_of_json('"a"'), text_of_json('{"text": "b"}')
        ('a', 'b')
    """
    if not line.strip():
        raise ValueError("is empty; every line is a text. Remove it.")
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ValueError(
            f"is no JSON: {error}. Write a string or an object on each line."
        ) from error
    if isinstance(value, dict):
        if key not in value:
            names = [str(name) for name in value]
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise ValueError(
                f"has no key {key!r}; it has {', '.join(names[:5]) or 'none'}{more}. Write the "
                "text under that key; training takes the name of another by --text-column."
            )
        value = value[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"holds no text but {json.dumps(value):.40}. Remove it.")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(
            "holds half of a surrogate pair, which is no character and which UTF-8 cannot hold. "
            "Remove it."
        )
    return value
