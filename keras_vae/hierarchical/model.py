"""Variational autoencoder with several levels of latents."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import deserialize, register, serialize
from keras_vae.distributions import Likelihood, Parts
from keras_vae.distributions.base.shapes import symbolic
from keras_vae.distributions.noise import checked_draw
from keras_vae.distributions.tfp import tfd
from keras_vae.hierarchical.block import TopDownBlock
from keras_vae.latent_variable_model import finite_tensor
from keras_vae.likelihood_model import LikelihoodModel, batched, build_on
from keras_vae.spelling import counted
from keras_vae.trace import Generation, Inference, Latent, LatentOf, Trace, constant_weights

__all__ = ["HierarchicalVAE"]


@register
class HierarchicalVAE(LikelihoodModel):
    """Latent variable model p(x, z) = prod_k p(z_k | z_<k) p(x | z) of any number of levels.

    Inference and generation take the same path from the top down. The first block of `blocks` is
    the top: its latent is drawn first, and its state decides the prior of the next. The likelihood
    is given the state below the last block. The encoder runs once and from the bottom up; each
    block combines its features with the state above it:

        q(z | x) = prod_k q(z_k | z_<k, x)
        ELBO = E_q log p(x | z) - sum_k E_q KL(q(z_k | z_<k, x) || p(z_k | z_<k))

    The rate of each level is in closed form given the draws above it, and `fit` logs it as
    `rate_NAME`. All objectives, `log_marginal` by importance or annealing, `sample`, `reconstruct`,
    `impute` and the export treat all levels at once.

    Blocks of the kind "bottom_up" are inferred the other way: q(z | x) = q(z_K | x) q(z_K-1 | z_K)
    ... q(z_1 | z_2), with features of x for the last block alone. Then only the rate of the top
    level has a closed form; that of each other level is estimated from its draw.

    Args:
        encoder: network from x (or [x, condition], or a dict of named parts) to the features: one
            tensor for all blocks, or a dict with those of each by its name. None is x itself.
        blocks: the levels by name, from the top down.
        likelihood: p(x | z), whose network is called with the last state.
        condition_shape: shape of one condition c. It is the state above the first block, whose
            prior is then learned, and it is passed to the encoder and to the likelihood as to those
            of a `VAE`.
        feature_names: names of the columns of x, for a table.

    Raises:
        ValueError: if a network does not take its input, names or dtypes disagree, or there is no
            block, or some blocks alone are bottom-up.
        TypeError: if an argument has the wrong type.

    Example:
        >>> import keras_vae, numpy as np
        >>> vae = HierarchicalVAE(
        ...     encoder=keras.layers.Dense(8, "relu"),
        ...     blocks={
        ...         "z1": TopDownBlock(2, kind="ladder", network=keras.layers.Dense(8, "relu")),
        ...         "z2": TopDownBlock(3, kind="ladder", network=keras.layers.Dense(8, "relu")),
        ...     },
        ...     likelihood=keras_vae.Normal(5),
        ... )
        >>> vae.compile("adam")
        >>> history = vae.fit(np.zeros([64, 5], "float32"), verbose=0).history
        >>> sorted(history)
        ['distortion', 'elbo', 'loss', 'rate', 'rate_z1', 'rate_z2']
        >>> vae.decode({"z1": np.zeros([4, 2]), "z2": np.zeros([4, 3])}).batch_shape
        TensorShape([4])
    """

    def __init__(
        self,
        *,
        encoder: keras.layers.Layer | None = None,
        blocks: Mapping[str, TopDownBlock],
        likelihood: Likelihood | Parts,
        condition_shape: int | Sequence[int] | None = None,
        feature_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check_blocks(blocks)
        if not isinstance(likelihood, (Likelihood, Parts)):
            raise TypeError(
                "Invalid value for argument `likelihood`. Expected a keras_vae Likelihood. "
                f"Received: {likelihood!r}"
            )
        if not (encoder is None or isinstance(encoder, keras.layers.Layer)):
            raise TypeError(
                "Invalid value for argument `encoder`. Expected a Keras layer or model, or None. "
                f"Received: {encoder!r}"
            )
        self.encoder = encoder
        self.blocks = dict(blocks)
        self.likelihood = likelihood
        dtypes = {name: block.float_dtype for name, block in self.blocks.items()}
        dtypes["the likelihood"] = likelihood.float_dtype
        if len(set(dtypes.values())) > 1:
            raise ValueError(
                f"The distributions compute in different dtypes: {dtypes}. Give all the same "
                "dtype=."
            )
        self._describe_data(condition_shape, feature_names)
        self._build_levels()
        self.built = True

    @property
    def latent_size(self) -> int:
        """Number of latents of all levels."""
        return sum(math.prod(block.latent_shape) for block in self.blocks.values())

    def _build_levels(self) -> None:
        inputs = symbolic(batched(self._shapes_of_inputs), self.compute_dtype)
        features = self._of_blocks(self._encoded(inputs))
        shapes = {name: value.shape[1:] for name, value in features.items()}
        if self._is_bottom_up:
            below = list(self.blocks.values())[1:]
            shapes |= {k: block.latent_shape for k, block in zip(self.blocks, below, strict=False)}
        state = self.condition_shape
        for name, block in self.blocks.items():
            shape = shapes[name]
            try:
                state = block.build_between(state, tuple(shape))
            except (TypeError, ValueError) as error:
                raise ValueError(f"The block {name!r}: {error}") from error
        given = [self.condition_shape] if self.condition_shape is not None else []
        build_on(self.likelihood, [state, *given], "the last state")
        self._refuse_absent_unread("The encoder", self._encoded)

    def _encoded(self, inputs: Any, training: bool = False) -> Any:
        if self.encoder is not None:
            return self.encoder(inputs, training=training)
        if isinstance(inputs, dict):
            raise ValueError(
                f"The model is given several named parts, {', '.join(inputs)}, and has no encoder "
                "that joins them: give it encoder=PartsEncoder(...)."
            )
        return keras.ops.concatenate(inputs, axis=-1) if isinstance(inputs, list) else inputs

    @property
    def _is_bottom_up(self) -> bool:
        """Whether each level is inferred from the one below it."""
        return next(iter(self.blocks.values())).kind == "bottom_up"

    def _of_blocks(self, features: Any) -> dict[str, Any]:
        """Returns the features of each block that is given some, by name."""
        names = list(self.blocks)[-1:] if self._is_bottom_up else list(self.blocks)
        if not isinstance(features, dict):
            return dict.fromkeys(names, features)
        if set(features) != set(names):
            raise ValueError(
                f"Expected an encoder with features for the blocks {', '.join(names)}; got "
                f"{', '.join(features)}."
            )
        return features

    def noise(self) -> dict[str, Any]:
        """Returns the noise of one draw of each latent from q."""
        return {
            name: replace(block.posterior.noise(), index=index)
            for index, (name, block) in enumerate(self.blocks.items())
        }

    def generation_noise(self) -> dict[str, Any]:
        """Returns the noise of one draw of each latent from p."""
        return {name: replace(noise, stream=random.LATENT) for name, noise in self.noise().items()}

    def infer(
        self, x: Any, training: bool = False, sample_weight: tf.Tensor | None = None
    ) -> Inference:
        """Infers the latents of a batch; arguments as for `VAE.infer`."""
        x = self._cast(x)
        values = self.data.by_name(x)
        condition = values.get("condition")
        features = self._features(x, training)

        draw = self._draw_up if self._is_bottom_up else self._draw_down

        def say(latent: LatentOf) -> Trace:
            latents, state = draw(latent, features, condition, training)
            sites = self._sites(self._beside(state, condition), training, latent.noise)
            if training:
                self._observe(values, sites, sample_weight)
            return Trace(latents, self._observations(values, sites))

        return Inference.by(say)

    def _draw_down(
        self, latent: LatentOf, features: dict[str, tf.Tensor], condition: Any, training: bool
    ) -> tuple[dict[str, Latent], tf.Tensor]:
        """Draws the levels from the top down; returns them and the last state."""
        state, frozen = condition, condition
        latents: dict[str, Latent] = {}
        for name, block in self.blocks.items():

            def both(
                above: Any, block: TopDownBlock = block, own: Any = features[name]
            ) -> tuple[Any, Any]:
                p = block.prior_parameters(above, training)
                return p, block.posterior_parameters(above, own, p, training)

            (p, q), again = constant_weights(both, state)
            z = latent(
                name,
                block.posterior,
                q,
                block.prior.make_distribution(**p),
                through=lambda again=again, above=frozen: again(above)[1],
            )
            latents[name] = z
            state, again = constant_weights(
                lambda above, z, block=block: block.state_below(above, z, training),
                state,
                z.value,
            )
            frozen = again(frozen, z.value)
        return latents, state

    def _draw_up(
        self, latent: LatentOf, features: dict[str, tf.Tensor], condition: Any, training: bool
    ) -> tuple[dict[str, Latent], tf.Tensor]:
        """Draws the levels from the bottom up; returns them, scored, and the last state."""
        top, bottom = next(iter(self.blocks)), next(reversed(self.blocks))
        drawn: dict[str, Latent] = {}
        below = features[bottom]
        for name, block in reversed(self.blocks.items()):
            q, again = constant_weights(
                lambda below, own=block.posterior: own.parameters(below, training), below
            )
            drawn[name] = latent(
                name,
                block.posterior,
                q,
                None,
                in_order=name == top,
                through=None if name == bottom else lambda again=again, z=below: again(z),
            )
            below = drawn[name].value
        state = condition
        for name, block in self.blocks.items():
            p = block.prior_parameters(state, training)
            drawn[name] = drawn[name]._replace(p=block.prior.make_distribution(**p))
            state = block.state_below(state, drawn[name].value, training)
        return drawn, state

    def _features(self, x: Any, training: bool = False) -> dict[str, tf.Tensor]:
        found = self._of_blocks(self._encoded(self._inputs(x), training))
        return {name: tf.cast(value, self.float_dtype) for name, value in found.items()}

    def generate(
        self,
        noise: Mapping[str, Any] | None = None,
        latents: Mapping[str, tf.Tensor] | None = None,
        condition: Any = None,
    ) -> Generation:
        """Generates the levels that are not given, from the top down, and p(x | z) at all."""
        state, found = condition, dict(latents or {})
        for name, block in self.blocks.items():
            if name not in found:
                own = block.prior_parameters(state)
                found[name] = checked_draw(block.prior, (noise or {})[name], own).value
            state = block.state_below(state, found[name])
        ordered = {name: found[name] for name in self.blocks}
        return Generation(ordered, self._sites(self._beside(state, condition)))

    def encode(self, x: Any) -> dict[str, tfd.Distribution]:
        """Returns the posterior of each level by name, batch shape [B], event shape [*Z].

        Each is q(z_k | z_<k, x) at the means of the levels above it; of bottom-up blocks
        q(z_k | z_k+1) at the mean of the level below.

        Args:
            x: data [B, *D], or {"x": ..., "condition": ...}.

        Raises:
            DataError: if a shape is wrong or a number is not finite.
        """

        def upwards(x: Any) -> dict[str, Any]:
            (below,), found = self._features(self._cast(x)).values(), {}
            for name, block in reversed(self.blocks.items()):
                found[name] = block.posterior.parameters(below)
                below = found[name]["loc"]
            return {name: found[name] for name in self.blocks}

        def downwards(x: Any) -> dict[str, Any]:
            state = self.data.by_name(self._cast(x)).get("condition")
            features, found = self._features(self._cast(x)), {}
            for name, block in self.blocks.items():
                p = block.prior_parameters(state)
                found[name] = block.posterior_parameters(state, features[name], p)
                state = block.state_below(state, found[name]["loc"])
            return found

        parameters = upwards if self._is_bottom_up else downwards
        by_name = self._by_rows("encode", parameters, self._checked(x, in_support=False))
        return {
            name: self.blocks[name].posterior.make_distribution(**own)
            for name, own in by_name.items()
        }

    def decode(self, z: Mapping[str, Any], condition: Any = None) -> Any:
        """Returns the likelihood p(x | z), batch shape [B], event shape [*D].

        Args:
            z: latents of every level by name, [B, *Z].
            condition: conditions [B, *C] of a conditional model.

        Returns:
            The distribution; of a model with named parts a dict of the distribution of each.

        Raises:
            DataError: if a number of z is not finite.
            ValueError: if a level is missing or has another shape, or the condition is missing.
        """
        z = self._levels(z)
        rows = next(iter(z.values())).shape[0]
        condition = self._condition(condition, rows, "latents")
        inputs = [z] if condition is None else [z, condition]

        def parameters(inputs: Any) -> Any:
            given, *rest = inputs
            state = condition = rest[0] if rest else None
            for name, block in self.blocks.items():
                state = block.state_below(state, given[name])
            return self.likelihood.head_parameters_by_part(self._beside(state, condition))

        by_part = self._by_rows("decode", parameters, inputs)
        return self.one_or_all(
            {
                name: part.make_distribution(**by_part[name], **part.shared_parameters())
                for name, part in self.likelihood.by_part().items()
            }
        )

    def log_joint(self, x: Any, z: Mapping[str, Any]) -> tf.Tensor:
        """Computes log p(x, z) of all levels in nats, [B].

        Args:
            x: data [B, *D], or {"x": ..., "condition": ...}.
            z: latents of every level by name, [B, *Z].

        Raises:
            DataError: if x lies outside the support of the likelihood, or z is not finite.
            ValueError: if a level is missing or has another shape.
        """
        x, z = self._checked(x, in_support=True), self._levels(z)
        count, latents = len(keras.tree.flatten(x)[0]), len(next(iter(z.values())))
        if count != latents:
            raise ValueError(f"x holds {counted(count, 'example')} and z {latents} of them.")

        def of_rows(inputs: Any) -> tf.Tensor:
            x, z = inputs
            trace = self.infer(self._cast(x)).at(
                {name: value[tf.newaxis] for name, value in z.items()}
            )
            return trace.log_joint()[0]

        return self._by_rows("log_joint", of_rows, [x, z])

    def _levels(self, z: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """Returns checked latents of every level."""
        if not isinstance(z, Mapping) or set(z) != set(self.blocks):
            got = ", ".join(map(str, z)) if isinstance(z, Mapping) else type(z).__name__
            raise ValueError(f"Expected a dict of the latents {', '.join(self.blocks)}; got {got}.")
        found = {}
        for name, block in self.blocks.items():
            value = finite_tensor(name, z[name], self.float_dtype)
            if value.shape.rank is None or value.shape[1:] != block.latent_shape:
                raise ValueError(
                    f"{name} must have shape [n, {', '.join(map(str, block.latent_shape))}]; got "
                    f"{value.shape.as_list()}."
                )
            found[name] = value
        if len({len(value) for value in found.values()}) > 1:
            raise ValueError(
                "Expected as many rows of each latent; got "
                f"{', '.join(f'{len(value)} of {name}' for name, value in found.items())}."
            )
        return found

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments, and `preparation_digest` if there is one."""
        digest = self.preparation_digest
        return {
            **super().get_config(),
            **({} if digest is None else {"preparation_digest": digest}),
            "encoder": serialize(self.encoder),
            "blocks": [[name, serialize(block)] for name, block in self.blocks.items()],
            "likelihood": serialize(self.likelihood),
            "condition_shape": None if self.condition_shape is None else list(self.condition_shape),
            "feature_names": None if self.feature_names is None else list(self.feature_names),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "HierarchicalVAE":
        """Makes the model with new weights."""
        arguments = {**config, **{k: deserialize(config[k]) for k in ("encoder", "likelihood")}}
        arguments["blocks"] = {name: deserialize(block) for name, block in config["blocks"]}
        digest = arguments.pop("preparation_digest", None)
        vae = cls(**arguments)
        vae.preparation_digest = digest
        return vae


def _check_blocks(blocks: Any) -> None:
    """Refuses anything but levels by names that can be part of the name of a tensor."""
    if not isinstance(blocks, Mapping) or not blocks:
        raise ValueError(
            "Invalid value for argument `blocks`. Expected a dict of one TopDownBlock or more, "
            f"such as {{'z1': TopDownBlock(8)}}. Received: {blocks!r}"
        )
    for name, block in blocks.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise ValueError(
                f"Expected names of latents of letters, digits and _, such as 'z1'. Received: "
                f"{name!r}"
            )
        if not isinstance(block, TopDownBlock):
            raise TypeError(f"Invalid block {name!r}. Expected a TopDownBlock. Received: {block!r}")
    if len({block.kind == "bottom_up" for block in blocks.values()}) > 1:
        raise ValueError(
            "Expected all blocks or none to be of the kind 'bottom_up'; got "
            f"{', '.join(f'{name!r} of {block.kind!r}' for name, block in blocks.items())}."
        )
    if len({id(block) for block in blocks.values()}) < len(blocks):
        raise ValueError("Two names have the same TopDownBlock; give each level one of its own.")
