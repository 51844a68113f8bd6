"""Bidirectional Monte Carlo: bounds log p(x) from both sides on data drawn from the model."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count
from keras_vae.evaluation import annealed
from keras_vae.evaluation._progress import Progress
from keras_vae.evaluation.annealed import Start
from keras_vae.evaluation.summary import log_mean_error
from keras_vae.model import VAE

__all__ = ["Bracket", "bdmc"]


@dataclass(frozen=True)
class Bracket:
    """Two stochastic bounds on log p(x) of simulated examples, in nats.

    Attributes:
        lower: log mean w of forward chains, [N]; its expectation lies below log p(x).
        upper: -log mean 1/w of reverse chains, [N]; its expectation lies above log p(x).
        lower_error, upper_error: standard errors by the delta method, [N], from the scatter of
            the chains, NaN for one chain; the reverse chains of an example share their start,
            whose scatter the error does not include.
        x: the examples, [N, *D], or a dict of their parts.
        condition: their conditions, or None.
        acceptance: share of the Hamiltonian proposals accepted, [N].

    Example:
        >>> none = np.zeros(2)
        >>> x = np.zeros([2, 4])
        >>> Bracket(np.array([-2.0, -3.0]), np.array([-1.5, -2.0]), none, none, x, None, none).width
        0.75
    """

    lower: np.ndarray
    upper: np.ndarray
    lower_error: np.ndarray
    upper_error: np.ndarray
    x: np.ndarray | dict[str, np.ndarray]
    condition: np.ndarray | None
    acceptance: np.ndarray

    @property
    def width(self) -> float:
        """Mean of upper minus lower, the largest distance of either from the truth on average."""
        return float(np.mean(self.upper - self.lower))

    @property
    def width_error(self) -> float:
        """Standard error of `width`, from the scatter of the examples."""
        return float(np.std(self.upper - self.lower, ddof=1) / math.sqrt(len(self.lower)))


def bdmc(
    vae: VAE,
    num_examples: int = 64,
    *,
    condition: Any = None,
    num_chains: int = 16,
    temperatures: int = 500,
    leapfrog_steps: int = 5,
    start: Start = "posterior",
    seed: int = 0,
    memory: int = 256 * 2**20,
    progress: bool | None = None,
) -> Bracket:
    """Bounds log p(x) from both sides on data drawn from the model: bidirectional Monte Carlo.

    If (z, x) is drawn from p(z) p(x | z), then z is an exact draw from the posterior p(z | x).
    Annealed chains towards the posterior bound log p(x) from below; the same chains run
    backwards from that draw bound it from above. The width shows how exact annealing is on this
    model, with these settings, if the data resembles draws from the model. Source: Grosse,
    Ghahramani and Adams (2015), Sandwiching the marginal likelihood using bidirectional Monte
    Carlo, arXiv:1511.02543.

    Args:
        vae: the model.
        num_examples: number N of simulated examples, at least 2.
        condition: conditions [N, *C] of a conditional model.
        num_chains: chains per example and direction.
        temperatures: number of intermediate distributions.
        leapfrog_steps: leapfrog steps of each Hamiltonian proposal.
        start: where forward chains start, "posterior" for q(z | x) or "prior".
        seed: integer, for the data and the chains.
        memory: approximate memory to use, in bytes.
        progress: whether to show the time left; None shows it in a terminal.

    Raises:
        ValueError: if a number or the start is out of range, or the condition is missing.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.mlp_vae(5, 2, "normal", hidden=(8,))
        >>> bracket = bdmc(vae, 4, num_chains=2, temperatures=5)
        >>> bracket.lower.shape, bracket.upper.shape
        ((4,), (4,))
    """
    num_examples = as_count("num_examples", num_examples, least=2)
    seed = random.as_seed(seed)
    settings = annealed.Settings(num_chains, temperatures, leapfrog_steps, start)
    z = _prior_draws(vae, num_examples, condition, seed)
    p = vae.decode(z, condition)
    drawn = {
        name: each.sample(seed=tf.constant([seed, 2 + index])).numpy()
        for index, (name, each) in enumerate((p if vae.data.is_dict else {"x": p}).items())
    }
    x = vae.one_or_all(drawn)
    inputs = drawn if condition is None else {**drawn, "condition": np.asarray(condition)}
    inputs = vae.data.arrays(vae.data.together(inputs), in_support=True)
    with Progress("bdmc", 3 * settings.work(num_examples), progress) as done:
        there, back = annealed.round_trip(vae, inputs, settings, seed, memory, done, end=z.numpy())
    lower, ess = annealed.log_mean(there.log_weights)
    negative, back_ess = annealed.log_mean(back.log_weights)
    return Bracket(
        lower=lower,
        upper=-negative,
        lower_error=log_mean_error(ess, num_chains),
        upper_error=log_mean_error(back_ess, num_chains),
        x=x,
        condition=None if condition is None else np.asarray(condition),
        acceptance=0.5 * (there.acceptance + back.acceptance),
    )


def _prior_draws(vae: VAE, count: int, condition: Any, seed: int) -> tf.Tensor:
    """Draws z from p(z), or from p(z | c) for each condition, [N, L]."""
    key = tf.constant([seed, 1])
    if not vae.prior.is_conditional:
        return vae.prior.distribution().sample(count, seed=key)
    given = vae.data.array("condition", condition)
    if len(given) != count:
        raise ValueError(f"Expected a condition for each of {count} examples; got {len(given)}.")
    return vae.prior.distribution(tf.cast(given, vae.float_dtype)).sample(seed=key)
