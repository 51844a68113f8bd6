"""AnnData: counts of cells with the condition that a model of counts takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_vae.data.content import DataError, listed
from keras_vae.data.sparse_rows import is_scipy_sparse
from keras_vae.spelling import counted

__all__ = ["Cells", "from_anndata"]


class Cells(NamedTuple):
    """Counts of cells, as `fit` takes them.

    Attributes:
        x: counts [N, F], sparse if they were.
        condition: float32 [N, G + 1]: the batch one-hot, then the logarithm of the cell's total.
        feature_names: names of the features.
        groups: names of the batches, in the order of the condition; empty without batches.

    Example:
        >>> cells = Cells(np.ones([2, 3]), np.zeros([2, 1], "float32"), ("a", "b", "c"), ())
        >>> sorted(cells.inputs)
        ['condition', 'x']
    """

    x: Any
    condition: np.ndarray
    feature_names: tuple[str, ...]
    groups: tuple[str, ...]

    @property
    def inputs(self) -> dict[str, Any]:
        """Arguments of `fit`, `elbo` and the evaluators: {"x": ..., "condition": ...}."""
        return {"x": self.x, "condition": self.condition}


def from_anndata(
    adata: Any,
    *,
    layer: str | None = None,
    batch_key: str | None = None,
    groups: Sequence[str] | None = None,
) -> Cells:
    """Returns the counts of an AnnData object, with batches and totals as the condition.

    Sparse counts stay sparse. The condition suits a likelihood with offset=True, and with batches
    also dispersion="per_group":

        cells = keras_vae.data.from_anndata(adata, layer="counts", batch_key="batch")
        vae = keras_vae.mlp_vae(
            cells.x.shape[1],
            10,
            "negative_binomial",
            condition_shape=cells.condition.shape[1],
            offset=True,
            link="softmax",
            dispersion="per_group",
            num_groups=len(cells.groups),
        )
        vae.compile()
        vae.fit(cells.inputs)

    Args:
        adata: object with the attributes of `anndata.AnnData`: X, obs, var_names and layers.
        layer: name of the layer that holds the raw counts; None is X.
        batch_key: column of obs with the batch of each cell; None is one batch, without a code.
        groups: names of the batches, for cells of a model that was trained before.

    Raises:
        DataError: if the layer or column does not exist, the counts are none, a cell is empty, or
            a batch is not in `groups`.

    Example:
        >>> from types import SimpleNamespace
        >>> import pandas as pd
        >>> obs = pd.DataFrame({"batch": ["a", "b", "a"]})
        >>> X = np.array([[1, 0], [2, 5], [0, 3]])
        >>> adata = SimpleNamespace(X=X, obs=obs, var_names=["gene 1", "gene 2"], layers={})
        >>> from_anndata(adata, batch_key="batch").condition.round(2)
        array([[1.  , 0.  , 0.  ],
               [0.  , 1.  , 1.95],
               [1.  , 0.  , 1.1 ]], dtype=float32)
    """
    x, where = _counts(adata, layer)
    codes, names = _batches(adata.obs, batch_key, groups)
    totals = np.asarray(x.sum(axis=1), np.float64).reshape(-1)
    if (empty := totals == 0).any():
        raise DataError(
            f"{where} has {counted(int(empty.sum()), 'cell')} without a count, first cell "
            f"{int(empty.argmax())}; their size has no logarithm. Leave them out: "
            "scanpy.pp.filter_cells(adata, min_counts=1)."
        )
    condition = np.concatenate([codes, np.log(totals)[:, None]], axis=1).astype(np.float32)
    return Cells(x, condition, tuple(map(str, adata.var_names)), names)


def _counts(adata: Any, layer: str | None) -> tuple[Any, str]:
    """Returns the matrix of raw counts, and its name for messages."""
    where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    if layer is not None and layer not in adata.layers:
        raise DataError(
            f"The object has no layer {layer!r}; it has {listed(sorted(adata.layers)) or 'none'}."
        )
    x = adata.X if layer is None else adata.layers[layer]
    if x is None:
        raise DataError(f"{where} is empty. Name the layer that holds the counts with layer=.")
    x = x.tocsr() if is_scipy_sparse(x) else np.asarray(x)
    stored: Any = x.data if is_scipy_sparse(x) else x
    if stored.dtype.kind not in "buif" or (stored < 0).any() or (stored != np.rint(stored)).any():
        raise DataError(
            f"{where} holds other numbers than counts 0, 1, 2, ...: it may be normalised. Name the "
            "layer that holds the raw counts with layer=."
        )
    return x, where


def _batches(
    obs: Any, key: str | None, groups: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the batch of each cell one-hot, [N, G], and the names of the batches."""
    if key is None:
        return np.zeros((len(obs), 0)), ()
    if key not in obs.columns:
        raise DataError(f"obs has no column {key!r}; it has {listed(list(map(str, obs.columns)))}.")
    if obs[key].isna().any():
        raise DataError(f"The column {key!r} of obs has missing values. Name each cell's batch.")
    values = obs[key].astype(str).to_numpy()
    names = tuple(sorted(set(values))) if groups is None else tuple(map(str, groups))
    if unknown := sorted(set(values) - set(names)):
        raise DataError(
            f"The column {key!r} of obs has the batch {unknown[0]!r}; the model knows "
            f"{listed(list(names))}."
        )
    return (values[:, None] == np.array(names)).astype(np.float64), names
