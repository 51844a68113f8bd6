"""Curves of least energy are those of closed forms."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae
from keras_vae.evaluation import geodesics
from keras_vae.evaluation.geodesics import _shortest, _slope


def linear(latents: int, data: int, **options: object) -> keras_vae.VAE:
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(latents),
        likelihood=keras_vae.Normal(data, **options),
        posterior=keras_vae.DiagonalNormal(latents),
    )


def sphere(z: tf.Tensor, _: object) -> tf.Tensor:
    """Maps the plane onto the unit sphere, and its unit circle onto the equator."""
    square = tf.reduce_sum(z**2, axis=1, keepdims=True)
    return tf.concat([2.0 * z, square - 1.0], axis=1) / (square + 1.0)


def test_linear_decoder_gives_a_straight_line() -> None:
    matrix = np.array([[1.0, 2.0, 0.5], [-1.0, 0.3, 9.0]])
    start, end = np.array([0.0, 1.0]), np.array([2.0, -1.0])
    z, length, line_length = _shortest(_slope(lambda z, _: z @ matrix, (9, 2)), start, end, 9)
    np.testing.assert_allclose(z, np.linspace(start, end, 9), atol=1e-12)
    assert length == pytest.approx(np.linalg.norm((end - start) @ matrix), rel=1e-12)
    assert line_length == pytest.approx(length, rel=1e-12)


@pytest.mark.parametrize("angle", [0.5, 2.0, 3.0])
def test_decoder_onto_a_sphere_gives_the_arc(angle: float) -> None:
    """Of the polygons on a sphere that with equal steps on the great circle has least energy."""
    ends = np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]])
    z, length, line_length = _shortest(_slope(sphere, (12, 2)), ends[0], ends[1], 12)
    angles = np.linspace(0.0, angle, 12)
    arc = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    np.testing.assert_allclose(z, arc, atol=2e-6)  # where the energy is flat to 1e-14 of itself
    assert length == pytest.approx(22 * np.sin(angle / 22), rel=1e-10)
    assert line_length > length


def test_scale_of_the_decoder_is_part_of_the_metric() -> None:
    """With the mean constant, only the scale tells latents apart."""
    vae = linear(1, 2, scale="decoder")
    vae.decode(np.zeros([1, 1]))
    for weight in vae.likelihood.trainable_variables:
        weight.assign(tf.zeros_like(weight))
    flat = geodesics(vae, [[0.0]], [[1.0]], num_points=4)
    assert flat.length == flat.line_length == 0.0
    for weight in vae.likelihood.trainable_variables:
        weight.assign(tf.ones_like(weight))
    found = geodesics(vae, [[0.0]], [[1.0]], num_points=4)
    p = vae.decode(found.z[0])
    mean, scale = (np.asarray(part) for part in (p.mean(), p.stddev()))
    steps = np.diff(np.concatenate([mean, scale], axis=1), axis=0)
    assert np.abs(np.diff(scale, axis=0)).min() > 0.01
    lengths = np.linalg.norm(steps, axis=1)
    np.testing.assert_allclose(found.length, [lengths.sum()], rtol=1e-5)  # float32 decoder
    np.testing.assert_allclose(lengths, lengths.mean(), rtol=2e-3)  # constant speed, likewise


def test_condition_stays_along_a_curve() -> None:
    keras.utils.set_random_seed(0)
    vae = keras_vae.mlp_vae(5, 2, "bernoulli", hidden=(8,), condition_shape=3)
    ends = np.zeros([2, 2]), np.ones([2, 2])
    both = geodesics(vae, *ends, num_points=5, condition=np.eye(3)[:2])
    alone = geodesics(vae, *(end[1:] for end in ends), num_points=5, condition=np.eye(3)[1:2])
    np.testing.assert_array_equal(both.z[1], alone.z[0])
    assert both.z.shape == (2, 5, 2)
    assert (both.length <= both.line_length).all()
    assert not np.array_equal(both.z[0], both.z[1])


def test_what_has_no_metric_is_refused() -> None:
    codes = keras_vae.vq_vae(5, codes=8, code_size=2, count=3, hidden=(4,))
    with pytest.raises(ValueError, match="latents are codes or form levels"):
        geodesics(codes, [[0.0]], [[1.0]])
    vae = linear(2, 3)
    with pytest.raises(ValueError, match=r"must both have shape \[B, 2\]; got \[1, 3\]"):
        geodesics(vae, [[0.0, 0.0, 0.0]], [[0.0, 0.0]])
    with pytest.raises(ValueError, match="at least 3; got 2"):
        geodesics(vae, [[0.0, 0.0]], [[0.0, 0.0]], num_points=2)
    with pytest.raises(ValueError, match="not a finite number"):
        geodesics(vae, [[0.0, 0.0]], [[np.nan, 0.0]])
