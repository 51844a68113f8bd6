"""Results of a part: their columns, the texts among them, and means over draws."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from keras_vae.integrity import Observation
from keras_vae.tokens import Tokens
from serving.artifact import Signature
from serving.errors import ServingError
from serving.protocol.texts import texts_of
from serving.score.rows import listed

__all__ = ["Results", "averaged"]

_TEXTS = {"reconstruct": ("mean", "reconstruction"), "impute": ("value", "imputation")}
"""Of models of texts: the output that a column of texts is made of, and its name."""


@dataclass(frozen=True)
class Results:
    """Columns of the results of a job.

    Attributes:
        signature: the signature.
        names: the columns after file, row and the copied ones.
        tokens: tokens of a model of texts; None for other data.
    """

    signature: Signature
    names: tuple[str, ...]
    tokens: Tokens | None = None

    @classmethod
    def of(
        cls, signature: Signature, parts: Sequence[Observation], chosen: Sequence[str] = ()
    ) -> Results:
        """Returns the columns of a signature.

        Args:
            signature: the signature.
            parts: parts of the data.
            chosen: the columns to write, in any order; empty for all.

        Raises:
            ServingError: if the signature has no such column.
        """
        tokens = next((part.tokens for part in parts if part.tokens is not None), None)
        every = list(signature.outputs)
        if tokens is not None and signature.name in _TEXTS:
            every.append(_TEXTS[signature.name][1])
        if unknown := [name for name in chosen if name not in every]:
            raise ServingError(
                f"{signature.name} has no output {unknown[0]!r}; it has {listed(every)}."
            )
        names = tuple(name for name in every if not chosen or name in chosen)
        return cls(signature, names, tokens)

    @property
    def computed(self) -> list[str]:
        """The outputs that have to be computed."""
        names = (self._source if self._is_text(name) else name for name in self.names)
        return list(dict.fromkeys(names))

    @property
    def _source(self) -> str:
        return _TEXTS[self.signature.name][0]

    def _is_text(self, name: str) -> bool:
        return name not in self.signature.outputs

    def schema(self, key: Sequence[str], source: pa.Schema) -> pa.Schema:
        """Makes the schema of a part: file, row, the key columns, and the outputs.

        An output of one number is a float32 column, any other a column of lists of fixed size in
        row-major order, with its shape in the field's metadata; texts are strings.

        Args:
            key: columns that are copied.
            source: schema of the file with them.

        Raises:
            ServingError: if a key column has the name of another column.
        """
        fields = [pa.field("file", pa.string()), pa.field("row", pa.int64())]
        fields += [source.field(name) for name in key]
        for name in self.names:
            if self._is_text(name):
                fields.append(pa.field(name, pa.string()))
                continue
            output = self.signature.outputs[name]
            kind = pa.from_numpy_dtype(output.dtype)
            if output.shape:
                kind = pa.list_(kind, int(np.prod(output.shape)))
            fields.append(pa.field(name, kind, metadata={"shape": json.dumps(output.shape)}))
        names = [field.name for field in fields]
        for name in key:
            if names.count(name) > 1:
                raise ServingError(
                    f"A result has a column {name!r} of its own: rename the key column."
                )
        return pa.schema(fields)

    def columns(self, outputs: Mapping[str, np.ndarray], schema: pa.Schema) -> list[Any]:
        """Returns the columns of computed outputs, as `schema` describes them."""
        found: list[Any] = []
        for name in self.names:
            kind = schema.field(name).type
            if self._is_text(name) and self.tokens is not None:
                found.append(pa.array(texts_of(self.tokens, outputs[self._source]), kind))
                continue
            flat = pa.array(outputs[name].ravel())
            if pa.types.is_fixed_size_list(kind):
                flat = pa.FixedSizeListArray.from_arrays(flat, type=kind)
            found.append(flat)
        return found


def averaged(name: str, draws: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the mean of an output over draws; of p-values the first, whose promise holds.

    The mean of p-values of one example may be at most a with a probability of up to 2 a. Codes,
    which are whole numbers, have no mean.
    """
    if name == "p_value" or draws[0].dtype.kind in "iu":
        return draws[0]
    total = sum(value.astype(np.float64) for value in draws)
    return np.asarray(total / len(draws), np.float32)
