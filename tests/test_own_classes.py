"""Classes that a user writes: what does not fit is refused by name, and nothing is ignored."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae
from keras_vae import Objective, Prior, estimators, evaluation, random
from keras_vae.distributions import Draw, Noise, supports
from keras_vae.distributions.noise import from_rows
from keras_vae.distributions.tfp import tfd
from keras_vae.latent_variable_model import LatentVariableModel
from keras_vae.objectives import Player, Terms
from keras_vae.signatures import signatures
from keras_vae.trace import Generation, Inference, Observation, Site, Trace
from keras_vae.training.data_spec import DataSpec, Part

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


def vae(**parts):
    defaults = {
        "prior": keras_vae.StandardNormal(2),
        "likelihood": keras_vae.Normal(4),
        "posterior": keras_vae.DiagonalNormal(2),
    }
    return keras_vae.VAE(**{**defaults, **parts})


# Objectives


class Own(Objective):
    """ELBO with a critic, whose loss and players a test changes."""

    metric_names = ("critic",)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.critic = keras.layers.Dense(1)
        self.count = self.add_weight(name="count", trainable=False)
        self.optimizer = self.make_optimizer("sgd")

    def terms(self, inference, noise):
        trace = inference.trace(noise)
        distortion, rate = estimators.elbo_terms(trace)
        critic = self.critic(trace.latents["z"].value[0])[:, 0] ** 2
        return Terms(distortion + rate, distortion, rate, {"critic": critic}, trace)

    def players(self, model):
        own = Player(self.critic.trainable_weights, self.optimizer, lambda t: t.extra["critic"])
        return [*super().players(model), own]


def changed(**changes):
    """An objective whose terms differ from those of `Own`."""

    class Changed(Own):
        def terms(self, inference, noise):
            terms = super().terms(inference, noise)
            return terms._replace(**{key: change(terms) for key, change in changes.items()})

    return Changed()


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (changed(loss=lambda t: tf.reduce_mean(t.loss)), r"'loss' .* shape \[B\]; got shape \[\]"),
        (changed(loss=lambda t: -t.trace.log_weights()), r"'loss' .* got shape \[1, 1\]"),
        (changed(rate=lambda t: None), "'rate' .* got None"),
        (changed(extra=lambda t: {}), "lists 'critic', and the extra terms are none"),
        (changed(extra=lambda t: {"critic": 0.0}), r"'critic' .* got shape \[\]"),
    ],
)
def test_terms_are_one_number_per_example(objective, said):
    with pytest.raises(ValueError, match=said):
        vae().compile("adam", objective)


def test_terms_are_terms():
    class Bare(Own):
        def terms(self, inference, noise):
            return super().terms(inference, noise).loss

    with pytest.raises(TypeError, match=r"must return Terms\(loss, distortion, rate\)"):
        vae().compile("adam", Bare())


@pytest.mark.parametrize("names", ["critic", ("elbo",), ("critic", "critic")])
def test_names_of_metrics_are_their_own(names):
    class Named(Own):
        metric_names = names

        def terms(self, inference, noise):
            terms = super().terms(inference, noise)
            return terms._replace(extra=dict.fromkeys([*names, *terms.extra], terms.loss))

    with pytest.raises(ValueError, match="tuple of different names"):
        vae().compile("adam", Named())


def played(players):
    """An objective with other players than those of `Own`."""

    class Played(Own):
        def players(self, model):
            return players(self, model, super().players(model))

    return Played()


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (played(lambda self, model, usual: []), "one player or more"),
        (played(lambda self, model, usual: usual[:1]), "No player of Played moves its weight"),
        (
            played(lambda self, model, usual: [usual[0], usual[1]._replace(optimizer=None)]),
            "with a Keras optimizer",
        ),
        (
            played(
                lambda self, model, usual: [
                    *usual[:1],
                    usual[1]._replace(optimizer=model.optimizer),
                ]
            ),
            "share one optimizer",
        ),
        (
            played(
                lambda self, model, usual: [usual[0], usual[1]._replace(weights=usual[0].weights)]
            ),
            "Two players of Played move the weight",
        ),
        (
            played(
                lambda self, model, usual: [
                    usual[0],
                    usual[1]._replace(optimizer=self.make_optimizer("sgd")),
                ]
            ),
            "another optimizer at the second call",
        ),
    ],
)
def test_players_move_different_weights_with_different_optimizers(objective, said):
    with pytest.raises((TypeError, ValueError), match=said):
        vae().compile("adam", objective)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda t: tf.reduce_mean(t.extra["critic"]), r"The loss of player 2 .* got shape \[\]"),
        (lambda t: t.distortion, "player 2 .* depends on none of its weights"),
    ],
)
def test_loss_of_a_player_is_one_number_per_example_that_its_weights_decide(loss, said):
    model = vae()
    model.compile(
        "adam",
        played(lambda self, model, usual: [usual[0], usual[1]._replace(loss=loss)]),
        run_eagerly=True,
    )
    with pytest.raises(ValueError, match=said):
        model.fit(X, verbose=0)


def test_monitor_needs_the_trace():
    model = vae()
    model.compile("adam", changed(trace=lambda t: None), monitor=True, run_eagerly=True)
    with pytest.raises(ValueError, match=r"which Changed\.terms leaves out"):
        model.fit(X, verbose=0)


def test_variables_of_an_objective_are_saved(tmp_path):
    first, second = vae(), vae()
    for model in (first, second):
        model.compile("adam", Own())
    first.objective.count.assign(7.0)
    first.save_weights(tmp_path / "m.weights.h5")
    second.load_weights(tmp_path / "m.weights.h5")
    assert float(second.objective.count) == 7.0
    np.testing.assert_array_equal(
        second.objective.critic.get_weights()[0], first.objective.critic.get_weights()[0]
    )


# Distributions


def overriding(kind, **methods):
    return type("Mine", (kind,), methods)


def entries(loc, scale):
    return tfd.Normal(loc, scale)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            {
                "posterior": overriding(
                    keras_vae.DiagonalNormal, draw=lambda self, noise, loc, scale: loc
                )(2)
            },
            r"Mine.draw must return Draw\(value\)",
        ),
        (
            {
                "posterior": overriding(
                    keras_vae.DiagonalNormal,
                    draw=lambda self, noise, loc, scale: Draw(loc + scale * noise[0]),
                )(2)
            },
            r"shape \[S, B, 2\]; got \[8, 2\]",
        ),
        (
            {
                "posterior": overriding(
                    keras_vae.DiagonalNormal,
                    draw=lambda self, noise, loc, scale: Draw(loc + scale * noise, noise),
                )(2)
            },
            r"one log-density per draw, shape \[1, 8\]; got \[1, 8, 2\]",
        ),
        (
            {
                "posterior": overriding(
                    keras_vae.DiagonalNormal,
                    make_distribution=lambda self, loc, scale: entries(loc, scale),
                )(2)
            },
            r"posterior of 'z' must have event shape \[2\]",
        ),
        (
            {
                "prior": overriding(
                    keras_vae.StandardNormal,
                    make_distribution=lambda self: entries(tf.zeros(2), 1.0),
                )(2)
            },
            r"prior of 'z' must have event shape \[2\]",
        ),
        (
            {
                "likelihood": overriding(
                    keras_vae.Normal,
                    make_distribution=lambda self, loc, scale: entries(loc, scale),
                )(4)
            },
            r"data must have event shape \[4\]",
        ),
        (
            {
                "posterior": overriding(
                    keras_vae.DiagonalNormal,
                    tells_density=False,
                    draw=lambda self, noise, loc, scale: Draw(loc + scale * noise),
                )(2)
            },
            r"return Draw\(value, log_prob\)",
        ),
        (
            {
                "posterior": overriding(
                    keras_vae.DiagonalNormal, noise=lambda self: Noise(self.event_shape)
                )(2)
            },
            "would share their numbers",
        ),
    ],
)
def test_distributions_that_do_not_fit_are_refused(parts, said):
    with pytest.raises((TypeError, ValueError), match=said):
        vae(**parts).elbo(X, seed=0)


@pytest.mark.parametrize(
    "parts",
    [
        {
            "likelihood": overriding(
                keras_vae.Normal, draw=lambda self, noise, loc, scale: Draw(loc[:, :1])
            )(4)
        },
        {"prior": overriding(keras_vae.StandardNormal, draw=lambda self, noise: noise)(2)},
    ],
)
def test_draws_that_do_not_fit_are_refused(parts):
    with pytest.raises((TypeError, ValueError), match=r"Mine.draw must return"):
        vae(**parts).sample(2, seed=0)


@pytest.mark.parametrize("wrong", [{"kind": "gaussian"}, {"shape": 2}])
def test_noise_of_another_kind_is_refused(wrong):
    with pytest.raises(ValueError, match=f"Invalid value for argument `{next(iter(wrong))}`"):
        Noise(**{"shape": (2,), **wrong})


@pytest.mark.parametrize(
    ("kind", "name", "now"),
    [
        (keras_vae.Normal, "law", "make_distribution"),
        (keras_vae.Normal, "constants", "shared_parameters"),
        (keras_vae.DiagonalNormal, "transport", "draw"),
    ],
)
def test_methods_of_earlier_versions_are_refused_with_their_new_name(kind, name, now):
    with pytest.raises(TypeError, match=f"defines {name}, .* {name} is now {now}"):
        overriding(kind, **{name: lambda self: None})


@pytest.mark.parametrize("kind", [keras_vae.Normal, keras_vae.StandardNormal])
def test_draws_from_seeds_are_refused(kind):
    with pytest.raises(TypeError, match="takes a seed, as in an earlier version"):
        overriding(kind, draw=lambda self, seed: None)


class Linear(Prior):
    """Normal p(z | c) with a linear centre, which does not say that it is conditional."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(3, self.latent_size), name="kernel")
        self.built = True

    def parameters(self, condition=None):
        return {"loc": tf.convert_to_tensor(condition) @ self.kernel}

    def make_distribution(self, loc):
        return tfd.MultivariateNormalDiag(loc, tf.ones_like(loc))

    def draw(self, noise, loc):
        return Draw(loc + noise)


