"""Configuration of a run: every setting is declared once, for Python, TOML and the command line."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import tomli_w

from keras_vae.distributions.names import LIKELIHOODS, Option
from keras_vae.runs.groups import (
    FAMILIES,
    LEVELS,
    SEQUENCE_NETWORKS,
    TABLE,
    TEXT,
    DataSettings,
    ModelSettings,
    SequenceSettings,
    TrainingSettings,
)
from keras_vae.runs.setting import KINDS, RunError, Setting, checked, setting
from keras_vae.spelling import counted, meant
from keras_vae.tokens import TEXT_SUFFIXES

if TYPE_CHECKING:
    from keras_vae.data import Data
    from keras_vae.data.preparation import Preparation

__all__ = [
    "LEVELS",
    "RESUMABLE",
    "SEQUENCE_NETWORKS",
    "TABLE",
    "TEXT",
    "RunConfig",
    "RunError",
    "kinds",
    "override",
    "settings",
]

RESUMABLE = ("epochs", "data", "test_data", "cache")
"""Settings that may change when a run is resumed."""

LEAST_EPOCHS, LEAST_STEPS, MOST_EPOCHS = 20, 2000, 500
"""Limits of a training whose number of epochs is "auto"."""

RESTORE = "restore it from a backup, or train again with another --out"
"""Advice about a damaged file of a run."""

_OPTIONS = {
    "layers": "num_layers",
    "hidden": "hidden",
    "transform": "transform",
    "components": "num_components",
}
"""Settings of a posterior or a prior, after its name and _, and the options of its class."""


@dataclass(frozen=True)
class RunConfig(TrainingSettings, SequenceSettings, ModelSettings, DataSettings):
    """Configuration of a training; `config.toml` and recipes hold these names.

    `DataSettings`, `ModelSettings`, `SequenceSettings` and `TrainingSettings` describe most of
    them, in this order.

    Attributes:
        features: names of the training columns in the order of the model, or empty.
        preparation: how raw numbers become data; decided from the data when training begins.
        classes: with `condition`, the labels in the order of the condition's numbers; found when
            training begins.
        row_nats: for tables and time series, nats that turn bounds of the model's numbers into
            those of the file, means over training and test set; computed when training begins.

    Raises:
        RunError: if a value has the wrong type or lies outside its range.
    """

    features: tuple[str, ...] = setting((), is_option=False)
    preparation: Preparation | None = dataclasses.field(
        default=None, metadata={"setting": Setting(is_option=False)}
    )
    classes: tuple[str, ...] = setting((), is_option=False)
    row_nats: tuple[float, ...] = setting((), is_option=False)

    def __post_init__(self) -> None:
        """Refuses values that no training can use."""
        for name, about in settings().items():
            value = getattr(self, name)
            if name in kinds():
                value = checked(name, value, about, *kinds()[name])
                object.__setattr__(self, name, value)
        self._check_likelihood_options()
        self._check_sequences()
        self._check_condition()
        if len(self.image_size) not in (0, 2):
            raise RunError(
                "Expected image_size to be height and width; got "
                f"{counted(len(self.image_size), 'number')}."
            )
        milestones = self.learning_rate_milestones
        if any(later <= earlier for earlier, later in itertools.pairwise((0, *milestones))):
            raise RunError(
                f"Expected learning_rate_milestones to be ascending epochs from 1 on; got "
                f"{', '.join(map(str, milestones))}."
            )
        if self.network == "conv" and (self.hidden_above or self.latents == "bottom_up"):
            which = "hidden_above" if self.hidden_above else "latents = 'bottom_up'"
            raise RunError(
                f"{which} is for levels of Dense layers: choose network = 'mlp', or leave it out."
            )
        if self.output_bias == "data_mean" and self.network != "mlp":
            raise RunError(
                "output_bias = 'data_mean' sets one number per entry, which network = "
                f"{self.network!r} does not have: choose network = 'mlp' or output_bias = 'zeros'."
            )

    def _check_sequences(self) -> None:
        """Gives texts the network of sequences, and refuses what no sequence can have."""
        if self.is_text and self.network == "mlp":
            object.__setattr__(self, "network", SEQUENCE_NETWORKS[0])
        if self.is_text and self.network == "conv":
            raise RunError(
                "network = 'conv' is for images, and texts are sequences: choose "
                f"{', '.join(SEQUENCE_NETWORKS)}."
            )
        if self.data.lower().endswith(TEXT_SUFFIXES) and not self.is_text:
            raise RunError(
                f"likelihood = {self.likelihood!r} is for numbers, and {self.data} holds texts, "
                "whose tokens have a likelihood of their own: leave it out."
            )
        if not self.is_sequence:
            return
        for name in ("id_column", "time_column", "window", "seasons"):
            if self.is_text and getattr(self, name):
                raise RunError(f"{name} is for time series, and this data is texts: leave it out.")
        if len(set(self.widths)) > 1:
            raise RunError(
                f"Expected hidden to name the same width for each layer of network = "
                f"{self.network!r}, as in 64,64; got {', '.join(map(str, self.widths))}."
            )
        if self.latents != "vector":
            raise RunError(
                f"latents = {self.latents!r} is for arrays and images, and this data is "
                "sequences: leave it out."
            )

    def _check_condition(self) -> None:
        """Refuses a condition where labels are data, or the latents take none."""
        if not self.condition:
            return
        others = {
            "for texts": self.is_text,
            "for sequences": self.is_sequence,
            "for a table as it is, where the label is a column like the others": (
                self.likelihood == TABLE
            ),
            "with latents = 'codes'": self.latents == "codes",
            "with keep_labels, which models the label": self.keep_labels,
        }
        for what, is_so in others.items():
            if is_so:
                raise RunError(f"There is no condition {what}: leave condition out.")

    @property
    def is_text(self) -> bool:
        """Whether the data is texts."""
        is_file = bool(self.text_column) or self.data.lower().endswith(TEXT_SUFFIXES)
        return self.likelihood == TEXT or (self.likelihood == "auto" and is_file)

    @property
    def is_sequence(self) -> bool:
        """Whether the data is texts or time series for networks of sequences."""
        return self.network in SEQUENCE_NETWORKS

    def _check_likelihood_options(self) -> None:
        known = _options_of(self.likelihood)
        counts = sorted(
            name
            for name, option in known.items()
            if option.is_top and name in self.likelihood_options
        )
        if self.top and counts and self.preparation is None:
            raise RunError(f"top and {counts[0]} mean the same: give only one of them.")
        for name in self.likelihood_options:
            if name not in known:
                takes = f"takes {_listed(known)}" if known else "takes no options"
                raise RunError(
                    f"The likelihood {self.likelihood} {takes}; got {name}{meant(name, known)}."
                )

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the hidden layers, or filters; empty where `hierarchical_vae` decides."""
        if self.hidden or self.network != "conv":
            return self.hidden or (200, 200)
        return () if self.latents in LEVELS else (32, 64)

    @property
    def levels(self) -> tuple[int, ...]:
        """Numbers of latents of the levels, from the top down."""
        return self.level_sizes or (max(1, self.latent // 2), self.latent)

    @property
    def num_latents(self) -> int:
        """Number of latents, those of all levels together."""
        return sum(self.levels) if self.latents in LEVELS else self.latent

    def epochs_of(self, examples: int) -> int:
        """Returns the number of epochs on a training set of so many examples."""
        if not isinstance(self.epochs, str):
            return self.epochs
        per_epoch = -(-examples // self.batch_size)
        return min(max(LEAST_EPOCHS, -(-LEAST_STEPS // per_epoch)), MOST_EPOCHS)

    @property
    def first_learning_rate(self) -> float:
        """Learning rate of the first epoch."""
        return 1e-3 if isinstance(self.learning_rate, str) else self.learning_rate

    def decided_for(self, examples: int) -> RunConfig:
        """Returns it with epochs and learning rates for a training set of so many examples."""
        epochs = self.epochs_of(examples)
        falls = self.epochs == "auto" and epochs > LEAST_EPOCHS
        schedule, rate = self.learning_rate_schedule, self.first_learning_rate
        if schedule == "auto":
            schedule = "cosine" if falls and not self.learning_rate_milestones else "steps"
            if schedule == "cosine" and self.learning_rate == "auto":
                rate = 3e-3
        return dataclasses.replace(
            self, epochs=epochs, learning_rate=rate, learning_rate_schedule=schedule
        )

    def options_of(self, kind: Literal["posterior", "prior"]) -> dict[str, Any]:
        """Returns the arguments of the class of the posterior or the prior."""
        known = FAMILIES[kind][getattr(self, kind)].options
        return {
            option: getattr(self, f"{kind}_{name}")
            for name, option in _OPTIONS.items()
            if option in known and hasattr(self, f"{kind}_{name}")
        }

    def idle(self, given: Collection[str] = ()) -> dict[str, str]:
        """Returns the settings that have no effect beside the others, and why.

        Args:
            given: names that count although they are at their default.
        """
        found = {}
        for entry in dataclasses.fields(self):
            only = entry.metadata["setting"].only
            value = getattr(self, entry.name)
            if only is None or (value == entry.default and entry.name not in given):
                continue
            other, allowed = only
            beside = getattr(self, other)
            if beside == "auto" or (beside if allowed is None else beside in allowed):
                continue
            if allowed is None:
                found[entry.name] = f"{entry.name} does nothing without {other}: leave it out."
            else:
                others = f"choose {', '.join(allowed)}, or " if other == "network" else ""
                found[entry.name] = (
                    f"{entry.name} does nothing with {other} = {beside!r}: {others}leave it out."
                )
        has_sizes = self.latents in LEVELS and bool(self.level_sizes)
        if has_sizes and ("latent" in given or self.latent != RunConfig.latent):
            found["latent"] = "latent does nothing with level_sizes: leave it out."
        return found

    def effective(self) -> dict[str, Any]:
        """Returns the settings that have an effect, and those that stand for another as its value.

        What the data decided, such as the preparation, is left out.
        """
        left_out = {"preparation", "row_nats", *self.idle(settings())}
        found = {name: value for name, value in vars(self).items() if name not in left_out}
        found["hidden"] = self.widths
        if self.window:
            found["stride"] = self.stride or self.window
        return found

    def refuse_idle(self, given: Collection[str] = ()) -> None:
        """Refuses settings without effect; arguments as for `idle`.

        Raises:
            RunError: naming the first one.
        """
        for reason in self.idle(given).values():
            raise RunError(reason)

    def beyond(self, other: RunConfig) -> list[str]:
        """Lists the settings that are neither at their default nor as in `other`.

        Settings that may change when a run is resumed are left out.
        """
        found = [
            entry.name
            for entry in dataclasses.fields(self)
            if entry.name not in (*RESUMABLE, "likelihood_options")
            and getattr(self, entry.name) not in (entry.default, getattr(other, entry.name))
        ]
        known = other.likelihood_options.items()
        return found + [pair[0] for pair in self.likelihood_options.items() if pair not in known]

    def load(self, source: str, split: Literal["train", "test"] | None = None) -> Data:
        """Reads the data of a source in the same way as the training set.

        Raises:
            DataError: if it cannot be read.
        """
        from keras_vae.data import load

        height_and_width: Any = self.image_size or None
        return load(
            source,
            labels=False if self.keep_labels else "if_any",
            split=split,
            drop=self.drop,
            image_size=height_and_width,
            image_mode=self.image_mode or None,
            cache=self.cache or None,
        )

    def to_toml(self) -> str:
        """Writes the configuration as TOML."""
        values = dataclasses.asdict(self)
        if self.preparation is None:
            del values["preparation"]
        else:
            del values["preparation"]["vocabulary"]
        return tomli_w.dumps(values)


@functools.cache
def settings() -> dict[str, Setting]:
    """Returns help, choices and range of each setting, by name."""
    return {entry.name: entry.metadata["setting"] for entry in dataclasses.fields(RunConfig)}


@functools.cache
def kinds() -> dict[str, tuple[type, bool]]:
    """Returns the type of each setting or of its items, and whether it is a list, by name."""
    return {
        entry.name: KINDS[str(entry.type)]
        for entry in dataclasses.fields(RunConfig)
        if str(entry.type) in KINDS
    }


def override(base: RunConfig, given: Mapping[str, Any]) -> RunConfig:
    """Replaces the values of some settings of a configuration.

    Settings of `base` without effect beside the new values are reset to their defaults.

    Args:
        base: configuration, for example from a recipe.
        given: values by name.
    """
    likelihood = given.get("likelihood", base.likelihood)
    kept = {
        name: value
        for name, value in base.likelihood_options.items()
        if name in _options_of(likelihood)
    }
    options = {**kept, **given.get("likelihood_options", {})}
    merged = dataclasses.replace(base, **{**given, "likelihood_options": options})
    defaults: dict[str, Any] = {
        entry.name: entry.default for entry in dataclasses.fields(RunConfig)
    }
    while left := {name: defaults[name] for name in merged.idle() if name not in given}:
        merged = dataclasses.replace(merged, **left)
    return merged


def _options_of(likelihood: str) -> dict[str, Option]:
    """Returns the options of a likelihood by name; those of all if none is chosen yet."""
    return {
        name: option
        for key, family in LIKELIHOODS.items()
        if likelihood in ("auto", key)
        for name, option in family.options.items()
    }


def _listed(names: Collection[str]) -> str:
    return f"the option{'s' if len(names) > 1 else ''} {', '.join(names)}"
