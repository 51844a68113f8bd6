"""Variational autoencoder: three laws, trained by `model.fit`."""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_vae import estimators, random
from keras_vae.arguments import as_count, as_shape, deserialize, is_integer, register, serialize
from keras_vae.backup import Backup
from keras_vae.chunks import CHUNK, by_chunks, rows_in
from keras_vae.data.stream import Feed, feed_of, skipped
from keras_vae.distributions import HeadSizeError, Likelihood, Posterior
from keras_vae.estimators import Laws
from keras_vae.guard import NonFiniteGuard, saves_within_epochs
from keras_vae.inputs import Contract, in_batches
from keras_vae.laws import tfd
from keras_vae.loop import (
    Loop,
    acts_within_epochs,
    array_stream,
    pays_to_compile,
    steps_at_once,
    stream_feed,
)
from keras_vae.monitor import LatentMonitor
from keras_vae.objectives import ELBO, Objective, Terms
from keras_vae.priors import Prior
from keras_vae.random.philox import wrap_to_int32
from keras_vae.replicas import (
    OneDevice,
    Share,
    leave_summing,
    on_each,
    steps_in_turn,
    summed,
    worker_errors,
    workers,
)

__all__ = ["VAE", "Bound"]

Noise = Callable[[tf.Tensor, int | Sequence[int], Any], tf.Tensor]
"""Function of a seed, leading axes S and a number of rows B to noise [*S, B, L]."""


class Bound(NamedTuple):
    """The evidence lower bound of each example and its two terms, [B], in nats.

    Attributes:
        elbo: lower bound on log p(x), -(distortion + rate).
        distortion: -E_q log p(x | z), every constant included.
        rate: KL(q(z | x) || p(z)).
    """

    elbo: tf.Tensor
    distortion: tf.Tensor
    rate: tf.Tensor