class Conditional(Linear):
    """The same, which does."""

    is_conditional = True


def test_conditional_priors_declare_their_condition():
    with pytest.raises(ValueError, match="set is_conditional = True"):
        signatures(vae(prior=Linear(2), condition_shape=3))
    with pytest.raises(ValueError, match="this model has no condition"):
        vae(prior=Conditional(2))
    model = vae(prior=Conditional(2), condition_shape=3)
    data = {"x": X, "condition": X[:, :3]}
    assert "condition" in signatures(model)["sample"].inputs
    with pytest.raises(ValueError, match="ex_post_density fits a prior that ignores the condition"):
        evaluation.ex_post_density(model, data, 2)
    few = {name: part[:1] for name, part in data.items()}
    gap = evaluation.bound_gap(
        model, few, steps=2, num_samples=4, num_chains=2, temperatures=4, progress=False
    )
    assert gap.method == "annealed"


# Models


class Pair(LatentVariableModel):
    """Two latents and two views, each of which depends on both latents."""

    index = 1

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.prior = keras_vae.StandardNormal(2)
        self.q = keras_vae.DiagonalNormal(2)
        self.a, self.b = keras_vae.Normal(4), keras_vae.Normal(4)
        for layer, size in ((self.q, 4), (self.a, 4), (self.b, 4)):
            layer.build((None, size))
        self.built = True

    @property
    def data(self):
        part = Part((4,), supports.reals(), "Normal")
        return DataSpec({"a": part, "b": part})

    def _twice(self, noise):
        return {"u": noise, "v": replace(noise, index=self.index)}

    def noise(self):
        return self._twice(self.q.noise())

    def generation_noise(self):
        return self._twice(self.prior.noise())

    def infer(self, x, training=False, sample_weight=None):
        parameters = self.q.parameters(x["a"], training)

        def say(latent):
            u, v = (latent(n, self.q, parameters, self.prior.distribution()) for n in "uv")
            z = tf.concat([u.value, v.value], axis=-1)
            views = {n: Observation(x[n], getattr(self, n).distribution(z)) for n in "ab"}
            return Trace({"u": u, "v": v}, views)

        return Inference.by(say)

    def generate(self, noise=None, latents=None, condition=None):
        latents = latents or {name: self.prior.draw(noise[name]).value for name in "uv"}
        z = tf.concat([latents["u"], latents["v"]], axis=-1)
        sites = {n: Site(getattr(self, n), getattr(self, n).parameters(z)) for n in "ab"}
        return Generation(latents, sites)


