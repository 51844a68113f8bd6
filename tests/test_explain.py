"""The explanation of a loss holds against the bound of the model that it names."""

import math

import keras
import numpy as np
import pytest

import keras_vae
from keras_vae.explain import explain_loss
from tests.models import binary, tiny_vae

SHAPE = (4, 3, 2)


def hand_written(kind, reduction, weight, kl_reduction, x, mean, kl_per_latent):
    """Computes the loss as people write it, in NumPy, [N]."""
    cross_entropy = -(x * np.log(mean) + (1.0 - x) * np.log1p(-mean)) if kind == "bce" else None
    error = (x - mean) ** 2 if kind == "mse" else cross_entropy
    axes = (1, 2, 3)
    reduced = {
        "mean": error.mean(axis=axes),
        "sum": error.sum(axis=axes),
        "mean_channels": error.mean(axis=-1).sum(axis=(1, 2)),
    }[reduction]
    return reduced + weight * getattr(kl_per_latent, kl_reduction)(axis=1)


@pytest.mark.parametrize("kl_reduction", ["sum", "mean"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "mean_channels"])
@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_loss_is_the_bound_that_is_named(kind, reduction, kl_reduction):
    rng = np.random.default_rng(0)
    name = "normal" if kind == "mse" else "bernoulli"
    vae = tiny_vae(name, SHAPE, **({"scale": 1.0} if kind == "mse" else {}))
    x = binary(5, *SHAPE) if kind == "bce" else rng.normal(size=(5, *SHAPE)).astype("float32")
    q = vae.encode(x)
    z = q.sample(seed=1)
    distribution = vae.decode(z)
    loc, scale = q.mean().numpy(), q.stddev().numpy()
    kl = 0.5 * (scale**2 + loc**2 - 1.0 - 2.0 * np.log(scale))
    weight = 0.3
    loss = hand_written(kind, reduction, weight, kl_reduction, x, distribution.mean().numpy(), kl)
    found = explain_loss(
        kind,
        reduction=reduction,
        kl_weight=weight,
        data_shape=SHAPE,
        latent_size=2,
        kl_reduction=kl_reduction,
    )
    distortion = -distribution.log_prob(x).numpy()
    expected = distortion + found.beta * kl.sum(axis=1)
    # float32: sums of 24 terms of size 1 keep 5 digits
    np.testing.assert_allclose(found.factor * loss + found.constant, expected, rtol=1e-5)
    if kind == "mse":
        same = keras_vae.Normal(SHAPE, scale=found.scale).make_distribution(
            distribution.mean(), keras.ops.convert_to_tensor(found.scale, "float32")
        )
        at_scale = -same.log_prob(x).numpy() + kl.sum(axis=1)
        rescaled = found.factor / found.beta * loss + found.constant_at_scale
        np.testing.assert_allclose(rescaled, at_scale, rtol=1e-5)


def test_sentence_of_the_known_case():
    found = explain_loss("mse", kl_weight=0.00025, data_shape=(64, 64, 3), latent_size=128)
    assert found.beta == pytest.approx(0.00025 * 64 * 64 * 3 / 2)
    assert found.scale == pytest.approx(math.sqrt(1.536))
    assert found.sentence.startswith(
        "mean MSE + 0.00025 KL at 64x64x3 is a unit-variance Gaussian VAE with beta 1.54; "
        "read with beta 1 its scale is 1.24."
    )
    assert "11292 nats" in found.sentence  # 6144 log 2 pi
    mnist = explain_loss("mse", reduction="sum", kl_weight=0.5, data_shape=(784,), latent_size=2)
    assert mnist.beta == pytest.approx(0.25)
    assert mnist.constant == pytest.approx(720.45, abs=0.005)  # known value


def test_sentences_say_whether_it_is_a_bound():
    keras_example = explain_loss(
        "bce", reduction="mean_channels", data_shape=(28, 28, 1), latent_size=2
    )
    assert keras_example.beta == 1.0
    assert "with beta 1, hence a bound on log p(x), if x is binary" in keras_example.sentence
    mean = explain_loss("bce", data_shape=(28, 28, 1), latent_size=2)
    assert mean.beta == 784.0
    assert "bound" not in mean.sentence
    averaged = explain_loss("bce", data_shape=(784,), latent_size=20, kl_reduction="mean")
    assert averaged.beta == pytest.approx(39.2)
    assert "KL averaged over 20 latents" in averaged.sentence
    half = explain_loss("mse", reduction="sum", kl_weight=2.0, data_shape=(9,), latent_size=2)
    assert half.scale == 1.0
    assert "read with" not in half.sentence


def test_code_names_a_model_that_can_be_made():
    found = explain_loss("mse", kl_weight=0.001, data_shape=(4,), latent_size=2)
    made = eval(f"dict({found.code})", {"keras_vae": keras_vae})
    assert isinstance(made["likelihood"], keras_vae.Normal)
    assert made["likelihood"].scale == pytest.approx(found.scale, rel=1e-5)  # six digits printed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reconstruction": "mae"}, "`reconstruction`. Expected one of 'mse', 'bce'"),
        ({"reduction": "none"}, "`reduction`. Expected one of 'mean', 'sum', 'mean_channels'"),
        ({"kl_reduction": "max"}, "`kl_reduction`. Expected one of 'sum', 'mean'"),
        ({"kl_weight": 0.0}, "`kl_weight`. Expected a positive number"),
        ({"data_shape": ()}, "`data_shape`. Expected positive integers"),
        ({"data_shape": (28, 0)}, "`data_shape`. Expected positive integers"),
        ({"latent_size": 0}, "`latent_size`. Expected a positive integer"),
    ],
)
def test_refusals(change, message):
    arguments = {"reconstruction": "mse", "data_shape": (4,), "latent_size": 2, **change}
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        explain_loss(**arguments)
