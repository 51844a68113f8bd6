"""Traces of a batch: one entry for each latent and each observed variable of a model.

Axes: S draws, B examples. All log-probabilities are in nats.

    ELBO = E_q [ sum over observations of log p  +  sum over latents of (log p - log q) ]
"""

from collections.abc import Callable, Collection, Mapping
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import tensorflow as tf

from keras_vae.distributions.noise import Draw, checked_draw, only_own_draws
from keras_vae.distributions.tfp import tfd
from keras_vae.observed import Observation, Site, log_likelihood, refuse_event, sizes_of

__all__ = [
    "Generation",
    "Inference",
    "Latent",
    "LatentOf",
    "Observation",
    "Site",
    "Trace",
    "constant_weights",
    "identity",
    "no_noise",
    "spread",
]


class Latent(NamedTuple):
    """A latent variable of a trace.

    Attributes:
        draw: its draw, of value [S, B, ...].
        p: p(z), or p(z given the latents before it), under which the draw is scored.
        q: function that returns q(z given x), from which it was drawn. With `constant=True` no
            parameter of it is differentiated. None if q has no density at points that it did not
            draw; then the draw knows its own density.
        in_order: whether p depends on no latent that is drawn after this one. Only then is the
            mean of KL(q || p) over draws its rate; otherwise the rate has no closed form.
        layer: the posterior layer, which manifests and messages name.
    """

    draw: Draw
    p: tfd.Distribution
    q: Callable[[bool], tfd.Distribution] | None = None
    in_order: bool = True
    layer: Any = None

    @property
    def value(self) -> tf.Tensor:
        """The drawn value."""
        return self.draw.value

    @property
    def _family(self) -> str:
        return "This posterior" if self.layer is None else type(self.layer).__name__

    def posterior(self) -> tfd.Distribution:
        """Returns q(z given x).

        Raises:
            ValueError: if it only knows the density of its own draws.
        """
        if self.q is None:
            raise ValueError(only_own_draws(self._family))
        return self.q(False)

    def log_p(self) -> tf.Tensor:
        """Returns log p of the draw, [S, B]."""
        return self.p.log_prob(self.draw.value)

    def log_q(self, constant: bool = False) -> tf.Tensor:
        """Returns log q of the draw, [S, B].

        Args:
            constant: whether to differentiate only through the draw, not the parameters of q.

        Raises:
            ValueError: if q cannot be evaluated with constant parameters.
        """
        known = None if constant else self.draw.log_prob
        if self.q is not None and (known is None or not getattr(self.layer, "scores_draws", False)):
            return self.q(constant).log_prob(self.draw.value)
        if known is None:
            raise ValueError(only_own_draws(self._family))
        return known


class Trace(NamedTuple):
    """Latents and observations of a batch at one set of draws.

    Attributes:
        latents: latent variables by name, in the order in which they are drawn.
        observations: observed variables by name.
    """

    latents: Mapping[str, Latent]
    observations: Mapping[str, Observation]

    def log_likelihood(self) -> tf.Tensor:
        """Returns log p(x given z) of all observations, [S, B]."""
        return log_likelihood(self.observations)

    def log_prior(self) -> tf.Tensor:
        """Returns log p(z) of all latents, [S, B]."""
        return reduce(add, (each.log_p() for each in self.latents.values()))

    def log_posterior(self) -> tf.Tensor:
        """Returns log q(z given x) of all latents, [S, B]."""
        return reduce(add, (each.log_q() for each in self.latents.values()))

    def log_joint(self) -> tf.Tensor:
        """Returns log p(x, z), [S, B]."""
        return self.log_prior() + self.log_likelihood()

    def log_ratio(self, constant: bool = False) -> tf.Tensor:
        """Returns log p(z) - log q(z given x) of all latents, [S, B]; `constant` as for `log_q`."""
        ratios = (each.log_p() - each.log_q(constant) for each in self.latents.values())
        return reduce(add, ratios)

    def log_weights(self, constant: bool = False) -> tf.Tensor:
        """Returns log p(x, z) - log q(z given x), [S, B], whose mean is the ELBO."""
        return self.log_likelihood() + self.log_ratio(constant)

    def penalties(self) -> dict[str, tf.Tensor]:
        """Returns the penalties of the draws by "latent/penalty", [S, B] or [B]."""
        return {
            f"{name}/{penalty}": value
            for name, latent in self.latents.items()
            for penalty, value in latent.draw.penalties.items()
        }


