"""Latent variable models: any number of latents and observed parts, trained by `model.fit`."""

import abc
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_vae import estimators, imputation, random
from keras_vae.arguments import as_count, is_integer
from keras_vae.data.content import DataError
from keras_vae.data.foreign import as_known
from keras_vae.data.frames import is_frame, numbers, refuse_infinite
from keras_vae.devices import without_tensor_float_32
from keras_vae.distributions.noise import centre, from_rows, from_seed, numbered, refuse_shared
from keras_vae.imputation import Classification, Imputation
from keras_vae.observed import draws_of, layers_of, means_of
from keras_vae.trace import Generation, Trace
from keras_vae.training.chunking import by_chunks, spec_of
from keras_vae.training.trainer import Trainer

__all__ = ["Bound", "LatentVariableModel"]


class Bound(NamedTuple):
    """The evidence lower bound of each example and its two terms, [B], in nats.

    Attributes:
        elbo: lower bound on log p(x), -(distortion + rate).
        distortion: -E_q log p(x | z), with every constant.
        rate: KL(q(z | x) || p(z)).

    Example:
        >>> import keras_vae, numpy as np
        >>> bound = keras_vae.mlp_vae(4, 2, hidden=(8,)).elbo(np.zeros([3, 4]), seed=0)
        >>> np.allclose(bound.elbo, -(bound.distortion + bound.rate))
        True
    """

    elbo: tf.Tensor
    distortion: tf.Tensor
    rate: tf.Tensor


def finite_tensor(name: str, value: Any, dtype: str) -> tf.Tensor:
    """Returns latents that a caller gives as a tensor of floats; symbolic ones are not checked.

    Raises:
        DataError: if they are no numbers, or a number is not finite.
    """
    if not tf.is_tensor(value):
        value = tf.convert_to_tensor(numbers(value, name))
    if not (value.dtype.is_floating or value.dtype.is_integer or value.dtype.is_bool):
        raise DataError(f"Expected {name} as numbers; got a tensor of {value.dtype.name}.")
    value = tf.cast(value, dtype)
    if not tf.is_symbolic_tensor(value):
        refuse_infinite(np.asarray(value), name)
    return value


