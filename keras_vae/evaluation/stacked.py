"""Bound of two models, of which the second is a model of the latents of the first."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae.arguments import as_count
from keras_vae.distributions.noise import from_rows
from keras_vae.latent_variable_model import Bound, LatentVariableModel
from keras_vae.model import VAE
from keras_vae.spelling import counted

__all__ = ["stacked_elbo"]

_MOST = 2**31 - 1


def stacked_elbo(
    first: VAE,
    second: LatentVariableModel,
    x: Any,
    *,
    label: Any = None,
    num_samples: int = 1,
    seed: int | None = None,
) -> Bound:
    """Computes the bound of data under a second model in place of the first one's prior.

    The two-level model is p(z1) p(x | z1), where p(z1), or p(z1, y), is the second model, whose
    data are latents of the first, and p(x | z1) is the decoder of the first. Its bound is

        log p(x) >= E_q(z1 | x)[log p(x | z1) - log q(z1 | x) + ELBO of the second at z1]

    in nats of x. `second.elbo(z1)` alone is one of a density of features and says nothing of x.
    With a `SemiSupervisedVAE` as second, this is the model M1+M2 of Kingma, Rezende, Mohamed and
    Welling (2014), Semi-supervised learning with deep generative models, arXiv:1406.5298. The bound
    suits a second model that was trained on draws of q(z1 | x); one that was trained on their means
    gives little density to the draws.

    Args:
        first: a VAE.
        second: a model whose x has the shape of the latents of the first.
        x: data of the first model, [B, *D].
        label: labels of a second model that has them, one-hot [B, K], NaN where there is none.
        num_samples: draws of z1 per example.
        seed: integer for reproducible draws; None gives new draws each time.

    Returns:
        `Bound(elbo, distortion, rate)`, each [B], in nats: the distortion of the first model, and
        as rate all the rest, log q(z1 | x) less the bound of the second.

    Raises:
        DataError: if x lies outside the support of the first model.
        TypeError: if a model has the wrong type.
        ValueError: if the second model has no x of the size of z1, or takes no label, or there are
            not as many labels as examples.

    Example:
        >>> import keras_vae, numpy as np
        >>> x = np.random.default_rng(0).integers(0, 2, (8, 6)).astype("float32")
        >>> first = keras_vae.mlp_vae(6, 3, "bernoulli", hidden=(8,))
        >>> second = keras_vae.mlp_vae(3, 2, "normal", hidden=(8,), scale="learned")
        >>> stacked_elbo(first, second, x, seed=0).elbo.shape
        TensorShape([8])
    """
    if not isinstance(first, VAE) or not isinstance(second, LatentVariableModel):
        raise TypeError(
            "Expected a VAE and a model of its latents; got a "
            f"{type(first).__name__} and a {type(second).__name__}."
        )
    num_samples = as_count("num_samples", num_samples, least=1)
    part = second.data.parts.get("x")
    if part is None or part.shape != (first.latent_size,):
        raise ValueError(
            f"The first model has {counted(first.latent_size, 'latent')}, and x of the second has "
            f"shape {None if part is None else part.shape}. Build the second on x of shape "
            f"({first.latent_size},)."
        )
    if label is not None and "label" not in second.data.parts:
        raise ValueError(f"A {type(second).__name__} takes no label; leave label out.")
    arrays = first.data.arrays(x, in_support=True)
    count = len(tf.nest.flatten(arrays)[0])
    if label is not None and len(label) != count:
        raise ValueError(
            f"Expected a label for each of {counted(count, 'example')}; got {len(label)}."
        )
    seeds = first._row_seeds(count, seed)

    def of_first(inputs: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        rows, seeds = inputs
        noise = from_rows(first.noise(), seeds, num_samples, first.float_dtype)
        trace = first.infer(rows).trace(noise)
        found = (trace.latents["z"].value, trace.log_likelihood(), trace.log_posterior())
        return tuple(
            tf.stop_gradient(tf.transpose(each, [1, 0, *range(2, each.shape.rank)]))
            for each in found
        )

    z, log_likelihood, log_q = first._by_rows(
        f"stacked {num_samples}", of_first, [arrays, seeds], num_samples
    )
    rng = np.random.default_rng(None if seed is None else abs(int(seed)))
    rows: Any = tf.reshape(z, [count * num_samples, -1])
    if second.data.is_dict:
        rows = {"x": rows}
        if label is not None:
            rows["label"] = np.repeat(np.asarray(label), num_samples, axis=0)
    bounds = second.elbo(rows, seed=int(rng.integers(_MOST))).elbo
    distortion = -tf.reduce_mean(log_likelihood, axis=1)
    beneath = tf.reduce_mean(tf.reshape(bounds, [count, num_samples]), axis=1)
    rate = tf.reduce_mean(log_q, axis=1) - tf.cast(beneath, distortion.dtype)
    return Bound(-(distortion + rate), distortion, rate)
