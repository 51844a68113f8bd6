"""Functions behind the commands: evaluate a run, draw from it, run the quickstart."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vae import evaluation, random
from keras_vae.report.subject import Subject
from keras_vae.runs import (
    baselines,
    bounds,
    classes,
    datasets,
    measurements,
    pictures,
    sequences,
    table_files,
    table_measures,
)
from keras_vae.runs.config import RunConfig, RunError
from keras_vae.runs.endings import check_ending, endings_of
from keras_vae.runs.run import Run
from keras_vae.runs.train import train
from keras_vae.runs.units import share_at_atoms, shown_range
from keras_vae.signatures import signatures
from keras_vae.spelling import counted
from keras_vae.training.backup import write_atomically

__all__ = [
    "evaluate",
    "invoked",
    "print_evaluation",
    "quickstart_config",
    "rate_distortion",
    "sample",
]

Report = Callable[[str], None]
_CHUNK = 1000
_MOST_COLUMNS = 20
_MOST_LABELS = 100


def evaluate(
    run: Run, *, num_samples: int, limit: int, seed: int, progress: bool, report: Report
) -> dict[str, Any]:
    """Measures bound and log-likelihood of a run on its test set; writes `evaluation.json`.

    Every number is about the same examples and in the units of the data file.

    Args:
        run: the run.
        num_samples: importance samples per example.
        limit: number of test examples, from the first on; 0 for all.
        seed: seed of all draws.
        progress: whether to show progress bars.
        report: called with messages.

    Returns:
        The content of the file: means in nats per example with their standard errors.
    """
    if run.schema is not None:
        return table_measures.evaluate(
            run, num_samples=num_samples, limit=limit, seed=seed, progress=progress, report=report
        )
    vae = run.load()
    sets, units = run.read(), run.units(vae)
    train_raw, test_raw = sets.train, sets.test
    every = run.test_inputs(sets)
    found = bounds.measure(
        run,
        vae,
        every,
        num_samples=num_samples,
        limit=limit,
        seed=seed,
        progress=progress,
        report=report,
    )
    x, log_p = bounds.first_of(every, limit), found.log_p
    count = len(log_p)
    if lack := _labels_left_out(sets.labels[1], count):
        report(lack)
    seen, given = datasets.few(train_raw), None
    if run.config.condition:
        labels = classes.one_hot(sets.labels[0], run.config.classes, run.config.data)
        given = labels[:: datasets.spacing(train_raw)], x["condition"]
    if len(seen) < len(train_raw):
        report(f"Simple models are fitted to {len(seen)} of {len(train_raw)} training examples.")
    simple = baselines.log_probs(
        seen,
        np.asarray(test_raw[:count]),
        run.preparation,
        vae.likelihood.support,
        run.config.num_latents,
        run.config.seed,
        given,
    )
    is_density = units.quantity == "log-density"
    values: dict[str, Any] = {
        "schema_version": measurements.SCHEMA_VERSION,
        **found.values(),
        "quantity": units.quantity,
        "data": units.data,
        "units": "nats per example, natural logarithm, in the units of the data file",
        "bits_per_dim": None if run.config.is_sequence else units.bits_per_dim(float(log_p.mean())),
        "variables": units.variables,
        **measurements.use_of_latents(vae, x, seed),
        "baselines": {name: measurements.summary(value) for name, value in simple.items()},
        "likelihood": run.config.likelihood,
        "condition": run.config.condition,
        "preparation": run.preparation.sentence,
        "preparation_nats": units.offset,
        "share_at_atoms": share_at_atoms(train_raw, run.preparation) if is_density else 0.0,
        "seed": seed,
    }
    if run.config.is_sequence:
        nats = {"elbo": found.elbo[:count], "log_marginal": log_p}
        values["per_step"] = sequences.per_step(nats, x, of_tokens=run.tokens is not None)
    run.write_json("evaluation.json", values)
    return values


def _labels_left_out(labels: np.ndarray | None, count: int) -> str | None:
    """Says how many labels the first test examples lack, as in folders read one by one."""
    if labels is None or labels.ndim != 1:
        return None
    seen, every = len(np.unique(labels[:count])), len(np.unique(labels))
    if seen == every or every > _MOST_LABELS:
        return None
    return (
        f"The first {counted(count, 'test example')} have {seen} of {every} labels; --limit 0 "
        "measures all."
    )


def print_evaluation(values: dict[str, Any]) -> None:
    """Prints an evaluation as a table, the best model first, with notes."""
    from rich.console import Console
    from rich.table import Table

    found = measurements.table(values)
    shown = Table()
    shown.add_column("model")
    shown.add_column("log p(x)", justify="right")
    shown.add_column("standard error", justify="right")
    for row in found.rows:
        shown.add_row(*row)
    console = Console()
    console.print(f"{found.title}:", highlight=False)
    console.print(shown)
    for note in found.notes:
        console.print(note, highlight=False)
    columns = measurements.columns(values)
    if columns is None:
        return
    shown = Table(box=None, pad_edge=False)
    for number, name in enumerate(columns.header):
        shown.add_column(name, justify="right" if number else "left")
    for cells in columns.rows:
        shown.add_row(*cells)
    console.print()
    console.print(shown)
    for note in columns.notes:
        console.print(note, highlight=False)


def rate_distortion(
    run: Run, *, betas: tuple[float, ...], seed: int, report: Report
) -> evaluation.RateDistortion:
    """Measures rate and distortion of the run's model at each beta, trained again for each.

    Each model is a run in RUN/rate_distortion, which is continued if it was interrupted. The result
    is written to `rate_distortion.json`, which `report` draws. Distortions are in the units of the
    data file; all test examples are measured.

    Args:
        run: a finished run with the objective "elbo".
        betas: weights of the rate, each at least 0.
        seed: seed of the draws.
        report: called with messages.
    """
    config = run.config
    if config.objective != "elbo":
        raise RunError(
            f"Expected a run with the objective elbo, in which beta weights the rate; {run.path} "
            f"was trained with {config.objective}."
        )
    models = {config.beta: run.load()}
    for beta in sorted(set(betas) - set(models)):
        report(f"Training at beta {beta:g}, as {run.path} was trained")
        path = run.path / "rate_distortion" / f"beta_{beta:g}"
        models[beta] = train(dataclasses.replace(config, beta=beta), path, resume=True).load()
    if run.schema is None:
        sets = run.read()
        x = run.test_inputs(sets)
    else:
        x = run.table().test.x
    units = run.units(models[config.beta])
    found = evaluation.rate_distortion(models, x, seed=seed)
    found = dataclasses.replace(found, distortion=units.distortion(found.distortion))
    values = {name: value.tolist() for name, value in dataclasses.asdict(found).items()}
    about = {
        "schema_version": measurements.SCHEMA_VERSION,
        "test_examples": len(keras.tree.flatten(x)[0]),
        "quantity": units.quantity,
        "data": units.data,
    }
    run.write_json("rate_distortion.json", {**about, **values})
    report(f"Measured on all {about['test_examples']} test examples: {units}.")
    return found


def sample(
    run: Run,
    *,
    count: int,
    seed: int,
    mean: bool,
    out: Path,
    report: Report,
    labels: Sequence[str] = (),
) -> None:
    """Writes draws from a run's model into a file, in the units and columns of the data file.

    A picture shows draws of x beside the decoder means at the same z. `keras_vae.data.load` reads
    the other formats.

    Args:
        run: the run.
        count: number of draws.
        seed: seed of the draws.
        mean: whether to write only decoder means.
        out: path that ends in .npy, .csv, .parquet or .png; for a table as it is, in .csv, .tsv,
            .parquet or .feather; for texts, in .txt or .jsonl.
        report: called with messages.
        labels: of a run with a condition, the labels that take turns; empty for all.

    Raises:
        RunError: if a label is none of the run's, or the ending does not suit the data.
    """
    names = tuple(labels) or run.config.classes
    given = {"condition": classes.take_turns(names, run.config.classes, count)} if names else {}
    if run.schema is not None:
        table_files.sample(run, count=count, seed=seed, mean=mean, out=out)
        report(f"Wrote {count} {'decoder means' if mean else 'draws'} to {out}.")
        return
    check_ending(out, endings_of(run.config))
    ending = out.suffix.lower()
    if run.tokens is not None:
        texts = sequences.drawn(run, count, seed, mean=mean)
        sequences.write_texts(texts, out)
        report(
            f"Wrote {count} {'most probable texts at draws of z' if mean else 'texts'} to {out}."
        )
        return
    vae = run.load()
    table = signatures(vae, run.preparation)
    shape = tuple(table["encode"].inputs["x"].shape[1:])
    if ending == ".png" and not pictures.is_image(shape):
        raise RunError(
            f"The model's data has shape {shape}, not that of an image; choose .npy, .csv or "
            ".parquet."
        )
    inputs = {"seed": random.row_seeds(seed, count), **given}
    parts = [
        table["sample"].function(**{k: v[start : start + _CHUNK] for k, v in inputs.items()})
        for start in range(0, count, _CHUNK)
    ]
    draws, means = (np.concatenate([part[key] for part in parts]) for key in ("sample", "mean"))
    name = "decoder means" if mean else "draws"
    if ending == ".png" and mean and means.shape != draws.shape:
        raise RunError("The means are probabilities of categories; choose .npy, or draws.")
    with write_atomically(out) as temporary:
        if ending == ".npy":
            np.save(temporary, means if mean else draws)
        elif ending in (".csv", ".parquet"):
            numbers, columns = (means if mean else draws), run.config.features
            if run.config.entries:
                numbers, columns = sequences.rows_of_steps(numbers, run.config.entries)
            _write_table(numbers, columns, temporary, names)
        else:
            titles = pictures.titles(vae.likelihood.support)
            panels = {} if mean else {titles[0]: draws}
            if means.shape == draws.shape:
                panels[titles[1]] = means
            name = " and ".join(panels)
            span = shown_range(vae, run.preparation, means)
            turns = len(names) if 1 < len(names) <= _MOST_COLUMNS else 1
            pictures.image_grid(panels, temporary, span, turns)
    labelled = (
        f"; {'labels in turn' if names[1:] else 'label'}: {', '.join(names)}" if names else ""
    )
    report(f"Wrote {count} {name} to {out}, in the units of the data file{labelled}.")


def _write_table(
    draws: np.ndarray, names: tuple[str, ...], path: Path, labels: tuple[str, ...] = ()
) -> None:
    """Writes draws as a table with a header; whole-number columns as whole numbers.

    Labels, which take turns, become a last column.
    """
    import pandas as pd

    columns = draws.reshape(len(draws), -1).T
    if len(names) != len(columns):
        names = tuple(f"x{index}" for index in range(len(columns)))
    whole = [np.all((column == np.rint(column)) & (abs(column) < 2.0**63)) for column in columns]
    frame = pd.DataFrame(
        {
            name: column.astype(np.int64) if is_whole else column
            for name, column, is_whole in zip(names, columns, whole, strict=True)
        }
    )
    if labels:
        frame["label"] = [labels[row % len(labels)] for row in range(len(draws))]
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, float_format="%.9g", lineterminator="\n")


def draw_pictures(run: Run, seed: int) -> list[Path]:
    """Draws samples, reconstructions and learning curves of a run into PNG files beside it."""
    subject = Subject.of(run, seed)
    written = [run.path / "learning_curves.png"]
    with write_atomically(written[0]) as temporary:
        pictures.learning_curves(run.history(), temporary, subject.units.offset)
    if subject.is_image:
        written += [run.path / "samples.png", run.path / "reconstructions.png"]
        data = subject.raw[:100]
        names = ("test data", *subject.titles)
        panels = dict(zip(names, (data, *subject.draws(len(data)).values()), strict=True))
        with write_atomically(written[1]) as temporary:
            pictures.image_grid(panels, temporary, subject.range)
        means = subject.reconstructed(60)
        with write_atomically(written[2]) as temporary:
            pictures.reconstructions(data[:60], means, temporary, subject.range)
    return written


def quickstart_config() -> RunConfig:
    """Returns the quickstart's configuration: digits in 17 levels, a discretised logistic."""
    return RunConfig(
        data="digits",
        test_fraction=0.2,
        likelihood="discretized_logistic",
        hidden=(256, 128),
        activation="relu",
        latent=16,
        epochs=60,
        learning_rate=2e-3,
        monitor=True,
    )