@register
class VAE(keras.Model):
    """Latent variable model p(x, z) = p(z) p(x | z) with an inference model q(z | x).

    `fit` maximises a bound on log p(x) and logs `loss`, `elbo`, `distortion` and `rate`, in nats
    per example; `loss` is the objective, with sample weights and the penalties of Keras
    regularizers in it, the others are unweighted. A call, like `predict` and `reconstruct`, returns
    the decoder mean at the posterior mean. Source: Kingma and Welling
    (2014), Auto-encoding variational Bayes, arXiv:1312.6114.

    Args:
        prior: p(z).
        likelihood: p(x | z), whose network is the decoder.
        posterior: q(z | x), whose network is the encoder.
        condition_shape: shape of one condition c, for p(x | z, c) and q(z | x, c). Encoder and
            decoder are then called with lists [x, c] and [z, c], and data is passed as
            {"x": ..., "condition": ...}.

    Raises:
        ValueError: if the latent sizes or the dtypes of the three laws disagree, or a network does
            not take its input.
        TypeError: if an argument is not of its kind.

    Example:
        >>> import keras_vae
        >>> vae = VAE(
        ...     prior=keras_vae.StandardNormal(2),
        ...     likelihood=keras_vae.Normal(5, network=keras.layers.Dense(8, "relu")),
        ...     posterior=keras_vae.DiagonalNormal(2, network=keras.layers.Dense(8, "relu")),
        ... )
        >>> vae.compile()
        >>> history = vae.fit(np.zeros([64, 5], "float32"), verbose=0)
        >>> sorted(history.history)
        ['distortion', 'elbo', 'loss', 'rate']
    """

    train_function: Any
    test_function: Any

    def __init__(
        self,
        *,
        prior: Prior,
        likelihood: Likelihood,
        posterior: Posterior,
        condition_shape: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        for name, value, kind in (
            ("prior", prior, Prior),
            ("likelihood", likelihood, Likelihood),
            ("posterior", posterior, Posterior),
        ):
            if not isinstance(value, kind):
                raise TypeError(
                    f"Invalid value for argument `{name}`. Expected a keras_vae {kind.__name__}, "
                    f"a layer with a law. Received: {value!r}"
                )
        if prior.latent_size != posterior.latent_size:
            raise ValueError(
                f"Latent sizes disagree: the prior has {prior.latent_size} and the posterior "
                f"{posterior.latent_size}. Give both the same number."
            )
        dtypes = [law.law_dtype for law in (prior, likelihood, posterior)]
        if len(set(dtypes)) > 1:
            raise ValueError(
                f"The laws compute in different dtypes: prior {dtypes[0]}, likelihood {dtypes[1]}, "
                f"posterior {dtypes[2]}. Give all three the same dtype=."
            )
        self.prior = prior
        self.likelihood = likelihood
        self.posterior = posterior
        self.latent_size = prior.latent_size
        self.condition_shape = (
            None if condition_shape is None else as_shape(condition_shape, "condition_shape")
        )
        self._draws = keras.random.SeedGenerator()
        self._strategy = tf.distribute.get_strategy() if tf.distribute.has_strategy() else None
        self._distribute_strategy = None  # Keras trains as on one device, see keras_vae.replicas
        self._step: tuple[tf.Tensor, tf.Tensor | None] | None = None
        self._loop: Loop | None = None
        self._stepwise: Any = None
        self._graphs: dict[Any, Any] = {}
        self.monitor: LatentMonitor | None = None
        self.loss_metric = keras.metrics.Mean(name="loss")
        self.elbo_metric = keras.metrics.Mean(name="elbo")
        self.distortion_metric = keras.metrics.Mean(name="distortion")
        self.rate_metric = keras.metrics.Mean(name="rate")
        self._build_laws()
        self.built = True

    def _build_laws(self) -> None:
        data_shapes = [self.likelihood.event_shape]
        latent_shapes: list[tuple[int, ...]] = [(self.latent_size,)]
        if self.condition_shape is not None:
            data_shapes.append(self.condition_shape)
            latent_shapes.append(self.condition_shape)
        for layer, shapes, inputs in (
            (self.posterior, data_shapes, "x"),
            (self.likelihood, latent_shapes, "z"),
        ):
            batched = [(None, *shape) for shape in shapes]
            try:
                layer.build(batched if len(batched) > 1 else batched[0])
            except HeadSizeError:
                raise
            except (TypeError, ValueError) as error:
                wanted = " and a condition of shape ".join(_batch_of(shape) for shape in shapes)
                raise ValueError(
                    f"The network of {type(layer).__name__} does not take {inputs} of shape "
                    f"{wanted}: {_reason(error)}"
                ) from error
        support = self.likelihood.support
        self.prior.bind(self.posterior, data_shapes, support.low, support.high)

    @property
    def _contract(self) -> Contract:
        return Contract(self.likelihood, self.condition_shape)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example x."""
        return self.likelihood.event_shape

    def encode(self, x: Any) -> tfd.Distribution:
        """Posterior q(z | x), batch shape [B], event shape [L].

        Args:
            x: data [B, *D], or {"x": ..., "condition": ...}.

        Raises:
            DataError: if a shape is wrong or a number is not finite.
        """
        parameters = self._by_rows("encode", self._encoded, self._checked(x, in_support=False))
        return self.posterior.law(**parameters, **self.posterior.constants())

    def _encoded(self, x: Any) -> dict[str, tf.Tensor]:
        values, condition = self._contract.split(self._cast(x))
        return self.posterior.parameters(values if condition is None else [values, condition])

    def decode(self, z: Any, condition: Any = None) -> tfd.Distribution:
        """Likelihood p(x | z), batch shape [B] or [S, B], event shape [*D].

        Args:
            z: latents [B, L] or [S, B, L].
            condition: conditions [B, *C] of a conditional model.

        Raises:
            ValueError: if the last axis of z is not the latents, or the condition is missing.
        """
        z = tf.convert_to_tensor(z, dtype=self.likelihood.law_dtype)
        if z.shape.rank < 2 or z.shape[-1] != self.latent_size:
            raise ValueError(f"z must have shape [n, {self.latent_size}]; got {z.shape.as_list()}.")
        inputs = self._beside(z, self._condition(condition))
        if z.shape.rank > 2:
            inputs = keras.tree.map_structure(
                lambda part: tf.reshape(part, [-1, *part.shape[z.shape.rank - 1 :]]), inputs
            )
        parameters = self._by_rows("decode", self.likelihood.parameters, inputs)
        if z.shape.rank > 2:
            parameters = {
                name: tf.reshape(value, tf.concat([tf.shape(z)[:-1], tf.shape(value)[1:]], 0))
                for name, value in parameters.items()
            }
        return self.likelihood.law(**parameters, **self.likelihood.constants())

    def log_joint(self, x: Any, z: Any) -> tf.Tensor:
        """Joint log p(x, z) = log p(z) + log p(x | z) in nats, [B], or [S, B] for z [S, B, L].

        Args:
            x: data [B, *D], or {"x": ..., "condition": ...}.
            z: latents [B, L] or [S, B, L].

        Raises:
            DataError: if x lies outside the support of the likelihood.
        """
        x, condition = self._contract.split(self._cast(self._checked(x, in_support=True)))
        z = tf.convert_to_tensor(z, dtype=self.likelihood.law_dtype)
        law = self.decode(z, condition)
        if not z.shape[-2:-1].is_compatible_with(x.shape[:1]):
            raise ValueError(f"x holds {x.shape[0]} examples and z {z.shape[-2]} of them.")
        return self.prior.distribution().log_prob(z) + law.log_prob(x)

    def elbo(self, x: Any, num_samples: int = 1, seed: int | None = None) -> Bound:
        """Evidence lower bound of each example, with the rate in closed form where there is one.

        The draws of example i are a pure function of (seed, i): it matters neither what stands
        beside it nor how many there are. They are those of the exported `score` for the seed pair
        [seed, i].

        Args:
            x: data [B, *D], or {"x": ..., "condition": ...}.
            num_samples: draws from the posterior per example.
            seed: integer for reproducible draws; None draws anew each time.

        Returns:
            `Bound(elbo, distortion, rate)`, each [B], in nats.

        Raises:
            DataError: if x lies outside the support of the likelihood.
        """
        num_samples = as_count("num_samples", num_samples, least=1)
        x = self._checked(x, in_support=True)
        first = keras.tree.flatten(x)[0]
        count = tf.shape(first)[0] if tf.is_symbolic_tensor(first) else len(first)

        def terms(x: Any, seeds: tf.Tensor) -> Bound:
            noise = random.normal(seeds, (num_samples, self.latent_size), stream=random.LATENT)
            noise = tf.cast(tf.transpose(noise, [1, 0, 2]), self.posterior.law_dtype)
            laws = self.laws(x, noise=lambda *_: noise)
            distortion, rate = estimators.elbo_terms(laws, laws.sample(num_samples, seeds))
            return Bound(-(distortion + rate), distortion, rate)

        return self._by_rows(
            f"elbo {num_samples}",
            lambda inputs: terms(*inputs),
            [x, self._row_seeds(count, seed)],
            num_samples,
        )

    def sample(self, n: int, seed: int | None = None, *, condition: Any = None) -> tf.Tensor:
        """Draws from p(x): z from the prior, x from the likelihood; [n, *D].

        Row i is a pure function of (seed, i), by the counter-based noise of `keras_vae.random`: an
        exported model gives the same row for the seed pair [seed, i].

        Args:
            n: number of draws.
            seed: integer of 32 bits for reproducible draws; None draws anew each time.
            condition: conditions [n, *C], or one [*C] for all, of a conditional model.

        Raises:
            ValueError: if `n` or `seed` is out of range, or the condition is missing.
        """
        return self._by_rows("sample", self._drawn, self._prior_inputs(n, seed, condition))

    def sample_mean(self, n: int, seed: int | None = None, *, condition: Any = None) -> tf.Tensor:
        """Decoder means at the prior draws that `sample` uses for the same seed; [n, *D].

        These are not draws from p(x): they leave out the noise of the likelihood.
        """
        return self._by_rows("sample_mean", self._mean, self._prior_inputs(n, seed, condition))

    def reconstruct(self, x: Any) -> tf.Tensor:
        """Decoder mean at the posterior mean, [B, *D]; deterministic, as is `predict`.

        Raises:
            DataError: if a shape is wrong or a number is not finite.
        """
        x = self._checked(x, in_support=False)
        return self._by_rows("reconstruct", lambda x: self(x, training=False), x)

    def call(self, x: Any, training: bool = False) -> tf.Tensor:
        """Decoder mean at the posterior mean, or when training at a posterior draw."""
        x = self._cast(x)
        q = self._posterior(x, training)
        z = q.sample(seed=random.stateless_seed(self._draws.next())) if training else q.mean()
        return self._likelihood(z, self._contract.split(x)[1], training).mean()

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        objective: Objective | None = None,
        *,
        run_eagerly: bool = False,
        steps_per_execution: int | None = None,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
        monitor: bool = False,
        **unsupported: Any,
    ) -> None:
        """Sets what is optimised, and how.

        Args:
            optimizer: Keras optimizer or its name.
            objective: what is minimised; None is `ELBO()`.
            run_eagerly: run Python at each step, to debug.
            steps_per_execution: steps in one call of the graph, between which no callback is
                called. None is up to 100 where data is in memory and no callback acts within
                epochs, else 1.
            jit_compile: whether XLA compiles the steps; "auto" where they run many in one call and
                no layer is a convolution, which XLA computes slowly on a CPU.
            auto_scale_loss: scale the loss under the policy mixed_float16.
            monitor: whether to log what the latents carry, see `keras_vae.monitor`.

        Raises:
            TypeError: if the objective is not one, or a Keras loss or metric is passed.
            ValueError: if the objective needs a closed form that these laws do not have.
        """
        if unsupported:
            raise TypeError(
                f"VAE.compile does not take {', '.join(sorted(unsupported))}: the loss of a VAE is "
                "its objective, such as keras_vae.ELBO(beta=...), and its likelihood decides how x "
                "is compared with its reconstruction."
            )
        if run_eagerly and self._strategy is not None:
            raise ValueError(
                "run_eagerly=True is for one device: its steps run in Python, in no order that "
                "replicas could agree on. Build the model outside of the strategy to debug it."
            )
        objective = ELBO() if objective is None else objective
        if not isinstance(objective, Objective):
            raise TypeError(
                "Invalid value for argument `objective`. Expected a keras_vae objective such as "
                f"ELBO() or IWAE(50). Received: {objective!r}"
            )
        with self._scope():
            super().compile(
                optimizer=optimizer,
                run_eagerly=run_eagerly,
                steps_per_execution=steps_per_execution or 1,
                jit_compile=jit_compile,
                auto_scale_loss=auto_scale_loss,
            )
            self.optimizer.build(self.trainable_variables)
            if self._strategy is not None:
                leave_summing(self.optimizer)
            self.monitor = LatentMonitor(self.latent_size) if monitor else None
        self._loop = self._stepwise = None
        self._graphs.clear()
        objective.check(self.laws(self._contract.zeros()))
        self.objective = objective
        self._compile_arguments: dict[str, Any] = {
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
            "auto_scale_loss": auto_scale_loss,
            "monitor": monitor,
        }

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *,
        sample_weight: Any = None,
        validation_data: Any = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains the model as `keras.Model.fit` does, with data checked against the likelihood.

        Args:
            x: array [N, *D], a dict {"x": ..., "condition": ...} of such, or a `tf.data.Dataset`,
                `PyDataset` or generator of batches. Datasets may yield (x, y, sample_weight), of
                which y is ignored.
            y: must be None; a VAE has no targets.
            sample_weight: numbers [N], at least 0, that weigh `loss` and nothing else.
            validation_data: as x, or (x, None, sample_weight).
            callbacks: Keras callbacks.
            **kwargs: as for `keras.Model.fit`, among them epochs, batch_size, validation_split.

        Raises:
            DataError: if data lies outside the support, has a wrong shape or is not finite.
            NonFiniteError: if a term of the loss or a weight becomes NaN or infinite.
        """
        if y is not None:
            raise ValueError(
                "fit was given targets y, and a VAE models p(x) alone: call fit(x). To condition "
                'on y build it with condition_shape= and call fit({"x": x, "condition": y}).'
            )
        if kwargs.pop("class_weight", None) is not None:
            raise ValueError(
                "fit was given class_weight, and a VAE has no classes: use sample_weight."
            )
        contract = self._contract
        if isinstance(x, (tf.data.Dataset, Iterator)):
            kwargs.setdefault("shuffle", False)
        if validation_data is not None:
            val_x, val_y, val_weight = keras.utils.unpack_x_y_sample_weight(validation_data)
            if val_y is not None and val_weight is None:
                raise ValueError(
                    "validation_data was given targets, and a VAE has none: pass validation_data=x "
                    "or (x, None, sample_weight)."
                )
            (val_x, targets, val_weight), kwargs["validation_batch_size"] = in_batches(
                contract.weighted(val_x, val_weight),
                kwargs.get("validation_batch_size"),
                self._rows_at_once(),
            )
            kwargs["validation_data"] = (
                val_x if val_weight is None else (val_x, targets, val_weight)
            )
        if kwargs.get("validation_split"):
            kwargs["validation_batch_size"] = (
                kwargs.get("validation_batch_size") or self._rows_at_once()
            )
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = callbacks.callbacks
        callbacks = keras.tree.flatten(callbacks or [])
        guard = NonFiniteGuard(each_step=any(map(saves_within_epochs, callbacks)))
        asked = kwargs.get("initial_epoch", 0)
        restored = [each.restore(self) for each in callbacks if isinstance(each, Backup)]
        kwargs["initial_epoch"] = max(asked, *restored, 0)
        in_graph = self.compiled and not self.run_eagerly
        if isinstance(x, tf.data.Dataset) and (per_epoch := kwargs.get("steps_per_epoch")):
            x = skipped(x, kwargs["initial_epoch"] - asked, per_epoch)
        feed = stream_feed(x, kwargs) if in_graph and sample_weight is None else None
        assertions = None if feed is None else contract.assertions
        if feed is None:
            x, targets, sample_weight = contract.weighted(x, sample_weight)
            if in_graph:
                rows, kwargs = array_stream(x, sample_weight, kwargs, self._order)
                feed = feed_of(rows)
                if rows is not None:
                    x, targets, sample_weight = rows, None, None
        fit = super().fit
        if feed is None:
            if workers(self._strategy) is not None:
                raise ValueError(
                    "On several machines every worker must see the same batches in the same order: "
                    "give fit an array, or keras_vae.data.batches(...), whose order is a function "
                    f"of its seed. Received: {type(x).__name__}"
                )
            self.train_function = self._stepwise
            with contract.data_errors():
                history = fit(
                    x, targets, sample_weight=sample_weight, callbacks=[guard, *callbacks], **kwargs
                )
            self._stepwise = self.train_function
            return history
        steps_per_execution = self._compile_arguments["steps_per_execution"]
        validation = steps_per_execution or 1
        self.train_function = loop = self._loop_over(feed, assertions, kwargs.get("epochs", 1))
        capacity = steps_at_once(feed, self.objective.num_samples * self.latent_size)
        if steps_per_execution is None:
            steps_per_execution = 1 if any(map(acts_within_epochs, callbacks)) else capacity
        self.steps_per_execution = steps_per_execution
        pace, pieces = loop.prepare(feed, steps_per_execution, capacity, validation)
        kwargs["steps_per_epoch"] = feed.steps
        try:
            with contract.data_errors(), worker_errors(self._strategy):
                return fit(pieces.repeat(), callbacks=[pace, guard, *callbacks], **kwargs)
        finally:
            self.steps_per_execution = validation

    def _order(self, passed: int) -> int:
        """Seed of the order of examples in arrays.

        It is that of the training that began `passed` steps ago, so that one that is resumed goes
        on in its order; and it is the same on all workers.
        """
        begin = int(self.optimizer.iterations.numpy()) - passed
        words = [int(word) % 2**32 for word in (self._draws.state.value.numpy()[0], begin)]
        return int(np.random.SeedSequence(words).generate_state(1)[0]) // 2

    @property
    def strategy(self) -> tf.distribute.Strategy | None:
        """The strategy in whose scope the model was built, if any."""
        return self._strategy

    def _loop_over(self, feed: Feed, assertions: Any, epochs: int) -> Loop:
        wanted = self._compile_arguments["jit_compile"]
        jit_compile = pays_to_compile(self, feed, epochs) if wanted == "auto" else bool(wanted)
        jit_compile = jit_compile and self._strategy is None
        if self._loop is None or not self._loop.does(feed, assertions, jit_compile):
            self._loop = Loop(self, feed.take, assertions, jit_compile)
        return self._loop

    def evaluate(
        self, x: Any = None, y: Any = None, *, sample_weight: Any = None, **kwargs: Any
    ) -> Any:
        """Mean loss, elbo, distortion and rate over a data set, as the objective draws them.

        Arrays go through in as many examples at once as take about 128 MiB, unless `batch_size` is
        given; the means do not depend on it but for the draws.
        """
        contract = self._contract
        if not kwargs.get("_use_cached_eval_dataset"):
            if y is not None:
                raise ValueError(
                    "evaluate was given targets y, and a VAE has none: call evaluate(x)."
                )
            (x, y, sample_weight), kwargs["batch_size"] = in_batches(
                contract.weighted(x, sample_weight), kwargs.get("batch_size"), self._rows_at_once()
            )
        with contract.data_errors():
            return super().evaluate(x, y, sample_weight=sample_weight, **kwargs)

    def predict(self, x: Any, **kwargs: Any) -> np.ndarray:
        """Decoder means at the posterior means, batch by batch, [N, *D]; see `reconstruct`.

        Arrays go through in as many examples at once as take about 128 MiB, unless `batch_size` is
        given; the means do not depend on it.
        """
        (x, *_), kwargs["batch_size"] = in_batches(
            (self._contract.readable(x), None, None),
            kwargs.get("batch_size"),
            self._rows_at_once(),
        )
        return super().predict(x, **kwargs)

    def _rows_at_once(self) -> int:
        draws = self.objective.num_samples if self.compiled else 1
        return max(1, rows_in(CHUNK, self) // draws)

    @property
    def distribute_strategy(self) -> Any:
        """What Keras is to train with: one device, whatever runs within a step."""
        return OneDevice() if self._strategy is not None else super().distribute_strategy

    def _scope(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self._strategy is None else self._strategy.scope()

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One step of the optimizer on one batch, shared among the replicas."""
        weights = self.trainable_weights

        def train(share: Share, loss_of: Callable[[bool], tf.Tensor]) -> None:
            with tf.GradientTape() as tape:
                loss = loss_of(True)
                count = tf.cast(share.total, loss.dtype)
                loss = tf.reduce_sum(loss) * tf.cast(share.weight, loss.dtype) / count
                loss = self.optimizer.scale_loss(loss)
            gradients = summed(tape.gradient(loss, weights))
            self.optimizer.apply_gradients(zip(gradients, weights, strict=True))

        self._on_each(data, train)
        return self.get_metrics_result()

    def train_step_from(self, data: Any, seed: tf.Tensor, noise: tf.Tensor) -> None:
        """One step of the optimizer from a seed that was taken, and noise drawn, before."""
        self._step = seed, noise
        try:
            self.train_step(data)
        finally:
            self._step = None

    def take_seeds(self, count: tf.Tensor, capacity: int) -> tf.Tensor:
        """The seeds of the next `count` steps, the first of int32 [capacity, 2]."""
        state = self._draws.state
        first = state.value
        steps = tf.range(capacity, dtype=first.dtype)
        seeds = first + tf.stack([tf.zeros_like(steps), steps], axis=-1)
        state.assign(first + tf.stack([tf.zeros([], first.dtype), tf.cast(count, first.dtype)]))
        return wrap_to_int32(seeds)

    def noise(self, seed: tf.Tensor, num_samples: int | Sequence[int], size: Any) -> tf.Tensor:
        """Standard normal noise [*num_samples, size, L] that posterior draws are made of."""
        leading = [num_samples] if isinstance(num_samples, int) else num_samples
        shape = [*leading, size, self.latent_size]
        return tf.random.stateless_normal(shape, seed, 0.0, 1.0, self.posterior.law_dtype, "philox")

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """The same bound on one batch without training: z is drawn, never set to its mean."""
        self._on_each(data, lambda _, loss_of: loss_of(False))
        return self.get_metrics_result()

    def _on_each(
        self, data: Any, function: Callable[[Share, Callable[[bool], tf.Tensor]], Any]
    ) -> None:
        """Calls a function on each replica.

        It is given the share of the replica and the loss of each of its examples, as a function of
        whether the networks are in training mode. Noise is that of the whole batch: the numbers do
        not depend on the number of replicas.
        """
        seed, given = self._step or (random.stateless_seed(self._draws.next()), None)
        x, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        first = tf.nest.flatten(x)[0]
        total = first.shape[0] or tf.shape(first)[0]

        def on_replica(share: Share) -> None:
            def noise(other: tf.Tensor, num_samples: int | Sequence[int], _: Any) -> tf.Tensor:
                if given is not None and other is seed and num_samples == given.shape[0]:
                    return share.of(given, axis=1)
                return share.of(self.noise(other, num_samples, share.total), axis=1)

            rows = tf.nest.map_structure(share.of, x)
            weights = None if sample_weight is None else share.of(sample_weight)

            def loss_of(training: bool) -> tf.Tensor:
                laws = self.laws(rows, training, noise)
                terms = self.objective.terms(laws, seed)
                loss = terms.loss
                if weights is not None:
                    loss *= tf.cast(_per_example(weights), loss.dtype)
                for penalty in self.losses:
                    loss += tf.cast(tf.reduce_sum(penalty), loss.dtype)
                self._record(share, loss, terms)
                if self.monitor is not None:
                    self.monitor.update_state(laws, self.prior, seed, share.weight)
                return loss

            function(share, loss_of)

        on_each(self._strategy, total, on_replica)

    def _record(self, share: Share, loss: tf.Tensor, terms: Terms) -> None:
        weight = tf.fill(tf.shape(loss), tf.cast(share.weight, loss.dtype))
        for metric, values in (
            (self.loss_metric, loss),
            (self.elbo_metric, -(terms.distortion + terms.rate)),
            (self.distortion_metric, terms.distortion),
            (self.rate_metric, terms.rate),
        ):
            metric.update_state(values, sample_weight=weight)

    def make_train_function(self, force: bool = False) -> Any:
        """The function of an iterator that `fit` calls."""
        if self._strategy is None or (self.train_function is not None and not force):
            return super().make_train_function(force)
        self.train_function = steps_in_turn(self, self.train_step)

    def make_test_function(self, force: bool = False) -> Any:
        """The function of an iterator that `evaluate` calls."""
        if self._strategy is None or (self.test_function is not None and not force):
            return super().make_test_function(force)
        self.test_function = steps_in_turn(self, self.test_step)

    def get_metrics_result(self) -> dict[str, Any]:
        """Means so far, of all replicas."""
        with self._scope():
            return super().get_metrics_result()

    def reset_metrics(self) -> None:
        """Sets the means back, on all replicas."""
        with self._scope():
            super().reset_metrics()

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Means over examples, whatever the batches: loss, elbo, distortion, rate; the monitor."""
        means = [self.loss_metric, self.elbo_metric, self.distortion_metric, self.rate_metric]
        return means if self.monitor is None else [*means, self.monitor]

    def laws(self, x: Any, training: bool = False, noise: Noise | None = None) -> Laws:
        """The three laws that meet at a batch.

        Args:
            x: tensors [B, *D], or {"x": ..., "condition": ...}; neither checked nor converted.
            training: whether the networks are in training mode.
            noise: what posterior draws are made of, instead of the method `noise`.
        """
        make_noise = self.noise if noise is None else noise
        values, condition = self._contract.split(self._cast(x))
        prior = self.prior.distribution()
        parameters = self.posterior.parameters(
            values if condition is None else [values, condition], training
        )
        constant = {name: tf.stop_gradient(value) for name, value in parameters.items()}

        def sample(num_samples: int | Sequence[int], seed: tf.Tensor) -> tf.Tensor:
            size = values.shape[0] or tf.shape(values)[0]
            return self.posterior.transport(make_noise(seed, num_samples, size), **parameters)

        def likelihood(z: tf.Tensor) -> tfd.Distribution:
            law = self._likelihood(z, condition, training)
            if training:
                self.likelihood.observe(values, law)
            return law

        return Laws(
            x=values,
            prior=prior,
            posterior=self.posterior.law(**parameters),
            frozen_posterior=self.posterior.law(**constant),
            likelihood=likelihood,
            sample=sample,
        )

    def _posterior(self, x: Any, training: bool = False) -> tfd.Distribution:
        values, condition = self._contract.split(x)
        return self.posterior.distribution(
            values if condition is None else [values, condition], training
        )

    def _likelihood(
        self, z: tf.Tensor, condition: tf.Tensor | None, training: bool = False
    ) -> tfd.Distribution:
        return self.likelihood.distribution(self._beside(z, condition), training)

    def _beside(self, z: tf.Tensor, condition: tf.Tensor | None) -> Any:
        """What the decoder takes: z [..., L], or [z, condition] with the condition at each z."""
        if condition is None:
            return z
        shape = tf.concat([tf.shape(z)[:-1], tf.constant(self.condition_shape, tf.int32)], 0)
        return [z, _spread(condition, shape, z)]

    def _prior_inputs(self, n: int, seed: int | None, condition: Any) -> Any:
        """Row seeds of n draws, or [seeds, conditions]."""
        if not is_integer(n) or n < 1:
            raise ValueError(f"Expected a number of draws of at least 1; got n={n!r}.")
        seeds, condition = self._row_seeds(int(n), seed), self._condition(condition)
        if condition is None or self.condition_shape is None:
            return seeds
        if condition.shape[0] not in (1, n):
            raise ValueError(
                f"Expected one condition, or one for each of the {n} draws; got "
                f"{condition.shape[0]}."
            )
        return [seeds, tf.broadcast_to(condition, [n, *self.condition_shape])]

    def _row_seeds(self, n: int | tf.Tensor, seed: int | None) -> tf.Tensor:
        if seed is None:
            return random.row_seeds(random.stateless_seed(self._draws.next()), n)
        if not is_integer(seed) or not -(2**31) <= seed < 2**31:
            raise ValueError(f"Expected a seed that fits in 32 bits, or None; got seed={seed!r}.")
        return random.row_seeds(int(seed), n)

    def _at_prior_draws(self, inputs: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The row seeds, and the parameters of p(x | z) at the draws of z that belong to them."""
        seeds, *condition = keras.tree.flatten(inputs)
        z = self.prior.components().draw(seeds)
        inputs = [z, tf.cast(condition[0], z.dtype)] if condition else z
        return seeds, {**self.likelihood.parameters(inputs), **self.likelihood.constants()}

    def _drawn(self, inputs: Any) -> tf.Tensor:
        seeds, parameters = self._at_prior_draws(inputs)
        return self.likelihood.draw(seeds, **parameters)

    def _mean(self, inputs: Any) -> tf.Tensor:
        return self.likelihood.law(**self._at_prior_draws(inputs)[1]).mean()

    def _by_rows(
        self, name: str, function: Callable[[Any], Any], inputs: Any, draws: int = 1
    ) -> Any:
        """A function of [n, ...], row by row the same; a graph goes through many in chunks."""
        rows = max(1, rows_in(CHUNK, self) // draws)
        if not tf.executing_eagerly() or len(keras.tree.flatten(inputs)[0]) <= rows:
            return function(inputs)
        specs = keras.tree.map_structure(
            lambda part: tf.TensorSpec([None, *part.shape[1:]], part.dtype), inputs
        )
        key = (self.prior, self.likelihood, self.posterior, name, str(specs))
        if key not in self._graphs:
            self._graphs[key] = tf.function(function, input_signature=[specs], autograph=False)
        return by_chunks(self._graphs[key], inputs, rows)

    def _condition(self, condition: Any) -> tf.Tensor | None:
        """The condition as [n, *C], or [1, *C] if it came without the batch axis."""
        if self.condition_shape is None:
            if condition is not None:
                raise ValueError("This model is unconditional; leave condition out.")
            return None
        wanted = f"This model needs a condition of shape {_batch_of(self.condition_shape)}"
        if condition is None:
            raise ValueError(f"{wanted}.")
        condition = self._cast(condition)
        if condition.shape == self.condition_shape:
            condition = condition[tf.newaxis]
        if not condition.shape[1:].is_compatible_with(self.condition_shape):
            raise ValueError(f"{wanted}; got {condition.shape.as_list()}.")
        return condition

    def _checked(self, x: Any, *, in_support: bool) -> Any:
        """Arrays, checked; tensors stay, for a gradient to pass, and symbolic ones unchecked."""
        parts = keras.tree.flatten(x)
        if parts and tf.is_symbolic_tensor(parts[0]):
            return x
        arrays = self._contract.arrays(x, in_support=in_support)
        if isinstance(x, dict):
            return {key: x[key] if tf.is_tensor(x[key]) else arrays[key] for key in x}
        return x if tf.is_tensor(x) else arrays

    def _cast(self, x: Any) -> Any:
        return keras.tree.map_structure(
            lambda part: tf.cast(tf.convert_to_tensor(part), self.likelihood.law_dtype), x
        )

    def save_own_variables(self, store: Any) -> None:
        """Writes the states of the random generators, which Keras leaves out."""
        for index, variable in enumerate(self._seed_states()):
            store[str(index)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Reads the states of the random generators."""
        for index, variable in enumerate(self._seed_states()):
            if str(index) in store:
                variable.assign(store[str(index)])

    def _seed_states(self) -> list[keras.Variable]:
        return [v for v in self.variables if v.path.endswith("seed_generator_state")]

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {
            **super().get_config(),
            "prior": serialize(self.prior),
            "likelihood": serialize(self.likelihood),
            "posterior": serialize(self.posterior),
            "condition_shape": None if self.condition_shape is None else list(self.condition_shape),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "VAE":
        """The model with new weights."""
        laws = {key: deserialize(config[key]) for key in ("prior", "likelihood", "posterior")}
        return cls(**{**config, **laws})

    def get_compile_config(self) -> dict[str, Any]:
        """What `compile` was called with; empty if it was not."""
        if not self.compiled:
            return {}
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "objective": keras.saving.serialize_keras_object(self.objective),
            **self._compile_arguments,
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as `get_compile_config` says."""
        objects = {key: deserialize(config[key]) for key in ("optimizer", "objective")}
        self.compile(**{**config, **objects})


def _per_example(sample_weight: tf.Tensor) -> tf.Tensor:
    """Weights as [B], from [B] or [B, 1]: any other shape would broadcast silently."""
    if sample_weight.shape.rank == 2 and sample_weight.shape[1] == 1:
        return sample_weight[:, 0]
    if sample_weight.shape.rank != 1:
        raise ValueError(
            f"sample_weight must have one number per example, shape [n]; got {sample_weight.shape}."
        )
    return sample_weight


def _batch_of(shape: Sequence[int]) -> str:
    return f"[n, {', '.join(map(str, shape))}]"


def _reason(error: Exception) -> str:
    """What Keras says, without colours and without the arguments of the call."""
    text = re.sub("\x1b\\[[0-9;]*m", "", str(error)).split("\n\nArguments received")[0]
    return " ".join(text.split())


def _spread(condition: tf.Tensor, shape: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    return tf.broadcast_to(tf.cast(condition, like.dtype), shape)
