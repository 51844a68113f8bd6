"""Problem: the data of a choice in three parts, and the models that are trained on it."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_vae import data, factories
from keras_vae.choosing.candidates import Candidate
from keras_vae.data import DataError
from keras_vae.data.mapped import is_mapped
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import propose
from keras_vae.data.row_views import SelectedRows
from keras_vae.likelihood_model import LikelihoodModel
from keras_vae.runs import datasets
from keras_vae.runs.config import TABLE, RunConfig, RunError, override
from keras_vae.runs.tasks import Task, of_arrays, of_table, read
from keras_vae.runs.units import Units, share_at_atoms
from keras_vae.spelling import meant

__all__ = ["Problem"]

_HELD_OUT = 0.2
_MOST_HELD_OUT = 5000
_FEWEST = 50
_DRAWS = 10
_ROWS_AT_ONCE = 1000

Report = Callable[[str], None]


class _Split(NamedTuple):
    """Data under one likelihood.

    Attributes:
        config: completed configuration.
        task: training examples, and the validation examples as its test set.
        test: test examples.
    """

    config: RunConfig
    task: Task
    test: Any


class Problem:
    """The data of a choice: training, validation and test examples.

    The test examples are those that `keras-vae train` sets aside with the same settings. A fifth
    of the others, at most 5000, are the validation examples. How numbers become data is decided as
    in `train`, from the range of all examples.

    Args:
        config: settings that all candidates share.
        likelihoods: names to compare; empty compares those that suit the data.
        report: called with messages.

    Attributes:
        likelihoods: names whose bounds are comparable; the first one is the reference.
        left_out: reasons by the names of likelihoods that are not compared.
        units: what the bounds are, in words.
        size: numbers in an example.
        examples: numbers of training, validation and test examples.

    Raises:
        RunError: if likelihoods that were named cannot be compared, or examples are too few.
        DataError: if the data cannot be read, or does not suit a likelihood that was named.
    """

    def __init__(self, config: RunConfig, likelihoods: Sequence[str], report: Report) -> None:
        self._asked = config
        self._kept: tuple[str, _Split] | None = None
        self.left_out: dict[str, str] = {}
        for name in likelihoods:
            if name != TABLE and name not in factories.LIKELIHOODS:
                known = [TABLE, *factories.LIKELIHOODS]
                raise RunError(
                    f"Expected likelihoods among {', '.join(known)}; got {name}"
                    f"{meant(name, known)}."
                )
        if TABLE in likelihoods:
            self._asked = override(config, {"likelihood": TABLE})
        self._asked.refuse_idle()
        self._sets = read(self._asked, None, report)
        if self._sets is None:
            if set(likelihoods) - {TABLE}:
                raise RunError(
                    "This table has text, categories or missing values, and each column has a "
                    "likelihood of its own. Leave the likelihood out; `keras-vae schema` and "
                    "--schema change that of a column."
                )
            self._table = of_table(self._asked, None, report)
            self.likelihoods: tuple[str, ...] = (TABLE,)
            self.units = str(self._units_of(TABLE))
        else:
            self._check_options(likelihoods)
            names = tuple(likelihoods) or self._proposed(self._sets, report)
            self._compare(names, is_asked=bool(likelihoods))
            for name, reason in self.left_out.items():
                report(f"Left out {name}: {reason}")
        split = self._split(self.likelihoods[0])
        counts = (split.task.examples, _count(split.task.test), _count(split.test))
        self.examples: tuple[int, int, int] = counts
        self.size = sum(math.prod(part.shape[1:]) for part in keras.tree.flatten(split.test))

    def _check_options(self, names: Sequence[str]) -> None:
        """Refuses options that none of the likelihoods takes."""
        known = [option for name in names or factories.LIKELIHOODS for option in _options_of(name)]
        for option in self._asked.likelihood_options:
            if option not in known:
                raise RunError(f"{', '.join(names)} take no {option}: leave it out.")

    def _proposed(self, sets: datasets.Datasets, report: Report) -> tuple[str, ...]:
        """Returns the likelihoods that suit the data, the proposed one first."""
        parts = [sets.train, sets.test]
        proposal = propose(factories.LIKELIHOODS.values(), parts, top=self._asked.top or None)
        names = (proposal.likelihood, *proposal.rivals)
        report(f"Likelihoods for {proposal.reason}: {', '.join(names)}.")
        return names

    def _compare(self, names: Sequence[str], is_asked: bool) -> None:
        """Keeps the likelihoods whose bounds are of the same quantity as that of the first one."""
        found: dict[str, str] = {}
        for name in names:
            try:
                found[name] = str(self._units_of(name))
            except DataError as error:
                if is_asked:
                    raise
                self.left_out[name] = str(error)
        if not found:
            raise DataError(next(iter(self.left_out.values())))
        first = next(iter(found))
        for name, units in found.items():
            if units == found[first]:
                continue
            reason = (
                f"its bound is on the {units}, and that of {first} on the {found[first]}; the two "
                "are not comparable."
            )
            if is_asked:
                raise RunError(f"{name} cannot be compared with {first}: {reason}")
            self.left_out[name] = reason
        self.likelihoods = tuple(name for name in found if found[name] == found[first])
        self.units = found[first]

    def _units_of(self, name: str) -> Units:
        split = self._split(name)
        if split.task.schema is not None:
            return Units.of_table(split.task.schema, ())
        small = dataclasses.replace(split.config, latent=1, hidden=(1,))
        return self._units(split.task.make(small), split)

    def _units(self, vae: LikelihoodModel, split: _Split) -> Units:
        return Units.of(vae, split.config.preparation or Preparation())

    def _split(self, name: str) -> _Split:
        """Returns the data under a likelihood, of which that of the last one is kept."""
        if self._kept is None or self._kept[0] != name:
            self._kept = name, self._divided(name)
        return self._kept[1]

    def _divided(self, name: str) -> _Split:
        if self._sets is None:
            config, whole = self._table
        else:
            asked = override(self._asked, {"likelihood": name})
            config, whole = of_arrays(asked, self._sets, lambda sentence: None)
        count = whole.examples
        if count < _FEWEST:
            raise RunError(
                f"Expected at least {_FEWEST} training examples, of which a fifth is held out; got "
                f"{count}."
            )
        share = min(_HELD_OUT, _MOST_HELD_OUT / count)
        rows = data.split(np.arange(count), test_fraction=share, seed=config.seed)
        train, held = (_taken(whole.train, some) for some in rows)
        task = whole._replace(
            train=train, test=_presented(held, whole.stream, config.seed), examples=len(rows[0])
        )
        return _Split(config, task, whole.test)

    def task(self, candidate: Candidate, epochs: int) -> tuple[RunConfig, Task]:
        """Returns the configuration of a candidate, and its data."""
        split = self._split(candidate.likelihood)
        config = dataclasses.replace(
            split.config,
            latent=candidate.latent,
            hidden=self._hidden(candidate.width),
            prior=candidate.prior,
            seed=split.config.seed + candidate.repeat,
            epochs=epochs,
        )
        return config, split.task

    def recommended(self, candidate: Candidate, epochs: int) -> RunConfig:
        """Returns the configuration with which `keras-vae train` trains a candidate."""
        settings = {
            "likelihood": candidate.likelihood,
            "latent": candidate.latent,
            "hidden": self._hidden(candidate.width),
            "prior": candidate.prior,
            "epochs": epochs,
        }
        return override(self._asked, settings)

    def _hidden(self, width: int) -> tuple[int, ...]:
        is_convolution = self._asked.network == "conv"
        return (max(1, width // 2), width) if is_convolution else (width, width)

    def validation(self, vae: LikelihoodModel, candidate: Candidate) -> np.ndarray:
        """Returns the ELBO of each validation example, nats in the units of the data [N]."""
        split = self._split(candidate.likelihood)
        return self._bounds(vae, split, split.task.test)

    def test(self, vae: LikelihoodModel, candidate: Candidate) -> np.ndarray:
        """Returns the ELBO of each test example, nats in the units of the data [N]."""
        split = self._split(candidate.likelihood)
        return self._bounds(vae, split, split.test)

    def _bounds(self, vae: LikelihoodModel, split: _Split, x: Any) -> np.ndarray:
        elbo = vae.elbo(x, num_samples=_DRAWS, seed=split.config.seed).elbo
        return np.asarray(elbo, np.float64) + self._offset(vae, split, x)

    def nats(self, vae: LikelihoodModel, candidate: Candidate, value: float) -> float:
        """Returns a mean validation bound of the prepared data in the units of the data."""
        split = self._split(candidate.likelihood)
        return value + float(np.mean(self._offset(vae, split, split.task.test)))

    def _offset(self, vae: LikelihoodModel, split: _Split, x: Any) -> Any:
        if split.task.schema is not None:
            return split.task.schema.row_nats(x)
        return self._units(vae, split).offset

    @property
    def share_at_atoms(self) -> float:
        """Share of the numbers at values where a density has no upper bound; 0 if none is used."""
        preparation = self._split(self.likelihoods[0]).config.preparation
        if self._sets is None or preparation is None or "density" not in self.units:
            return 0.0
        return share_at_atoms(datasets.few(self._sets.train), preparation)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the validation examples, in hexadecimal."""
        digest = hashlib.sha256(repr(self.examples).encode())
        for part in keras.tree.flatten(self._split(self.likelihoods[0]).task.test):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def _options_of(name: str) -> tuple[str, ...]:
    return () if name == TABLE else factories.LIKELIHOODS[name].options()


def _count(x: Any) -> int:
    return len(keras.tree.flatten(x)[0])


def _taken(x: Any, rows: np.ndarray) -> Any:
    """Returns some rows of an array, of rows of a file, or of a dict of these."""
    return keras.tree.map_structure(
        lambda part: SelectedRows(part, rows) if is_mapped(part) else part[rows], x
    )


def _presented(x: Any, stream: dict[str, Any], seed: int) -> Any:
    """Returns rows after the random steps, drawn once, in memory."""
    x = keras.tree.map_structure(np.asarray, x)
    if not any(value is not None for value in stream.values()):
        return x
    batches = data.batches(x, _ROWS_AT_ONCE, seed=seed, shuffle=False, **stream)
    return np.concatenate([batch.numpy() for batch in batches])
