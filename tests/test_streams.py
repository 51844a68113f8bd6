"""Draws of x and draws of z given x never share numbers: a bound on a model's own draws is a bound.

With the exact posterior the mean of elbo(x) - log p(x) is 0 over the draws of z, whichever draws x
are; with a diagonal one it is minus the gap. Noise that made x and comes back as the noise of
z given x moves it: by +0.88 nats in this model, where z given x was once drawn from the prior's
stream.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from export import onnx_graphs
from keras_vae import LinearGaussian, StandardNormal, evaluation, random
from keras_vae.signatures import signatures
from tests.models import mean_and_error

SEED, DRAWS = 7, 4000
ERRORS = 4.0  # standard errors: one run in 16 000 fails by chance, and seeds are fixed

MODEL = LinearGaussian(np.random.default_rng(0).standard_normal((8, 4)), np.zeros(8), 0.5)


def in_python(vae: Any) -> tuple[np.ndarray, np.ndarray]:
    x = vae.sample(DRAWS, seed=SEED)
    return x.numpy(), vae.elbo(x, seed=SEED).elbo.numpy()


def in_a_graph(vae: Any) -> tuple[np.ndarray, np.ndarray]:
    table, seeds = signatures(vae), random.row_seeds(SEED, DRAWS)
    sample, score = (onnx_graphs.traced(table[name]) for name in ("sample", "score"))
    x = sample(seeds)["sample"]
    return x.numpy(), score(x, seeds)["elbo"].numpy()


def in_onnx_runtime(vae: Any) -> tuple[np.ndarray, np.ndarray]:
    table, seeds = signatures(vae), random.row_seeds(SEED, DRAWS).numpy()
    sample, score = (
        onnxruntime.InferenceSession(
            onnx_graphs.convert(table[name]).model.SerializeToString(),
            providers=["CPUExecutionProvider"],
        )
        for name in ("sample", "score")
    )
    (x,) = sample.run(["sample"], {"seed": seeds})
    return x, score.run(["elbo"], {"x": x, "seed": seeds})[0]


@pytest.mark.parametrize("runtime", [in_python, in_a_graph, in_onnx_runtime])
@pytest.mark.parametrize("full_covariance", [True, False])
def test_elbo_of_draws_with_their_own_seed_is_a_bound(runtime: Callable, full_covariance: bool):
    x, elbo = runtime(MODEL.vae(full_covariance=full_covariance))
    mean, error = mean_and_error(elbo - MODEL.log_prob(x).numpy())
    expected = 0.0 if full_covariance else -MODEL.gap()
    assert abs(mean - expected) <= ERRORS * error
    assert error < 0.03  # far below the 0.88 of a shared stream


def test_no_two_streams_of_a_seed_are_correlated():
    seeds = random.row_seeds(SEED, 500)
    streams = (random.LATENT, random.COMPONENT, random.OBSERVATION, random.PREPARATION)
    noise = [random.normal(seeds, (40,), stream=s) for s in (*streams, random.POSTERIOR)]
    correlation = np.corrcoef([np.ravel(part) for part in noise])
    assert np.abs(correlation - np.eye(5)).max() < ERRORS / np.sqrt(500 * 40)


def elbo_by_anomaly_scores(vae: Any, x: np.ndarray) -> np.ndarray:
    scores = evaluation.anomaly_scores(vae, x, num_samples=1, elbo_samples=1, seed=SEED)
    return -scores.negative_elbo.mean()


def elbo_by_rate_distortion(vae: Any, x: np.ndarray) -> np.ndarray:
    return evaluation.rate_distortion({1.0: vae}, x, num_samples=1, seed=SEED).elbo[0]


def elbo_by_diagnosis(vae: Any, x: np.ndarray) -> np.ndarray:
    found = evaluation.diagnose(vae, x, num_samples=1, seed=SEED)
    return -(found.distortion + found.rate)


def elbo_by_log_marginal(vae: Any, x: np.ndarray) -> np.ndarray:
    return evaluation.log_marginal(vae, x, num_samples=1, seed=SEED).value.mean()


@pytest.mark.parametrize(
    "elbo_of",
    [elbo_by_anomaly_scores, elbo_by_rate_distortion, elbo_by_diagnosis, elbo_by_log_marginal],
)
def test_evaluators_are_bounds_on_data_drawn_by_tfp_with_their_seed(elbo_of: Callable):
    """TFP draws z of a normal prior from the seed as it is; an evaluator must not do so again."""
    z = StandardNormal(4, dtype="float64").distribution().sample(DRAWS, seed=tf.constant([SEED, 0]))
    vae = MODEL.vae(full_covariance=True)
    x = vae.decode(z).sample(seed=1).numpy()
    elbo = vae.elbo(x, seed=0).elbo.numpy()
    log_prob = MODEL.log_prob(x).numpy()
    error = (elbo - log_prob).std(ddof=1) / np.sqrt(DRAWS)
    assert abs(elbo_of(vae, x) - log_prob.mean()) <= ERRORS * error
