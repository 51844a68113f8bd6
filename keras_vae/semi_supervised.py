"""Semi-supervised VAE: a label that is known for some examples, and a latent of the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, deserialize, register, serialize
from keras_vae.data.frames import is_frame, numbers
from keras_vae.distributions import Categorical, Likelihood, Parts, Posterior
from keras_vae.distributions.base.shapes import symbolic
from keras_vae.distributions.noise import Draw, Noise, checked_draw, from_rows
from keras_vae.distributions.priors import Prior
from keras_vae.distributions.tfp import tfd
from keras_vae.imputation import Classification, classes_of
from keras_vae.latent_variable_model import LatentVariableModel, finite_tensor
from keras_vae.likelihood_model import check_distributions, part_of, sites_of, training_noise_of
from keras_vae.objectives import Objective, SemiSupervised
from keras_vae.observed import Observations, Site, Sites
from keras_vae.trace import Generation, Inference, LatentOf, Trace, no_noise, spread
from keras_vae.training.data_spec import DataSpec

__all__ = ["SemiSupervisedVAE"]

_LABEL = "label"
_CERTAIN = 100.0
"""Logit of a class that is certain: the others have the probability exp(-100)."""


class _Classifier(Categorical):
    """Categorical q(label | x), by a network from x to features."""

    def noise(self) -> Noise:
        """Returns one uniform number per class, of the posterior's stream."""
        return Noise(self.event_shape, "uniform", random.POSTERIOR, index=1)

    def draw(self, noise: tf.Tensor, logits: tf.Tensor) -> Draw:
        """Draws the class of the largest sum of a logit and Gumbel noise.

        At the medians of the noise it is the most probable class.
        """
        best = tf.argmax(logits - tf.math.log(-tf.math.log(noise)), axis=-1)
        return Draw(tf.one_hot(best, self.channels, dtype=logits.dtype))


