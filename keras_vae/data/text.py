"""Texts as sequences of tokens, characters or words, and back."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keras_vae.data.content import DataError, reason
from keras_vae.tokens import END, UNKNOWN, Tokens, split

__all__ = ["Vocabulary"]


class Vocabulary:
    """The tokens of a corpus, each with a number: characters, or words between spaces.

    Token 0 ends a text, so the log-probability of a sequence is that of the text and its length.
    Token 1 stands for what is not in the vocabulary.

    Args:
        tokens: the tokens in the order of their numbers, without the two special ones.
        unit: "characters" or "words".
        unknown: whether commands let token 1 stand for what is not in the vocabulary; otherwise
            they refuse such a text, because a model that was trained without such tokens knows
            nothing of them.

    Raises:
        ValueError: if the unit is another, or a token occurs twice.

    Example:
        >>> vocabulary = Vocabulary.of(["ab", "b"])
        >>> ids = vocabulary.ids(["ba", "c"])
        >>> ids.tolist(), vocabulary.texts(ids)
        ([[2.0, 3.0, 0.0], [1.0, 0.0, nan]], ['ba', '<unknown>'])
        >>> vocabulary.one_hot(["ba", "c"]).shape
        (2, 3, 4)
    """

    def __init__(
        self,
        tokens: Sequence[str],
        unit: Literal["characters", "words"] = "characters",
        *,
        unknown: bool = True,
    ) -> None:
        self.coding = Tokens((END, UNKNOWN, *map(str, tokens)), unit, unknown)

    @classmethod
    def of_tokens(cls, coding: Tokens) -> "Vocabulary":
        """Makes the vocabulary of tokens that a run or a manifest states."""
        unit: Any = coding.unit
        return cls(coding.tokens[2:], unit, unknown=coding.unknown)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens in the order of their numbers, the two special ones first."""
        return self.coding.tokens

    @property
    def unit(self) -> str:
        """Either "characters" or "words"."""
        return self.coding.unit

    @classmethod
    def of(
        cls,
        texts: Iterable[str],
        unit: Literal["characters", "words"] = "characters",
        *,
        size: int | None = None,
        least: int = 1,
    ) -> "Vocabulary":
        """Makes the vocabulary of a corpus, the most frequent tokens first.

        Args:
            texts: the texts.
            unit: "characters" or "words".
            size: largest number of tokens, with the two special ones; None is no limit.
            least: how often a token must occur. The words "<end>" and "<unknown>" of a text are
                unknown tokens.

        Raises:
            DataError: if no token is left, the size leaves no room for one, or something else than
                texts is given.
            ValueError: if `size` or `least` is no integer.
        """
        for name, value in (("size", 3 if size is None else size), ("least", least)):
            _check_integer(name, value)
        if size is not None and size < 3:
            raise DataError(
                f"Expected a vocabulary of at least 3 tokens, of which {END} and {UNKNOWN} are "
                f"two; got {size}. Choose a larger size."
            )
        counts = Counter(token for text in _checked(texts) for token in split(text, unit))
        specials = [special for special in (END, UNKNOWN) if counts.pop(special, 0)]
        found = sorted(counts, key=lambda token: (-counts[token], token))
        kept = [token for token in found if counts[token] >= least]
        kept = kept if size is None else kept[: size - 2]
        has_others = bool(specials) or len(kept) < len(found)
        if not kept:
            raise DataError(
                f"Expected texts with tokens that occur {least} times or more; found none. Give "
                "more texts, or lower `least`."
            )
        return cls(kept, unit, unknown=has_others)

    def __len__(self) -> int:
        """Returns the number of tokens, with the two special ones."""
        return len(self.tokens)

    def ids(self, texts: Iterable[str], length: int | None = None) -> np.ndarray:
        """Returns the numbers of the tokens of texts, float32 [N, length], NaN after their ends.

        Args:
            texts: the texts.
            length: number of steps, with the end of a text; None is the longest.

        Raises:
            DataError: if there is no text, one is longer, or something else than texts is given.
            ValueError: if `length` is no integer of at least 1.
        """
        if length is not None:
            _check_integer("length", length)
        rows = [self.coding.numbers(text) for text in _checked(texts)]
        if not rows:
            raise DataError("Expected texts; got none. Give one text or more.")
        longest = max(map(len, rows))
        steps = longest if length is None else length
        if longest > steps:
            raise DataError(
                f"Expected texts of at most {steps - 1} {self.unit} and an end; got one of "
                f"{longest - 1}. Cut it, or raise length."
            )
        found = np.full((len(rows), steps), np.nan, np.float32)
        for row, tokens in zip(found, rows, strict=True):
            row[: len(tokens)] = tokens
        return found

    def one_hot(self, texts: Iterable[str], length: int | None = None) -> np.ndarray:
        """Returns the tokens as one-hot vectors, float32 [N, length, K], as `Categorical` takes.

        Arguments and errors are those of `ids`.
        """
        ids = self.ids(texts, length)
        absent = np.isnan(ids)
        found = np.eye(len(self), dtype=np.float32)[np.where(absent, 0, ids).astype(int)]
        found[absent] = np.nan
        return found

    def texts(self, x: Any) -> list[str]:
        """Returns the texts of tokens, each up to its first end.

        Args:
            x: numbers [N, T], or one-hot vectors or probabilities [N, T, K], of which the largest
                entry counts.

        Raises:
            DataError: if the shape is another, or a number is no token.
        """
        array = np.asarray(x)
        if array.ndim == 3 and array.shape[-1] == len(self):
            ids = np.where(np.isnan(array).any(-1), 0, np.nan_to_num(array).argmax(-1))
        elif array.ndim == 2:
            ids = np.where(np.isnan(array), 0, array)
        else:
            raise DataError(
                f"Expected tokens of shape [n, steps] or [n, steps, {len(self)}]; got "
                f"{list(array.shape)}."
            )
        if ids.size and not (np.isin(ids, np.arange(len(self)))).all():
            raise DataError(f"Expected whole numbers from 0 to {len(self) - 1}; got others.")
        return [self.coding.text(row.tolist()) for row in ids.astype(int)]

    def save(self, path: str | Path) -> None:
        """Writes the vocabulary as JSON."""
        content = {
            "unit": self.unit,
            "unknown": self.coding.unknown,
            "tokens": list(self.tokens[2:]),
        }
        Path(path).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Reads a vocabulary that `save` wrote.

        Raises:
            DataError: if the file holds none.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if not isinstance(content, dict) or not isinstance(content.get("tokens"), list):
                raise TypeError("it has no list of tokens")
            unknown = bool(content.get("unknown", True))
            unit: Any = content.get("unit")
            return cls(content["tokens"], unit, unknown=unknown)
        except (OSError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} is no vocabulary as Vocabulary.save writes it: {reason(error)}."
            ) from error


def _checked(texts: Iterable[str]) -> Iterator[str]:
    """Yields texts; refuses one text in place of several, and what is no text."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        got = "one text" if isinstance(texts, str) else repr(texts)
        raise DataError(f"Expected a list of texts; got {got}. Write [text].")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"Expected texts; got {text!r} as text {row}. Leave it out.")
        yield text


def _check_integer(name: str, value: Any) -> None:
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected an integer of at least 1. Received: "
            f"{name}={value!r}"
        )
