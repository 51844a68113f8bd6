"""Tasks: the data of a training, prepared, and the model that fits it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from keras_vae import data, factories
from keras_vae.data import Schema, Vocabulary
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import prepare, propose
from keras_vae.likelihood_model import LikelihoodModel
from keras_vae.runs import classes, datasets, sequences, tables
from keras_vae.runs.building import build, build_table
from keras_vae.runs.config import RunConfig, RunError
from keras_vae.runs.run import Run
from keras_vae.spelling import counted
from keras_vae.training.data_spec.presence import presence

__all__ = ["Task", "of_arrays", "of_table", "read", "task_of"]

Report = Callable[[str], None]


class Task(NamedTuple):
    """Data of a training, and the model that fits it.

    Attributes:
        train: training set, prepared but for the random steps, an array or a dict of these.
        test: test set, prepared.
        examples: size of the training set.
        stream: arguments of `keras_vae.data.batches` for the random steps.
        make: makes the compiled model of a configuration, with new weights.
        schema: columns of a table as it is.
        vocabulary: tokens of texts.
    """

    train: Any
    test: Any
    examples: int
    stream: dict[str, Any]
    make: Callable[[RunConfig], LikelihoodModel]
    schema: Schema | None = None
    vocabulary: Vocabulary | None = None


def task_of(config: RunConfig, run: Run | None, report: Report) -> tuple[RunConfig, Task]:
    """Reads the data of a configuration; returns it completed, and the task.

    Args:
        config: the configuration.
        run: the run that is continued, or None.
        report: called with messages about what was decided.

    Raises:
        DataError: if the data cannot be read or does not suit the likelihood.
        RunError: if a setting has no effect.
    """
    if config.is_text:
        config, task = _of_texts(config, run, report)
    elif (sets := read(config, run, report)) is None:
        config, task = of_table(config, run, report)
    else:
        config, task = of_arrays(config, sets, report)
    decided = config.decided_for(task.examples)
    if config.epochs == "auto":
        epochs = decided.epochs_of(task.examples)
        steps = counted(epochs * data.steps(task.examples, config.batch_size), "step")
        falling = (
            f", with a learning rate that falls from {decided.learning_rate:g} to 0"
            if decided.learning_rate_schedule == "cosine"
            else ""
        )
        report(
            f"Trains {counted(epochs, 'epoch')}, {steps}{falling}; --epochs chooses another number."
        )
    return decided, task


def read(config: RunConfig, run: Run | None, report: Report) -> datasets.Datasets | None:
    """Reads training and test set of arrays; returns None for a table as it is.

    Arguments and errors are those of `task_of`.
    """
    if run.schema if run is not None else tables.is_asked(config):
        return None
    if large := datasets.advice(config):
        report(large)
    try:
        sets = datasets.read(config)
    except data.DataError:
        if run is not None or config.is_sequence or not tables.is_needed(config):
            raise
        return None
    report(f"{len(sets.train)} training and {len(sets.test)} test examples; {sets.columns}.")
    if config.keep_labels and not sets.features:
        raise RunError(f"keep_labels does nothing: {config.data} names no columns. Leave it out.")
    return sets


def of_arrays(config: RunConfig, sets: datasets.Datasets, report: Report) -> tuple[RunConfig, Task]:
    """Returns the completed configuration of arrays, and the task.

    Args:
        config: the configuration; if it names no preparation, the data decides it.
        sets: training and test set.
        report: called with messages about what was decided.

    Raises:
        DataError: if the data does not suit the likelihood.
    """
    if config.preparation is None:
        config = _decided(config, sets, report)
    preparation = config.preparation or Preparation()
    x = preparation.static(sets.train)
    train, test = x, preparation.array(sets.test, config.seed)
    stream = preparation.stream()
    if config.condition:
        config, given = _conditions(config, sets, report)
        train, test = (
            {"x": rows, "condition": c} for rows, c in zip((x, test), given, strict=True)
        )
        stream = {name: {"x": step} for name, step in stream.items() if step is not None}

    def make(config: RunConfig) -> LikelihoodModel:
        vae = build(config, x.shape[1:])
        if config.output_bias == "data_mean":
            factories.start_at_mean(vae, preparation.mean(sets.train))
        vae.feature_names = sets.features or None
        vae.preparation_digest = preparation.digest
        return vae

    if config.is_sequence and not config.is_text:
        offsets = (float(sequences.row_nats(preparation, rows).mean()) for rows in (x, test))
        config = dataclasses.replace(config, row_nats=tuple(offsets))
    return config, Task(train, test, len(x), stream, make)


def _conditions(
    config: RunConfig, sets: datasets.Datasets, report: Report
) -> tuple[RunConfig, list[np.ndarray]]:
    """Returns the configuration with its classes, and the conditions of both sets."""
    train, test = sets.labels
    if config.classes:
        known = config.classes
    elif config.test_data or train is None or test is None:
        known = classes.found(train, config.data)
    else:
        known = classes.found(np.concatenate([train, test]), config.data)
    given = [
        classes.one_hot(train, known, config.data),
        classes.one_hot(test, known, config.test_data or config.data),
    ]
    report(f"Condition: the label, one of {classes.counts(given[0], known)}.")
    return dataclasses.replace(config, classes=known), given


def of_table(config: RunConfig, run: Run | None, report: Report) -> tuple[RunConfig, Task]:
    """Returns the completed configuration of a table as it is, and the task.

    Arguments and errors are those of `task_of`.
    """
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
    if found.train.frame is not None:
        for message in presence(found.train.x):
            report(message)
    offsets = (float(schema.row_nats(rows.x).mean()) for rows in (found.train, found.test))
    config = dataclasses.replace(config, row_nats=tuple(offsets))
    task = Task(
        found.train.x,
        found.test.x,
        len(found.train),
        {},
        lambda config: build_table(config, schema),
        schema,
    )
    return config, task


def _of_texts(config: RunConfig, run: Run | None, report: Report) -> tuple[RunConfig, Task]:
    """Returns the completed configuration of texts, and the task."""
    if run is None:
        config = sequences.decided_texts(config, report)
    else:
        config = dataclasses.replace(config, preparation=run.preparation)
    tokens = (config.preparation or Preparation()).vocabulary
    if tokens is None:
        raise RunError("The configuration of texts has no vocabulary.")
    sets = datasets.Datasets(*sequences.read_texts(config, tokens), (), "texts")
    report(f"{len(sets.train)} training and {len(sets.test)} test texts.")
    config, task = of_arrays(config, sets, report)
    return config, task._replace(vocabulary=Vocabulary.of_tokens(tokens))


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
        entries=sets.entries,
        output_bias=output_bias,
        preparation=preparation,
        likelihood_options={**options, **config.likelihood_options},
    )
