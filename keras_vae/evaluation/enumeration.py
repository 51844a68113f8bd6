"""Log-evidence of a model whose latents are a few codes, summed over all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae.distributions.codes import CodePosterior, CodePrior
from keras_vae.distributions.codes.table import configurations
from keras_vae.evaluation._batches import batches, count_of, rows_in, spec_of
from keras_vae.evaluation._draws import refuse_other
from keras_vae.evaluation._progress import Progress
from keras_vae.model import VAE

__all__ = ["MOST", "enumerate_codes"]

MOST = 2**16
"""Most values of the codes over which the evidence is summed."""


def enumerate_codes(vae: VAE, x: Any, memory: int, progress: Progress) -> np.ndarray:
    """Computes log p(x) = log sum over codes of p(x | codes) p(codes), [N].

    Args:
        vae: a model with codes and a prior over them.
        x: checked data.
        memory: approximate bytes of one chunk.
        progress: counts examples.

    Raises:
        ValueError: if the latents are not codes, or have more than 65,536 values.
    """
    refuse_other(vae, "log_marginal(method='enumeration')")
    codes, prior = vae.posterior, vae.prior
    if not (isinstance(codes, CodePosterior) and isinstance(prior, CodePrior)):
        raise ValueError(
            "log_marginal(method='enumeration') sums over codes, and the latents of "
            f"{type(codes).__name__} are continuous: choose 'importance' or 'annealed'."
        )
    every = configurations(codes.count, codes.num_codes, MOST)
    z = codes.embed(codes.in_shape(tf.constant(every)))
    log_prior = prior.log_prob_of(tf.constant(every))
    rows = rows_in(memory, vae)
    size = max(1, min(count_of(x), rows // len(every)))
    chunk = max(1, min(len(every), rows // size))
    spec = (spec_of(x), tf.TensorSpec([None, codes.latent_size], z.dtype))

    def weigh(batch: Any, some: tf.Tensor) -> tf.Tensor:
        inference = vae.infer(batch)
        count = tf.shape(tf.nest.flatten(batch)[0])[0]
        values = tf.tile(some[:, tf.newaxis], [1, count, 1])
        return inference.at({"z": values}).log_likelihood()

    graph = vae._graph(
        ("enumeration", str(spec)),
        lambda: tf.function(weigh, input_signature=spec, autograph=False),
    )
    found = []
    for _, batch in batches(x, size, progress):
        total: Any = -np.inf
        for start in range(0, len(every), chunk):
            some = slice(start, start + chunk)
            log_joint = graph(batch, z[some]).numpy().astype(np.float64)
            log_joint += log_prior[some].numpy()[:, np.newaxis]
            total = np.logaddexp(total, np.logaddexp.reduce(log_joint, axis=0))
        found.append(total)
    return np.concatenate(found)
