"""Tests of like parts that are evaluated together: each has the numbers it has alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from registry import LIKELIHOODS

import keras_vae
from keras_vae import Parts, random
from keras_vae.distributions.noise import from_rows
from keras_vae.observed import Observations, Sites, draws_of, log_likelihood, log_probs, means_of
from keras_vae.training.data_spec import Part

NAMES = ("b", "a", "c")
ALONE = ("mixture_of_logistics", "multinomial")
"""Families whose parts are never joined."""
CLOSE = {"rtol": 3e-6, "atol": 3e-6}
"""Kernels of exp, log and lgamma round vectors and rests of vectors differently, in the last bits,
of which a log-probability sums a few terms as large as 10."""


def parts_of(key, event=(3,)):
    """Returns a likelihood of three like parts and one of another family, with random weights."""
    parts = {name: LIKELIHOODS[key](event, missing=True) for name in NAMES}
    other = keras_vae.Poisson(2) if key == "normal_fixed" else keras_vae.Normal(2, scale=2.0)
    likelihood = Parts({"b": parts["b"], "other": other, "a": parts["a"], "c": parts["c"]})
    likelihood.build((None, 4))
    rng = np.random.default_rng(0)
    for weight in likelihood.weights:
        weight.assign(weight + 0.2 * rng.normal(size=weight.shape))
    for part in parts.values():
        if getattr(part, "scale", None) == "optimal":
            part.deviation.assign(rng.uniform(0.5, 2.0))
    return likelihood


@pytest.mark.parametrize("key", [key for key in LIKELIHOODS if key not in ALONE])
def test_like_parts_have_the_numbers_that_each_has_alone(key):
    likelihood = parts_of(key)
    z = tf.constant(np.random.default_rng(1).normal(size=(2, 7, 4)), tf.float32)
    sites = Sites(likelihood, z)
    assert sites.blocks == (NAMES,)
    assert list(sites) == ["b", "other", "a", "c"]
    alone = {
        name: likelihood.parts[name].make_distribution(**own)
        for name, own in likelihood.parameters_by_part(z).items()
    }
    seeds = random.row_seeds(0, 7)
    noise = {name: from_rows(likelihood.parts[name].noise(), seeds) for name in sites}
    drawn, means = draws_of(Sites(likelihood, z[0]), noise), means_of(sites)
    values = dict(drawn)
    for name in NAMES:
        absent = np.zeros(values[name].shape, bool)
        absent[1], absent[2] = True, name == "a"
        values[name] = tf.where(absent, np.float32(np.nan), values[name])
    masks = {
        name: Part(part.event_shape, part.support, "", part.missing).mask_of
        for name, part in likelihood.parts.items()
    }
    observed = Observations(values, sites, masks)
    found = log_probs(observed)
    for name, p in alone.items():
        own = (
            likelihood.parts[name]
            .draw(noise[name], **likelihood.parameters_by_part(z[0])[name])
            .value
        )
        np.testing.assert_allclose(drawn[name], own, **CLOSE)
        np.testing.assert_allclose(means[name], p.mean(), **CLOSE)
        expected = np.array(p.log_prob(drawn[name]))
        gone = np.isnan(values[name]).all(axis=1)
        np.testing.assert_array_equal(found[name].numpy()[:, gone], 0.0)
        np.testing.assert_allclose(found[name].numpy()[:, ~gone], expected[:, ~gone], **CLOSE)
        np.testing.assert_allclose(observed[name].log_prob(), found[name], **CLOSE)
    total = sum(each.numpy() for each in found.values())
    np.testing.assert_array_equal(log_likelihood(observed), total)


def test_only_parts_of_one_family_with_equal_options_and_no_layers_of_their_own_are_joined():
    class Own(keras_vae.Normal):
        pass

    parts = {
        "a": keras_vae.Normal(1),
        "b": keras_vae.Normal(1, scale=2.0),
        "c": keras_vae.Normal(1, missing=True),
        "d": keras_vae.Normal(2),
        "e": keras_vae.Normal(1, head=keras.layers.Dense(1)),
        "f": keras_vae.Normal(1, network=keras.layers.Dense(2)),
        "g": Own(1),
        "h": Own(1),
        "i": keras_vae.Laplace(1),
    }
    assert Parts(parts).blocks == ()
    (block,) = Parts({**parts, "j": keras_vae.Normal(1, name="another")}).blocks
    assert block.names == ("a", "j")


def test_parts_on_a_condition_are_joined_only_if_their_families_do_not_read_it():
    parts = {
        "a": keras_vae.Poisson(1, offset=True),
        "b": keras_vae.Poisson(1, offset=True),
        "c": keras_vae.Bernoulli(1),
        "d": keras_vae.Bernoulli(1),
    }
    likelihood = Parts(parts)
    z, condition = tf.ones([5, 3]), tf.zeros([5, 2])
    likelihood.build([(None, 3), (None, 2)])
    found = means_of(Sites(likelihood, [z, condition]))
    assert [block.names for block in likelihood.blocks] == [("c", "d")]
    for name, own in likelihood.parameters_by_part([z, condition]).items():
        mean = parts[name].make_distribution(**own).mean()
        np.testing.assert_allclose(found[name], mean, **CLOSE)


def test_gradients_reach_the_weights_of_every_part_of_a_block():
    likelihood = parts_of("normal_per_feature", (1,))
    z = tf.constant(np.random.default_rng(1).normal(size=(1, 9, 4)), tf.float32)
    x = {name: tf.ones([9, part.event_shape[0]]) for name, part in likelihood.parts.items()}
    masks = {name: lambda value: (None, 0.0) for name in x}

    def gradients(of):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(of(Observations(x, Sites(likelihood, z), masks)))
        return tape.gradient(loss, [weight.value for weight in likelihood.trainable_weights])

    joint = gradients(log_likelihood)
    each = gradients(lambda observed: sum(observed[name].log_prob() for name in observed))
    assert len(joint) == 3 * 3 + 2
    for found, expected in zip(joint, each, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)  # sums of nine terms
