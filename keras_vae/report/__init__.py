"""Report: one HTML file about a run, with all pictures inside and nothing to download."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from keras_vae import evaluation
from keras_vae.report import bounds, draws, latents, page, table_draws
from keras_vae.report.figures import Picture
from keras_vae.report.subject import Subject
from keras_vae.runs.run import Run
from keras_vae.training.backup import write_atomically
from keras_vae.training.monitor import ACTIVE

__all__ = ["write"]

_FEWEST_ROWS = 60
_MOST_COMPARED = 500


def write(
    run: Run,
    *,
    artifact: Path | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda sentence: None,
) -> str:
    """Measures a run and writes `report.html` into it.

    Args:
        run: a run with a finished epoch.
        artifact: directory of an exported version whose `parity.json` is included, or None.
        seed: seed of all draws.
        report: called with messages about the progress.

    Returns:
        The path of the file, as a string.

    Raises:
        RunError: if the run has no model or a damaged history, or the artifact has no parity.
    """
    subject = Subject.of(run, seed)
    run.history(max(1, subject.epochs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the curves show what they warn about
        report("Learning curves")
        training = [*bounds.curves(subject), *bounds.watched(subject)]
        distance = _distance(subject, report)
        report("Latents")
        used = latents.latents(subject)
        report("What the model draws")
        shown = draws.draws(subject)
        synthetic = _synthetic(subject)
        if synthetic is not None:
            shown = [*shown, *table_draws.compared(synthetic)]
        verdict = _verdict(subject)
    text = page.page(
        subject,
        f"{verdict} Looked at: {subject.examples()}.",
        [
            ("Data and draws", shown),
            ("Training", training),
            *([("How far the bound is from the truth", distance)] if distance else []),
            ("Latents", used),
        ],
        artifact,
        synthetic,
    )
    path = run.path / "report.html"
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return str(path)


def _distance(subject: Subject, report: Callable[[str], None]) -> list[Picture]:
    """Plots the gap of the bound; of codes, whose posterior is a point, only rate and distortion.

    Neither more draws nor annealing moves such a bound.
    """
    if subject.is_discrete:
        return bounds.frontier(subject)
    measured = None
    if subject.is_normal:
        report("How far the bound is from log p(x), by fitting q to examples: the longest step")
        measured = bounds.measured_gap(subject)
    report("The bound with more draws")
    distance = [bounds.bounds(subject, measured)]
    if measured is not None:
        distance.append(bounds.gap(subject, measured))
    return [*distance, *bounds.frontier(subject)]


def _verdict(subject: Subject) -> str:
    """Describes the use of the latents; without normal distributions by the active ones alone."""
    vae = subject.vae
    if subject.is_discrete:
        usage = evaluation.code_usage(vae, subject.x)
        return (
            f"The latents are codes: {usage.used:g} of {usage.num_codes} occur, with a perplexity "
            f"of {usage.perplexity:.1f}."
        )
    if subject.is_normal:
        return evaluation.diagnose(vae, subject.x, seed=subject.seed).verdict
    active = evaluation.active_units(vae, subject.x)
    return (
        f"{active} of {vae.latent_size} latents are active (variance of the posterior mean above "
        f"{ACTIVE})."
    )


def _synthetic(subject: Subject) -> evaluation.SyntheticReport | None:
    """Compares drawn rows of a table with real ones, if there are enough of these."""
    schema = subject.run.schema
    if schema is None or subject.available < _FEWEST_ROWS:
        return None
    table, names = subject.run.table(), list(schema.columns)
    drawn = subject.drawn_rows
    return evaluation.synthetic_report(
        table.train.few().frame[names],
        drawn[names],
        table.test.few().frame[names],
        kinds=schema,
        most=_MOST_COMPARED,
        seed=subject.seed,
    )
