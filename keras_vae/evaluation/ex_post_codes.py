"""Prior over the codes of a trained model, fitted while codes and decoder stay as they are."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae.arguments import as_count
from keras_vae.distributions.codes import AutoregressiveCodes, CodePosterior, CodePrior
from keras_vae.distributions.codes.distributions import PointOfCodes
from keras_vae.evaluation._batches import batches
from keras_vae.model import VAE

__all__ = ["fit_code_prior"]

_ENCODED = 1024


def fit_code_prior(
    vae: VAE,
    x: Any,
    prior: CodePrior | None = None,
    *,
    epochs: int = 20,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> VAE:
    """Fits a prior to the codes of data, which makes the bound of a quantiser tighter.

    The codes of x are computed once, and the prior maximises their mean log-probability. Nothing
    else of the model changes, so the distortion stays as it was, and the rate becomes the cross
    entropy of the codes under the fitted prior.

    Args:
        vae: a trained model whose posterior is a quantiser.
        x: data to fit the prior to: the training set, if the bound is to be measured on another.
        prior: the prior to fit; None is `AutoregressiveCodes()`.
        epochs: passes over the codes.
        batch_size: examples per step.
        learning_rate: of Adam, from which it falls to zero along a cosine.
        seed: of the order of the examples.

    Returns:
        A model of the same likelihood and posterior, which it shares with `vae`, and the prior.

    Raises:
        DataError: if x does not fit the model.
        ValueError: if the posterior is no quantiser, or an argument is out of range.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.VAE(
        ...     prior=keras_vae.UniformCodes(),
        ...     likelihood=keras_vae.Normal(5),
        ...     posterior=keras_vae.VectorQuantizer(4, num_codes=8, code_size=2),
        ... )
        >>> x = np.random.default_rng(0).normal(size=(64, 5))
        >>> better = fit_code_prior(vae, x, keras_vae.AutoregressiveCodes(8, heads=2), epochs=5)
        >>> bool(np.mean(better.elbo(x).elbo) > np.mean(vae.elbo(x).elbo))
        True
    """
    codes = vae.posterior
    if not isinstance(codes, CodePosterior) or codes.noise().shape:
        raise ValueError(
            "fit_code_prior fits a prior to codes that are certain, and those of "
            f"{type(codes).__name__} are not: choose a quantiser such as VectorQuantizer, or train "
            "the prior with the model."
        )
    epochs, batch_size = (
        as_count(name, value, least=1)
        for name, value in (("epochs", epochs), ("batch_size", batch_size))
    )
    prior = AutoregressiveCodes(dtype=vae.prior.dtype_policy) if prior is None else prior
    fitted = VAE(
        prior=prior,
        likelihood=vae.likelihood,
        posterior=codes,
        condition_shape=vae.condition_shape,
        feature_names=vae.feature_names,
        dtype=vae.dtype_policy,
    )
    every = _codes_of(vae, codes, vae.data.arrays(x, in_support=False))
    steps = epochs * -(-len(every) // batch_size)
    if prior.trainable_weights:
        optimizer = keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        )
        optimizer.build(prior.trainable_weights)

        @tf.function(autograph=False, reduce_retracing=True)
        def step(batch: tf.Tensor) -> None:
            with tf.GradientTape() as tape:
                loss = -tf.reduce_mean(prior.log_prob_of(batch))
            gradients = tape.gradient(loss, prior.trainable_weights)
            optimizer.apply_gradients(zip(gradients, prior.trainable_weights, strict=True))

        rng = np.random.default_rng(seed)
        for _ in range(epochs):
            order = rng.permutation(len(every))
            for start in range(0, len(order), batch_size):
                step(tf.constant(every[order[start : start + batch_size]]))
    return fitted


def _codes_of(vae: VAE, codes: CodePosterior, x: Any) -> np.ndarray:
    """Returns the codes of checked data, int32 [N, count]."""
    found = []
    for _, batch in batches(x, _ENCODED):
        q = vae.encode(batch)
        if isinstance(q, PointOfCodes):
            found.append(codes.side_by_side(q.codes).numpy())
    return np.concatenate(found)
