"""Every evaluator of log p(x) brackets it where it is known, and they agree where it is not."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate
from scipy.stats import genpareto

import keras_vae
from keras_vae import LinearGaussian
from keras_vae.distributions import inverse_positive, tfp
from keras_vae.distributions.tfp import tfd
from keras_vae.evaluation import _batches, bdmc, log_marginal, marginal
from keras_vae.evaluation.annealed import log_mean, schedule
from keras_vae.evaluation.pareto import pareto_k, tail_size
from keras_vae.evaluation.summary import log_mean_error
from tests.models import digits, linear_gaussian, mean_and_error, tiny_vae
from tests.registry import MODELS, vae_of

EVIDENCE = -1.455004421  # of x = 1 under z ~ N(0, 1), x | z ~ N(z, 0.5)


def widened(vae, raw=0.4):
    """Makes the VAE with a wider posterior, for which moments of the weights exist."""
    kernel, bias = vae.posterior.head.get_weights()
    bias[vae.latent_size : 2 * vae.latent_size] += raw
    vae.posterior.head.set_weights([kernel, bias])
    return vae


def from_prior(model):
    """Makes the VAE of a one-dimensional model whose posterior is the prior."""
    vae = model.vae()
    size = len(model.bias)
    vae.posterior.head.set_weights([np.zeros((size, 2)), np.array([0.0, inverse_positive(1.0)])])
    return vae


@pytest.fixture(scope="module")
def one_dimension():
    return from_prior(LinearGaussian([[1.0]], [0.0], np.sqrt(0.5)))


@pytest.fixture(scope="module")
def trained():
    """Trains a Bernoulli VAE of two latents on digits; returns it with held-out digits."""
    keras.utils.set_random_seed(1)
    x = (digits() > 0.5).astype("float32")
    vae = keras_vae.mlp_vae(64, 2, "bernoulli", hidden=(64,))
    vae.compile(keras.optimizers.Adam(5e-3))
    vae.fit(x[:1500], epochs=30, batch_size=100, verbose=0)
    return vae, x[1500:1540]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("importance", {}),
        ("annealed", {"temperatures": 100}),
        ("annealed", {"temperatures": 100, "start": "prior"}),
    ],
)
def test_sampled_evidence_lies_within_its_error_of_the_truth(method, options):
    model = linear_gaussian()
    x = model.marginal().sample(20, seed=3).numpy()
    found = log_marginal(widened(model.vae()), x, method, **options)
    exact = model.log_prob(x).numpy()
    # 4 standard errors, and the bias of a logarithm of a mean to second order
    error = found.standard_error + 0.5 * found.standard_error**2
    assert np.all(np.abs(found.value - exact) < 4.0 * error)
    assert found.side == "below"
    assert found.standard_error.max() < 0.3
    if method == "annealed":
        assert np.all((found.acceptance > 0.6) & (found.acceptance < 0.95))  # aimed at 0.8


@pytest.mark.parametrize("latents", [1, 2, 3])
def test_quadrature_is_exact_to_a_millionth(latents):
    model = linear_gaussian(size=4, latents=latents, scale=0.3)
    x = model.marginal().sample(4, seed=1).numpy()
    for vae in (model.vae(), widened(model.vae(), raw=3.0)):
        found = log_marginal(vae, x, "quadrature")
        np.testing.assert_allclose(found.value, model.log_prob(x), atol=1e-6)
        assert np.all(found.standard_error < 1e-6)
    assert (found.side, found.method) == ("either", "quadrature")


def test_quadrature_finds_a_narrow_posterior_far_from_q():
    model = LinearGaussian([[5.0, 1.0], [4.0, 2.0], [1.0, 7.0]], [0.0, 1.0, 2.0], 0.01)
    x = np.array([[9.0, 8.0, -12.0], [0.0, 1.0, 2.0]])
    vae = model.vae()
    vae.posterior.head.set_weights([np.zeros((3, 4)), np.zeros(4)])
    found = log_marginal(vae, x, "quadrature")
    # values reach 1e6 nats; the sum of squares that they are keeps 12 digits
    np.testing.assert_allclose(found.value, model.log_prob(x), rtol=1e-12, atol=1e-6)


def test_quadrature_sees_both_modes():
    """|z| decides x: p(x | z) = N(x; relu-like tent), a posterior with modes at +-z."""
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(1, dtype="float64"),
        likelihood=keras_vae.Normal(
            1,
            network=keras.layers.Lambda(lambda z: z**2, dtype="float64"),
            scale=0.1,
            dtype="float64",
        ),
        posterior=keras_vae.DiagonalNormal(1, dtype="float64"),
        dtype="float64",
    )
    vae.likelihood.head.set_weights([np.ones((1, 1)), np.zeros(1)])
    x = np.array([[1.0], [2.5]])
    z = np.linspace(-6.0, 6.0, 200_001)
    log_p = -0.5 * z**2 - 0.5 * ((x - z**2) / 0.1) ** 2 - np.log(2.0 * np.pi * 0.1)
    expected = np.log(integrate.trapezoid(np.exp(log_p), z, axis=1))
    found = log_marginal(vae, x, "quadrature")
    np.testing.assert_allclose(found.value, expected, atol=1e-6)


def test_bidirectional_bounds_contain_the_truth():
    model = linear_gaussian()
    found = bdmc(widened(model.vae()), 48, temperatures=40, num_chains=8)
    exact = model.log_prob(found.x).numpy()
    low, low_error = mean_and_error(found.lower - exact)
    high, high_error = mean_and_error(found.upper - exact)
    assert low < 4.0 * low_error
    assert high > -4.0 * high_error
    assert -4.0 * found.width_error < found.width < 0.2
    assert np.all(np.abs(found.lower - exact) < 5.0 * found.lower_error + 0.05)
    rough = bdmc(widened(model.vae(), raw=2.0), 48, temperatures=1, num_chains=1)
    exact = model.log_prob(rough.x).numpy()
    assert (rough.lower - exact).mean() < -0.2
    assert (rough.upper - exact).mean() > 0.2


@pytest.mark.parametrize("k", [1, 5])
def test_importance_estimate_of_the_evidence_is_unbiased(one_dimension, k):
    value = log_marginal(one_dimension, np.ones((100_000, 1)), num_samples=k).value
    mean, error = mean_and_error(np.exp(value))
    assert abs(mean - np.exp(EVIDENCE)) < 4.0 * error
    assert error < 3e-3 * np.exp(EVIDENCE)


@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_annealed_estimate_of_the_evidence_is_unbiased(start):
    model = LinearGaussian([[1.0]], [0.0], np.sqrt(0.5))
    vae = from_prior(model) if start == "prior" else widened(model.vae(), raw=1.0)
    value = log_marginal(
        vae,
        np.ones((100_000, 1)),
        "annealed",
        num_samples=1,
        temperatures=6,
        leapfrog_steps=2,
        start=start,
    ).value
    mean, error = mean_and_error(np.exp(value))
    assert abs(mean - np.exp(EVIDENCE)) < 4.0 * error
    assert error < 2e-3 * np.exp(EVIDENCE)
    assert value.mean() < EVIDENCE - 5.0 * error


def test_evaluators_agree_on_a_trained_model(trained):
    vae, x = trained
    truth = log_marginal(vae, x, "quadrature")
    assert truth.standard_error.max() < 1e-4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few weights may have a heavy tail: left out below
        sampled = log_marginal(vae, x, num_samples=4000)
    annealed = log_marginal(vae, x, "annealed", temperatures=100, num_samples=8)
    for found in (sampled, annealed):
        error = found.standard_error + 0.5 * found.standard_error**2 + 1e-4
        off = np.abs(found.value - truth.value) / error
        if found.pareto_k is not None:
            assert np.mean(found.pareto_k < 0.7) > 0.8
            off = off[found.pareto_k < 0.7]
        # The error is estimated too, from 8 chains at worst: Student's t distribution with 7
        # degrees of freedom leaves 4 % beyond 2.5 and in 40 examples 1 in 3 000 beyond 7.
        assert off.max() < 7.0
        assert np.mean(off < 2.5) > 0.85
    elbo = vae.elbo(x, num_samples=256, seed=0).elbo.numpy()
    assert np.all(elbo < truth.value + 0.2)


def test_conditional_model_is_evaluated():
    vae = keras_vae.mlp_vae(4, 2, "normal", hidden=(8,), condition_shape=3, scale=0.5)
    rng = np.random.default_rng(0)
    inputs = {
        "x": rng.normal(size=(6, 4)).astype("float32"),
        "condition": rng.normal(size=(6, 3)).astype("float32"),
    }
    truth = log_marginal(vae, inputs, "quadrature")
    found = log_marginal(vae, inputs, "annealed", temperatures=60)
    assert np.all(np.abs(found.value - truth.value) < 6.0 * found.standard_error + 1e-4)
    few = {"temperatures": 20, "num_chains": 4, "leapfrog_steps": 1}
    bracket = bdmc(vae, 8, condition=np.zeros((8, 3)), **few)
    assert bracket.condition.shape == (8, 3)
    assert bracket.width > -4.0 * bracket.width_error


def test_priors_with_components_are_annealed():
    vae = tiny_vae("bernoulli", 6, prior="normal_mixture", num_components=3)
    x = np.eye(6, dtype="float32")
    truth = log_marginal(vae, x, "quadrature")
    found = log_marginal(vae, x, "annealed", temperatures=60, start="prior")
    assert np.all(np.abs(found.value - truth.value) < 6.0 * found.standard_error + 1e-4)


def test_memory_changes_nothing_but_the_draws(one_dimension):
    x, few = np.ones((5, 1)), {"temperatures": 5, "leapfrog_steps": 1}
    for method, least in (("annealed", 1), ("quadrature", 5_000)):
        for memory in (least, 2**20):
            found = log_marginal(one_dimension, x, method, memory=memory, **few)
            assert np.all(np.abs(found.value - EVIDENCE) < 5.0 * found.standard_error + 1e-6)
    first, again = (log_marginal(one_dimension, x, "annealed", **few).value for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-14)])
@pytest.mark.parametrize("shape", [(6,), (7, 1), (4, 17), (28, 28, 1)])
def test_fused_log_prob_is_the_log_prob(shape, dtype, tolerance):
    rng = np.random.default_rng(0)
    logits = 5.0 * rng.normal(size=(3, 2, *shape)).astype(dtype)
    logits[0] *= 100.0  # far beyond where the exponential of a logit is finite
    x = (rng.random((2, *shape)) < 0.3).astype(dtype)
    distribution = tfp.IndependentBernoulli(tf.constant(logits), len(shape))
    double = logits.astype("float64")
    expected = (x * double - np.logaddexp(0.0, double)).reshape(3, 2, -1).sum(-1)
    for found in (distribution.log_prob(x), tfp.fused_log_prob(distribution, tf.constant(x))):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=tolerance)  # sums of up to 784 numbers


@pytest.mark.parametrize(
    ("case", "method"), [*((case, "importance") for case in MODELS), ("bernoulli", "prior")]
)
def test_compiled_evaluation_is_the_same(case, method, monkeypatch):
    vae, x = vae_of(**MODELS[case])
    plain = log_marginal(vae, x, method, num_samples=20)  # too few for a warning
    monkeypatch.setattr(marginal, "_WORTH_FUSING", 0)
    compiled = log_marginal(vae, x, method, num_samples=20)
    # float32; the log-gammas of counts and of a beta density are several nats each and cancel.
    atol = 1e-5 if case.startswith("parts") else 1e-6
    np.testing.assert_allclose(compiled.value, plain.value, rtol=1e-5, atol=atol)


def test_any_division_into_pieces_takes_each_draw_once(monkeypatch):
    """With the exact posterior all weights are p(x): each estimate is exact and all draws count."""
    model = LinearGaussian([[1.0], [0.5]], [0.0, 0.3], 0.7)
    vae, x = model.vae(), np.random.default_rng(0).normal(size=(300, 2))
    for count, num_samples, cached, noise in (
        (300, 1, 2**24, 2**20),
        (300, 97, 20_000, 500),
        (7, 1000, 2_000, 100),
        (1, 13, 1, 1),
        (129, 64, 2**24, 1_000),
    ):
        monkeypatch.setattr(marginal, "_CACHED", cached)
        monkeypatch.setattr(marginal, "_NOISE", noise)
        found = log_marginal(vae, x[:count], num_samples=num_samples, memory=10 * cached)
        np.testing.assert_allclose(found.value, model.log_prob(x[:count]), atol=1e-12)
        np.testing.assert_allclose(found.effective_sample_size, num_samples, rtol=1e-12)


def test_blocks_of_draws_add_up(monkeypatch):
    vae, x = tiny_vae("bernoulli", 6), np.eye(6, dtype="float32")
    found = []
    for cached, memory in ((2**24, 2**28), (2_000, 2_000)):
        monkeypatch.setattr(marginal, "_CACHED", cached)
        found.append(log_marginal(vae, x, "prior", num_samples=600, memory=memory))
    error = found[0].standard_error + found[1].standard_error
    assert np.all(np.abs(found[0].value - found[1].value) < 4.0 * error)
    assert found[1].pareto_k.shape == (6,)


def test_pareto_k_is_the_shape_of_the_tail():
    rng = np.random.default_rng(0)
    for k in (0.2, 0.5, 0.9):
        w = genpareto(k).rvs((200, 1001), random_state=rng)
        found = pareto_k(np.log(w))
        # deviation (1 + k) / sqrt(1000), drawn to 1/2 by ten of a thousand and ten
        assert found.mean() == pytest.approx((k * 1000 + 5) / 1010, abs=0.02)
        assert found.std() == pytest.approx((1 + k) / 1000**0.5, rel=0.3)
    assert pareto_k(np.zeros((2, 50))).tolist() == [-np.inf, -np.inf]


def pareto_k_of_the_paper(log_w: np.ndarray) -> float:
    """Computes Vehtari et al. (2024), section 2 and appendix C, step by step."""
    count = len(log_w)
    size = int(np.ceil(min(0.2 * count, 3.0 * np.sqrt(count))))
    ordered = np.sort(np.exp(log_w - log_w.max()))
    y = ordered[-size:] - ordered[-size - 1]
    m = 30 + int(np.floor(np.sqrt(size)))
    first_quartile = y[int(np.floor(size / 4 + 0.5)) - 1]
    theta = np.array(
        [1 / y[-1] + (1 - np.sqrt(m / (j - 0.5))) / (3 * first_quartile) for j in range(1, m + 1)]
    )

    def profile(t: float) -> float:
        k = np.mean(np.log1p(-t * y))
        return size * (np.log(-t / k) - k - 1)

    heights = np.array([profile(t) for t in theta])
    weights = 1 / np.exp(heights[None] - heights[:, None]).sum(axis=1)
    k = np.mean(np.log1p(-np.sum(theta * weights) * y))
    return float((size * k + 10 * 0.5) / (size + 10))


@pytest.mark.parametrize("count", [100, 200, 500, 1000, 5000])
def test_pareto_k_is_that_of_the_paper(count):
    rng = np.random.default_rng(count)
    log_w = rng.normal(size=(4, count)) * [[0.5], [1.0], [2.0], [4.0]]
    largest = np.sort(log_w, axis=1)[:, -tail_size(count) - 1 :]
    expected = [pareto_k_of_the_paper(row) for row in log_w]
    np.testing.assert_allclose(pareto_k(largest), expected, rtol=1e-10)


def test_error_of_a_log_mean_is_its_deviation():
    """Of many sets of k weights, the mean square of the stated error is the variance stated."""
    rng = np.random.default_rng(0)
    w = np.exp(0.1 * rng.normal(size=(20_000, 4)))
    ess = w.sum(axis=1) ** 2 / (w**2).sum(axis=1)
    stated = np.sqrt(np.mean(log_mean_error(ess, 4) ** 2))
    assert stated == pytest.approx(np.log(w.mean(axis=1)).std(), rel=0.03)  # 0.5 % by chance
    assert np.isnan(log_mean_error(np.ones(3), 1)).all()


@pytest.mark.parametrize("options", [{}, {"method": "annealed", "temperatures": 2}])
def test_one_draw_has_no_error(options):
    found = log_marginal(tiny_vae(), np.eye(6)[:2], num_samples=1, **options)
    assert np.isfinite(found.value).all()
    assert np.isnan(found.standard_error).all()


def test_seed_must_have_32_bits():
    for seed in (2**31, -(2**31) - 1):
        with pytest.raises(ValueError, match=r"`seed` in \[-2\^31, 2\^31\); got"):
            log_marginal(tiny_vae(), np.eye(6)[:2], num_samples=2, seed=seed)
    for method in ("importance", "quadrature"):
        assert np.isfinite(log_marginal(tiny_vae(), np.eye(6)[:2], method, seed=-5).value).all()


def test_weights_without_variance_are_recognised():
    """q narrower than the posterior by r: p(w > t) falls as a power, k = 1 - r^2."""
    model = LinearGaussian([[1.0]], [0.0], 1.0)
    vae, r = model.vae(), 0.5
    kernel, _ = vae.posterior.head.get_weights()
    deviation = np.sqrt(0.5)
    vae.posterior.head.set_weights([kernel, np.array([0.0, inverse_positive(r * deviation)])])
    with pytest.warns(UserWarning, match="not reliable for .* of 40 examples"):
        found = log_marginal(vae, np.ones((40, 1)), num_samples=20_000)
    # the power law is reached slowly: its logarithmic factor moves k by about a tenth
    assert found.pareto_k.mean() == pytest.approx(1.0 - r**2, abs=0.12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few = log_marginal(vae, np.ones((40, 1)), num_samples=99)
    assert few.pareto_k is None


def test_schedule_is_a_sigmoid():
    b = schedule(100)
    assert (b[0], b[-1], len(b)) == (0.0, 1.0, 101)
    steps = np.diff(b)
    assert np.all(steps > 0.0)
    assert steps[50] > 10.0 * steps[0]
    np.testing.assert_allclose(b + b[::-1], 1.0, atol=1e-12)


def test_log_mean_of_weights():
    value, ess = log_mean(np.log([[1.0, 3.0], [2.0, 2.0]]) - 900.0)
    np.testing.assert_allclose(value, np.log(2.0) - 900.0)
    np.testing.assert_allclose(ess, [1.6, 2.0])


def test_refusals():
    vae = tiny_vae("normal", 6)
    x = np.zeros((2, 6), np.float32)
    wide = keras_vae.mlp_vae(6, 4, "normal", hidden=(8,))
    for match, arguments in (
        ("Quadrature is for 1 to 3 latents, but this model has 4", (wide, x, "quadrature")),
        ("Expected 'posterior' or 'prior'", (vae, x, "annealed", {"start": "middle"})),
        ("temperatures.*at least 1", (vae, x, "annealed", {"temperatures": 0})),
        ("leapfrog_steps.*at least 1", (vae, x, "annealed", {"leapfrog_steps": 0})),
        ("at least 4 points", (vae, x, "quadrature", {"num_samples": 3})),
        ("'annealed' or 'quadrature'", (vae, x, "guess")),
    ):
        *positional, options = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
        with pytest.raises(ValueError, match=match):
            log_marginal(*positional, **options)
    with pytest.raises(ValueError, match=r"num_examples.*at least 2"):
        bdmc(vae, 1)
    with pytest.raises(ValueError, match="This model is unconditional"):
        bdmc(vae, 2, condition=np.zeros((2, 1)))
    assert isinstance(vae.prior.distribution(), tfd.Independent)


def test_annealing_of_a_recurrent_model_is_compiled_and_has_the_same_numbers(monkeypatch):
    """Programs of XLA round in another order; a chain that decided otherwise would move by 0.1."""
    keras.utils.set_random_seed(0)
    vae = keras_vae.sequence_vae((3, 1), 1, "bernoulli", width=2, depth=1, autoregressive=True)
    x = np.array([[[1], [0], [1]], [[0], [1], [np.nan]]], np.float32)
    assert any(isinstance(layer, keras.layers.RNN) for layer in vae._flatten_layers())
    found, compiled = [], []
    function = tf.function

    def counted(*arguments, **options):
        compiled.append(bool(options.get("jit_compile")))
        return function(*arguments, **options)

    monkeypatch.setattr(tf, "function", counted)
    for calls in (200, 201):
        monkeypatch.setattr(_batches, "_CALLS_THAT_PAY", calls)
        options = {"num_samples": 2, "temperatures": 40, "seed": 0}
        found.append(log_marginal(vae, x, "annealed", **options).value)
        assert any(compiled) == (calls == 200)
        compiled.clear()
    np.testing.assert_allclose(*found, rtol=0, atol=1e-4)
