"""`choose`: compares models of a data set within a budget of time, and recommends one."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w

from keras_vae.choosing.candidates import Axis, Candidate, axes_of, first_of
from keras_vae.choosing.choice import Choice
from keras_vae.choosing.problem import Problem
from keras_vae.choosing.records import Records
from keras_vae.choosing.search import DROPPED, Search, Spent, Trial, difference
from keras_vae.choosing.training import trained
from keras_vae.data import DataError
from keras_vae.distributions.names import PRIORS
from keras_vae.evaluation import mean_and_error
from keras_vae.runs.config import RESUMABLE, RunConfig, RunError
from keras_vae.runs.durations import as_seconds
from keras_vae.runs.lock import held
from keras_vae.runs.setting import is_a
from keras_vae.spelling import meant
from keras_vae.training.backup import write_atomically
from keras_vae.training.guard import NonFiniteError

__all__ = ["choose"]

_SPARE = 1.25
_AT_ATOMS = 0.05


def choose(
    data: str | os.PathLike[str] | RunConfig,
    *,
    budget: str | float,
    out: str | os.PathLike[str],
    likelihoods: Sequence[str] = (),
    latents: Sequence[int] = (),
    widths: Sequence[int] = (),
    priors: Sequence[str] = (),
    epochs: int = 1000,
    resume: bool = False,
    report: Callable[[str], None] = lambda sentence: None,
    watch: Callable[[str], None] = lambda sentence: None,
    **settings: Any,
) -> Choice:
    """Compares models of a data set by held-out nats, and recommends one.

    One setting is varied at a time: likelihood, number of latents, width, prior. Each model is
    trained until its held-out ELBO settles, its share of the budget is used up, or it could not
    catch up with the leader any more. Two models are compared on the same validation examples, by
    the mean difference of their ELBO and its standard error. The recommended model is the simplest
    one that is not behind the best one by more than two standard errors, and the search ends when
    no change of one setting is ahead. The test examples are measured once, under that model.

    Bounds are in the units of the data, also where a likelihood takes it rescaled: the Jacobian is
    added. Probabilities are never compared with densities.

    Args:
        data: path or name for `keras_vae.data.load`, or a configuration with it.
        budget: time, such as "30m", "90s", "1h", or seconds.
        out: directory of the trials, and of the recommended `config.toml`.
        likelihoods: names to compare; empty compares those that suit the data.
        latents, widths, priors: values to compare instead of the default ones. Priors are in order
            from the simplest.
        epochs: most epochs of one training.
        resume: whether to continue a choice that was interrupted; at most one training is lost.
        report: called with messages about what is decided.
        watch: called with a message after each epoch.
        **settings: other settings of a `RunConfig`, such as batch_size, drop or seed.

    Returns:
        The trials and the recommended model.

    Raises:
        RunError: if a setting is wrong, or the directory cannot be used.
        DataError: if the data cannot be read or modelled.

    Example:
        >>> import tempfile
        >>> found = choose(
        ...     "digits",
        ...     budget="5s",
        ...     out=tempfile.mkdtemp(),
        ...     epochs=1,
        ...     latents=[2],
        ...     widths=[8],
        ...     likelihoods=["poisson"],
        ...     priors=["standard_normal"],
        ... )
        >>> print(found.recommended.candidate)
        poisson, 2 latents, width 8, standard_normal
        >>> found.config.epochs
        1
    """
    began = time.perf_counter()
    limit = as_seconds(budget)
    config = data if isinstance(data, RunConfig) else RunConfig(data=os.fspath(data))
    config = dataclasses.replace(config, **settings)
    if config.likelihood != "auto" and not likelihoods:
        likelihoods = (config.likelihood,)
    _check(config, latents, widths, priors)
    config = dataclasses.replace(config, likelihood="auto")
    out = Path(out)
    with held(out):
        records = Records(out, resume=resume)
        problem = Problem(config, likelihoods, report)
        axes = axes_of(
            likelihoods=problem.likelihoods,
            size=problem.size,
            latents=latents,
            widths=widths,
            priors=priors,
            is_convolution=config.network == "conv",
        )
        records.check(_settings(config, axes, problem, epochs))
        share = limit / (_SPARE * _expected(axes))
        train, held_out, test = problem.examples
        report(
            f"{train} training, {held_out} validation and {test} test examples. Each model may "
            f"train for {share:.{0 if share >= 10 else 1}f} s. Differences are to the best so far, "
            "with standard errors:"
        )
        run = _Run(problem, records, share, limit - records.seconds, began, epochs, report, watch)
        search = Search(axes, run.measure)
        with _quiet_tensorflow():
            found = search.run(first_of(axes, problem.size))
            if found is None:
                records.remove()
                raise RunError(f"No model could be trained. {run.reasons[0]}")
            again = run.again(found) if search.is_complete else None
        chosen = problem.recommended(found.candidate, found.epochs)
        with write_atomically(out / "config.toml") as temporary:
            temporary.write_text(_toml(chosen))
        bounds = problem.test(records.model(found.candidate), found.candidate)
    return Choice(
        trials=tuple(search.trials),
        recommended=found,
        is_complete=search.is_complete,
        again=again,
        config=chosen,
        test=mean_and_error(bounds),
        examples=problem.examples,
        units=problem.units,
        seconds=time.perf_counter() - began,
        out=out,
        notes=(*_notes(problem), *run.reasons),
    )


class _Run:
    """Trainings within a budget of time, each recorded on disk."""

    def __init__(
        self,
        problem: Problem,
        records: Records,
        share: float,
        limit: float,
        began: float,
        epochs: int,
        report: Callable[[str], None],
        watch: Callable[[str], None],
    ) -> None:
        self.reasons: list[str] = []
        self._problem, self._records, self._share = problem, records, share
        self._limit, self._began, self._epochs = limit, began, epochs
        self._report, self._watch = report, watch
        self._longest = self._beside = 0.0
        self._number = 0

    def measure(self, candidate: Candidate, rival: Trial | None) -> Trial | None:
        """Returns the trial of a candidate; None if it could not be trained."""
        known = self._records.load(candidate, self._share, self._problem.examples[1])
        if known is None:
            known = self._trained(candidate, rival)
        if isinstance(known, str):
            self.reasons.append(f"Left out {candidate}: {known}")
            return None
        self._longest = max(self._longest, known.seconds)
        self._beside = max(self._beside, known.seconds - known.share)
        self._number += 1
        self._report(f"{self._number:>3}  {_in_words(known, rival)}")
        return known

    def again(self, first: Trial) -> Trial | None:
        """Returns the trial of a candidate with another seed; None if no time is left."""
        try:
            return self.measure(first.candidate._replace(repeat=1), first)
        except Spent:
            return None

    def _trained(self, candidate: Candidate, rival: Trial | None) -> Trial | str:
        started = time.perf_counter()
        # What comes beside the epochs comes once more at the end, when test examples are measured.
        left = self._limit - (started - self._began) - self._beside
        if self._number and left < min(self._share + self._beside, self._longest):
            raise Spent
        try:
            trial, vae, beside = trained(
                self._problem,
                candidate,
                rival=rival,
                share=min(self._share, left - self._beside) if self._number else self._share,
                epochs=self._epochs,
                watch=self._watch,
            )
        except (DataError, NonFiniteError) as error:
            self._records.fail(candidate, str(error), time.perf_counter() - started)
            return str(error)
        self._beside = max(self._beside, beside)
        self._records.save(trial, None if trial.ended == DROPPED else vae)
        return trial


@contextmanager
def _quiet_tensorflow() -> Iterator[None]:
    """Leaves out TensorFlow's warnings that many graphs are made: each model has its own."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check(
    config: RunConfig, latents: Sequence[int], widths: Sequence[int], priors: Sequence[str]
) -> None:
    """Refuses values that no candidate can have."""
    if not config.data:
        raise RunError("Name the data to compare models on: a path, or digits.")
    if config.is_text or config.is_sequence:
        raise RunError(
            "Expected arrays, images, counts or a table; texts and time series for networks of "
            "sequences cannot be compared yet. Train two and use `keras-vae compare`."
        )
    if config.condition:
        raise RunError(
            "Models with a condition cannot be compared by choose yet: leave condition out, and "
            "train the recommended model with --condition labels."
        )
    if config.latents != "vector":
        raise RunError(
            f"Expected models with a vector of latents; got latents = {config.latents!r}. Compare "
            "others by hand with `keras-vae compare`."
        )
    for name, values in (("latents", latents), ("widths", widths)):
        for value in values:
            if not is_a(int, value) or value < 1:
                raise RunError(f"Expected {name} to be whole numbers of at least 1; got {value}.")
    for prior in priors:
        if prior not in PRIORS:
            raise RunError(
                f"Expected priors among {', '.join(PRIORS)}; got {prior}{meant(prior, PRIORS)}."
            )


