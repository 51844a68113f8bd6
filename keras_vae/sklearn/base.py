"""Shared base of the estimators for scikit-learn: fitting a VAE to rows, scores and draws."""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from keras_vae import networks
from keras_vae.data.frames import is_frame
from keras_vae.data.schema import Schema
from keras_vae.distributions import DiagonalNormal, PartsEncoder, StandardNormal
from keras_vae.distributions.noise import from_rows
from keras_vae.factories import LIKELIHOODS, table_vae
from keras_vae.model import VAE

__all__ = ["VAEEstimator", "seeds_of"]

_STANDARDISED = ("normal", "laplace", "student_t")
_ROWS = 64  # rows of every call, so that a row's numbers do not depend on how many come with it


class VAEEstimator(BaseEstimator):
    """Estimator that fits a VAE to rows; its subclasses say what for. See `VAEDensity`."""

    def __init__(
        self,
        latent_size: int = 8,
        *,
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
        self.latent_size = latent_size
        self.likelihood = likelihood
        self.likelihood_options = likelihood_options
        self.hidden = hidden
        self.drop = drop
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.num_samples = num_samples
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fits the model.

        Args:
            X: rows [n, d], an array of numbers or a data frame.
            y: ignored.

        Raises:
            ValueError: if the rows are too few, hold what the likelihood cannot model, or a column
                has no value.
        """
        self._fit(X)
        return self

    def _fit(self, X: Any) -> Any:
        """Fits the model and returns the rows as it takes them."""
        draws = check_random_state(self.random_state)
        with _python_seed(draws.randint(2**31 - 1)):
            x = self._begin(X)
            count = len(keras.tree.flatten(x)[0])
            train, held = np.arange(count), None
            callbacks = []
            if self.early_stopping:
                order = draws.permutation(count)
                size = max(1, round(self.validation_fraction * count))
                if size >= count:
                    raise ValueError(
                        f"Expected more rows than the {size} that early_stopping holds out; got "
                        f"{count}. Lower validation_fraction or set early_stopping=False."
                    )
                train, held = np.sort(order[size:]), _taken(x, np.sort(order[:size]))
                callbacks.append(
                    keras.callbacks.EarlyStopping(
                        "val_elbo",
                        mode="max",
                        patience=self.n_iter_no_change,
                        restore_best_weights=True,
                    )
                )
            self.vae_.compile(keras.optimizers.Adam(self.learning_rate))
            history = self.vae_.fit(
                _taken(x, train),
                batch_size=min(self.batch_size, len(train)),
                epochs=self.epochs,
                validation_data=held,
                callbacks=callbacks,
                verbose=self.verbose,
            )
        self.history_ = history.history
        self.n_iter_ = len(history.epoch)
        return x

    def _begin(self, X: Any) -> Any:
        """Makes a new model, and the rows as it takes them."""
        if _is_table(X):
            validate_data(self, X, skip_check_array=True)
            self.schema_: Schema | None = Schema.of(X)
            self.vae_ = table_vae(
                self.schema_,
                self.latent_size,
                hidden=tuple(self.hidden),
                drop=self.drop,
            )
            return self.schema_.encode(X)
        X = self._numbers(X, reset=True, ensure_min_samples=2)
        empty = np.flatnonzero(np.isnan(X).all(axis=0))
        if len(empty):
            raise ValueError(f"Column {empty[0]} has no value in any row. Leave it out.")
        make = LIKELIHOODS.get(self.likelihood)
        if make is None:
            raise ValueError(
                "Invalid value for argument `likelihood`. Expected one of "
                f"{', '.join(LIKELIHOODS)}. Received: likelihood={self.likelihood!r}"
            )
        options = self.likelihood_options
        if options is None:
            options = {"scale": "per_feature"} if self.likelihood in _STANDARDISED else {}
        size, hidden = X.shape[1], tuple(self.hidden)
        self.schema_ = None
        self.center_, self.spread_ = np.zeros(size), np.ones(size)
        if self.likelihood in _STANDARDISED:
            self.center_, spread = np.nanmean(X, axis=0), np.nanstd(X, axis=0)
            is_constant = spread <= 1e-6 * np.abs(self.center_)
            self.spread_ = np.where(is_constant | (spread == 0.0), 1.0, spread)
        self.vae_ = VAE(
            prior=StandardNormal(self.latent_size),
            likelihood=make(
                size,
                network=networks.mlp((self.latent_size,), hidden[::-1], activation="relu"),
                missing=True,
                **options,
            ),
            posterior=DiagonalNormal(
                self.latent_size,
                network=PartsEncoder(
                    networks.mlp((2 * size,), hidden, activation="relu"), drop=self.drop
                ),
            ),
        )
        return self._standardised(X)

    def _numbers(self, X: Any, *, reset: bool, **checks: Any) -> np.ndarray:
        """Returns rows as a checked float64 array."""
        return validate_data(
            self, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan", **checks
        )

    def _standardised(self, X: np.ndarray) -> np.ndarray:
        return ((X - self.center_) / self.spread_).astype(np.float32)

    def _rows(self, X: Any) -> Any:
        """Returns new rows as the fitted model takes them."""
        check_is_fitted(self, "vae_")
        if self.schema_ is not None:
            if not is_frame(X):
                raise ValueError(
                    "Expected a data frame with the columns of the training data, because it was "
                    f"fitted on one; got {type(X).__name__}."
                )
            return self.schema_.encode(X)
        return self.vae_.data.arrays(
            self._standardised(self._numbers(X, reset=False)), in_support=True
        )

    def score_samples(self, X: Any) -> np.ndarray:
        """Estimates log p of each row by importance sampling from the posterior.

        The estimate is a lower bound on average, and a pure function of the row. Of a row with
        absent entries it is log p of the others. Source: Burda, Grosse and Salakhutdinov (2016),
        arXiv:1509.00519.

        Args:
            X: rows [n, d].

        Returns:
            Nats per row, [n], in the units of the data: of densities and probabilities, as the
            likelihood has them.
        """
        return self._log_p(self._rows(X))

    def _log_p(self, x: Any) -> np.ndarray:
        vae, number = self.vae_, self.num_samples

        def log_mean(rows: Any, seeds: tf.Tensor) -> tf.Tensor:
            noise = from_rows(vae.noise(), seeds, number, vae.float_dtype)
            log_weights = vae.infer(rows).trace(noise).log_weights()
            return tf.reduce_logsumexp(log_weights, axis=0) - np.log(number)

        found = self._by_chunks(f"log_p {number}", log_mean, [x, seeds_of(x)])
        return found.astype(np.float64) + self._row_nats(x)

    def _row_nats(self, x: Any) -> np.ndarray:
        """Returns the nats per row that turn log p of model numbers into that of the data."""
        if self.schema_ is not None:
            return self.schema_.row_nats(x)
        return -np.where(np.isnan(x), 0.0, np.log(self.spread_)).sum(axis=1)

    def score(self, X: Any, y: Any = None) -> float:
        """Returns the mean of `score_samples`, in nats per row."""
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples: int = 1, random_state: int = 0) -> Any:
        """Draws rows from the model.

        Args:
            n_samples: number of rows.
            random_state: seed.

        Returns:
            Array [n_samples, d], or a data frame for a model of one.
        """
        check_is_fitted(self, "vae_")
        drawn = self.vae_.sample(n_samples, seed=random_state)
        return drawn if self.schema_ is not None else self._raw(drawn.numpy())

    def _raw(self, x: np.ndarray) -> np.ndarray:
        return x.astype(np.float64) * self.spread_ + self.center_

    def _by_chunks(
        self, name: str, function: Callable[..., tf.Tensor], inputs: list[Any]
    ) -> np.ndarray:
        """Calls a function of rows on chunks of equal size, the last one filled up."""
        specs = keras.tree.map_structure(
            lambda part: tf.TensorSpec([_ROWS, *part.shape[1:]], part.dtype), inputs
        )
        graph = self.vae_._graph(
            ("sklearn", name),
            lambda: tf.function(function, input_signature=specs, autograph=False),
        )
        count, found = len(keras.tree.flatten(inputs)[0]), []
        for start in range(0, count, _ROWS):
            rows = np.minimum(np.arange(start, start + _ROWS), count - 1)
            found.append(graph(*_taken(inputs, rows)).numpy())
        return np.concatenate(found)[:count]

    def __sklearn_tags__(self) -> Any:
        """Returns what scikit-learn needs to know: absent entries are taken."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _is_table(X: Any) -> bool:
    """Tells whether rows are a data frame with other than numbers."""
    return is_frame(X) and any(
        not is_numeric_dtype(dtype) or is_bool_dtype(dtype) for dtype in X.dtypes
    )


def _taken(x: Any, rows: np.ndarray) -> Any:
    return keras.tree.map_structure(lambda part: part[rows], x)


def seeds_of(x: Any) -> np.ndarray:
    """Returns a seed pair for each row that depends on its numbers alone, int32 [n, 2]."""
    parts = [np.asarray(part, np.float32) for part in keras.tree.flatten(x)]
    rows = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
    rows = np.where(np.isnan(rows), np.float32(np.nan), rows + np.float32(0.0))
    digests = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return np.frombuffer(b"".join(digests), "<i4").reshape(-1, 2).astype(np.int32)


@contextmanager
def _python_seed(seed: int) -> Iterator[None]:
    """Seeds Python's generator, from which Keras seeds weights and draws, and puts it back."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