class LatentVariableModel(Trainer, abc.ABC):
    """A model p(x, z) with an inference model q(z | x), for latents and data of any structure.

    A subclass specifies its data, the noise of its latents, its inference and its generation.
    Objectives, bounds, importance sampling, annealing, sampling by seeds and signatures then work.
    `keras_vae.VAE` is the model with a single latent vector and a single x; quadrature, `diagnose`
    and `bound_gap` are for it alone.

    A subclass defines

    - `data`: the specification of its data;
    - `noise()` and `generation_noise()`: the noise of one draw of each latent, from q and from p.
      Each of several latents has noise of its own index;
    - `infer(x, training, sample_weight)`: an `Inference`, from a batch to traces;
    - `generate(noise, latents, condition)`: a `Generation`, from noise or from given latents.

    Example:
        docs/architecture.md has a chain of two latents, z2 -> z1 -> x, with
        q(z2 | x) q(z1 | z2, x).

        >>> import keras_vae
        >>> model = keras_vae.hierarchical_vae((4,), (2, 3), hidden=(8,), network="mlp")
        >>> isinstance(model, LatentVariableModel), list(model.noise())
        (True, ['z1', 'z2'])
    """

    @abc.abstractmethod
    def noise(self) -> dict[str, Any]:
        """Returns the noise of one draw of each latent from q, by name, in the order of drawing."""

    @abc.abstractmethod
    def generation_noise(self) -> dict[str, Any]:
        """Returns the noise of one draw of each latent from p, by name, in the order of drawing."""

    @abc.abstractmethod
    def generate(
        self,
        noise: Mapping[str, Any] | None = None,
        latents: Mapping[str, tf.Tensor] | None = None,
        condition: Any = None,
    ) -> Generation:
        """Generates latents and the distributions of the data at them.

        Args:
            noise: noise of each latent, [B, ...]; ignored for given latents.
            latents: values of all latents, [..., B, L]; None draws them from the prior.
            condition: conditions [B, *C] of a conditional model.
        """

    def training_noise(self) -> dict[str, Any]:
        """Returns the noise that a training step draws beside that of the latents, by name."""
        return {}

    summed_out: str | None = None
    """Name of the latent, one of K categories, that `elbo` sums out instead of drawing it."""

    given_latents: tuple[str, ...] = ()
    """Names of latents that are parts of the data too, and which `generate` takes if given."""

    def classifiers(self) -> dict[str, Callable[[Any], tf.Tensor]]:
        """Returns the parts that a network of the model classifies, by name.

        Each is a function from tensors, as `infer` takes them, to the probability of each class.
        The other parts are classified by weighted draws of the latents.
        """
        return {}

    def centre_trace(self) -> Trace:
        """Returns the trace of one example of zeros at the centre of q, for its shapes."""
        noise = centre(self.noise(), [1, 1], self.float_dtype)
        return self.infer(self._cast(self.data.zeros())).trace(noise)

    @property
    def float_dtype(self) -> str:
        """Dtype of log-probabilities: float32, or float64 under that policy."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    @property
    def numbers_per_example(self) -> int:
        """Number of entries of one example that have a distribution."""
        return sum(math.prod(part.shape) for part in self.data.observed.values())

    def elbo(self, x: Any, num_samples: int = 1, seed: Any = None) -> Bound:
        """Computes the evidence lower bound of each example.

        Rates are in closed form if there is one, otherwise estimated from the same draws.

        The draws of example i are a pure function of (seed, i) and do not depend on other
        examples. They are those of the exported `score` for the seed pair [seed, i], and
        independent of the draws of `sample` with the same seed.

        Args:
            x: data [B, *D], or a dict of its parts.
            num_samples: draws from the posterior per example.
            seed: integer for reproducible draws, or int32 [B, 2] with a pair for each example, as
                the exported `score` takes them; None gives new draws each time.

        Returns:
            `Bound(elbo, distortion, rate)`, each [B], in nats.

        Raises:
            DataError: if x lies outside the support of the likelihood.
        """
        num_samples = as_count("num_samples", num_samples, least=1)
        self._refuse_shared_noise()
        x = self._checked(x, in_support=True)
        first = keras.tree.flatten(x)[0]
        count = tf.shape(first)[0] if tf.is_symbolic_tensor(first) else len(first)

        def terms(inputs: Any) -> Bound:
            rows, seeds = inputs
            noise = from_rows(self.noise(), seeds, num_samples, self.float_dtype)
            inference = self.infer(rows)
            if self.summed_out is None:
                distortion, rate = estimators.elbo_terms(inference.trace(noise))
            else:
                distortion, rate, _ = estimators.summed_terms(inference, noise, self.summed_out)
            return Bound(-(distortion + rate), distortion, rate)

        return self._by_rows(
            f"elbo {num_samples}", terms, [x, self._row_seeds(count, seed)], num_samples
        )

    def sample(self, n: int, seed: int | None = None, *, condition: Any = None) -> Any:
        """Draws from p(x): latents from the prior, x from the likelihood; [n, *D].

        A model with a schema returns a data frame with the columns and dtypes of its table.

        Row i is a pure function of (seed, i), by the counter-based noise of `keras_vae.random`: an
        exported model gives the same row for the seed pair [seed, i].

        Args:
            n: number of draws.
            seed: 32-bit integer for reproducible draws; None gives new draws each time.
            condition: conditions [n, *C], or one [*C] for all, of a conditional model.

        Raises:
            ValueError: if `n` or `seed` is out of range, or the condition is missing.
        """
        draws = self._by_rows("sample", self._drawn, self._prior_inputs(n, seed, condition))
        return self._as_table(draws)

    def sample_mean(self, n: int, seed: int | None = None, *, condition: Any = None) -> Any:
        """Computes decoder means at the prior draws that `sample` uses for the same seed; [n, *D].

        These are not draws from p(x): they leave out the noise of the likelihood. A model with a
        schema returns a data frame, as `sample` does.
        """
        means = self._by_rows("sample_mean", self._mean, self._prior_inputs(n, seed, condition))
        return self._as_table(means)

    def reconstruct(self, x: Any) -> Any:
        """Computes decoder means at the centre of the posterior, [B, *D], as `predict` does.

        A model with a schema returns a data frame for a data frame.

        Raises:
            DataError: if a shape is wrong or a number is not finite.
        """
        x = as_known(x)
        arrays = self._checked(x, in_support=False)
        means = self._by_rows("reconstruct", lambda x: self(x, training=False), arrays)
        return self._as_table(means) if is_frame(x) else means

    def _as_table(self, parts: Any) -> Any:
        """Returns model numbers by part as rows of the table, if the model has a schema."""
        schema = self.data.schema
        return parts if schema is None or not tf.executing_eagerly() else schema.decode(parts)

    def impute(
        self,
        x: Any,
        num_samples: int = 1000,
        *,
        multiple: int | None = None,
        interval: float = 0.9,
        seed: Any = None,
    ) -> Imputation:
        """Imputes the absent entries of data from the importance-weighted posterior.

        The draws of q(z | present) are weighted by p(present, z) / q(z | present), so an imputation
        tends to that of the model itself as `num_samples` grows, however good q is. With
        `multiple`, latents are resampled by their weights and the absent entries are drawn from
        p(absent | z): multiple imputation, or draws of some parts given others. Source: Mattei and
        Frellsen (2019), MIWAE, arXiv:1812.02633.

        Everything about example i is a pure function of (seed, i).

        Args:
            x: data with NaN for what is absent, as `fit` takes it; parts may be left out.
            num_samples: number K of weighted draws of z per example.
            multiple: number M of draws of the absent entries; None draws none.
            interval: probability of the intervals, which are quantiles of the draws.
            seed: 32-bit integer for reproducible draws; None gives new draws each time.

        Returns:
            `Imputation(values, mean, ess, draws, lower, upper)`.

        Raises:
            DataError: if what is present lies outside the support of the likelihood.
            ValueError: if an argument is out of range, or the model allows no absent entries.

        Warns:
            UserWarning: if the effective sample size is below 10 for over one example in twenty.

        Example:
            >>> import keras_vae, numpy as np
            >>> vae = keras_vae.VAE(
            ...     prior=keras_vae.StandardNormal(2),
            ...     likelihood=keras_vae.Normal(3, missing=True),
            ...     posterior=keras_vae.DiagonalNormal(2, network=keras_vae.PartsEncoder()),
            ... )
            >>> found = vae.impute([[0.5, np.nan, 2.0]], multiple=10, seed=0)
            >>> found.values.shape, found.draws.shape, float(found.values[0, 0])
            ((1, 3), (10, 1, 3), 0.5)
        """
        return imputation.impute(
            self, as_known(x), num_samples, multiple=multiple, interval=interval, seed=seed
        )

    def classify(
        self, x: Any, part: str, num_samples: int = 1000, *, seed: int | None = None
    ) -> Classification:
        """Computes the probabilities of the classes of a part given everything else.

        The part is hidden, whatever the data holds of it, and p(part | z) is averaged over draws of
        q(z | the rest) with self-normalised importance weights.

        Args:
            x: data, as `fit` takes it; the part may be left out.
            part: name of a binary, categorical or ordinal part that may be absent.
            num_samples: number of weighted draws of z per example.
            seed: 32-bit integer for reproducible draws; None gives new draws each time.

        Returns:
            `Classification(probabilities, ess)`.

        Raises:
            DataError: if the data lies outside the support of the likelihood.
            ValueError: if the part is none of the model, has no classes or may not be absent.

        Warns:
            UserWarning: if the effective sample size is below 10 for over one example in twenty.
        """
        return imputation.classify(self, as_known(x), part, num_samples, seed=seed)

    def call(self, x: Any, training: bool = False) -> Any:
        """Returns decoder means at the medians of the noise, or at a draw when training."""
        x = self._cast(x)
        first = tf.nest.flatten(x)[0]
        leading = [1, tf.shape(first)[0]]
        if training:
            noise = from_seed(self.noise(), self.take_seed(), leading, self.float_dtype)
        else:
            noise = centre(self.noise(), leading, self.float_dtype)
        trace = self.infer(x, training).trace(noise)
        return self.one_or_all({k: o.p.mean()[0] for k, o in trace.observations.items()})

    def _drawn(self, inputs: Any) -> Any:
        seeds, generation = self._generated(inputs)
        return self.one_or_all(self.draws(generation, seeds))

    def _mean(self, inputs: Any) -> Any:
        _, generation = self._generated(inputs)
        return self.one_or_all(means_of(generation.observations))

    def _generated(self, inputs: Any) -> tuple[tf.Tensor, Generation]:
        """Returns the row seeds, and the generation from their noise."""
        seeds, *condition = keras.tree.flatten(inputs)
        noise = from_rows(self.generation_noise(), seeds, dtype=self.float_dtype)
        given = tf.cast(condition[0], self.float_dtype) if condition else None
        return seeds, self.generated(noise, condition=given)

    def generated(self, *args: Any, **kwargs: Any) -> Generation:
        """Returns what `generate` does.

        Raises:
            ValueError: if a latent or an observed part is missing from it.
        """
        generation = self.generate(*args, **kwargs)
        for what, found, wanted in (
            ("latents of generation_noise()", generation.latents, self.generation_noise()),
            ("observed parts of data", generation.observations, self.data.observed),
        ):
            if set(found) != set(wanted):
                raise ValueError(
                    f"Expected generate to return the {what}, {sorted(wanted)}; got "
                    f"{sorted(found)}."
                )
        return generation

    def draws(self, generation: Generation, seeds: tf.Tensor) -> dict[str, tf.Tensor]:
        """Draws each observed part from row seeds [B, 2]; no two parts share a number."""
        sites = generation.observations
        noise = numbered({name: layer.noise() for name, layer in layers_of(sites).items()})
        numbers = from_rows(noise, seeds, dtype=self.float_dtype)
        return draws_of(sites, numbers)

    def _prepare(self, objective: Any) -> None:
        self._refuse_shared_noise()
        super()._prepare(objective)

    def _refuse_shared_noise(self) -> None:
        refuse_shared([self.noise(), self.generation_noise()])

    def one_or_all(self, parts: Mapping[str, Any]) -> Any:
        """Returns the only part, or the parts by name, as the model takes its data."""
        return dict(parts) if self.data.is_dict or len(parts) > 1 else next(iter(parts.values()))

    def _prior_inputs(self, n: int, seed: int | None, condition: Any) -> Any:
        """Returns row seeds of n draws, or [seeds, conditions]."""
        if not is_integer(n) or not 1 <= n < 2**31:
            raise ValueError(f"Expected a number of draws of at least 1, below 2^31; got n={n!r}.")
        seeds, condition = self._row_seeds(int(n), seed), self._condition(condition, int(n))
        if condition is None:
            return seeds
        return [seeds, tf.broadcast_to(condition, [n, *condition.shape[1:]])]

    def _condition(
        self, condition: Any, rows: int | None = None, of: str = "draws"
    ) -> tf.Tensor | None:
        """Returns the condition as [n, *C], or [1, *C] if it came without the batch axis.

        Args:
            condition: what was given, or None.
            rows: number of rows that it is for; None if it is not known.
            of: what the rows are, for messages.
        """
        if "condition" not in self.data.parts:
            if condition is not None:
                raise ValueError("This model is unconditional; leave condition out.")
            return None
        shape = self.data.parts["condition"].shape
        wanted = f"This model needs a condition of shape [n, {', '.join(map(str, shape))}]"
        if condition is None:
            raise ValueError(f"{wanted}.")
        array: Any = condition if tf.is_tensor(condition) else numbers(condition, "condition")
        if tuple(array.shape) == shape:
            array = array[np.newaxis]
        if not tf.is_symbolic_tensor(array):
            self.data.array("condition", array)
        elif not array.shape[1:].is_compatible_with(shape):
            raise ValueError(f"{wanted}; got {array.shape.as_list()}.")
        if rows is not None and array.shape[0] not in (None, 1, rows):
            raise ValueError(
                f"Expected one condition, or one for each of the {rows} {of}; got {array.shape[0]}."
            )
        return self._cast(array)

    def _row_seeds(self, n: int | tf.Tensor, seed: Any) -> tf.Tensor:
        if seed is None:
            return random.row_seeds(self.take_seed(), n)
        if is_integer(seed) and -(2**31) <= seed < 2**31:
            return random.row_seeds(int(seed), n)
        pairs = np.asarray(seed)
        if pairs.dtype == np.int32 and pairs.shape == (n, 2):
            return tf.convert_to_tensor(pairs)
        raise ValueError(
            "Expected a seed that fits in 32 bits, int32 [n, 2] with a pair for each row, or None; "
            f"got seed={seed!r}."
        )

    def _by_rows(
        self, name: str, function: Callable[[Any], Any], inputs: Any, draws: int = 1
    ) -> Any:
        """Calls a function of rows [n, ...]; many rows by a graph and in chunks.

        A GPU multiplies without TF32, so that a seed gives the numbers that it gives elsewhere.
        """
        rows = self._rows_at_once(draws)
        if not tf.executing_eagerly():
            return function(inputs)
        with without_tensor_float_32():
            if len(keras.tree.flatten(inputs)[0]) <= rows:
                return function(inputs)
            specs = spec_of(inputs)
            graph = self._graph(
                (name, str(specs)),
                lambda: tf.function(function, input_signature=[specs], autograph=False),
            )
            return by_chunks(graph, inputs, rows)

    def _checked(self, x: Any, *, in_support: bool) -> Any:
        """Returns checked arrays; keeps tensors for gradients and does not check symbolic ones."""
        parts = keras.tree.flatten(x)
        if parts and tf.is_symbolic_tensor(parts[0]):
            return x
        arrays = self.data.arrays(x, in_support=in_support)
        if isinstance(x, dict):
            kept = {} if "present" in x else {key: x[key] for key in x if tf.is_tensor(x[key])}
            return {**arrays, **kept}
        return x if tf.is_tensor(x) else arrays

    def _cast(self, x: Any) -> Any:
        return keras.tree.map_structure(
            lambda part: tf.cast(tf.convert_to_tensor(part), self.float_dtype), x
        )

    def save_own_variables(self, store: Any) -> None:
        """Writes the states of the random generators, which Keras leaves out."""
        for index, variable in enumerate(self._seed_states()):
            store[str(index)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Reads the states of the random generators."""
        known = set(store.keys())
        for index, variable in enumerate(self._seed_states()):
            if str(index) in known:
                variable.assign(store[str(index)])

    def _seed_states(self) -> list[keras.Variable]:
        return [v for v in self.variables if v.path.endswith("seed_generator_state")]