@register
class SemiSupervisedVAE(LatentVariableModel):
    """Latent variable model p(y) p(z) p(x | y, z) of data x of which some have a label y.

    The label is a latent variable, drawn from q(y | x), the classifier; where it is given, it is
    known. So a bound is one on log p(x, y) with a label and on log p(x) without. Data is

        {"x": [B, *D], "label": one-hot [B, K], NaN where there is none}

    and the label may be left out altogether. With a likelihood of named `Parts`, data has these
    parts beside the label, and classifier and trunk are given the dict of them. `fit` and `elbo`
    sum the label out exactly; the objective `SemiSupervised` also trains the classifier on the
    labels. The evaluators and `impute` draw the label. This is the model M2 of Kingma, Rezende,
    Mohamed and Welling (2014), Semi-supervised learning with deep generative models,
    arXiv:1406.5298.

    Args:
        num_classes: number K of classes.
        prior: p(z).
        likelihood: p(x | y, z), whose network is called with [z, y], the label one-hot; `Parts`
            for data of several named parts.
        posterior: q(z | x, y), whose network is called with [h, y], h being trunk(x).
        classifier: network from x to the features of q(y | x), whose logits are a Dense layer.
        trunk: layer from x to what the posterior takes in its place. It runs once per batch, and
            the posterior's network once per class; None is x itself.
        class_probabilities: p(y), [K]; None is the same for each.

    Raises:
        ValueError: if sizes disagree, a part is called label, or the class probabilities are not K
            positive numbers of sum 1.
        TypeError: if an argument has the wrong type.

    Example:
        >>> import keras_vae, numpy as np
        >>> from keras_vae.networks import mlp
        >>> vae = SemiSupervisedVAE(
        ...     num_classes=3,
        ...     prior=keras_vae.StandardNormal(2),
        ...     likelihood=keras_vae.Bernoulli(6, network=mlp((2,), (8,), condition_shape=(3,))),
        ...     posterior=keras_vae.DiagonalNormal(
        ...         2, network=mlp((6,), (8,), condition_shape=(3,))
        ...     ),
        ...     classifier=mlp((6,), (8,)),
        ... )
        >>> vae.compile("adam", keras_vae.SemiSupervised(alpha=10.0))
        >>> label = np.full([32, 3], np.nan, "float32")
        >>> label[:8] = np.eye(3)[np.arange(8) % 3]
        >>> history = vae.fit({"x": np.zeros([32, 6], "float32"), "label": label}, verbose=0)
        >>> sorted(history.history)
        ['classifier', 'distortion', 'elbo', 'loss', 'rate']
        >>> vae.classify({"x": np.zeros([4, 6])}).probabilities.shape
        (4, 3)
    """

    def __init__(
        self,
        *,
        num_classes: int,
        prior: Prior,
        likelihood: Likelihood | Parts,
        posterior: Posterior,
        classifier: keras.layers.Layer | None = None,
        trunk: keras.layers.Layer | None = None,
        class_probabilities: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_distributions(prior, likelihood, posterior)
        if posterior.is_discrete:
            raise ValueError(
                f"{type(posterior).__name__} draws codes, and z of a SemiSupervisedVAE is "
                "continuous: choose a posterior such as DiagonalNormal."
            )
        for name, layer in (("classifier", classifier), ("trunk", trunk)):
            if not (layer is None or isinstance(layer, keras.layers.Layer)):
                raise TypeError(
                    f"Invalid value for argument `{name}`. Expected a Keras layer or model, or "
                    f"None. Received: {layer!r}"
                )
        if _LABEL in likelihood.by_part():
            raise ValueError(
                f"A part of the likelihood is called {_LABEL!r}, which is the name of the class "
                "y. Leave it out, or rename it."
            )
        self.num_classes = as_count("num_classes", num_classes, least=2)
        self.class_probabilities = _probabilities(class_probabilities, self.num_classes)
        self.prior, self.likelihood, self.posterior = prior, likelihood, posterior
        self.trunk = trunk
        dtype = likelihood.float_dtype
        self.classifier = _Classifier(self.num_classes, classifier, dtype=dtype, name="classifier")
        self.label = Categorical(self.num_classes, missing=True, dtype=dtype, name="label")
        self.latent_size = prior.latent_size
        self._build()
        self.built = True

    def _build(self) -> None:
        shapes = {k: (None, *p.event_shape) for k, p in self.likelihood.by_part().items()}
        x: Any = shapes if isinstance(self.likelihood, Parts) else shapes["x"]
        y = (None, self.num_classes)
        features: Any = x
        if self.trunk is not None:
            features = self.trunk(symbolic(x, self.compute_dtype)).shape
        elif isinstance(x, dict):
            raise ValueError(
                "q(z | x, y) takes the features of several named parts as one vector: give "
                "trunk=PartsEncoder(...)."
            )
        self.classifier.build(x)
        self.posterior.build([features, y])
        self.likelihood.build([(None, self.latent_size), y])
        if not self.prior.built:
            self.prior.build((None, self.latent_size))

    @property
    def data(self) -> DataSpec:
        """The specification of the data: x, or its named parts, and the label."""
        layers = {**self.likelihood.by_part(), _LABEL: self.label}
        return DataSpec(
            {name: part_of(each) for name, each in layers.items()},
            is_dict=True,
        )

    @property
    def float_dtype(self) -> str:
        """Dtype of log-probabilities: float32, or float64 under that policy."""
        return self.likelihood.float_dtype

    def compile(
        self, optimizer: Any = "rmsprop", objective: Objective | None = None, **kwargs: Any
    ) -> None:
        """Sets objective and optimizer as `VAE.compile` does; by default `SemiSupervised()`.

        Raises:
            ValueError: if the objective is another, which would draw the label: no gradient passes
                through a draw of a class.
        """
        objective = SemiSupervised() if objective is None else objective
        if isinstance(objective, Objective) and not isinstance(objective, SemiSupervised):
            raise ValueError(
                f"{type(objective).__name__} draws the label, and no gradient passes through a "
                "draw of a class: choose SemiSupervised(alpha=...), which sums it out."
            )
        super().compile(optimizer, objective, **kwargs)

    summed_out = _LABEL
    given_latents = (_LABEL,)

    def classifiers(self) -> dict[str, Callable[[Any], tf.Tensor]]:
        """Returns the classifier q(y | x) of the label."""

        def of_label(x: Any) -> tf.Tensor:
            inputs = self._inputs(self.data.by_name(x))
            return tf.nn.softmax(self.classifier.parameters(inputs)["logits"])

        return {_LABEL: of_label}

    def noise(self) -> dict[str, Any]:
        """Returns the noise of one draw of the label and of z from q."""
        return {"label": self.classifier.noise(), "z": self.posterior.noise()}

    def generation_noise(self) -> dict[str, Any]:
        """Returns the noise of one draw of the label and of z from the prior."""
        label = replace(self.label.noise(), stream=random.LATENT, index=1)
        return {"label": label, "z": self.prior.noise()}

    def infer(
        self, x: Any, training: bool = False, sample_weight: tf.Tensor | None = None
    ) -> Inference:
        """Infers label and z of a batch; arguments as for `VAE.infer`."""
        values = self.data.by_name(self._cast(x))
        label, inputs = values[_LABEL], self._inputs(values)
        known = tf.logical_not(tf.reduce_any(tf.math.is_nan(label), axis=-1, keepdims=True))
        label = tf.where(known, label, tf.zeros_like(label))
        logits = self.classifier.parameters(inputs, training)["logits"]
        cross_entropy = -tf.reduce_sum(label * tf.nn.log_softmax(logits), axis=-1)
        own = {"logits": tf.where(known, _CERTAIN * label, logits)}
        features = inputs if self.trunk is None else self.trunk(inputs, training=training)
        masks = {name: part.mask_of for name, part in self.data.parts.items()}

        def say(latent: LatentOf) -> Trace:
            y = latent("label", self.classifier, own, self._label_prior())
            penalties = {"classifier": cross_entropy}
            y = y._replace(draw=y.draw._replace(penalties=penalties))
            q = self.posterior.parameters([spread(features, y.value), y.value], training)
            z = latent("z", self.posterior, q, self.prior.distribution())
            sites = self._sites(z.value, y.value, training, latent.noise)
            if training:
                for name, part in self.likelihood.by_part().items():
                    if part.observes:
                        part.observe(values[name], sites[name].distribution, sample_weight)
            return Trace({_LABEL: y, "z": z}, Observations(values, sites, masks))

        return Inference.by(say)

    def _inputs(self, values: Mapping[str, tf.Tensor]) -> Any:
        """Returns what classifier and trunk take: x, or the dict of its named parts."""
        x = {name: values[name] for name in self.likelihood.by_part()}
        return x if isinstance(self.likelihood, Parts) else x["x"]

    def training_noise(self) -> dict[str, Any]:
        """Returns the noise by which a training step disturbs the likelihoods of the parts."""
        return training_noise_of(self.likelihood)

    def _sites(
        self,
        z: tf.Tensor,
        y: tf.Tensor,
        training: bool = False,
        noise: Callable[[str], Any] = no_noise,
    ) -> Sites:
        """Returns the distribution of each part, and that of the label, which y decides."""
        label = {_LABEL: Site(self.label, _certain(y))}
        return sites_of(self.likelihood, [z, y], training, noise, label)

    def _label_prior(self) -> tfd.Distribution:
        return self.label.make_distribution(**self._prior_parameters())

    def _prior_parameters(self) -> dict[str, tf.Tensor]:
        return {"logits": tf.constant(np.log(self.class_probabilities), self.float_dtype)}

    def generate(
        self,
        noise: Mapping[str, Any] | None = None,
        latents: Mapping[str, tf.Tensor] | None = None,
        condition: Any = None,
    ) -> Generation:
        """Generates label and z from the prior, unless they are given, and p(x | y, z) at them.

        Args:
            noise: noise of label and z, [B, ...]; ignored for given latents.
            latents: label, one-hot, and z, or either; a label that is NaN in a row is drawn.
            condition: None; the model has none.
        """
        given, own = noise or {}, self._prior_parameters()
        found = dict(latents or {})
        if _LABEL in given:
            drawn = checked_draw(self.label, given[_LABEL], own).value
            y = found.get(_LABEL, drawn)
            found[_LABEL] = tf.where(tf.math.is_nan(y), drawn, y)
        if "z" not in found:
            found["z"] = checked_draw(self.prior, given["z"], self.prior.parameters()).value
        return Generation(found, self._sites(found["z"], found[_LABEL]))

    def sample(
        self, n: int, seed: int | None = None, *, condition: Any = None, label: Any = None
    ) -> Any:
        """Draws from p(x, y), or from p(x | y) of given labels; a dict of the parts and the label.

        Args:
            n: number of draws.
            seed: 32-bit integer for reproducible draws; None gives new draws each time.
            condition: None; the model has none.
            label: one-hot labels [n, K], or one [K] for all; None, or NaN in a row, draws them.

        Raises:
            ValueError: if `n`, `seed` or the shape of the labels is wrong.
            DataError: if a label is not one-hot.
        """
        if label is None:
            return super().sample(n, seed, condition=condition)
        seeds = self._prior_inputs(n, seed, condition)
        label = numbers(label, _LABEL, missing=True)
        if label.shape not in ((self.num_classes,), (n, self.num_classes)):
            raise ValueError(
                f"label must have shape [{n}, {self.num_classes}], or [{self.num_classes}] for all "
                f"draws; got {list(label.shape)}."
            )
        label = np.broadcast_to(label, (n, self.num_classes))
        label = self.data.array(_LABEL, label, in_support=True)

        def drawn(inputs: Any) -> Any:
            seeds, y = inputs
            noise = from_rows(self.generation_noise(), seeds, dtype=self.float_dtype)
            generation = self.generated(noise, {_LABEL: self._cast(y)})
            return self.one_or_all(self.draws(generation, seeds))

        return self._by_rows("sample given", drawn, [seeds, label])

    def decode(self, z: Any, label: Any) -> Any:
        """Returns the likelihood p(x | y, z), batch shape [B]; of named parts a dict of each.

        Args:
            z: latents [B, L].
            label: one-hot labels [B, K].

        Raises:
            DataError: if a number is not finite.
            ValueError: if a shape is wrong.
        """
        z = finite_tensor("z", z, self.float_dtype)
        label = finite_tensor(_LABEL, label, self.float_dtype)
        for name, value, size in (
            ("z", z, self.latent_size),
            ("label", label, self.num_classes),
        ):
            if value.shape.rank != 2 or value.shape[1] != size or len(value) != len(z):
                raise ValueError(
                    f"{name} must have shape [{len(z)}, {size}]; got {value.shape.as_list()}."
                )
        by_part = self._by_rows("decode", self.likelihood.head_parameters_by_part, [z, label])
        found = {
            name: part.make_distribution(**by_part[name], **part.shared_parameters())
            for name, part in self.likelihood.by_part().items()
        }
        return found if isinstance(self.likelihood, Parts) else found["x"]

    def classify(
        self,
        x: Any,
        part: str = _LABEL,
        num_samples: int | None = None,
        *,
        seed: int | None = None,
    ) -> Classification:
        """Computes the probabilities of the classes given x.

        Args:
            x: data; a label that it holds is ignored.
            part: name of the part, "label"; others need `num_samples`.
            num_samples: None asks the classifier, q(y | x). A number of weighted draws estimates
                p(y | x) of the model itself, as for `VAE.classify`.
            seed: 32-bit integer for reproducible draws.

        Raises:
            DataError: if x lies outside the support of the likelihood.
            ValueError: if the part is none of the model, has no classes or may not be absent.
        """
        if num_samples is not None or part != _LABEL:
            return super().classify(
                x, part, 1000 if num_samples is None else num_samples, seed=seed
            )
        classes_of(self, part)
        given = x if isinstance(x, Mapping) or is_frame(x) else {"x": x}
        arrays = self.data.arrays(
            {name: given[name] for name in self.likelihood.by_part() if name in given},
            in_support=True,
        )
        of_label = self.classifiers()[_LABEL]
        found = self._by_rows("classify", lambda x: of_label(self._cast(x)), arrays)
        return Classification(np.asarray(found), np.full(len(found), np.nan))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "prior": serialize(self.prior),
            "likelihood": serialize(self.likelihood),
            "posterior": serialize(self.posterior),
            "classifier": serialize(self.classifier.network),
            "trunk": serialize(self.trunk),
            "class_probabilities": self.class_probabilities.tolist(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SemiSupervisedVAE":
        """Makes the model with new weights."""
        layers = ("prior", "likelihood", "posterior", "classifier", "trunk")
        return cls(**{**config, **{name: deserialize(config[name]) for name in layers}})


def _certain(label: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the parameters of the distribution that is certain of a one-hot label."""
    return {"logits": _CERTAIN * label}


def _probabilities(given: Sequence[float] | None, classes: int) -> np.ndarray:
    if given is None:
        return np.full(classes, 1.0 / classes)
    found = np.asarray(given, np.float64)
    if found.shape != (classes,) or not (found > 0).all() or abs(found.sum() - 1.0) > 1e-6:
        raise ValueError(
            f"Invalid value for argument `class_probabilities`. Expected {classes} positive "
            f"numbers of sum 1. Received: {given!r}"
        )
    return found
