"""Names of the families in recipes and on the command line, and their options.

These are the only facts about a family that are available without TensorFlow, whose import takes
seconds. Everything else is in its class.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["CODE_PRIORS", "LIKELIHOODS", "POSTERIORS", "PRIORS", "Family", "Option"]


class Option(NamedTuple):
    """An argument of a family, as the command line takes it.

    Attributes:
        help: description.
        is_top: whether it is a whole number that determines the largest value, like the setting
            `top`.
        is_whole: whether it is a whole number; others are numbers or words.
    """

    help: str
    is_top: bool = False
    is_whole: bool = False


class Family(NamedTuple):
    """A class and its arguments.

    Attributes:
        name: name of the class.
        options: its own arguments by name, in alphabetical order.
        takes_top: whether the largest possible value changes how its data is prepared.
    """

    name: str
    options: Mapping[str, Option] = {}
    takes_top: bool = True


_LIMIT: Final = Option("a limit of the data, in its own units")
_SCALE: Final = Option("a number, learned, per_feature, decoder or optimal")
_SPREAD: Final = Option("a number, learned, per_feature or decoder")
_LEVELS: Final = Option("number of levels", is_top=True, is_whole=True)
_TRIALS: Final = Option("number of trials", is_top=True, is_whole=True)
_COMPONENTS: Final = Option("number of components")
_BOUNDED: Final = {"high": _LIMIT, "low": _LIMIT, "scale": _SPREAD}
_LOGISTICS: Final = Option("number of logistic distributions in each mixture", is_whole=True)
_DF: Final = Option("degrees of freedom")
_CONTEXT: Final = Option("numbers of x that the steps of a flow see", is_whole=True)
_FLOW: Final = {
    "hidden": Option("widths of the networks of a flow"),
    "num_layers": Option("steps of a flow", is_whole=True),
    "transform": Option("affine or spline"),
}

LIKELIHOODS: Final[Mapping[str, Family]] = {
    "bernoulli": Family("Bernoulli"),
    "discretized_logistic": Family("DiscretizedLogistic", {"levels": _LEVELS, "scale": _SPREAD}),
    "continuous_bernoulli": Family("ContinuousBernoulli"),
    "poisson": Family("Poisson", takes_top=False),
    "negative_binomial": Family("NegativeBinomial", {"dispersion": _SPREAD}, takes_top=False),
    "zero_inflated_poisson": Family("ZeroInflatedPoisson", takes_top=False),
    "zero_inflated_negative_binomial": Family(
        "ZeroInflatedNegativeBinomial", {"dispersion": _SPREAD}, takes_top=False
    ),
    "binomial": Family("Binomial", {"total_count": _TRIALS}),
    "beta_binomial": Family("BetaBinomial", {"concentration": _SPREAD, "total_count": _TRIALS}),
    "multinomial": Family("Multinomial", {"total_count": _TRIALS}, takes_top=False),
    "ordinal": Family("Ordinal", {"levels": _LEVELS}),
    "mixture_of_logistics": Family(
        "MixtureOfLogistics", {"levels": _LEVELS, "num_logistics": _LOGISTICS}
    ),
    "categorical": Family("Categorical", takes_top=False),
    "normal": Family("Normal", {"scale": _SCALE}),
    "laplace": Family("Laplace", {"scale": _SCALE}),
    "student_t": Family("StudentT", {"df": _SPREAD, "scale": _SPREAD}),
    "gamma": Family("Gamma", {"concentration": _SPREAD}, takes_top=False),
    "log_normal": Family("LogNormal", {"scale": _SPREAD}, takes_top=False),
    "beta": Family("Beta", {"concentration": _SPREAD}),
    "truncated_normal": Family("TruncatedNormal", _BOUNDED, takes_top=False),
    "censored_normal": Family("CensoredNormal", _BOUNDED, takes_top=False),
}
"""Likelihoods in the order in which they are asked for a proposal; the first one wins."""

POSTERIORS: Final[Mapping[str, Family]] = {
    "diagonal": Family("DiagonalNormal"),
    "isotropic": Family("IsotropicNormal"),
    "full": Family("FullCovarianceNormal"),
    "coupling": Family("CouplingFlow", {"context_size": _CONTEXT, **_FLOW}),
    "inverse_autoregressive": Family(
        "InverseAutoregressiveFlow", {"context_size": _CONTEXT, **_FLOW}
    ),
    "laplace": Family("LaplacePosterior"),
    "student_t": Family("StudentTPosterior", {"df": _DF}),
    "von_mises_fisher": Family("VonMisesFisher"),
    "normal_mixture": Family("NormalMixturePosterior", {"num_components": _COMPONENTS}),
}

PRIORS: Final[Mapping[str, Family]] = {
    "standard_normal": Family("StandardNormal"),
    "normal_mixture": Family("NormalMixture", {"num_components": _COMPONENTS}),
    "vamp": Family("VampPrior", {"num_components": _COMPONENTS}),
    "flow": Family("FlowPrior", _FLOW),
    "autoregressive": Family("AutoregressivePrior", _FLOW),
    "laplace": Family("LaplacePrior"),
    "student_t": Family("StudentTPrior", {"df": _DF}),
    "uniform_sphere": Family("UniformSphere"),
}

CODE_PRIORS: Final[Mapping[str, str]] = {
    "uniform": "UniformCodes",
    "autoregressive": "AutoregressiveCodes",
}
"""Classes of priors of codes, which take their sizes from the posterior."""
