"""Base of the objectives, and what they return.

Every objective returns its loss, and the unweighted distortion and rate of the same draws. So
`elbo = -(distortion + rate)` is logged as a bound in nats whatever the loss.
"""

import abc
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_vae.arguments import as_count
from keras_vae.estimators import Gradient, refuse_own_weights
from keras_vae.trace import Inference, Trace

__all__ = [
    "Objective",
    "Player",
    "Terms",
    "check_kl",
    "check_per_example",
    "check_players",
    "check_terms",
    "rate_names",
    "with_penalties",
]

_RESERVED = ("loss", "elbo", "distortion", "rate", "active_units", "rate_max", "rate_median")


class Terms(NamedTuple):
    """Terms of an objective for each example, [B], in nats.

    Attributes:
        loss: value to minimise.
        distortion: estimate of -E_q log p(x | z).
        rate: KL(q(z | x) || p(z)), in closed form or estimated.
        extra: further terms by name, such as the loss of a critic; those of `metric_names` are
            logged.
        trace: trace at the draws; only the monitor needs it.
    """

    loss: tf.Tensor
    distortion: tf.Tensor
    rate: tf.Tensor
    extra: Mapping[str, tf.Tensor] = MappingProxyType({})
    trace: Trace | None = None


class Player(NamedTuple):
    """Weights that one optimizer moves, and the loss on which it moves them.

    Attributes:
        weights: trainable weights that the player moves, and no other player does.
        optimizer: its optimizer.
        loss: function of the terms of a batch to the loss of each example, [B].
    """

    weights: list[Any]
    optimizer: keras.optimizers.Optimizer
    loss: Callable[[Terms], tf.Tensor]


def with_penalties(loss: tf.Tensor, trace: Trace) -> tf.Tensor:
    """Adds the penalties of the draws, which are not part of any bound, to the loss [B]."""
    for penalty in trace.penalties().values():
        loss += tf.reduce_mean(penalty, axis=0) if penalty.shape.rank == 2 else penalty
    return loss


def rate_names(latents: Mapping[str, Any]) -> dict[str, str]:
    """Returns the name under which the rate of each latent is logged, if there are several."""
    return {name: f"rate_{name}" for name in latents} if len(latents) > 1 else {}


def _loss(terms: Terms) -> tf.Tensor:
    return terms.loss


