"""Trainer: the methods of a model that Keras calls in `fit` and `evaluate`."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, deserialize
from keras_vae.data.batch_dataset import skipped, source_behind, source_of
from keras_vae.data.foreign import as_known, described
from keras_vae.data.lazy_rows import LazyRows
from keras_vae.data.source import Source
from keras_vae.devices import could_use_onednn, device
from keras_vae.distributions.noise import from_seed, numbers_in
from keras_vae.distributions.priors import Components
from keras_vae.objectives import ELBO, Objective
from keras_vae.objectives.base import check_players, check_terms
from keras_vae.random.philox import wrap_to_int32
from keras_vae.replicas import (
    OneDevice,
    leave_summing,
    steps_in_turn,
    worker_errors,
    workers,
)
from keras_vae.trace import Inference
from keras_vae.training.backup import Backup
from keras_vae.training.checked_model import CheckedModel, refuse_targets
from keras_vae.training.containers import in_batches, is_stream
from keras_vae.training.data_spec import DataError, DataSpec
from keras_vae.training.fast_loop import (
    Loop,
    acts_within_epochs,
    array_source,
    pays_to_compile,
    shares_a_graph,
    steps_at_once,
    stream_source,
)
from keras_vae.training.guard import NonFiniteGuard, saves_within_epochs
from keras_vae.training.monitor import LatentMonitor
from keras_vae.training.step import draw_noise, evaluate_on, size_of, train_on
from keras_vae.training.validation import ValidationBatches, ValidationDraws

__all__ = ["Trainer"]


class Trainer(CheckedModel):
    """A model that an objective trains: compilation, `fit` and its steps.

    A subclass defines `noise`, `infer`, `float_dtype` and the specification of its data.
    """

    feature_names: tuple[str, ...] | None
    train_function: Any
    test_function: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self._draws = keras.random.SeedGenerator()
        self._strategy = tf.distribute.get_strategy() if tf.distribute.has_strategy() else None
        self._distribute_strategy = None  # Keras trains as on one device, see keras_vae.replicas
        self._loop: Loop | None = None
        self._graphs: dict[Any, Any] = {}
        self.monitor: LatentMonitor | None = None
        self.extra_metrics: list[keras.metrics.Metric] = []
        self.loss_metric = keras.metrics.Mean(name="loss")
        self.elbo_metric = keras.metrics.Mean(name="elbo")
        self.distortion_metric = keras.metrics.Mean(name="distortion")
        self.rate_metric = keras.metrics.Mean(name="rate")

    def noise(self) -> dict[str, Any]:
        """Returns the noise of one draw of every latent, by name."""
        raise NotImplementedError

    def infer(
        self, x: Any, training: bool = False, sample_weight: tf.Tensor | None = None
    ) -> Inference:
        """Infers the latents of a batch."""
        raise NotImplementedError

    def components(self) -> Components | None:
        """Returns the prior as a mixture of normal distributions; None if it is no such mixture."""
        return None

    @property
    def float_dtype(self) -> str:
        """Dtype of log-probabilities: float32, or float64 under that policy."""
        raise NotImplementedError

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
        """Sets the objective and the optimizer, and how they run.

        Args:
            optimizer: Keras optimizer or its name.
            objective: objective to minimise; None is `ELBO()`.
            run_eagerly: whether to run Python at each step, for debugging.
            steps_per_execution: steps per call of the graph, between which no callback is called.
                None means up to 100 if data is in memory and no callback acts within epochs,
                otherwise 1.
            jit_compile: whether XLA compiles the steps; "auto" compiles if many run in one call and
                no layer is a convolution, which XLA computes slowly on a CPU. What `evaluate`,
                `predict` and Keras' own loop run is compiled only with True: XLA draws other noise.
            auto_scale_loss: whether to scale the loss under the policy mixed_float16.
            monitor: whether to log the use of the latents, see `keras_vae.training.monitor`.

        Raises:
            TypeError: if the objective is not an `Objective`, a Keras loss or metric is passed, or
                a subclass overrides a method that training would not use.
            ValueError: if the objective needs a property that these distributions lack.

        Example:
            >>> import keras, keras_vae
            >>> vae = keras_vae.mlp_vae(6, 2, "normal", hidden=(8,))
            >>> vae.compile(keras.optimizers.Adam(1e-3), keras_vae.IWAE(5), monitor=True)
        """
        if unsupported:
            raise TypeError(
                f"VAE.compile does not take {', '.join(sorted(unsupported))}: the loss of a VAE is "
                "its objective, such as keras_vae.ELBO(beta=...), and its likelihood decides how x "
                "is compared with its reconstruction."
            )
        if run_eagerly and self._strategy is not None:
            raise ValueError(
                "run_eagerly=True works only on one device: its steps run in Python, in no order "
                "that replicas share. Build the model outside of the strategy to debug it."
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
                jit_compile=jit_compile != "auto" and jit_compile,
                auto_scale_loss=auto_scale_loss,
            )
            if self._strategy is not None:
                self.train_function = steps_in_turn(self, self.train_step)
                self.test_function = steps_in_turn(self, self.test_step)
            self.optimizer.build(self.trainable_variables)
            self.monitor = self._monitor() if monitor else None
            self._prepare(objective)
        self._loop = None
        self._graphs.clear()
        self.refuse_unused_overrides()
        self._compile_arguments: dict[str, Any] = {
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
            "auto_scale_loss": auto_scale_loss,
            "monitor": monitor,
        }

    def _prepare(self, objective: Objective) -> None:
        """Checks an objective, builds its networks and optimizers, and makes it that of the model.

        Keras does not track it, because its variables are not weights of the model.
        """
        inference, noise = self.infer(self.data.zeros()), objective.noise(self)
        objective.check(inference, from_seed(noise, [0, 0], [1, 1], self.float_dtype))
        if objective.has_networks or not type(objective).__module__.startswith("keras_vae."):
            some = from_seed(noise, [0, 0], [objective.num_samples, 1], self.float_dtype)
            check_terms(objective, objective.terms(inference, some), is_monitored=False)
        players = check_players(objective, self)
        for player in players[1:]:
            player.optimizer.build(player.weights)
        if self._strategy is not None:
            for player in players:
                leave_summing(player.optimizer)
        object.__setattr__(self, "objective", objective)
        self.extra_metrics = [keras.metrics.Mean(name=name) for name in objective.logged(self)]

    def _monitor(self) -> keras.metrics.Metric:
        if (components := self.components()) is None:
            raise ValueError(
                "compile(monitor=True) measures what the latents carry against a prior that is "
                f"normal or a mixture of normal distributions; that of this {type(self).__name__} "
                "is neither. Leave monitor out."
            )
        if len(self.noise()) > 1:
            raise ValueError(
                "compile(monitor=True) measures a single latent vector; this "
                f"{type(self).__name__} has {', '.join(self.noise())}. Leave monitor out."
            )
        return LatentMonitor(components.loc.shape[-1])

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
                which y is ignored. The names of a data frame's columns become the model's
                `feature_names`; data frames are matched by name from then on.
            y: must be None; a VAE has no targets.
            sample_weight: numbers [N], at least 0, that weight `loss` and nothing else.
            validation_data: as x, or (x, None, sample_weight). It has draws of its own: training is
                the same with and without it.
            callbacks: Keras callbacks.
            **kwargs: as for `keras.Model.fit`, including epochs, batch_size, validation_split.

        Raises:
            DataError: if data lies outside the support, has a wrong shape or is not finite.
            NonFiniteError: if a term of the loss or a weight becomes NaN or infinite.

        Example:
            >>> import keras_vae, numpy as np
            >>> x = np.random.default_rng(0).normal(size=(64, 6))
            >>> vae = keras_vae.mlp_vae(6, 2, "normal", hidden=(8,))
            >>> vae.compile()
            >>> history = vae.fit(x, epochs=2, batch_size=32, validation_split=0.25, verbose=0)
            >>> sorted(history.history)[:4]
            ['distortion', 'elbo', 'loss', 'rate']
        """
        refuse_targets("fit", y)
        if kwargs.pop("class_weight", None) is not None:
            raise ValueError(
                "fit was given class_weight, but a VAE has no classes: use sample_weight."
            )
        for option, least in (("batch_size", 1), ("validation_batch_size", 1), ("epochs", 0)):
            if kwargs.get(option) is not None:
                kwargs[option] = as_count(option, kwargs[option], least=least)
        given, x = x, as_known(x)
        if (said := described(given, x)) and kwargs.get("verbose", "auto") not in (0, "0"):
            print(said)
        spec = self.data.named_by(x)
        if isinstance(x, (tf.data.Dataset, Iterator)):
            kwargs.setdefault("shuffle", False)
        kwargs |= self._validation(spec, validation_data, kwargs)
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = callbacks.callbacks
        callbacks = keras.tree.flatten(callbacks or [])
        x, kwargs["initial_epoch"] = self._resumed(x, callbacks, kwargs)
        in_graph = self.compiled and not self.run_eagerly and not self._overrides("train_step")
        targets, assertions = None, None
        if source := stream_source(x, kwargs) if in_graph and sample_weight is None else None:
            spec.check_dataset(x, in_support=True)
            checked, assertions = x, spec.assertions
        else:
            given = x
            x, targets, sample_weight = spec.weighted(x, sample_weight)
            checked = given if is_stream(given) else x
            if in_graph:
                source, kwargs = array_source(x, sample_weight, kwargs, self._order)
                _say_what_is_slow(given, kwargs)
        spec.check_resolution(checked)
        messages = spec.presence(checked)
        if kwargs.get("verbose", "auto") not in (0, "0"):
            print(*messages, sep="\n", end="\n" if messages else "")
            _say_once_that_onednn_pays(self)
        self.feature_names = spec.feature_names
        guard = NonFiniteGuard(each_step=any(map(saves_within_epochs, callbacks)))
        callbacks = [guard, ValidationDraws(self._draws), *callbacks]
        with spec.data_errors(), worker_errors(self._strategy):
            if source is not None:
                return self._fit_in_chunks(source, assertions, callbacks, kwargs)
            return self._fit_stepwise((x, targets, sample_weight), callbacks, kwargs)

    def _validation(self, spec: DataSpec, data: Any, options: dict[str, Any]) -> dict[str, Any]:
        """Returns the options of Keras for validation."""
        size = options.get("validation_batch_size")
        if data is None:
            split = options.get("validation_split")
            return {"validation_batch_size": size or self._rows_at_once()} if split else {}
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is not None and weight is None:
            raise ValueError(
                "validation_data was given targets, but a VAE has none: pass validation_data=x "
                "or (x, None, sample_weight)."
            )
        (x, targets, weight), size = in_batches(
            spec.weighted(x, weight), size, self._rows_at_once()
        )
        return {
            "validation_data": x if weight is None else (x, targets, weight),
            "validation_batch_size": size,
        }

    def _resumed(self, x: Any, callbacks: list[Any], options: dict[str, Any]) -> tuple[Any, int]:
        """Returns the data and the first epoch of a training that may continue from a backup."""
        asked = options.get("initial_epoch", 0)
        restored = [each.restore(self) for each in callbacks if isinstance(each, Backup)]
        begin = max(asked, *restored, 0)
        if isinstance(x, tf.data.Dataset) and (per_epoch := options.get("steps_per_epoch")):
            x = skipped(x, begin - asked, per_epoch)
        return x, begin

    def _fit_stepwise(
        self, data: tuple[Any, Any, Any], callbacks: list[Any], options: dict[str, Any]
    ) -> keras.callbacks.History:
        """Trains by Keras' own loop."""
        x, targets, sample_weight = data
        if any(isinstance(part, LazyRows) for part in keras.tree.flatten(x)):
            raise DataError(
                "A sparse matrix, or rows of a file, are read in chunks, which Keras' own loop "
                "does not do. That runs with run_eagerly, steps_per_epoch, a train_step of your "
                "own or float64: leave that out, or give x.toarray() or numpy.asarray(x)."
            )
        if workers(self._strategy) is not None:
            raise ValueError(
                "On several machines every worker must see the same batches in the same order: "
                "give fit an array, or keras_vae.data.batches(...), whose order is a function "
                f"of its seed. Received: {type(x).__name__}"
            )
        return super().fit(x, targets, sample_weight=sample_weight, callbacks=callbacks, **options)

    def _fit_in_chunks(
        self, source: Source, assertions: Any, callbacks: list[Any], options: dict[str, Any]
    ) -> keras.callbacks.History:
        """Trains by `Loop`, many steps at once."""
        loop = self._loop_over(source, assertions, options.get("epochs", 1))
        noise = self.objective.num_samples * numbers_in(self.objective.noise(self))
        capacity = steps_at_once(source, noise, device())
        steps = given = self._compile_arguments["steps_per_execution"]
        if given is None:
            steps = 1 if any(map(acts_within_epochs, callbacks)) else capacity
        self.steps_per_execution = steps
        pace, chunks = loop.prepare(source, steps, capacity, validation=given or 1)
        options["steps_per_epoch"] = source.steps
        epochs = max(options.get("epochs", 1) - options.get("initial_epoch", 0), 0)
        callbacks = [pace, *callbacks]
        if batches := self._validation_batches(options):
            callbacks.append(batches)
        stepwise, evaluated = self.train_function, self.test_function
        self.train_function = loop
        try:
            # Finite, because a tracker may read all of it: MLflow's autolog computes a digest.
            return super().fit(chunks.repeat(epochs + 1), callbacks=callbacks, **options)
        finally:
            self.train_function, self.test_function = stepwise, evaluated
            self.steps_per_execution = given or 1
            self._eval_epoch_iterator = None

    def _validation_batches(self, options: dict[str, Any]) -> ValidationBatches | None:
        """Returns the validation data if it is arrays, and Keras goes through them step by step."""
        data = options.get("validation_data")
        is_plain = (
            self._strategy is None
            and (self._compile_arguments["steps_per_execution"] or 1) == 1
            and options.get("validation_steps") is None
            and keras.config.max_steps_per_epoch() is None
            and not self._overrides("make_test_function")
        )
        parts = keras.tree.flatten(data)
        if not is_plain or not all(isinstance(part, np.ndarray) for part in parts):
            return None
        return ValidationBatches(data, options["validation_batch_size"], self._test_graph)

    def _test_graph(self, spec: Any) -> Callable[[Any], dict[str, tf.Tensor]]:
        """Returns the graph that evaluates a batch of this specification."""
        return self._graph(
            f"validation of {spec}",
            lambda: tf.function(
                self.test_step,
                input_signature=[spec],
                autograph=False,
                jit_compile=self.jit_compile or None,
            ),
        )

    def _order(self, passed: int) -> int:
        """Returns the seed of the order of examples in arrays.

        It is the seed of the training that began `passed` steps ago, so a resumed training
        continues in its order. It is the same on all workers.
        """
        begin = int(self.optimizer.iterations.numpy()) - passed
        words = [int(word) % 2**32 for word in (self._draws.state.value.numpy()[0], begin)]
        return int(np.random.SeedSequence(words).generate_state(1)[0]) // 2

    @property
    def strategy(self) -> tf.distribute.Strategy | None:
        """The strategy in whose scope the model was built, if any."""
        return self._strategy

    def _loop_over(self, source: Source, assertions: Any, epochs: int) -> Loop:
        wanted, trained_on = self._compile_arguments["jit_compile"], device()
        jit_compile = bool(wanted)
        if wanted == "auto":
            jit_compile = pays_to_compile(self, source, epochs, trained_on)
        jit_compile = jit_compile and self._strategy is None
        constant_sizes = (
            jit_compile
            or self._strategy is not None
            or not shares_a_graph(source, epochs, trained_on)
        )
        how = (assertions, jit_compile, constant_sizes, trained_on)
        if self._loop is None or not self._loop.does(source, *how):
            self._loop = Loop(self, source.gather, *how)
        return self._loop

    def _graph(self, name: Any, make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        """Returns the graph of a name, which `make` made, while the model has the same layers."""
        key = (*self.layers, name)
        if key not in self._graphs:
            self._graphs[key] = make()
        return self._graphs[key]

    @property
    def distribute_strategy(self) -> Any:
        """Strategy that Keras trains with: one device, whatever runs within a step."""
        return OneDevice() if self._strategy is not None else super().distribute_strategy

    def _scope(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self._strategy is None else self._strategy.scope()

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Updates the weights on one batch, shared among the replicas."""
        return train_on(self, data, draw_noise(self, self.take_seed(), size_of(data)))

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Evaluates the same bound on one batch: z is drawn, never set to its mean."""
        return evaluate_on(self, data, draw_noise(self, self.take_seed(), size_of(data)))

    def take_seed(self) -> tf.Tensor:
        """Returns the seed of the next step, int32 [2]."""
        return random.stateless_seed(self._draws.next())

    def take_seeds(self, count: tf.Tensor, capacity: int | tf.Tensor) -> tf.Tensor:
        """Returns the seeds of the next `count` steps, the first of int32 [capacity, 2]."""
        state = self._draws.state
        first = state.value
        steps = tf.range(capacity, dtype=first.dtype)
        seeds = first + tf.stack([tf.zeros_like(steps), steps], axis=-1)
        state.assign(first + tf.stack([tf.zeros([], first.dtype), tf.cast(count, first.dtype)]))
        return wrap_to_int32(seeds)

    def get_metrics_result(self) -> dict[str, Any]:
        """Returns the means so far, of all replicas."""
        with self._scope():
            return super().get_metrics_result()

    def reset_metrics(self) -> None:
        """Resets the means, on all replicas."""
        with self._scope():
            super().reset_metrics()

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Metrics that are means over examples: loss, elbo, distortion, rate; and the monitor."""
        means = [self.loss_metric, self.elbo_metric, self.distortion_metric, self.rate_metric]
        means += self.extra_metrics
        return means if self.monitor is None else [*means, self.monitor]

    def get_compile_config(self) -> dict[str, Any]:
        """Returns the arguments of `compile`; empty if it was not called."""
        if not self.compiled:
            return {}
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "objective": keras.saving.serialize_keras_object(self.objective),
            **self._compile_arguments,
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles with the result of `get_compile_config`."""
        objects = {key: deserialize(config[key]) for key in ("optimizer", "objective")}
        self.compile(**{**config, **objects})


def _say_what_is_slow(x: Any, options: dict[str, Any]) -> None:
    """Prints a sentence where `fit` reads batch by batch what it could train on from memory."""
    if not isinstance(x, tf.data.Dataset) or options.get("verbose", "auto") in (0, "0"):
        return
    source = source_behind(x, through_maps=True)
    if source is None:
        return
    if source_of(x) is None:
        reason = (
            "a dataset after map, take, prefetch and their like no longer knows its arrays. Pass "
            "what data.batches returned, with its own transform= and epochs=; it prefetches itself."
        )
    else:
        reason = (
            f"steps_per_epoch={options.get('steps_per_epoch')} is not the {source.steps} batches "
            "of an epoch of data.batches. Pass that number."
        )
    print(f"fit reads the data batch by batch, which is slower: {reason}")


@functools.cache
def _say_once(sentence: str) -> None:
    """Prints a sentence the first time that it is given in this process."""
    print(sentence)


def _say_once_that_onednn_pays(model: keras.Model) -> None:
    """Prints a sentence where TensorFlow leaves oneDNN off and the model has convolutions."""
    convolutions = (keras.layers.Conv2D, keras.layers.Conv2DTranspose)
    layers = model._flatten_layers()
    if any(isinstance(layer, convolutions) for layer in layers) and could_use_onednn():
        _say_once(
            "fit computes convolutions without oneDNN, which TensorFlow leaves off on this "
            "processor; they are faster with it. Set TF_ENABLE_ONEDNN_OPTS=1 in the environment "
            "before Python starts. The commands of keras-vae do so."
        )