def identity(value: tf.Tensor) -> tf.Tensor:
    """Returns the value."""
    return value


def no_noise(name: str) -> None:
    """Returns None, the noise of a trace at given values."""


def spread(value: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Repeats a value [B, ...] for each draw of another value [..., B, L], in its dtype."""
    shape = tf.concat([tf.shape(like)[:-1], tf.shape(value)[1:]], 0)
    return tf.broadcast_to(tf.cast(value, like.dtype), shape)


def constant_weights(
    function: Callable[..., Any], *inputs: tf.Tensor | None
) -> tuple[Any, Callable[..., Any]]:
    """Calls a function, and makes it a function of its inputs alone.

    Args:
        function: function from tensors to a structure of tensors, which may read weights.
        inputs: where to call it; None for an absent one.

    Returns:
        The outputs, and a function that returns the same outputs, differentiated through its
        arguments (which have the values of the inputs) but not through the weights.
    """
    present = [one for one in inputs if one is not None]
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(present)
        outputs = function(*inputs)
    flat = tf.nest.flatten(outputs)

    @tf.custom_gradient
    def again(*given: tf.Tensor) -> tuple[list[tf.Tensor], Callable[..., Any]]:
        def gradient(*upstream: tf.Tensor) -> list[tf.Tensor]:
            return tape.gradient(flat, present, list(upstream), unconnected_gradients="zero")

        return [tf.stop_gradient(one) for one in flat], gradient

    def of_inputs(*given: tf.Tensor | None) -> Any:
        some = [one for one in given if one is not None]
        held = again(*some) if some else [tf.stop_gradient(one) for one in flat]
        return tf.nest.pack_sequence_as(outputs, held)

    return outputs, of_inputs


class Inference(NamedTuple):
    """Posterior of a batch, before any noise is drawn.

    Attributes:
        trace: function from noise {latent: [S, B, ...]} to the trace of its draws. A second
            argument, a function from a drawn value to the same value, may change the gradient
            through each draw.
        at: function from values {latent: [S, B, ...]} to the trace at them.
        over: function from noise {latent: [S, B, ...]} and the name of the first latent, one of K
            categories, to the trace of K S draws: each category with the same noise of the other
            latents, so that a sum over the categories is exact. A third argument, a number T below
            K - 1, makes it (T + 1) S draws: the T most probable categories of each example, then
            one drawn from q among the others.
        of: function from names of parts of the data to the inference from these parts alone, the
            others being hidden; None where the model has a single x.
    """

    trace: Callable[..., Trace]
    at: Callable[[Mapping[str, tf.Tensor]], Trace]
    over: Callable[..., Trace] | None = None
    of: Callable[[Collection[str]], "Inference"] | None = None

    @classmethod
    def by(cls, say: Callable[["LatentOf"], Trace]) -> "Inference":
        """Makes the inference of a model from one function that builds its traces.

        Args:
            say: function that builds a trace. It is given a function
                `latent(name, layer, parameters, p)` that returns the `Latent` of a posterior layer
                with the given parameters, scored under p, drawn from noise or at a given value.
                Where p depends on latents that are drawn later, pass p=None and in_order=False,
                and set it afterwards: z._replace(p=...). Where the parameters depend on earlier
                draws, through=f may give the parameters differentiated through these draws and not
                through weights, as the second result of `constant_weights` does.

        Example:
            One latent z and one x, as in a VAE:

                def say(latent):
                    z = latent("z", posterior, posterior.parameters(x), prior.distribution())
                    p = likelihood.distribution(z.value)
                    return Trace({"z": z}, {"x": Observation(x, p)})

                return Inference.by(say)
        """

        def trace(noise: Any, through: Callable[[tf.Tensor], tf.Tensor] = identity) -> Trace:
            def draw(name: str, layer: Any, parameters: dict[str, tf.Tensor]) -> Draw:
                if name not in noise:
                    raise ValueError(
                        f"Expected noise of every latent, and that of {name!r} is missing: noise() "
                        f"has {sorted(noise)}. Return it there."
                    )
                drawn = checked_draw(layer, noise[name], parameters, axes=2)
                if not layer.tells_density and drawn.log_prob is None:
                    raise ValueError(
                        f"{type(layer).__name__} has tells_density = False, so its draws know "
                        "their density: return Draw(value, log_prob)."
                    )
                return drawn._replace(value=through(drawn.value))

            return _checked(say(LatentOf(draw, noise.get)))

        def at(latents: Mapping[str, tf.Tensor]) -> Trace:
            return say(LatentOf(lambda name, *_: Draw(latents[name])))

        def over(noise: Mapping[str, tf.Tensor], first: str, top: int | None = None) -> Trace:
            times = 0

            def draw(name: str, layer: Any, parameters: dict[str, tf.Tensor]) -> Draw:
                nonlocal times
                if name == first:
                    categories = layer.event_shape[-1]
                    if top is not None and top < categories - 1:
                        times = top + 1
                        return Draw(_some_categories(layer, noise[name], parameters, top))
                    times = categories
                    size = [categories, *sizes_of(noise[name])[:2], categories]
                    one_hot = tf.eye(categories, dtype=noise[name].dtype)[:, None, None]
                    return Draw(tf.reshape(tf.broadcast_to(one_hot, size), [-1, *size[2:]]))
                if not times:
                    raise ValueError(
                        f"Expected {first!r} to be the first latent that infer draws; got {name!r}."
                    )
                return checked_draw(layer, repeated(name), parameters, axes=2)

            def repeated(name: str) -> Any:
                if (own := noise.get(name)) is None:
                    return None
                return tf.nest.map_structure(
                    lambda one: tf.tile(one, [times, *[1] * (one.shape.rank - 1)]), own
                )

            return _checked(say(LatentOf(draw, repeated)))

        return cls(trace, at, over)


def _some_categories(
    layer: Any, noise: tf.Tensor, parameters: dict[str, tf.Tensor], top: int
) -> tf.Tensor:
    """Returns the most probable categories and one drawn from the others, [(T + 1) S, B, K]."""
    if "logits" not in parameters:
        raise ValueError(
            f"{type(layer).__name__} has the parameters {sorted(parameters)}, and only categories "
            "with `logits` can be summed in part: leave top_classes=None."
        )
    logits = parameters["logits"]
    best = tf.one_hot(tf.math.top_k(logits, top).indices, logits.shape[-1], dtype=logits.dtype)
    least = tf.constant(-1e30, logits.dtype)
    others = tf.where(tf.reduce_sum(best, axis=-2) > 0, least, logits)
    drawn = checked_draw(layer, noise, {**parameters, "logits": others}, axes=2).value
    best = tf.transpose(best, [1, 0, 2])[:, None]
    best = tf.broadcast_to(best, [top, *sizes_of(drawn)])
    return tf.concat([tf.reshape(best, [-1, *sizes_of(drawn)[1:]]), drawn], axis=0)


def _checked(trace: Trace) -> Trace:
    """Returns a trace at draws; refuses priors that do not fit the draws."""
    for name, latent in trace.latents.items():
        if latent.p is None:
            raise ValueError(
                f"The latent {name!r} has no p, under which its draw is scored. Set it: "
                "z._replace(p=...)."
            )
        refuse_event(latent.p, latent.value.shape[2:], f"The prior of {name!r}")
    return trace


class LatentOf(NamedTuple):
    """Function from a name, a posterior layer, its parameters and p to a `Latent`.

    Attributes:
        draw: function from name, layer and parameters to a draw.
        noise: function from a name to the noise of the trace of that name, of a latent or of what
            else a training step draws; None if there is none.
    """

    draw: Callable[..., Draw]
    noise: Callable[[str], Any] = no_noise

    def __call__(
        self,
        name: str,
        layer: Any,
        parameters: dict[str, tf.Tensor],
        p: tfd.Distribution | None,
        in_order: bool = True,
        through: Callable[..., dict[str, tf.Tensor]] | None = None,
    ) -> Latent:
        """Returns the latent; see `Inference.by` for the arguments."""

        def q(constant: bool = False) -> tfd.Distribution:
            own = parameters
            if constant and through is not None:
                own = through()
            elif constant:
                own = tf.nest.map_structure(tf.stop_gradient, parameters)
            found = layer.make_distribution(**own)
            refuse_event(found, tf.TensorShape(layer.event_shape), f"The posterior of {name!r}")
            return found

        drawn = self.draw(name, layer, parameters)
        return Latent(drawn, p, q if layer.tells_density else None, in_order, layer=layer)


class Generation(NamedTuple):
    """Generated latents, and the distributions of the data at them.

    Attributes:
        latents: values by name, [B, ...].
        observations: distributions of the data by name.
    """

    latents: Mapping[str, tf.Tensor]
    observations: Mapping[str, Site]
