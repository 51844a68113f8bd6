"""Configuration of a run: every setting is declared once, for Python, TOML and the command line."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import tomli_w

from keras_vae.distributions.names import CODE_PRIORS, LIKELIHOODS, POSTERIORS, PRIORS, Option
from keras_vae.runs.setting import KINDS, RunError, Setting, checked, setting
from keras_vae.spelling import meant

if TYPE_CHECKING:
    from keras_vae.data import Data
    from keras_vae.data.preparation import Preparation

__all__ = [
    "RESUMABLE",
    "TABLE",
    "RunConfig",
    "RunError",
    "kinds",
    "override",
    "settings",
]

RESUMABLE = ("epochs", "data", "test_data", "cache")
"""Settings that may change when a run is resumed."""

RESTORE = "restore it from a backup, or train again with another --out"
"""Advice about a damaged file of a run."""

TABLE = "table"
"""Likelihood of a run whose columns each have a likelihood of their own."""

TRANSFORMS = ("affine", "spline")
"""Kinds of the steps of a flow."""

_FAMILIES = {"posterior": POSTERIORS, "prior": PRIORS}
_OPTIONS = {
    "layers": "num_layers",
    "hidden": "hidden",
    "transform": "transform",
    "components": "num_components",
}
"""Settings of a posterior or a prior, after its name and _, and the options of its class."""


def _taking(kind: str, option: str) -> tuple[str, tuple[str, ...]]:
    """Returns a setting, and its values whose families take an option."""
    families = _FAMILIES[kind].items()
    return kind, tuple(name for name, family in families if option in family.options)


@dataclass(frozen=True)
class RunConfig:
    """Configuration of a training; `config.toml` and recipes hold these names.

    Attributes:
        data: path or name for `keras_vae.data.load`.
        test_data: path of the test set; empty sets `test_fraction` of the data aside.
        test_fraction: share of the data set aside as test set.
        drop: names of columns of a table to leave out.
        keep_labels: whether a column with a label's name is data like the others.
        image_size: height and width to resize a directory of images to; empty keeps their size.
        image_mode: mode to convert them to, see `keras_vae.data.load`; empty keeps their mode.
        cache: directory in which a table, a sparse matrix or images are kept as rows of a file, for
            data larger than memory; empty reads them into memory.
        likelihood: name as in `keras_vae.mlp_vae`, "table" for a table whose columns each have a
            likelihood of their own, or "auto": chosen from the data when training begins, and then
            stored by name.
        schema: TOML file of a `keras_vae.data.Schema`, for a table; empty infers it.
        missing: whether any column of the table may have missing values, also those that are
            complete in the data.
        drop_observed: share of the values, in columns that may have missing ones, that training
            hides from the encoder.
        likelihood_options: arguments of the likelihood, such as scale and levels.
        top: largest possible value of an entry; 0 takes it from the data or its dtype.
        network: "mlp" or "conv".
        hidden: widths of the layers, or filters of the convolutions.
        activation: activation of the hidden layers.
        latents: "vector"; "codes": those of a `keras_vae.vq_vae`; "ladder" or "residual": several
            levels, those of a `keras_vae.hierarchical_vae`.
        latent: number of latents; with codes, the number of codes under Dense layers, and without
            effect under convolutions.
        codes: number of vectors in the book.
        code_size: size of each vector.
        code_prior: "uniform" or "autoregressive".
        level_sizes: numbers of latents of the levels, from the top down; empty makes two levels, of
            half of `latent` and of `latent`.
        posterior: name as in `keras_vae.mlp_vae`.
        posterior_layers: steps of a flow posterior.
        posterior_hidden: widths of the network of each step.
        posterior_transform: "affine" or "spline", what each step is.
        posterior_components: components of a mixture posterior.
        prior: name as in `keras_vae.mlp_vae`.
        prior_layers: steps of a flow prior.
        prior_hidden: widths of the network of each step.
        prior_transform: "affine" or "spline", what each step is.
        components: components of a mixture or vamp prior.
        objective: "elbo" or "iwae".
        num_samples: draws per example.
        gradient: estimator, see `keras_vae.estimators`.
        kl: "analytic", "monte_carlo", or empty for the closed form if there is one.
        beta: weight of the rate.
        free_bits: nats per latent that are free.
        warmup_epochs: epochs in which beta rises linearly from 0.
        epochs: epochs of training.
        batch_size: examples per step.
        learning_rate: learning rate of Adam in the first epoch.
        learning_rate_schedule: "steps" at milestones, or "cosine", which falls to 0 over epochs.
        learning_rate_milestones: epochs after which the learning rate falls, ascending.
        learning_rate_decay: factor of the learning rate at each milestone.
        adam_beta_1: decay of Adam's mean of gradients.
        adam_epsilon: number that Adam adds to the root of the mean square. A loss here is a mean
            over the batch; if a paper's is a sum, divide its number by the batch size.
        output_bias: "zeros", or "data_mean": the decoder's mean starts at that of the training set;
            "auto" is "data_mean" for counts and levels under Dense layers, otherwise "zeros", and
            is stored as one of these.
        monitor: whether to log the use of the latents, see `keras_vae.training.monitor`.
        seed: seed of initial weights, order, noise and test split.
        features: names of the training columns in the order of the model, or empty.
        preparation: how raw numbers become data; decided from the data when training begins.
        row_nats: for a table, nats that turn bounds of the model's numbers into those of the table,
            means over training and test set; computed when training begins.

    Raises:
        RunError: if a value has the wrong type or lies outside its range.
    """

    data: str = setting(
        "", "digits, or .npz, .npy, .csv, .tsv, .parquet, .mtx, IDX file, or a directory."
    )
    test_data: str = setting("", "Test set; by default a part of the data, or t10k beside train.")
    test_fraction: float = setting(
        0.1, "Part of the data that is the test set.", interval="(0, 1)", only=("test_data", ("",))
    )
    drop: tuple[str, ...] = setting((), "Columns of a table to leave out, as in id,date.")
    keep_labels: bool = setting(
        False, "Model a column named label, labels, y, target or class as the others."
    )
    image_size: tuple[int, ...] = setting(
        (), "Height and width to bring images to, as in 64,64.", interval="[1, inf)"
    )
    image_mode: str = setting(
        "",
        "Mode to convert images to: L is grey, I;16 grey of 16 bits.",
        choices=("", "1", "L", "RGB", "RGBA", "I;16"),
    )
    cache: str = setting(
        "", "Directory that keeps tables and images larger than memory as rows of a file."
    )
    likelihood: str = setting(
        "auto",
        "p(x|z); table gives each column of a table its own; auto proposes one from the data.",
        choices=("auto", TABLE, *LIKELIHOODS),
    )
    schema: str = setting(
        "",
        "TOML file with the columns of a table, as `keras-vae schema` writes it.",
        only=("likelihood", (TABLE,)),
    )
    missing: bool = setting(
        False, "Any column of the table may have missing values.", only=("likelihood", (TABLE,))
    )
    drop_observed: float = setting(
        0.1,
        "Part of the values that training hides from the encoder where they may be missing.",
        interval="[0, 1)",
        only=("likelihood", (TABLE,)),
    )
    likelihood_options: dict[str, Any] = dataclasses.field(
        default_factory=dict, metadata={"setting": Setting(is_option=False)}
    )
    top: float = setting(
        0.0,
        "Largest possible value of grey levels, as in 255; by default from the data.",
        interval="[0, inf)",
        only=(
            "likelihood",
            tuple(name for name, family in LIKELIHOODS.items() if family.takes_top),
        ),
    )
    network: str = setting("mlp", choices=("mlp", "conv"))
    hidden: tuple[int, ...] = setting(
        (200, 200), "Widths or filters, as in 200,200.", interval="[1, inf)"
    )
    activation: str = setting("tanh", "Of hidden layers.")
    latents: str = setting(
        "vector",
        "What z is: a vector, codes of a VQ-VAE, or levels of vectors, ladder or residual.",
        choices=("vector", "codes", "ladder", "residual"),
    )
    latent: int = setting(
        16, "Number of latents; of codes with network = 'mlp'.", interval="[1, inf)"
    )
    codes: int = setting(
        128, "Vectors in the book.", interval="[2, inf)", only=("latents", ("codes",))
    )
    code_size: int = setting(
        16, "Size of each vector.", interval="[1, inf)", only=("latents", ("codes",))
    )
    code_prior: str = setting(
        "uniform",
        "p(codes); autoregressive is trained with the model.",
        choices=tuple(CODE_PRIORS),
        only=("latents", ("codes",)),
    )
    level_sizes: tuple[int, ...] = setting(
        (),
        "Latents of each level from the top down, as in 4,8,16.",
        interval="[1, inf)",
        only=("latents", ("ladder", "residual")),
    )
    posterior: str = setting("diagonal", choices=tuple(POSTERIORS), only=("latents", ("vector",)))
    posterior_layers: int = setting(
        4,
        "Steps of a flow posterior.",
        interval="[1, inf)",
        only=_taking("posterior", "num_layers"),
    )
    posterior_hidden: tuple[int, ...] = setting(
        (64, 64),
        "Widths of the network of each of its steps.",
        interval="[1, inf)",
        only=_taking("posterior", "hidden"),
    )
    posterior_transform: str = setting(
        "affine",
        "What each of its steps is.",
        choices=TRANSFORMS,
        only=_taking("posterior", "transform"),
    )
    posterior_components: int = setting(
        5,
        "Components of a mixture posterior.",
        interval="[1, inf)",
        only=_taking("posterior", "num_components"),
    )
    prior: str = setting("standard_normal", choices=tuple(PRIORS), only=("latents", ("vector",)))
    prior_layers: int = setting(
        4, "Steps of a flow prior.", interval="[1, inf)", only=_taking("prior", "num_layers")
    )
    prior_hidden: tuple[int, ...] = setting(
        (64, 64),
        "Widths of the network of each of its steps.",
        interval="[1, inf)",
        only=_taking("prior", "hidden"),
    )
    prior_transform: str = setting(
        "affine",
        "What each of its steps is.",
        choices=TRANSFORMS,
        only=_taking("prior", "transform"),
    )
    components: int = setting(
        50,
        "Components of a mixture or vamp prior.",
        interval="[1, inf)",
        only=_taking("prior", "num_components"),
    )
    objective: str = setting("elbo", choices=("elbo", "iwae"))
    num_samples: int = setting(1, "Draws per example.", interval="[1, inf)")
    gradient: str = setting(
        "pathwise", choices=("pathwise", "sticking_the_landing", "doubly_reparameterized")
    )
    kl: str = setting(
        "",
        "Rate in closed form or estimated.",
        choices=("", "analytic", "monte_carlo"),
        only=("objective", ("elbo",)),
    )
    beta: float = setting(
        1.0, "Weight of the rate.", interval="[0, inf)", only=("objective", ("elbo",))
    )
    free_bits: float = setting(
        0.0, "Nats per latent that are free.", interval="[0, inf)", only=("objective", ("elbo",))
    )
    warmup_epochs: float = setting(
        0.0,
        "Epochs in which beta rises from 0.",
        interval="[0, inf)",
        only=("objective", ("elbo",)),
    )
    epochs: int = setting(20, interval="[1, inf)")
    batch_size: int = setting(100, interval="[1, inf)")
    learning_rate: float = setting(1e-3, "Of Adam.", interval="(0, inf)")
    learning_rate_schedule: str = setting(
        "steps", "cosine falls to 0 over the epochs.", choices=("steps", "cosine")
    )
    learning_rate_milestones: tuple[int, ...] = setting(
        (), "Epochs after which it falls, as in 30,40.", only=("learning_rate_schedule", ("steps",))
    )
    learning_rate_decay: float = setting(
        0.1, "Its factor there.", interval="(0, 1]", only=("learning_rate_milestones", None)
    )
    adam_beta_1: float = setting(0.9, interval="[0, 1)")
    adam_epsilon: float = setting(1e-7, interval="(0, inf)")
    output_bias: str = setting(
        "auto",
        "Where the decoder's mean starts; auto is data_mean for counts and levels.",
        choices=("auto", "zeros", "data_mean"),
    )
    monitor: bool = setting(
        False, "Log what the latents carry, too.", only=("latents", ("vector", "codes"))
    )
    seed: int = setting(0, interval="[0, 2147483647]")
    features: tuple[str, ...] = setting((), is_option=False)
    preparation: Preparation | None = dataclasses.field(
        default=None, metadata={"setting": Setting(is_option=False)}
    )
    row_nats: tuple[float, ...] = setting((), is_option=False)

    def __post_init__(self) -> None:
        """Refuses values that no training can use."""
        for name, about in settings().items():
            value = getattr(self, name)
            if name in kinds():
                value = checked(name, value, about, *kinds()[name])
                object.__setattr__(self, name, value)
        self._check_likelihood_options()
        if len(self.image_size) not in (0, 2):
            raise RunError(
                f"Expected image_size to be height and width; got {len(self.image_size)} numbers."
            )
        milestones = self.learning_rate_milestones
        if any(later <= earlier for earlier, later in itertools.pairwise((0, *milestones))):
            raise RunError(
                f"Expected learning_rate_milestones to be ascending epochs from 1 on; got "
                f"{', '.join(map(str, milestones))}."
            )
        if not self.hidden:
            raise RunError("Expected hidden to name one width or more; got none.")
        if self.output_bias == "data_mean" and self.network == "conv":
            raise RunError(
                "output_bias = 'data_mean' sets one number per entry, which a convolution does not "
                "have: choose network = 'mlp' or output_bias = 'zeros'."
            )

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
    def levels(self) -> tuple[int, ...]:
        """Numbers of latents of the levels, from the top down."""
        return self.level_sizes or (max(1, self.latent // 2), self.latent)

    def options_of(self, kind: Literal["posterior", "prior"]) -> dict[str, Any]:
        """Returns the arguments of the class of the posterior or the prior."""
        known = _FAMILIES[kind][getattr(self, kind)].options
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
                found[entry.name] = f"{entry.name} does nothing without {other}"
            else:
                found[entry.name] = f"{entry.name} does nothing with {other} = {beside!r}"
        return found

    def refuse_idle(self, given: Collection[str] = ()) -> None:
        """Refuses settings without effect; arguments as for `idle`.

        Raises:
            RunError: naming the first one.
        """
        for reason in self.idle(given).values():
            raise RunError(f"{reason}: leave it out.")

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
