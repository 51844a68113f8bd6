"""Disentanglement: whether each known factor of the data has its own latent.

MIG, SAP, DCI and the FactorVAE score use the settings of Locatello et al. (2019), Challenging
common assumptions in the unsupervised learning of disentangled representations, arXiv:1811.12359,
and its library, so values can be compared with published ones; the documentation of an option says
if it changes this. Axes: N examples, L latents, K factors.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["Disentanglement", "dci", "disentanglement", "factor_vae_score", "mig", "sap"]

_BINS = 20
_DEAD = 1e-8


@dataclass(frozen=True)
class Disentanglement:
    """Metrics between 0 and 1; 1 means one latent for each factor.

    Attributes:
        mig: mutual information gap, see `mig`.
        sap: attribute predictability gap, see `sap`.
        disentanglement, completeness, informativeness: see `dci`.
        factor_vae: accuracy of a majority vote, see `factor_vae_score`.

    Example:
        >>> found = Disentanglement(0.9, 0.8, 0.95, 0.9, 1.0, 1.0)
        >>> found.mig <= 1.0
        True
    """

    mig: float
    sap: float
    disentanglement: float
    completeness: float
    informativeness: float
    factor_vae: float


def disentanglement(codes: Any, factors: Any, *, seed: int = 0) -> Disentanglement:
    """Computes all metrics of codes, such as `vae.encode(x).mean()`, against known factors.

    Args:
        codes: real numbers [N, L].
        factors: integers [N, K], the value of each factor.
        seed: integer, of splits, forests and votes.

    Raises:
        ValueError: if the shapes disagree, a number is not finite, a factor is constant or there
            are fewer than two latents.

    Example:
        >>> v = np.stack(np.divmod(np.arange(100), 10), axis=1)
        >>> round(disentanglement(v.astype(float), v).mig, 6)  # each latent is a factor
        1.0
    """
    return Disentanglement(
        mig(codes, factors),
        sap(codes, factors, seed=seed),
        *dci(codes, factors, seed=seed),
        factor_vae_score(codes, factors, seed=seed),
    )


def mig(codes: Any, factors: Any, *, bins: Literal["width", "quantile"] = "width") -> float:
    """Computes the mutual information gap: mean over factors of (I(z_(1); v) - I(z_(2); v)) / H(v).

    z_(1) and z_(2) are the two latents with the most information on factor v, each in 20 bins. The
    literature uses bins of equal width, which a single outlier makes useless. Bins of equal counts
    are robust, but their values compare only among themselves. Source: Chen, Li, Grosse and
    Duvenaud (2018), Isolating sources of disentanglement in variational autoencoders,
    arXiv:1802.04942.

    Args:
        codes: real numbers [N, L].
        factors: integers [N, K].
        bins: "width" for equal widths or "quantile" for equal counts.

    Raises:
        ValueError: if the shapes disagree, a number is not finite or `bins` is unknown.

    Example:
        >>> v = np.stack(np.divmod(np.arange(100), 10), axis=1)
        >>> mig(v[:, ::-1].astype(float), v)
        1.0
    """
    from sklearn.metrics import mutual_info_score

    codes, factors = _checked(codes, factors)
    if bins not in ("width", "quantile"):
        raise ValueError(
            "Invalid value for argument `bins`. Expected 'width' or 'quantile'. "
            f"Received: bins={bins!r}"
        )
    binned = [np.digitize(code, _edges(code, bins)) for code in codes.T]
    gaps = []
    for factor in factors.T:
        shared = np.sort([mutual_info_score(factor, code) for code in binned])
        gaps.append((shared[-1] - shared[-2]) / mutual_info_score(factor, factor))
    return float(np.mean(gaps))


def sap(codes: Any, factors: Any, *, seed: int = 0) -> float:
    """Computes the mean accuracy gap between the two best single latents that predict a factor.

    A linear support vector machine (C 0.01, balanced classes) classifies the factor from one
    latent, neither centred nor scaled; it is fitted to one half of the data and scored on the
    other. So the value depends on the scale of the codes, as published values do. A latent that
    does not vary
    scores zero. Source: Kumar, Sattigeri
    and Balakrishnan (2018), Variational inference of disentangled latent concepts,
    arXiv:1711.00848.

    Args:
        codes: real numbers [N, L].
        factors: integers [N, K].
        seed: integer, of the split.

    Example:
        >>> v = np.stack(np.divmod(np.arange(100), 10), axis=1)
        >>> 0.0 <= sap(v.astype(float), v) <= 1.0
        True
    """
    from sklearn.model_selection import train_test_split
    from sklearn.svm import LinearSVC

    codes, factors = _checked(codes, factors)
    train, test = train_test_split(np.arange(len(codes)), test_size=0.5, random_state=seed)
    spread = codes.std(axis=0)
    gaps = []
    for factor in factors.T:
        scores = []
        for index, code in enumerate(codes.T):
            if spread[index] < _DEAD:
                scores.append(0.0)
                continue
            code = code[:, None]
            machine = LinearSVC(C=0.01, class_weight="balanced", dual=False)
            machine.fit(code[train], factor[train])
            scores.append(machine.score(code[test], factor[test]))
        scores.sort()
        gaps.append(scores[-1] - scores[-2])
    return float(np.mean(gaps))


def dci(
    codes: Any,
    factors: Any,
    *,
    trees: Literal["boosted", "forest"] = "boosted",
    seed: int = 0,
) -> tuple[float, float, float]:
    """Computes disentanglement, completeness and informativeness from tree importances R [L, K].

    D = sum_l rho_l (1 - H_K(R_l / sum R_l)), with rho_l the share of latent l in all importance;
    C = mean_k (1 - H_L(R_k / sum R_k)); informativeness is the accuracy on the half of the data
    that was not fitted. Entropies are to the base of the number of factors or latents. Gradient
    boosted trees with the defaults of scikit-learn are those of the literature; they take 100 trees
    for each value of a factor. A forest of 50 full trees, which may split by any latent, is faster,
    but its values compare only among themselves. Source: Eastwood and Williams
    (2018), A framework for the quantitative evaluation of disentangled representations.

    Args:
        codes: real numbers [N, L].
        factors: integers [N, K].
        trees: "boosted" or "forest".
        seed: integer, of the split and the trees.

    Returns:
        The three numbers.

    Raises:
        ValueError: if the shapes disagree, a number is not finite or `trees` is unknown.

    Example:
        >>> v = np.stack(np.divmod(np.arange(100), 10), axis=1)
        >>> found = dci(v.astype(float), v, trees="forest")
        >>> [0.0 <= number <= 1.0 for number in found]
        [True, True, True]
    """
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.model_selection import train_test_split

    codes, factors = _checked(codes, factors)
    train, test = train_test_split(np.arange(len(codes)), test_size=0.5, random_state=seed)
    make_trees = {
        "boosted": lambda: GradientBoostingClassifier(random_state=seed),
        "forest": lambda: RandomForestClassifier(50, max_features=None, random_state=seed),
    }
    if trees not in make_trees:
        raise ValueError(
            "Invalid value for argument `trees`. Expected 'boosted' or 'forest'. "
            f"Received: trees={trees!r}"
        )
    importance, scores = [], []
    for factor in factors.T:
        fitted = make_trees[trees]().fit(codes[train], factor[train])
        importance.append(fitted.feature_importances_)
        scores.append(fitted.score(codes[test], factor[test]))
    table = np.stack(importance, axis=1)
    share = table.sum(axis=1) / table.sum()
    by_latent = 1.0 - _entropy(table, axis=1)
    by_factor = 1.0 - _entropy(table, axis=0)
    return float(share @ by_latent), float(by_factor.mean()), float(np.mean(scores))


def factor_vae_score(
    codes: Any, factors: Any, *, votes: int = 800, batch_size: int = 64, seed: int = 0
) -> float:
    """Computes the accuracy of votes for the fixed factor by the latent that varies least.

    For each vote, a factor is fixed at one of its values and a batch is drawn from the examples
    with that value. The latent with the smallest variance, relative to its variance over all data,
    casts the vote. The classifier is the majority of one half of the votes, scored on the other
    half.
    Latents that do not vary take no part. Source: Kim and Mnih (2018), Disentangling by
    factorising, arXiv:1802.05983.

    Args:
        codes: real numbers [N, L].
        factors: integers [N, K].
        votes: number of votes.
        batch_size: number of examples per vote.
        seed: integer, of the draws.

    Example:
        >>> v = np.stack(np.divmod(np.arange(100), 10), axis=1)
        >>> factor_vae_score(v.astype(float), v)
        1.0
    """
    codes, factors = _checked(codes, factors)
    rng = np.random.default_rng(seed)
    variance = codes.var(axis=0)
    alive = variance > _DEAD**2
    if not alive.any():
        return 1.0 / factors.shape[1]
    codes, variance = codes[:, alive], variance[alive]
    table = np.zeros([2, codes.shape[1], factors.shape[1]])
    for vote in range(votes):
        factor = rng.integers(factors.shape[1])
        rows = np.flatnonzero(factors[:, factor] == rng.choice(factors[:, factor]))
        batch = codes[rng.choice(rows, batch_size)]
        table[vote % 2, np.argmin(batch.var(axis=0) / variance), factor] += 1
    majority = table[0].argmax(axis=1)
    return float(table[1][np.arange(len(majority)), majority].sum() / table[1].sum())


def _edges(code: np.ndarray, bins: str) -> np.ndarray:
    """Returns the lower edges of a latent's bins."""
    if bins == "width":
        return np.histogram_bin_edges(code, _BINS)[:-1]
    return np.unique(np.quantile(code, np.arange(_BINS) / _BINS))