def test_no_two_parts_share_a_number():
    model = Pair()
    model.b.set_weights(model.a.get_weights())
    drawn = model.sample(500, seed=3)
    means = model.sample_mean(500, seed=3)
    a, b = (drawn[name] - means[name] for name in "ab")
    correlation = np.corrcoef(a.numpy().ravel(), b.numpy().ravel())[0, 1]
    assert abs(correlation) < 5 / np.sqrt(2000)  # of independent numbers, 1 in 10^6
    exported = signatures(model)["sample"].function(seed=random.row_seeds(3, 500))
    for name in "ab":
        np.testing.assert_array_equal(exported[f"sample_{name}"], drawn[name])


def test_latents_with_the_same_noise_are_refused():
    model = overriding(Pair, index=0)()
    data = {"a": X, "b": X}
    for use in (lambda: model.elbo(data), lambda: model.sample(2), model.compile):
        with pytest.raises(ValueError, match="would share their numbers"):
            use()
    with pytest.raises(ValueError, match="would share their numbers"):
        from_rows(model.noise(), random.row_seeds(0, 2))


def test_generation_has_every_latent():
    class Forgetful(Pair):
        def generate(self, *args, **kwargs):
            found = super().generate(*args, **kwargs)
            return found._replace(latents={"u": found.latents["u"]})

    with pytest.raises(ValueError, match=r"Expected generate to return the latents .* got \['u'\]"):
        Forgetful().sample(2, seed=0)


