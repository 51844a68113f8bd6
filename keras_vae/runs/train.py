"""Training of a run: builds the model of a configuration and trains it."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_vae import callbacks, data, factories, objectives
from keras_vae.data import Schema, Vocabulary
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import prepare, propose
from keras_vae.hierarchical import HierarchicalVAE
from keras_vae.likelihood_model import LikelihoodModel
from keras_vae.model import VAE
from keras_vae.runs import datasets, sequences, tables
from keras_vae.runs.config import TEXT, RunConfig, RunError
from keras_vae.runs.lock import held
from keras_vae.runs.run import SCHEMA, Run
from keras_vae.training.backup import write_atomically

__all__ = ["build", "build_table", "learning_rate", "train"]

_STEPS_OF_WARM_UP = 20
"""Training steps per execution during KL warm-up; beta is updated once per execution."""


def build(config: RunConfig, event_shape: tuple[int, ...]) -> LikelihoodModel:
    """Builds the compiled model of a configuration, with new weights.

    Args:
        config: what to train; its likelihood is not "auto".
        event_shape: shape of one prepared example.
    """
    if config.is_sequence:
        return _compiled(config, _of_sequences(config, event_shape))
    if config.latents == "codes":
        return _compiled(config, _of_codes(config, event_shape))
    if config.latents in ("ladder", "residual"):
        return _compiled(config, _of_levels(config, event_shape))
    make = factories.conv_vae if config.network == "conv" else factories.mlp_vae
    widths: dict[str, Any] = {"filters" if config.network == "conv" else "hidden": config.hidden}
    vae = make(
        event_shape,
        config.latent,
        config.likelihood,
        activation=config.activation,
        posterior=config.posterior,
        prior=config.prior,
        num_components=config.components,
        posterior_options=config.options_of("posterior"),
        prior_options=config.options_of("prior"),
        **widths,
        **config.likelihood_options,
    )
    return _compiled(config, vae)


def _of_sequences(config: RunConfig, event_shape: tuple[int, ...]) -> VAE:
    """Builds the model of texts or time series; a width for all layers is checked before."""
    network: Any = config.network
    return factories.sequence_vae(
        event_shape,
        config.latent,
        "categorical" if config.likelihood == TEXT else config.likelihood,
        network=network,
        width=config.hidden[0],
        depth=len(config.hidden),
        activation=config.activation,
        seasons=config.seasons or None,
        autoregressive=config.autoregressive,
        word_dropout=config.word_dropout,
        posterior=config.posterior,
        prior=config.prior,
        num_components=config.components,
        posterior_options=config.options_of("posterior"),
        prior_options=config.options_of("prior"),
        **config.likelihood_options,
    )


def _of_codes(config: RunConfig, event_shape: tuple[int, ...]) -> VAE:
    return factories.vq_vae(
        event_shape,
        config.likelihood,
        codes=config.codes,
        code_size=config.code_size,
        count=None if config.network == "conv" else config.latent,
        hidden=config.hidden,
        activation=config.activation,
        prior=config.code_prior,
        **config.likelihood_options,
    )


def _of_levels(config: RunConfig, event_shape: tuple[int, ...]) -> HierarchicalVAE:
    """Builds the model of several levels of a configuration."""
    structure: Any = config.latents
    network: Any = config.network
    return factories.hierarchical_vae(
        event_shape,
        config.levels,
        config.likelihood,
        structure=structure,
        network=network,
        hidden=config.hidden,
        activation=config.activation,
        **config.likelihood_options,
    )


def build_table(config: RunConfig, schema: Schema) -> LikelihoodModel:
    """Builds the compiled model of a table as it is, with new weights.

    Raises:
        RunError: if its latents are to be codes or levels.
    """
    if config.latents != "vector":
        raise RunError(
            f"latents = {config.latents!r} is for arrays and images, and this data is a table with "
            "a likelihood for each column: leave it out."
        )
    vae = factories.table_vae(
        schema,
        config.latent,
        hidden=config.hidden,
        activation=config.activation,
        posterior=config.posterior,
        prior=config.prior,
        num_components=config.components,
        posterior_options=config.options_of("posterior"),
        prior_options=config.options_of("prior"),
        drop=config.drop_observed,
    )
    return _compiled(config, vae)


def _compiled(config: RunConfig, vae: LikelihoodModel) -> LikelihoodModel:
    gradient: Any = config.gradient
    kl: Any = config.kl or None
    objective: objectives.Objective
    if config.objective == "iwae":
        objective = objectives.IWAE(config.num_samples, gradient=gradient)
    else:
        objective = objectives.ELBO(
            kl=kl,
            num_samples=config.num_samples,
            beta=config.beta,
            free_bits=config.free_bits,
            gradient=gradient,
        )
    adam = keras.optimizers.Adam(
        config.learning_rate, config.adam_beta_1, epsilon=config.adam_epsilon
    )
    steps = _STEPS_OF_WARM_UP if config.warmup_epochs else None
    vae.compile(adam, objective, monitor=config.monitor, steps_per_execution=steps)
    return vae


def learning_rate(config: RunConfig, epoch: int) -> float:
    """Returns the learning rate of an epoch, counted from 0."""
    if config.learning_rate_schedule == "cosine":
        return config.learning_rate * (1 + math.cos(math.pi * epoch / config.epochs)) / 2
    passed = sum(milestone <= epoch for milestone in config.learning_rate_milestones)
    return config.learning_rate * config.learning_rate_decay**passed


def train(
    config: RunConfig,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    report: Callable[[str], None] = lambda sentence: None,
    extra_callbacks: tuple[keras.callbacks.Callback, ...] = (),
) -> Run:
    """Trains a model into a run directory, or continues a killed training.

    Args:
        config: what to train. For a resumed run, only the paths of the data and the number of
            epochs count: training continues until that many are finished.
        out: the run directory.
        resume: whether to continue the existing run.
        report: called with messages about the progress.
        extra_callbacks: Keras callbacks, such as a progress bar.

    Raises:
        RunError: if the directory is in use, or a setting has no effect.
        DataError: if the data cannot be read or does not suit the likelihood.
        NonFiniteError: if training is no longer finite; the last good model stays.
        OSError: if the directory cannot be written.
    """
    out = Path(out)
    with held(out):
        run = Run(out) if resume and (out / "config.toml").is_file() else None
        if run is not None:
            config = dataclasses.replace(
                run.config,
                epochs=config.epochs,
                data=config.data or run.config.data,
                test_data=config.test_data or run.config.test_data,
                cache=config.cache or run.config.cache,
            )
        elif any(out.iterdir()):
            raise RunError(
                f"{out} exists and is not empty. Continue it with --resume or choose another --out."
            )
        else:
            config.refuse_idle()
        if config.is_text:
            return _train_texts(config, run, out, report, extra_callbacks)
        if run.schema if run is not None else tables.is_asked(config):
            return _train_table(config, run, out, report, extra_callbacks)
        if large := datasets.advice(config):
            report(large)
        try:
            sets = datasets.read(config)
        except data.DataError:
            if run is not None or config.is_sequence or not tables.is_needed(config):
                raise
            return _train_table(config, run, out, report, extra_callbacks)
        report(f"{len(sets.train)} training and {len(sets.test)} test examples; {sets.columns}.")
        if config.keep_labels and not sets.features:
            raise RunError(
                f"keep_labels does nothing: {config.data} names no columns. Leave it out."
            )
        if config.preparation is None:
            config = _decided(config, sets, report)
        task = _of_arrays(config, sets, config.preparation or Preparation())
        if config.is_sequence:
            offsets = _mean_nats(task, config.preparation or Preparation())
            config = dataclasses.replace(config, row_nats=offsets)
        return _fit(config, task, run, out, report, extra_callbacks)


class _Task(NamedTuple):
    """Data of a training, and the model that fits it.

    Attributes:
        train: training set, prepared but for the random steps, an array or a dict of these.
        test: test set, prepared.
        examples: size of the training set.
        stream: arguments of `keras_vae.data.batches` for the random steps.
        make: makes the compiled model with new weights.
        schema: columns of a table as it is.
        vocabulary: tokens of texts.
    """

    train: Any
    test: Any
    examples: int
    stream: dict[str, Any]
    make: Callable[[], LikelihoodModel]
    schema: Schema | None = None
    vocabulary: Vocabulary | None = None


def _of_arrays(config: RunConfig, sets: datasets.Datasets, preparation: Preparation) -> _Task:
    x = preparation.static(sets.train)

    def make() -> LikelihoodModel:
        vae = build(config, x.shape[1:])
        if config.output_bias == "data_mean":
            factories.start_at_mean(vae, preparation.mean(sets.train))
        vae.feature_names = sets.features or None
        vae.preparation_digest = preparation.digest
        return vae

    test = preparation.array(sets.test, config.seed)
    return _Task(x, test, len(x), preparation.stream(), make)


def _mean_nats(task: _Task, preparation: Preparation) -> tuple[float, ...]:
    """Returns the means over training and test set of the nats for the units of the file."""
    sets = (task.train, task.test)
    return tuple(float(sequences.row_nats(preparation, x).mean()) for x in sets)


def _train_texts(
    config: RunConfig,
    run: Run | None,
    out: Path,
    report: Callable[[str], None],
    extra_callbacks: tuple[keras.callbacks.Callback, ...],
) -> Run:
    """Trains a model of texts."""
    if run is None:
        config = sequences.decided_texts(config, report)
    preparation = (run.preparation if run is not None else config.preparation) or Preparation()
    tokens = preparation.vocabulary
    if tokens is None:
        raise RunError(f"{out} has no vocabulary.")
    sets = datasets.Datasets(*sequences.read_texts(config, tokens), (), "texts")
    report(f"{len(sets.train)} training and {len(sets.test)} test texts.")
    task = _of_arrays(config, sets, preparation)
    vocabulary = Vocabulary.of_tokens(tokens)
    return _fit(config, task._replace(vocabulary=vocabulary), run, out, report, extra_callbacks)


def _train_table(
    config: RunConfig,
    run: Run | None,
    out: Path,
    report: Callable[[str], None],
    extra_callbacks: tuple[keras.callbacks.Callback, ...],
) -> Run:
    """Trains a model of a table as it is."""
    if run is None or run.schema is None:
        config, schema = tables.decided(config)
        report(
            f"{config.data} is modelled as a table, column by column; change how with `keras-vae "
            f"schema {config.data} --out schema.toml` and --schema."
        )
        report(str(schema))
    else:
        schema = run.schema
    found = tables.read(config, schema)
    report(f"{len(found.train)} training and {len(found.test)} test rows.")
    offsets = (float(schema.row_nats(rows.x).mean()) for rows in (found.train, found.test))
    config = dataclasses.replace(config, row_nats=tuple(offsets))
    task = _Task(
        found.train.x,
        found.test.x,
        len(found.train),
        {},
        lambda: build_table(config, schema),
        schema,
    )
    return _fit(config, task, run, out, report, extra_callbacks)


def _decided(
    config: RunConfig, sets: datasets.Datasets, report: Callable[[str], None]
) -> RunConfig:
    """Completes the configuration with the settings that the data decides."""
    train, test = sets.train, sets.test
    if config.is_sequence:
        train, test = sequences.present_steps(train), sequences.present_steps(test)
    if config.likelihood == "auto":
        proposal = propose(factories.LIKELIHOODS.values(), [train, test], top=config.top or None)
        options = {**proposal.options, **config.likelihood_options}
        config = dataclasses.replace(
            config, likelihood=proposal.likelihood, likelihood_options=options
        )
        words = "".join(f", {name} {value}" for name, value in proposal.options.items())
        report(
            f"Likelihood {proposal.likelihood}{words}, for {proposal.reason}; --likelihood "
            "chooses another."
        )
        config.refuse_idle()
    likelihood = factories.LIKELIHOODS[config.likelihood]
    preparation, options = prepare(
        likelihood,
        train,
        [test],
        top=config.top or None,
        names=sets.features,
    )
    report(f"Preparation: {preparation.sentence}.")
    output_bias = config.output_bias
    if output_bias == "auto":
        is_far = likelihood.starts_at_mean(preparation)
        output_bias = "data_mean" if is_far and config.network == "mlp" else "zeros"
    return dataclasses.replace(
        config,
        features=sets.features,
        output_bias=output_bias,
        preparation=preparation,
        likelihood_options={**options, **config.likelihood_options},
    )


def _fit(
    config: RunConfig,
    task: _Task,
    run: Run | None,
    out: Path,
    report: Callable[[str], None],
    extra_callbacks: tuple[keras.callbacks.Callback, ...],
) -> Run:
    keras.utils.set_random_seed(config.seed)
    finished, vae = 0, None
    per_epoch = data.steps(task.examples, config.batch_size)
    if run is not None and run.model_path.is_file():
        vae = run.load()
        finished = run.finished(vae, task.examples)
        run.history(finished)
        if finished >= config.epochs:
            report(
                f"{finished} epochs are finished and {config.epochs} are requested: nothing to do. "
                "Set --epochs to train longer."
            )
            return run
    if vae is None:
        vae = task.make()
    is_new = run is None
    if is_new:
        for name, kept in ((SCHEMA, task.schema), (sequences.VOCABULARY, task.vocabulary)):
            if kept is not None:
                with write_atomically(out / name) as temporary:
                    kept.save(temporary)
    with write_atomically(out / "config.toml") as temporary:
        temporary.write_text(config.to_toml())
    run = Run(out)
    if finished:
        report(f"Continuing after epoch {finished} of {config.epochs}.")
    schedule: list[keras.callbacks.Callback] = []
    if config.learning_rate_milestones or config.learning_rate_schedule == "cosine":
        schedule.append(
            keras.callbacks.LearningRateScheduler(lambda epoch: learning_rate(config, epoch))
        )
    if config.warmup_epochs and config.objective == "elbo":
        schedule.append(
            callbacks.LinearSchedule("beta", stop=config.beta, epochs=config.warmup_epochs)
        )
    with _kept_or_removed(run, is_new):
        vae.fit(
            data.batches(
                task.train,
                config.batch_size,
                epochs=config.epochs,
                initial_epoch=finished,
                seed=config.seed,
                **task.stream,
            ),
            steps_per_epoch=per_epoch,
            epochs=config.epochs,
            initial_epoch=finished,
            validation_data=task.test,
            validation_batch_size=500,
            verbose=0,
            callbacks=[*schedule, _SaveRun(run, finished), *extra_callbacks],
        )
    return run


@contextmanager
def _kept_or_removed(run: Run, is_new: bool) -> Iterator[None]:
    """Removes the files of a new run that fails before its first epoch is saved.

    A run that is killed or interrupted keeps them, and can be resumed.
    """
    try:
        yield
    except Exception:
        if is_new and not run.model_path.is_file():
            for name in ("config.toml", "history.csv", SCHEMA, sequences.VOCABULARY):
                (run.path / name).unlink(missing_ok=True)
        raise


class _SaveRun(keras.callbacks.Callback):
    """Callback that writes history and model after each epoch, in this order."""

    def __init__(self, run: Run, finished: int) -> None:
        super().__init__()
        self._run = run
        self._rows = run.history(finished)[:finished] if finished else []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._rows.append({"epoch": epoch + 1, **{k: float(v) for k, v in (logs or {}).items()}})
        self._run.write_history(self._rows)
        self._run.save(self.model)
