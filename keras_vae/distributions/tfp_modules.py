"""Distributions of TensorFlow Probability, each imported without the rest of the library.

An import of `tensorflow_probability.distributions` imports all distributions and bijectors, and
with them Keras 2. If TensorFlow was imported before, the first import of the library also brings
its experiments and layers. The modules needed here take a seventh of that time.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import types
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["Distributions", "split_seed"]

_TFP: Final = "tensorflow_probability"
_WITHOUT_INIT: Final = ("distributions", "bijectors")
"""Packages whose `__init__` imports all of their modules."""

_MODULES: Final = {
    "Bernoulli": "distributions.bernoulli",
    "Binomial": "distributions.binomial",
    "Categorical": "distributions.categorical",
    "ContinuousBernoulli": "distributions.continuous_bernoulli",
    "Distribution": "distributions.distribution",
    "FULLY_REPARAMETERIZED": "internal.reparameterization",
    "Independent": "distributions.independent",
    "Laplace": "distributions.laplace",
    "Logistic": "distributions.logistic",
    "MixtureSameFamily": "distributions.mixture_same_family",
    "Multinomial": "distributions.multinomial",
    "MultivariateNormalDiag": "distributions.mvn_diag",
    "MultivariateNormalTriL": "distributions.mvn_tril",
    "NOT_REPARAMETERIZED": "internal.reparameterization",
    "Normal": "distributions.normal",
    "OneHotCategorical": "distributions.onehot_categorical",
    "Poisson": "distributions.poisson",
    "RegisterKL": "distributions.kullback_leibler",
    "StudentT": "distributions.student_t",
    "Uniform": "distributions.uniform",
    "kl_divergence": "distributions.kullback_leibler",
}


class Distributions:
    """The names of `tensorflow_probability.distributions`, imported when they are first used.

    Those that this package does not use itself import the whole of it.
    """

    def __getattr__(self, name: str) -> Any:
        """Imports the module of a name."""
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _MODULES:
            value = getattr(_module(_MODULES[name]), name)
        else:
            value = getattr(importlib.import_module(f"{_TFP}.python.distributions"), name)
        setattr(self, name, value)
        return value


def split_seed(seed: Any, n: int = 2, salt: str | None = None) -> Any:
    """Splits a seed, int32 [2], into n; `salt` is a word that makes these differ from others."""
    return _module("random").split_seed(seed, n=n, salt=salt)


def _module(name: str) -> Any:
    with _as_if_lazy(), _without_inits():
        return importlib.import_module(f"{_TFP}.python.{name}")


@contextlib.contextmanager
def _as_if_lazy() -> Iterator[None]:
    """Makes the first import of the library lazy, as it is if TensorFlow was not yet imported."""
    loaded = sys.modules.get("tensorflow")
    if _TFP not in sys.modules and loaded is not None:
        sys.modules["tensorflow"] = types.ModuleType("tensorflow")
        try:
            importlib.import_module(_TFP)
        finally:
            sys.modules["tensorflow"] = loaded
    yield


@contextlib.contextmanager
def _without_inits() -> Iterator[None]:
    """Imports modules of packages that were not imported before without their `__init__`.

    The next import of such a package runs it, on the same modules.
    """
    (root,) = importlib.import_module(f"{_TFP}.python").__path__
    shells = {}
    for package in _WITHOUT_INIT:
        if (name := f"{_TFP}.python.{package}") not in sys.modules:
            shell = types.ModuleType(name)
            shell.__path__ = [os.path.join(root, package)]
            shells[name] = sys.modules[name] = shell
    try:
        yield
    finally:
        for name in shells:
            del sys.modules[name]
