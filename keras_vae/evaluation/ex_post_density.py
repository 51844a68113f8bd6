"""Ex-post density: a prior fitted to the posteriors of a trained model."""

from typing import Any

import numpy as np

from keras_vae.arguments import as_count
from keras_vae.distributions import inverse_positive
from keras_vae.distributions.priors import NormalMixture
from keras_vae.evaluation._batches import batch_seed, batches, count_of, rows_in
from keras_vae.evaluation._draws import refuse_other, trace_of
from keras_vae.model import VAE
from keras_vae.spelling import counted

__all__ = ["ex_post_density"]


def ex_post_density(
    vae: VAE,
    x: Any,
    num_components: int = 10,
    *,
    draws: int = 1,
    seed: int = 0,
    memory: int = 256 * 2**20,
) -> VAE:
    """Fits a mixture of normal distributions to posterior draws and makes it the prior.

    The new model shares decoder and encoder with `vae`; the mixture has diagonal covariances. Its
    prior is closer in KL to the aggregated posterior, which changes its elbo and log p(x); judge it
    on data that it was not fitted to. Source: Ghosh,
    Sajjadi, Vergari, Black and Scholkopf (2020), From variational to deterministic autoencoders,
    arXiv:1903.12436.

    Args:
        vae: a trained model.
        x: the training data [N, *D], or {"x": ..., "condition": ...}.
        num_components: K.
        draws: number of draws from each posterior.
        seed: integer, for the draws and the fit.
        memory: approximate memory to use, in bytes.

    Returns:
        The model with the new prior.

    Raises:
        DataError: if a shape is wrong or a number is not finite.
        ValueError: if there are fewer draws than components, a number is out of range or the prior
            depends on the condition.

    Example:
        >>> import keras_vae, numpy as np
        >>> vae = keras_vae.mlp_vae(5, 2, "normal", hidden=(8,))
        >>> ex_post_density(vae, np.random.default_rng(0).normal(size=(64, 5)), 3).prior.name
        'normal_mixture'
    """
    from sklearn.mixture import GaussianMixture

    refuse_other(vae, "ex_post_density")
    if vae.posterior.is_discrete:
        raise ValueError(
            f"ex_post_density fits a density, and the latents of {type(vae.posterior).__name__} "
            "are codes: choose evaluation.fit_code_prior."
        )
    num_components = as_count("num_components", num_components, least=1)
    draws = as_count("draws", draws, least=1)
    if vae.prior.is_conditional:
        raise ValueError(
            "ex_post_density fits a prior that ignores the condition, and would replace the "
            f"{type(vae.prior).__name__} of this model, which is p(z | c). Keep that prior."
        )
    x = vae.data.arrays(x, in_support=False)
    if count_of(x) * draws < max(2, num_components):
        raise ValueError(
            f"A mixture of {num_components} components needs at least as many draws, and 2 or "
            f"more; got {counted(count_of(x), 'example')} with {counted(draws, 'draw')} each."
        )
    z = np.concatenate(
        [
            trace_of(vae, batch, draws, batch_seed(seed, start)).latents["z"].draw.value.numpy()
            for start, batch in batches(x, rows_in(memory, vae))
        ],
        axis=1,
    ).reshape(-1, vae.latent_size)
    mixture = GaussianMixture(
        num_components,
        covariance_type="diag",
        reg_covar=1e-6,
        random_state=seed % 2**32,
        max_iter=500,
    ).fit(z.astype(np.float64))
    prior = NormalMixture(vae.latent_size, num_components, dtype=vae.prior.float_dtype)
    prior.logits.assign(np.log(mixture.weights_))
    prior.loc.assign(mixture.means_)
    prior.raw_scale.assign(inverse_positive(np.sqrt(mixture.covariances_)))
    return VAE(
        prior=prior,
        likelihood=vae.likelihood,
        posterior=vae.posterior,
        condition_shape=vae.condition_shape,
        dtype=vae.dtype_policy,
    )
