"""Subject of a report: a run, its model, and the test examples it shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

from keras_vae import evaluation, random
from keras_vae.distributions.noise import from_rows
from keras_vae.hierarchical import HierarchicalVAE
from keras_vae.model import VAE
from keras_vae.runs import measurements
from keras_vae.runs.pictures import is_image, titles
from keras_vae.runs.run import Run
from keras_vae.runs.units import Units, shown_range
from keras_vae.signatures import Signature, signatures
from keras_vae.spelling import counted

__all__ = ["Subject", "described"]

_EXAMPLES = 1000
_MOST_DRAWN = 2000
_LEVELS = 6


@dataclass(frozen=True)
class Subject:
    """A run and the test examples that its report shows.

    Of a table as it is, `raw` is a data frame and `x` a dict of arrays by column; with a condition,
    `x` is a dict of x and condition.

    Attributes:
        run: the run.
        vae: its model.
        raw: test examples as in the file [N, ...].
        x: the same examples, prepared for the model [N, *D].
        available: size of the test set.
        seed: seed of all draws.
        epochs: number of epochs that the model has finished.
        labels: labels of the examples; None if the data has none.
    """

    run: Run
    vae: Any
    raw: Any
    x: Any
    available: int
    seed: int
    epochs: int
    labels: np.ndarray | None = None

    @classmethod
    def of(cls, run: Run, seed: int) -> Subject:
        """Makes the subject of a run from its first test examples."""
        vae = run.load()
        if run.schema is not None:
            table = run.table()
            few, available = table.test.first(_EXAMPLES), len(table.test)
            finished = run.finished(vae, len(table.train))
            return cls(run, vae, few.frame, few.x, available, seed, finished)
        sets = run.read()
        shown, labels = np.asarray(sets.test[:_EXAMPLES]), sets.labels[1]
        labels = None if labels is None else labels[:_EXAMPLES]
        return cls(
            run,
            vae,
            shown,
            run.inputs(shown, labels),
            len(sets.test),
            seed,
            run.finished(vae, len(sets.train)),
            labels,
        )

    @cached_property
    def units(self) -> Units:
        """Units of log p(x)."""
        return self.run.units(self.vae)

    @cached_property
    def functions(self) -> dict[str, Signature]:
        """Functions of the model on data in the units of the file."""
        return signatures(self.vae, self.run.preparation)

    @property
    def is_discrete(self) -> bool:
        """Whether the latents are codes."""
        return isinstance(self.vae, VAE) and self.vae.posterior.is_discrete

    @property
    def has_levels(self) -> bool:
        """Whether there are several levels of latents."""
        return isinstance(self.vae, HierarchicalVAE)

    @cached_property
    def is_normal(self) -> bool:
        """Whether posterior and prior are normal, so that the rate of each latent is known."""
        return evaluation.is_normal(self.vae)

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each latent given each example, [N, L]."""
        return evaluation.posterior_moments(self.vae, self.x, seed=self.seed)

    def given(self, rows: Any) -> dict[str, Any]:
        """Returns the conditions of examples, at indices, by input; nothing without a condition.

        Indices count on from the first example again after the last one.
        """
        if not self.run.config.condition:
            return {}
        return {"condition": self.x["condition"][np.asarray(rows) % len(self.raw)]}

    @property
    def is_image(self) -> bool:
        """Whether an example is an image."""
        return self.run.schema is None and is_image(self.raw.shape[1:])

    @cached_property
    def range(self) -> tuple[float, float]:
        """Values shown as black and as white."""
        return shown_range(self.vae, self.run.preparation, self.raw)

    @property
    def titles(self) -> tuple[str, str]:
        """Titles of pictures of draws and of means."""
        return titles(self.vae.likelihood.support)

    def examples(self, count: int | None = None) -> str:
        """Describes which examples the report shows."""
        return measurements.examples(count or len(self.raw), self.available)

    def offsets(self, x: Any) -> Any:
        """Returns the nats that turn log p of prepared examples into that of the data."""
        return self.run.row_nats(x)

    @cached_property
    def drawn_rows(self) -> Any:
        """Rows of a table drawn from p(x), as many as there are test rows or 2000."""
        return self.vae.sample(min(self.available, _MOST_DRAWN), self.seed)

    def draws(self, count: int) -> dict[str, np.ndarray]:
        """Draws x and returns it with the means at the same z, in the units of the file.

        With a condition, the draws are given the labels of the examples, in their order.
        """
        seeds, given = random.row_seeds(self.seed, count), self.given(range(count))
        found = self.functions["sample"].function(seed=seeds, **given)
        return {name: found[name].numpy() for name in ("sample", "mean")}

    def drawn_latents(self, count: int) -> np.ndarray:
        """Draws latents [count, L] from the prior, with the conditions that `draws` has."""
        seeds, given = random.row_seeds(self.seed, count), self.given(range(count))
        return self.vae.prior.draw_rows(seeds, **given).numpy()

    def means(self, z: np.ndarray, rows: Any) -> np.ndarray:
        """Computes decoder means at z [n, L], in the units of the file.

        Args:
            z: the latents.
            rows: the examples whose condition is given to each.
        """
        return self.functions["decode"].function(z=z, **self.given(rows))["mean"].numpy()

    def by_level(self, count: int) -> list[np.ndarray]:
        """Computes means of the first examples with ever more levels at their posterior means.

        The levels below are drawn from p given those above. All are in the units of the file.
        """
        count = min(count, len(self.raw))
        first = keras.tree.map_structure(lambda part: part[:count], self.x)
        known, given = self.vae.encode(first), self.given(range(count))
        known = {name: q.mean() for name, q in known.items()}
        noise = from_rows(
            self.vae.generation_noise(),
            random.row_seeds(self.seed, count),
            dtype=self.vae.float_dtype,
        )
        found = []
        for last in range(1, min(_LEVELS, len(known)) + 1):
            upper = {name: known[name] for name in list(known)[:last]}
            latents = self.vae.generated(noise, latents=upper, **given).latents
            inputs = (
                {f"z_{name}": z for name, z in latents.items()}
                if len(known) > 1
                else {"z": next(iter(latents.values()))}
            )
            found.append(self.functions["decode"].function(**inputs, **given)["mean"].numpy())
        return found

    def reconstructed(self, count: int) -> np.ndarray:
        """Computes means at the posterior means of the first examples, in the units of the file."""
        raw = self.raw[:count].astype(np.float32)
        given = self.given(range(len(raw)))
        return self.functions["reconstruct"].function(x=raw, **given)["mean"].numpy()


def described(vae: Any) -> str:
    """Describes the latents of a model and their distributions."""
    if isinstance(vae, HierarchicalVAE):
        sizes = ", ".join(
            f"{name} of {' x '.join(map(str, block.latent_shape))}"
            for name, block in vae.blocks.items()
        )
        return (
            f"{counted(vae.latent_size, 'latent')} on {counted(len(vae.blocks), 'level')}: {sizes}"
        )
    if vae.posterior.is_discrete:
        codes = vae.posterior
        latents = f"{' x '.join(map(str, codes.codes_shape))} codes of {codes.num_codes}"
    else:
        latents = counted(vae.latent_size, "latent")
    return f"{latents}; prior {type(vae.prior).__name__}, posterior {type(vae.posterior).__name__}"
