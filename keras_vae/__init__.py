"""Variational autoencoders in Keras 3 whose every number is what its name says.

Names are imported when they are first used, so that commands start without TensorFlow.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_vae.distributions.names import LIKELIHOODS, POSTERIORS, PRIORS

if TYPE_CHECKING:
    from keras_vae.api import *  # noqa: F403

__version__ = "0.1.0"

__all__ = [
    "ELBO",
    "IWAE",
    "VAE",
    "AttentionOverSteps",
    "AutoregressiveCodes",
    "AutoregressiveLikelihood",
    "Bound",
    "CategoricalLatent",
    "CausalSteps",
    "Classification",
    "ConditionalDistribution",
    "ConditionalNormal",
    "DataError",
    "EnumeratedELBO",
    "FiniteScalarQuantizer",
    "HierarchicalVAE",
    "Imputation",
    "Likelihood",
    "LatentVariableModel",
    "LinearGaussian",
    "LossExplanation",
    "LookupFreeQuantizer",
    "MeanOverSteps",
    "MissingNotAtRandom",
    "MixtureOfExperts",
    "MixtureOfProducts",
    "NeighbouringSteps",
    "NegativeLogLikelihood",
    "NonFiniteError",
    "Objective",
    "ObservedSteps",
    "Parameter",
    "Parts",
    "PartsEncoder",
    "PositionedSteps",
    "Posterior",
    "Prior",
    "ProductOfExperts",
    "RelaxedELBO",
    "SemiSupervised",
    "SemiSupervisedVAE",
    "SeriesComponents",
    "StepDense",
    "SubsetELBO",
    "TopDownBlock",
    "UniformCodes",
    "VectorQuantizer",
    "callbacks",
    "conv_vae",
    "data",
    "distribution_of",
    "evaluation",
    "explain_loss",
    "from_hub",
    "hierarchical_vae",
    "mlp_vae",
    "networks",
    "push_to_hub",
    "sequence_vae",
    "table_vae",
    "vq_vae",
    *(family.name for family in (*LIKELIHOODS.values(), *POSTERIORS.values(), *PRIORS.values())),
]


def __getattr__(name: str) -> Any:
    """Imports a public name, or a module of the package, when it is first used."""
    if not name.startswith("_"):
        module = f"{__name__}.{name}"
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
        if name in __all__:
            value = getattr(importlib.import_module(f"{__name__}.api"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Lists the public names, whether they have been imported or not."""
    return [*__all__, "__version__"]


class _Registered:
    """A class of this package in the registry of Keras, imported when it is first built."""

    def __init__(self, name: str) -> None:
        self._name = name

    def from_config(self, config: dict[str, Any]) -> Any:
        """Builds an object of the class."""
        return __getattr__(self._name).from_config(config)


def _register(keras: Any) -> None:
    """Tells Keras of the public classes, so that `keras.saving.load_model` finds them."""
    objects = keras.saving.get_custom_objects()
    for name in __all__:
        if name[0].isupper():
            objects.setdefault(f"{__name__}>{name}", _Registered(name))


class _KerasFinder(importlib.abc.MetaPathFinder):
    """Finder that lets Python find Keras and calls `_register` once it is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns the specification of Keras; None for any other module."""
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == "keras" else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: Any) -> None:
            execute(module)
            _register(module)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


if "keras" in sys.modules:
    _register(sys.modules["keras"])
else:
    sys.meta_path.insert(0, _KerasFinder())
