"""Texts and time series of a run: their files, their preparation, and their nats per step."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_vae import data, random
from keras_vae.data import DataError, Vocabulary
from keras_vae.data.columns import positions
from keras_vae.data.long_series import cut, split_by_time
from keras_vae.data.preparation import Preparation
from keras_vae.data.row_views import SelectedRows
from keras_vae.data.series_files import Series, load_series
from keras_vae.data.text_files import load_texts
from keras_vae.runs.config import TEXT, RunConfig, RunError
from keras_vae.signatures import signatures
from keras_vae.spelling import counted
from keras_vae.tokens import Tokens, split
from keras_vae.training.backup import write_atomically

__all__ = [
    "VOCABULARY",
    "decided_texts",
    "drawn",
    "of_texts",
    "per_step",
    "present_steps",
    "read_examples",
    "read_series",
    "read_texts",
    "row_nats",
    "rows_of_steps",
    "write_texts",
]

VOCABULARY = "vocabulary.json"
"""Name of the file with the tokens of the texts of a run."""

_HELD = 2**28
"""Most bytes of one-hot vectors that are kept; those of more texts are made when they are read."""


_LONG = 10_000
"""Most tokens of a text, unless the configuration says how long the longest one is."""

_DRAWN = 1000
"""Texts that are drawn at once."""


def decided_texts(
    config: RunConfig, report: Callable[[str], None] = lambda sentence: None
) -> RunConfig:
    """Completes the configuration of texts with their vocabulary and the longest of them.

    Raises:
        DataError: if a text is longer than the configuration allows, or a file cannot be read.
        RunError: if a setting has no effect on texts.
    """
    texts = load_texts(config.data, config.text_column)
    if config.test_data:
        texts = texts + load_texts(config.test_data, config.text_column)
    unit: Any = config.tokens
    vocabulary = Vocabulary.of(texts, unit, size=config.vocabulary_size or None)
    longest = config.longest or _longest(texts, unit)
    sentence = f"texts as {unit}, {len(vocabulary)} different ones, at most {longest} a text"
    preparation = Preparation(
        categories=len(vocabulary), sentence=sentence, vocabulary=vocabulary.coding
    )
    report(f"Preparation: {sentence}.")
    if not config.autoregressive:
        report(
            f"The {unit} of a text are independent given z; with --autoregressive each depends on "
            "those before it, too."
        )
    config = dataclasses.replace(
        config, likelihood=TEXT, longest=longest, preparation=preparation, output_bias="zeros"
    )
    config.refuse_idle()
    return config


def _longest(texts: list[str], unit: str) -> int:
    sizes = [len(split(text, unit)) for text in texts]
    longest = max(sizes)
    if longest > _LONG:
        raise DataError(
            f"Text {sizes.index(longest) + 1} has {longest} {unit}, and half of the texts at most "
            f"{int(np.median(sizes))}; each text would take as many steps. Split it into several "
            f"texts, or allow so many with --longest {longest}."
        )
    return longest


def read_texts(config: RunConfig, tokens: Tokens) -> tuple[Any, Any]:
    """Reads training and test set as numbers of tokens, float32 [N, T], NaN after their ends.

    Raises:
        DataError: naming the line of the first text that the model cannot take.
    """
    train = _numbers(config, config.data, tokens)
    if config.test_data:
        return train, _numbers(config, config.test_data, tokens)
    rows = data.split(np.arange(len(train)), test_fraction=config.test_fraction, seed=config.seed)
    size = train.itemsize * train.size * len(tokens)
    some, rest = (train[own] if size <= _HELD else SelectedRows(train, own) for own in rows)
    return some, rest


def read_examples(config: RunConfig, source: str, tokens: Tokens | None) -> np.ndarray:
    """Reads other texts or time series as the training set was read, with as many steps.

    Raises:
        DataError: if they cannot be read, or have more steps.
    """
    if tokens is not None:
        return _numbers(config, source, tokens)
    x = _series(config, source)[0]
    return cut(x, config.window, config.window) if config.window else x


def _numbers(config: RunConfig, source: str, tokens: Tokens) -> np.ndarray:
    texts, steps = load_texts(source, config.text_column), config.longest + 1
    for row, text in enumerate(texts):
        if (problem := tokens.problem(text, steps)) is not None:
            raise DataError(
                f"{source}, text {row + 1}, {problem}. Remove it, or train again with other values "
                "of --longest or --vocabulary-size."
            )
    return np.array([tokens.padded(text, steps) for text in texts], np.float32)


def of_texts(texts: Any, tokens: Tokens) -> list[str]:
    """Returns texts of numbers of tokens [N, T], each up to its end."""
    return [tokens.text([int(k) for k in row if not math.isnan(k)]) for row in np.asarray(texts)]


class SeriesSets(NamedTuple):
    """Time series of a run, [N, T, D], NaN where nothing was observed.

    Attributes:
        train, test: training and test set.
        names: names of the D entries; empty if the file has none.
        sentence: description of both.
    """

    train: np.ndarray
    test: np.ndarray
    names: tuple[str, ...]
    sentence: str


def read_series(config: RunConfig) -> SeriesSets:
    """Reads training and test set of time series.

    Raises:
        DataError: if they cannot be read.
        RunError: if training and test series differ in their entries.
    """
    series = _series(config, config.data)
    sets = _read_windows(config, series) if config.window else _read_whole(config, series)
    if not series.remark:
        return sets
    return sets._replace(sentence=f"{sets.sentence}. {series.remark}")


def _read_whole(config: RunConfig, series: Series) -> SeriesSets:
    """Takes each series as an example."""
    x, names = series.x, series.names
    columns = f"{counted(x.shape[1], 'step')} of {_entries(x, names)}"
    if not config.test_data:
        rows = data.split(np.arange(len(x)), test_fraction=config.test_fraction, seed=config.seed)
        return SeriesSets(x[rows[0]], x[rows[1]], names, columns)
    test, others, *_ = _series(config, config.test_data)
    if others != names or test.shape[2] != x.shape[2] or test.shape[1] > x.shape[1]:
        raise RunError(
            f"Training series have {columns}, those of {config.test_data} "
            f"{counted(test.shape[1], 'step')} of {_entries(test, others)}. Give the same "
            "entries, and no longer series than the longest of training."
        )
    return SeriesSets(x, data.padded(list(test), x.shape[1]), names, columns)


def _read_windows(config: RunConfig, series: Series) -> SeriesSets:
    """Cuts long series into windows, and says in one sentence how."""
    x, names = series.x, series.names
    window, stride = config.window, config.stride or config.window
    entries = _entries(x, names)
    how = f"windows of {counted(window, 'step')} of {entries}"
    each = f"Training windows start every {counted(stride, 'step')}; test windows do not overlap"
    if config.test_data:
        test, others, *_ = _series(config, config.test_data)
        if others != names or test.shape[2] != x.shape[2]:
            raise RunError(
                f"Training series have {entries} at a step, those of {config.test_data} "
                f"{_entries(test, others)}. Give the same entries."
            )
        sets = cut(x, window, stride), cut(test, window, window)
        return SeriesSets(*sets, names, f"{how}. {each}")
    found = split_by_time(x, window, stride, test_fraction=config.test_fraction)
    each += f", and lie in the last {found.test_steps} of {counted(found.steps, 'step')}"
    each += f" of {len(x)} series" if len(x) > 1 else ""
    if found.left_out:
        each += f". Left out: {counted(found.left_out, 'window')} with nothing observed"
    return SeriesSets(found.train, found.test, names, f"{how}, split by time. {each}")


def _entries(x: np.ndarray, names: tuple[str, ...]) -> str:
    """Returns what a step of series [N, T, D] holds."""
    return ", ".join(names) or counted(x.shape[2], "number")


def _series(config: RunConfig, source: str) -> Series:
    if source == "digits":
        raise DataError("digits are images and no sequences: choose network = 'mlp' or 'conv'.")
    found = load_series(
        Path(source),
        id_column=config.id_column,
        time_column=config.time_column,
        drop=config.drop,
        long=bool(config.window),
    )
    if not (config.entries and found.names):
        return found
    places = positions(found.names, config.entries, source)
    return found._replace(x=found.x[..., places], names=config.entries)


def rows_of_steps(x: np.ndarray, entries: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns series [N, T, D] as a table with one row a step, and the names of its columns.

    Example:
        >>> rows_of_steps(np.array([[[7.0], [8.0]]]), ("load",))[0].tolist()
        [[0.0, 0.0, 7.0], [0.0, 1.0, 8.0]]
    """
    index = np.indices(x.shape[:2]).reshape(2, -1).T
    return np.concatenate([index, x.reshape(len(index), -1)], 1), ("series", "step", *entries)