class Objective(keras.layers.Layer, abc.ABC):
    """A value to minimise, as a function of what a model infers from a batch.

    A subclass defines `terms`. Variables that a schedule moves (`beta`, `capacity`) are kept by
    name in `schedulable`. Variables and networks of an objective are saved with the model, but they
    are not weights of the model and are never exported. An objective with a network that is trained
    against the model, such as a critic, names it and its optimizer in `players`.

    Args:
        num_samples: draws z per example, S.
        gradient: the estimator, see `keras_vae.estimators`.

    Example:
        The mean of the log-likelihood alone, which is an autoencoder:

        >>> class Autoencoder(Objective):
        ...     def terms(self, inference, noise):
        ...         trace = inference.trace(noise)
        ...         distortion, rate = keras_vae.estimators.elbo_terms(trace)
        ...         return Terms(distortion, distortion, rate, trace=trace)
    """

    metric_names: tuple[str, ...] = ()
    """Names of the extra terms that are logged beside the loss."""

    _gradients: tuple[Gradient, ...] = ("pathwise",)

    def __init__(
        self, num_samples: int = 1, gradient: Gradient = "pathwise", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_samples = as_count("num_samples", num_samples, least=1)
        if gradient not in self._gradients:
            raise ValueError(
                f"Invalid value for argument `gradient`. {type(self).__name__} expects one of "
                f"{', '.join(map(repr, self._gradients))}. Received: gradient={gradient!r}"
            )
        self.gradient = gradient
        self.schedulable: dict[str, keras.Variable] = {}
        self.built = True

    def noise(self, model: Any) -> dict[str, Any]:
        """Returns the noise of one draw, by name; by default, that of the model's latents.

        Beside it is what a training step hides by chance, such as the words of `word_dropout`.
        """
        return {**model.noise(), **model.training_noise()}

    def logged(self, model: Any) -> tuple[str, ...]:
        """Returns the names of the extra terms that are logged; by default `metric_names`."""
        return self.metric_names

    def check(self, inference: Inference, noise: Any) -> None:
        """Refuses a model that lacks what the objective needs; a hook of `compile`.

        Args:
            inference: inference from one example of zeros.
            noise: noise of one draw for it.
        """
        if self.gradient != "pathwise":
            refuse_own_weights(inference, noise, self.gradient)

    @abc.abstractmethod
    def terms(self, inference: Inference, noise: Any) -> Terms:
        """Returns loss, distortion and rate of each example, from one set of draws.

        Args:
            inference: inference of the model from the batch.
            noise: noise of S draws per example, by name, [S, B, ...].
        """

    def players(self, model: Any) -> list[Player]:
        """Returns the players of the training; by default, the model alone."""
        return [Player(model.trainable_weights, model.optimizer, _loss)]

    @staticmethod
    def make_optimizer(optimizer: Any) -> keras.optimizers.Optimizer:
        """Returns the optimizer of a player, with loss scaling under the policy mixed_float16.

        Args:
            optimizer: Keras optimizer, its name or its configuration.
        """
        made = keras.optimizers.get(optimizer)
        is_scaled = isinstance(made, keras.optimizers.LossScaleOptimizer)
        if keras.config.dtype_policy().name == "mixed_float16" and not is_scaled:
            made = keras.optimizers.LossScaleOptimizer(made)
        return made

    @property
    def has_networks(self) -> bool:
        """Whether the objective has its own layers."""
        return bool(self._layers)

    def save_own_variables(self, store: Any) -> None:
        """Writes the scheduled variables by name, and the objective's other variables."""
        for name, variable in self._own_variables().items():
            store[name] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Reads the objective's variables; those that the file lacks keep their values."""
        known = set(store.keys())
        for name, variable in self._own_variables().items():
            if name in known:
                variable.assign(store[name])

    def _own_variables(self) -> dict[str, Any]:
        """Returns scheduled variables by name, and others, in order, by "variable_0" and so on."""
        saved = [*self.schedulable.values()]
        for layer in self._layers:
            saved += layer.variables
        known = {id(variable) for variable in saved}
        others = [variable for variable in self.variables if id(variable) not in known]
        return self.schedulable | {f"variable_{k}": each for k, each in enumerate(others)}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {"num_samples": self.num_samples, "gradient": self.gradient, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Objective":
        """Returns the objective with its variables as they were configured."""
        return cls(**config)

    def _schedulable(self, name: str, value: float) -> keras.Variable:
        variable = keras.Variable(value, trainable=False, dtype="float64", name=name)
        self.schedulable[name] = variable
        return variable


def check_terms(objective: Objective, terms: Any, *, is_monitored: bool) -> None:
    """Refuses what is not one number per example, or lacks what is logged.

    Args:
        objective: objective that returned the terms.
        terms: its terms of a batch.
        is_monitored: whether the monitor measures their trace.

    Raises:
        TypeError: if they are not `Terms`.
        ValueError: if a term has another shape than [B], or is missing.
    """
    name = type(objective).__name__
    if not isinstance(terms, Terms):
        raise TypeError(
            f"{name}.terms must return Terms(loss, distortion, rate); got {type(terms).__name__}."
        )
    if missing := [key for key in objective.metric_names if key not in terms.extra]:
        raise ValueError(
            f"{name}.metric_names lists {missing[0]!r}, and the extra terms are "
            f"{sorted(terms.extra) or 'none'}. Return Terms(..., extra={{{missing[0]!r}: ...}}), "
            "or take it out of metric_names."
        )
    if is_monitored and terms.trace is None:
        raise ValueError(
            f"compile(monitor=True) measures the trace of the draws, which {name}.terms leaves "
            "out. Return Terms(..., trace=trace), or leave monitor out."
        )
    logged = {key: terms.extra[key] for key in objective.metric_names}
    bound = {"loss": terms.loss, "distortion": terms.distortion, "rate": terms.rate}
    for key, value in (bound | logged).items():
        check_per_example(value, f"The term {key!r} of {name}")


def check_kl(kl: Any) -> None:
    """Refuses what does not say how the rate is computed.

    Raises:
        ValueError: if `kl` is neither "analytic", "monte_carlo" nor None.
    """
    if kl not in (None, "analytic", "monte_carlo"):
        raise ValueError(
            "Invalid value for argument `kl`. Expected 'analytic', 'monte_carlo' or None. "
            f"Received: kl={kl!r}"
        )


def check_per_example(value: Any, what: str) -> None:
    """Refuses a tensor that is not one number per example.

    Raises:
        ValueError: if its shape is not [B].
    """
    if value is None or tf.convert_to_tensor(value).shape.rank not in (1, None):
        found = "None" if value is None else f"shape {tf.convert_to_tensor(value).shape.as_list()}"
        raise ValueError(
            f"{what} must be one number per example, shape [B]; got {found}. Average over draws, "
            "axis 0 of [S, B], and not over the examples, which training does with their weights."
        )


def check_players(objective: Objective, model: Any) -> list[Player]:
    """Returns the players of a training, checked.

    Raises:
        TypeError: if a player or its optimizer is not one.
        ValueError: if there is no player, a weight or an optimizer has two, a weight of the
            objective has none, or the optimizers are not kept; or if a metric has no valid name.
    """
    name = type(objective).__name__
    names: Any = objective.metric_names
    if isinstance(names, str) or len({*names, *_RESERVED}) < len(names) + len(_RESERVED):
        raise ValueError(
            f"{name}.metric_names must be a tuple of different names, none of them one of "
            f"{', '.join(_RESERVED)}. Received: {names!r}"
        )
    players = objective.players(model)
    if not players:
        raise ValueError(f"{name}.players must return one player or more; got an empty list.")
    again = objective.players(model)
    movers: dict[int, int] = {}
    for index, player in enumerate(players):
        if not isinstance(player, Player) or not isinstance(
            player.optimizer, keras.optimizers.Optimizer
        ):
            raise TypeError(
                f"{name}.players must return Player(weights, optimizer, loss) with a Keras "
                f"optimizer, as make_optimizer makes one; got {player!r}."
            )
        if player.optimizer is not again[index].optimizer:
            raise ValueError(
                f"{name}.players returned another optimizer at the second call, which would lose "
                "its state. Make the optimizer once, in the constructor."
            )
        if any(player.optimizer is other.optimizer for other in players[:index]):
            raise ValueError(
                f"Two players of {name} share one optimizer; give each an optimizer of its own."
            )
        for weight in player.weights:
            if movers.setdefault(id(weight), index) != index:
                raise ValueError(
                    f"Two players of {name} move the weight {weight.path}; each weight belongs to "
                    "one player."
                )
    for weight in objective.trainable_weights:
        if id(weight) not in movers:
            raise ValueError(
                f"No player of {name} moves its weight {weight.path}, so it would stay as it is. "
                "Give it to a player in `players`, or set trainable=False."
            )
    return players
