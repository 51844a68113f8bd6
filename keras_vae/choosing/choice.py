"""Choice: what was compared, and the recommended model."""

from __future__ import annotations

import io
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from keras_vae.choosing.search import CLEAR, DROPPED, Trial, difference
from keras_vae.runs.config import RunConfig
from keras_vae.spelling import counted

__all__ = ["Choice"]

_WIDTH: Final = 80
_COLUMNS: Final = {
    "likelihood": "likelihood",
    "latent": "latents",
    "width": "width",
    "prior": "prior",
}


@dataclass(frozen=True)
class Choice:
    """Result of `choose`: the trials, and the recommended model. `print` shows it as a table.

    Attributes:
        trials: all trials, in the order in which they were made.
        recommended: the simplest trial that is not behind the best one.
        is_complete: whether every change of one setting was tried; otherwise the budget was spent.
        again: the recommended model trained with another seed, or None if no time was left.
        config: configuration with which `keras-vae train` trains it on all training examples.
        test: ELBO of the recommended model on the test examples, and its standard error.
        examples: numbers of training, validation and test examples.
        units: what the bounds are, in words.
        seconds: time that the choice took.
        out: directory of the trials and of `config.toml`.
        notes: further notes on the data.

    Example:
        >>> import numpy as np
        >>> from keras_vae.choosing import Candidate
        >>> candidate = Candidate("normal", 2, 50, "standard_normal")
        >>> trial = Trial(candidate, np.array([-3.0, -1.0]), 9, 4.0, "settled", 20.0)
        >>> found = Choice(
        ...     [trial],
        ...     trial,
        ...     is_complete=True,
        ...     again=None,
        ...     config=RunConfig(),
        ...     test=(-2.0, 1.0),
        ...     examples=(8, 2, 3),
        ...     units="nats",
        ...     seconds=4.0,
        ...     out=Path("runs/choice"),
        ... )
        >>> found.rows
        [['-2.00', '-', '4', '*']]
        >>> found.command
        'keras-vae train --config runs/choice/config.toml --out runs/choice/run'
    """

    trials: Sequence[Trial]
    recommended: Trial
    is_complete: bool
    again: Trial | None
    config: RunConfig
    test: tuple[float, float]
    examples: tuple[int, int, int]
    units: str
    seconds: float
    out: Path
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Path of the recommended configuration."""
        return self.out / "config.toml"

    @property
    def command(self) -> str:
        """The command that trains the recommended model."""
        config, run = (shlex.quote(os.fspath(path)) for path in (self.path, self.out / "run"))
        return f"keras-vae train --config {config} --out {run}"

    @property
    def header(self) -> list[str]:
        """Titles of the columns of `rows`; a setting that all trials share has none."""
        return [*(_COLUMNS[name] for name in self._varied), "nats", "difference", "seconds", ""]

    @property
    def rows(self) -> list[list[str]]:
        """Cells of the table, the best trial first.

        Differences are paired, a trial minus the recommended one, with their standard errors. The
        last cell is "*" for the recommended trial, "<" for one that was dropped and ">" for one
        that still improved when its time was up.
        """
        shown = sorted(self.trials, key=lambda trial: -trial.mean)
        return [self._row(trial) for trial in shown]

    def _row(self, trial: Trial) -> list[str]:
        mean, error = difference(trial.bounds, self.recommended.bounds)
        is_chosen = trial is self.recommended
        mark = {DROPPED: "<", "time": ">"}.get(trial.ended, "")
        return [
            *(str(getattr(trial.candidate, name)) for name in self._varied),
            f"{trial.mean:.2f}",
            "-" if is_chosen else f"{mean:+.2f} ± {error:.2f}",
            f"{trial.seconds:.0f}",
            f"*{mark}" if is_chosen else mark,
        ]

    @property
    def _varied(self) -> list[str]:
        return [
            name
            for name in _COLUMNS
            if len({getattr(trial.candidate, name) for trial in self.trials}) > 1
        ]

    @property
    def legend(self) -> list[str]:
        """Sentences on the marks of the table, and on how sure the choice is."""
        ends = {trial.ended for trial in self.trials}
        why = f"the simplest that is not more than {CLEAR:g} standard errors behind the best"
        is_alone = len(self.trials) == 1
        if is_alone:
            why = "the only one that was trained, so nothing was compared"
        lines = [f"* recommended, {self.recommended.candidate}: {why}."]
        if DROPPED in ends:
            lines.append("< dropped: too far behind to catch up.")
        spent = "The budget was spent before every change was tried"
        if "time" in ends:
            effect = "trains it further" if is_alone else "may change its rank"
            longer = f"; a longer --budget {effect}" if self.is_complete or not is_alone else ""
            lines.append(f"> still improving when its time was up{longer}.")
        if not self.is_complete and is_alone:
            lines.append(f"{spent}; a longer --budget trains it further and tries others.")
        elif not self.is_complete:
            lines.append(f"{spent}.")
        elif not is_alone:
            lines.append("Every other change of one setting was tried, and none is ahead.")
        if self.again is not None:
            gap = abs(difference(self.again.bounds, self.recommended.bounds)[0])
            lines.append(
                f"With another seed its bound differs by {gap:.2f} nats: smaller differences may "
                "be the luck of a training."
            )
        return [*lines, *self.notes]

    @property
    def verdict(self) -> str:
        """The bound of the recommended model on the test examples, in one sentence."""
        mean, error = self.test
        return (
            f"On {self.examples[2]} test examples, which no choice has seen, its ELBO is "
            f"{mean:.2f} ± {error:.2f}: {self.units}."
        )

    @property
    def title(self) -> str:
        """Title of the table."""
        train, held, _ = self.examples
        return f"Held-out ELBO of {counted(held, 'example')}, trained on {train}: {self.units}."

    def show(self, console: Console) -> None:
        """Prints table and sentences."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for name in self.header:
            is_word = name in ("likelihood", "prior", "")
            table.add_column(name, justify="left" if is_word else "right", overflow="fold")
        for cells in self.rows:
            table.add_row(*cells, style="bold" if cells[-1].startswith("*") else None)
        console.print(self.title, highlight=False)
        console.print(table)
        for line in (*self.legend, f"Train it on all but the test examples:\n  {self.command}"):
            console.print(line, highlight=False, markup=False, soft_wrap="\n" in line)
        console.print(self.verdict, highlight=False)

    def __str__(self) -> str:
        text = io.StringIO()
        self.show(Console(file=text, width=_WIDTH, color_system=None))
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