def _entropy(table: np.ndarray, axis: int) -> np.ndarray:
    """Computes the entropy of shares along an axis, to the base of its length; 1 if all are 0."""
    if table.shape[axis] == 1:
        return np.zeros(table.shape[1 - axis])
    total = table.sum(axis=axis, keepdims=True)
    uniform = np.full_like(table, 1.0 / table.shape[axis])
    share = np.divide(table, total, out=uniform, where=total > 0.0)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0.0)
    return -(share * logs).sum(axis=axis) / np.log(table.shape[axis])


def _checked(codes: Any, factors: Any) -> tuple[np.ndarray, np.ndarray]:
    codes, factors = np.asarray(codes, np.float64), np.asarray(factors)
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors):
        raise ValueError(
            f"Expected codes [N, L] and factors [N, K]; got shapes {list(codes.shape)} and "
            f"{list(factors.shape)}."
        )
    if codes.shape[1] < 2:
        raise ValueError("A gap between latents needs at least 2 of them; got 1.")
    if not np.isfinite(codes).all():
        raise ValueError("codes must be finite; got NaN or infinity.")
    if not np.equal(factors, np.round(factors)).all():
        raise ValueError("factors must be integers, the value of each factor; bin real ones first.")
    constant = np.flatnonzero(factors.max(axis=0) == factors.min(axis=0))
    if len(constant):
        raise ValueError(f"Factor {constant[0]} has only one value: leave it out.")
    return codes, factors.astype(np.int64)