def present_steps(x: np.ndarray) -> np.ndarray:
    """Returns what is present of series, [M, 1, D], for statistics of the entries.

    An entry that is absent in a step is replaced by one of its other values.
    """
    steps = x.reshape(-1, x.shape[-1])
    absent = np.isnan(steps)
    if not absent.any():
        return x
    columns = [column[~np.isnan(column)] for column in steps.T]
    most = max(map(len, columns))
    if not min(map(len, columns)):
        raise DataError("An entry of the series is never observed. Leave it out with --drop.")
    return np.stack([np.resize(column, most) for column in columns], -1)[:, np.newaxis]


def drawn(run: Any, count: int, seed: int, *, mean: bool = False) -> list[str]:
    """Draws texts from a run's model.

    Args:
        run: a run of texts.
        count: number of texts.
        seed: seed of the draws.
        mean: whether each token is the most probable one given those before, at draws of z.
    """
    found = signatures(run.load(), run.preparation)["sample"].function
    seeds = random.row_seeds(seed, count)
    texts: list[str] = []
    for start in range(0, count, _DRAWN):
        part = found(seed=seeds[start : start + _DRAWN])
        numbers = np.argmax(part["mean"], axis=-1) if mean else part["sample"]
        texts += of_texts(numbers, run.tokens)
    return texts


