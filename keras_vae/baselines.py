"""Simple models of the same data, so that a number of nats means something."""

import numpy as np

from keras_vae.linear_gaussian import LinearGaussian

__all__ = ["log_probs"]

_MOST_FEATURES = 1024
_MOST_MIXTURE_FEATURES = 128
_MOST_MIXTURE_EXAMPLES = 10_000


def log_probs(
    likelihood: str, train: np.ndarray, test: np.ndarray, latent_size: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Log-probability or log-density of each test example under simple models, in nats.

    Discrete data: independent entries with the frequencies of the training set. Real data:
    independent normal entries, probabilistic PCA and a Gaussian mixture. Integer levels: also
    these densities of the dequantised levels (x + u) / K, u uniform, less D log K nats, which is
    a lower bound on their discrete log-probability (Theis, van den Oord and Bethge 2016,
    arXiv:1511.01844).

    Args:
        likelihood: name as in `keras_vae.mlp_vae`; decides which models are comparable.
        train: prepared training data [N, *D].
        test: prepared test data [M, *D].
        latent_size: latents of probabilistic PCA, at most D - 1.
        seed: of dequantisation and the mixture.

    Returns:
        Arrays [M] by the name of the model.
    """
    train, test = train.reshape(len(train), -1), test.reshape(len(test), -1)
    if likelihood == "bernoulli":
        return {"independent pixels": _bernoulli(train, test)}
    if likelihood == "categorical":
        return {}
    if likelihood in ("discretized_logistic", "binomial", "poisson"):
        levels = int(max(train.max(), test.max())) + 1
        if levels > 1024:
            return {}
        random = np.random.default_rng(seed)
        noisy_train, noisy_test = ((x + random.random(x.shape)) / levels for x in (train, test))
        offset = -train.shape[1] * np.log(levels)
        densities = _densities(noisy_train, noisy_test, latent_size, seed)
        densities.pop("independent normals", None)
        return {
            "independent pixels": _histograms(train, test, levels),
            **{name: value + offset for name, value in densities.items()},
        }
    return _densities(train, test, latent_size, seed)


def _bernoulli(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    p = (train.sum(axis=0) + 0.5) / (len(train) + 1.0)
    return test @ np.log(p) + (1.0 - test) @ np.log1p(-p)


def _histograms(train: np.ndarray, test: np.ndarray, levels: int) -> np.ndarray:
    total = np.zeros(len(test))
    for column, values in zip(train.T, test.T, strict=True):
        counts = np.bincount(column.astype(int), minlength=levels) + 1.0 / levels
        total += np.log(counts / counts.sum())[values.astype(int)]
    return total


def _densities(
    train: np.ndarray, test: np.ndarray, latent_size: int, seed: int
) -> dict[str, np.ndarray]:
    train, test = train.astype(np.float64), test.astype(np.float64)
    size = train.shape[1]
    models = {}
    spread = train.std(axis=0)
    if (spread > 0.0).all():
        standard = (test - train.mean(axis=0)) / spread
        models["independent normals"] = -(
            0.5 * standard**2 + np.log(spread) + 0.5 * np.log(2.0 * np.pi)
        ).sum(axis=1)
    if 1 < size <= _MOST_FEATURES and len(train) > size:
        latents = min(latent_size, size - 1)
        ppca = LinearGaussian.fit(train, latents)
        models[f"probabilistic PCA, {latents} latents"] = ppca.log_prob(test).numpy()
    if size <= _MOST_MIXTURE_FEATURES and len(train) >= 200:
        from sklearn.mixture import GaussianMixture

        mixture = GaussianMixture(10, reg_covar=1e-3, random_state=seed)
        mixture.fit(train[:_MOST_MIXTURE_EXAMPLES])
        models["Gaussian mixture, 10 components"] = mixture.score_samples(test)
    return models
