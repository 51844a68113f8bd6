"""Conditional distributions: layers that map a tensor to a distribution.

A conditional distribution is an event shape, a network and a head. The network maps the condition
to features, the head maps the features to the raw parameters, and `make_distribution` maps the
parameters to a TensorFlow Probability distribution. Likelihoods p(x | z) and posteriors q(z | x)
are such layers.

A new family declares its support and its parameters, and overrides `make_distribution`, and `draw`
if models with it are sampled:

    @keras.saving.register_keras_serializable()
    class Logistic(Likelihood):
        @property
        def support(self):
            return supports.reals()

        def parameter_specs(self):
            return {"loc": Parameter(self.channels), "scale": Parameter(self.channels, positive)}

        def make_distribution(self, loc, scale):
            return self.independent(tfd.Logistic(loc, scale))

        def draw(self, noise, loc, scale):
            return Draw(loc + scale * random.logistic(noise))

Other methods of a family have defaults in `Likelihood`. Names are imported when they are first
used, so `keras_vae.distributions.names` does not import TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_vae.distributions.base import *  # noqa: F403
    from keras_vae.distributions.codes import *  # noqa: F403
    from keras_vae.distributions.experts import *  # noqa: F403
    from keras_vae.distributions.flows import *  # noqa: F403
    from keras_vae.distributions.heavy_tails import *  # noqa: F403
    from keras_vae.distributions.likelihoods import *  # noqa: F403
    from keras_vae.distributions.mixtures import NormalMixturePosterior as NormalMixturePosterior
    from keras_vae.distributions.noise import *  # noqa: F403
    from keras_vae.distributions.parts import *  # noqa: F403
    from keras_vae.distributions.parts_encoder import *  # noqa: F403
    from keras_vae.distributions.posteriors import *  # noqa: F403
    from keras_vae.distributions.priors import *  # noqa: F403
    from keras_vae.distributions.spheres import *  # noqa: F403

_MODULES = (
    "base",
    "experts",
    "flows",
    "heavy_tails",
    "mixtures",
    "noise",
    "likelihoods",
    "parts",
    "parts_encoder",
    "posteriors",
    "priors",
    "spheres",
    "codes",
)


def __getattr__(name: str) -> Any:
    """Imports a module of the package, or a public name of one, when it is first used."""
    if not name.startswith("_"):
        path = f"{__name__}.{name}"
        try:
            return importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name != path:
                raise
        for each in _MODULES:
            module = importlib.import_module(f"{__name__}.{each}")
            if name in module.__all__:
                value = getattr(module, name)
                globals()[name] = value
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