def test_noise_has_every_latent():
    class Forgetful(Pair):
        def noise(self):
            return {"u": self.q.noise()}

    with pytest.raises(ValueError, match="that of 'v' is missing"):
        Forgetful().elbo({"a": X, "b": X})


@pytest.mark.parametrize(
    "evaluator", [evaluation.diagnose, evaluation.bound_gap, evaluation.ex_post_density]
)
def test_evaluators_of_one_latent_refuse_other_models(evaluator):
    with pytest.raises(TypeError, match=f"{evaluator.__name__} is for a keras_vae.VAE"):
        evaluator(Pair(), {"a": X, "b": X})


def test_monitor_of_several_latents_is_refused():
    model = overriding(Pair, components=lambda self: self.prior.components())()
    with pytest.raises(ValueError, match=r"a single latent vector; this Mine has u, v"):
        model.compile(monitor=True)


def test_mask_of_another_shape_is_refused():
    p = tfd.Independent(tfd.Normal(tf.zeros([8, 4]), 1.0), 1)
    with pytest.raises(ValueError, match=r"first axes of the data, \[8, 4\]; got \[8, 1\]"):
        Observation(tf.constant(X), p, tf.ones([8, 1])).log_prob()


def test_names_of_signatures_are_different():
    class Named(keras_vae.Normal):
        def parameter_specs(self):
            specs = super().parameter_specs()
            return {{"loc": "mean"}.get(name, name): spec for name, spec in specs.items()}

        def make_distribution(self, mean, scale):
            return super().make_distribution(mean, scale)

    class Seeded(Pair):
        @property
        def data(self):
            return DataSpec({**super().data.parts, "seed": Part((1,))})

    with pytest.raises(ValueError, match="Two outputs of decode are called 'mean'"):
        signatures(vae(likelihood=Named(4)))
    with pytest.raises(ValueError, match="Two inputs of the signatures are called 'seed'"):
        signatures(Seeded())


def test_laws_of_an_earlier_version_are_refused():
    model = overriding(keras_vae.VAE, laws=lambda self, x: None)(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Normal(4),
        posterior=keras_vae.DiagonalNormal(2),
    )
    with pytest.raises(TypeError, match=r"defines laws, .* override infer"):
        model.compile()
