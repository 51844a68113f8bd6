"""The estimators, each with the methods of its kind."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import (
    ClassNamePrefixFeaturesOutMixin,
    DensityMixin,
    OneToOneFeatureMixin,
    OutlierMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_array, check_is_fitted

from keras_vae.conformal import Conformal
from keras_vae.sklearn.base import VAEEstimator, seeds_of

__all__ = ["VAEDensity", "VAEImputer", "VAEOutlierDetector", "VAETransformer"]


class VAEDensity(DensityMixin, VAEEstimator):
    """Density of rows: `score_samples` estimates log p, `sample` draws.

    Args:
        latent_size: number of latents.
        likelihood: name in `keras_vae.factories.LIKELIHOODS` of the distribution of the columns of
            an array, such as normal, student_t, poisson or bernoulli. The columns of a data frame
            with other than numbers choose theirs, see `keras_vae.data.Schema`.
        likelihood_options: arguments of the likelihood; None is {"scale": "per_feature"} for
            normal, laplace and student_t, and {} for the others.
        hidden: widths of the encoder's layers; the decoder's are the same backwards.
        drop: share of the entries that training hides from the encoder, so that it learns to do
            without.
        epochs: passes over the training rows, at most.
        batch_size: rows per training step.
        learning_rate: learning rate of Adam.
        early_stopping: whether to hold out rows, to stop when their ELBO no longer rises and to
            keep the weights of the best epoch.
        validation_fraction: share of the rows to hold out.
        n_iter_no_change: epochs without a rise before training stops.
        num_samples: draws from the posterior per row for scores and imputations.
        random_state: seed, or `numpy.random.RandomState`, of weights, order and draws in training.
        verbose: as of `keras.Model.fit`.

    Attributes:
        vae_: the fitted `keras_vae.VAE`, of standardised columns.
        schema_: `keras_vae.data.Schema` of a data frame with other than numbers, or None.
        history_: what `keras.Model.fit` logged, by name.
        n_iter_: number of epochs.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> density = VAEDensity(2, epochs=2, random_state=0).fit(load_iris().data)
        >>> density.score_samples(load_iris().data).shape
        (150,)
    """

    score = VAEEstimator.score  # DensityMixin has one that returns nothing


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, VAEEstimator):
    """Embedding of rows: `transform` gives the posterior mean of the latents.

    Arguments and attributes as for `VAEDensity`.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> embed = VAETransformer(2, epochs=2, random_state=0).set_output(transform="pandas")
        >>> list(embed.fit_transform(load_iris().data))
        ['vaetransformer0', 'vaetransformer1']
    """

    def transform(self, X: Any) -> np.ndarray:
        """Returns posterior means [n, latent_size]."""
        x = self._rows(X)
        means = self._by_chunks("mean", lambda rows: self.vae_.encode(rows).mean(), [x])
        return means.astype(np.float64)

    def inverse_transform(self, Z: Any) -> Any:
        """Returns means of p(x given z) in the units of the data.

        Args:
            Z: latents [n, latent_size].

        Returns:
            Array [n, d], or a data frame for a model of one.
        """
        check_is_fitted(self, "vae_")
        means = self.vae_.decode(check_array(Z, dtype=np.float32))
        if self.schema_ is not None:
            return self.schema_.decode({name: p.mean() for name, p in means.items()})
        return self._raw(means.mean().numpy())

    @property
    def _n_features_out(self) -> int:
        return self.latent_size


class VAEOutlierDetector(OutlierMixin, VAEEstimator):
    """Outliers by low log p.

    `predict` gives -1 to a share of the training rows, which promises nothing about new ones.
    `calibrate` with rows that it was not fitted on does: see `p_values`. Arguments and attributes
    as for `VAEDensity`, and:

    Args:
        contamination: share of the training rows that are outliers, above 0 and at most 0.5.

    Attributes:
        offset_: the log p below which a row is an outlier, in nats.
        calibration_: `keras_vae.conformal.Conformal` of `calibrate`.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> x = load_iris().data
        >>> detector = VAEOutlierDetector(2, epochs=2, random_state=0).fit(x[::2])
        >>> detector.calibrate(x[1::2]).p_values([[50.0, 3.0, 1.0, 0.2]]).round(3)
        array([0.013])
    """

    def __init__(
        self,
        latent_size: int = 8,
        *,
        contamination: float = 0.1,
        likelihood: str = "normal",
        likelihood_options: dict[str, Any] | None = None,
        hidden: Sequence[int] = (128, 128),
        drop: float = 0.1,
        epochs: int = 1000,
        batch_size: int = 100,
        learning_rate: float = 1e-3,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 20,
        num_samples: int = 100,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            latent_size,
            likelihood=likelihood,
            likelihood_options=likelihood_options,
            hidden=hidden,
            drop=drop,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            num_samples=num_samples,
            random_state=random_state,
            verbose=verbose,
        )
        self.contamination = contamination

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fits the model and the threshold; arguments and errors as for `VAEDensity.fit`."""
        if not 0.0 < self.contamination <= 0.5:
            raise ValueError(
                "Invalid value for argument `contamination`. Expected a share above 0 and at most "
                f"0.5. Received: contamination={self.contamination!r}"
            )
        log_p = self._log_p(self._fit(X))
        self.offset_ = float(np.percentile(log_p, 100.0 * self.contamination))
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Returns `score_samples` less `offset_`, [n]: negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """Returns 1 for inliers and -1 for outliers, [n]."""
        return np.where(self.decision_function(X) < 0.0, -1, 1)

    def calibrate(self, X: Any) -> Self:
        """Keeps the scores of normal rows that it was not fitted on, for `p_values`.

        Args:
            X: rows [n, d].
        """
        self.calibration_ = Conformal(-self.score_samples(X))
        return self

    def p_values(self, X: Any) -> np.ndarray:
        """Computes the conformal p-value of each row, [n].

        Of rows that are exchangeable with those of `calibrate`, at most a share alpha has a p-value
        of at most alpha, however wrong the model is. See `keras_vae.conformal.Conformal`.
        """
        check_is_fitted(
            self, "calibration_", msg="Call calibrate with held-out rows before p_values."
        )
        return self.calibration_.p_value(-self.score_samples(X))


class VAEImputer(OneToOneFeatureMixin, TransformerMixin, VAEEstimator):
    """Imputation: `transform` fills absent entries from the importance-weighted posterior.

    Numbers get their mean given the entries that are present, ordered levels their median, and
    categories the most probable one.
    Source: Mattei and Frellsen (2019), MIWAE, arXiv:1812.02633. Arguments and attributes as for
    `VAEDensity`.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(50, 1)) * [1.0, 2.0, 3.0]
        >>> x[::7, 0] = np.nan
        >>> imputer = VAEImputer(1, hidden=(16,), epochs=2, random_state=0)
        >>> int(np.isnan(imputer.fit_transform(x)).sum())
        0
    """

    def transform(self, X: Any) -> Any:
        """Returns the rows with absent entries filled; what is present stays as it is.

        Args:
            X: rows [n, d], NaN where absent.

        Returns:
            Array [n, d], or a data frame for a model of one.
        """
        x = self._rows(X)
        if self.schema_ is not None:
            return self.vae_.impute(X, self.num_samples, seed=seeds_of(x)).values
        X = check_array(X, dtype=np.float64, ensure_all_finite="allow-nan")
        if not np.isnan(X).any():
            return X
        filled = self.vae_.impute(x, self.num_samples, seed=seeds_of(x)).values
        return np.where(np.isnan(X), self._raw(np.asarray(filled)), X)