def _expected(axes: Sequence[Axis]) -> int:
    """Returns how many trainings a search mostly takes: of sizes only neighbours are tried."""
    return 1 + sum(min(len(axis.values) - 1, 3 if axis.is_ordered else 99) for axis in axes)


def _settings(
    config: RunConfig, axes: Sequence[Axis], problem: Problem, epochs: int
) -> dict[str, Any]:
    """Returns what trials must have in common with those on disk."""
    values = {key: value for key, value in _toml_values(config).items() if key not in RESUMABLE}
    values |= {axis.name: list(axis.values) for axis in axes}
    return {**values, "epochs": epochs, "validation examples": problem.fingerprint}


def _toml_values(config: RunConfig) -> dict[str, Any]:
    """Returns the settings that are not at their default."""
    default = RunConfig()
    values = {key: value for key, value in vars(config).items() if value != getattr(default, key)}
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in values.items()
    }


def _toml(config: RunConfig) -> str:
    """Writes the settings that are not at their default, and those that were chosen."""
    chosen = ("data", "likelihood", "latent", "hidden", "prior", "epochs")
    values = {key: getattr(config, key) for key in chosen}
    return tomli_w.dumps({**values, **_toml_values(config)})


def _in_words(trial: Trial, rival: Trial | None) -> str:
    """Returns a trial, and its difference to the one that led, in one line."""
    how = "dropped after" if trial.ended == DROPPED else "in"
    end = f"{how} {trial.seconds:.0f} s"
    if rival is None:
        return f"{trial.candidate}: {trial.mean:.2f} nats {end}"
    mean, error = difference(trial.bounds, rival.bounds)
    return f"{trial.candidate.beside(rival.candidate)}: {mean:+.2f} ± {error:.2f} nats {end}"


def _notes(problem: Problem) -> list[str]:
    share = problem.share_at_atoms
    if share <= _AT_ATOMS:
        return []
    return [
        f"{100 * share:.0f} % of the numbers are values that fill at least 1 % of their column. A "
        "density has no upper bound there, so the ranking also says how sharp a spike each "
        "likelihood puts on them."
    ]