def write_texts(texts: list[str], path: Path) -> None:
    """Writes one text a line, or one JSON object a line with the key "text".

    Raises:
        RunError: if a text has several lines and the file ends in .txt.
    """
    is_json = path.suffix.lower() == ".jsonl"
    if not is_json and any(_has_lines(text) for text in texts):
        raise RunError(f"Some texts have several lines, which {path} cannot hold: choose .jsonl.")
    lines = (json.dumps({"text": text}, ensure_ascii=False) if is_json else text for text in texts)
    with write_atomically(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _has_lines(text: str) -> bool:
    return "\n" in text or text.endswith("\r")


def row_nats(preparation: Preparation, x: Any) -> np.ndarray:
    """Returns the nats that turn log p of prepared series into that of the file, [N].

    Args:
        preparation: how the series were prepared.
        x: prepared series [N, T, D] or one-hot vectors, NaN where nothing was observed.
    """
    if not preparation.nats_offset:
        return np.zeros(len(x))
    present = ~np.isnan(np.asarray(x))
    spread = np.asarray(preparation.spread, np.float64)
    each = -np.log(spread) if spread.size else preparation.nats_offset
    return np.sum(present * each, axis=tuple(range(1, present.ndim)))


def per_step(values: dict[str, np.ndarray], x: Any, *, of_tokens: bool) -> dict[str, Any]:
    """Returns nats per step of the measurements of sequences, for `evaluation.json`.

    All steps count alike: the sum over the sequences is divided by the number of steps.

    Args:
        values: nats of each sequence by name; log p or bounds.
        x: the sequences [N, T, ...], NaN after their ends.
        of_tokens: whether the steps are tokens, which have a perplexity.
    """
    steps = int(data.lengths(x).sum())
    means = {name: float(np.sum(nats, dtype=np.float64)) / steps for name, nats in values.items()}
    found: dict[str, Any] = {"steps": steps, "mean_steps": steps / len(x), **means}
    if of_tokens:
        found["perplexity"] = math.exp(min(700.0, -means["log_marginal"]))
    return found