def train_with_progress(config: RunConfig, out: Path, resume: bool, report: Report) -> Run:
    """Trains a run with a progress bar."""
    with EpochProgress(out, report) as progress:
        return train(config, out, resume=resume, report=report, extra_callbacks=(progress,))


def held_out(run: Run) -> str:
    """Describes the last held-out ELBO of a run, in the units of the data file."""
    units = run.units(run.load())
    elbo = units.log_p(run.history()[-1]["val_elbo"])
    return f"held-out elbo {elbo:.2f}, a lower bound on the {units}"


class EpochProgress(keras.callbacks.Callback):
    """Progress bar over all epochs; prints plain lines if the output is a file.

    Its numbers are in the units of the data file. It is a context manager, which restores the
    terminal however the training ends.
    """

    def __init__(self, out: Path, report: Report) -> None:
        super().__init__()
        self._out = out
        self._report = report
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> EpochProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.close()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._units = Run(self._out).units(self.model)
        console = Console()
        self._is_terminal = console.is_terminal
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            disable=not self._is_terminal,
        )
        self._closing.enter_context(self._bar)
        total = self.params["epochs"] * (self.params["steps"] or 1)
        self._task = self._bar.add_task("", total=total, epoch="0", numbers="")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remembers the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the bar."""
        done = self._epoch * (self.params["steps"] or 1) + batch + 1
        self._bar.update(self._task, completed=done, epoch=f"{self._epoch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Shows the epoch's numbers."""
        logs = logs or {}
        numbers = f"elbo {self._units.log_p(logs['elbo'], 'train'):.2f}"
        if "val_elbo" in logs:
            numbers += f", held-out {self._units.log_p(logs['val_elbo']):.2f} nats"
        self._bar.update(self._task, numbers=numbers)
        every = max(1, self.params["epochs"] // 10)
        if not self._is_terminal and (epoch + 1) % every == 0:
            self._report(f"epoch {epoch + 1}/{self.params['epochs']}: {numbers}")


def invoked() -> str:
    """Returns how this command was called, for commands that the user types next."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return f"{sys.executable} -m keras_vae"
    return path.name if shutil.which(path.name) == str(path) else str(path)
