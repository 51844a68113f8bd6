"""Named parts of the data: dicts of arrays and data frames as the inputs of a signature."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_vae.integrity import as_word
from serving.artifact import Signature
from serving.errors import DtypeError, InputError

__all__ = ["data_inputs", "latent_inputs"]


def data_inputs(signature: Signature, x: Any) -> dict[str, Any]:
    """Returns data as inputs of a signature by name.

    Args:
        signature: the signature to call.
        x: an array, of a model with a single x; a dict of arrays or a data frame by the names of
            the parts, of which those that may be absent may be left out. A part of one number per
            row may have shape [n].

    Raises:
        InputError: if the parts are not those of the model, or a value has no axis of rows.
        DtypeError: if a column holds text.
    """
    columns = _columns(x)
    named = {name: tensor for name, tensor in signature.inputs.items() if name.startswith("x_")}
    if "x" in signature.inputs or not named:
        if columns is None or hasattr(x, "columns"):
            return {"x": x}
        raise InputError(
            f"{signature.name}: this model takes one array x; got a dict of "
            f"{', '.join(map(str, columns)) or 'nothing'}."
        )
    parts = ", ".join(name.removeprefix("x_") for name in named)
    if columns is None:
        raise InputError(
            f"{signature.name}: this model has the parts {parts}; expected a dict of arrays or a "
            f"data frame by these names, got {type(x).__name__}."
        )
    given = {f"x_{as_word(str(name))}": value for name, value in columns.items()}
    for name, word in zip(columns, given, strict=False):
        if word not in named:
            near = difflib.get_close_matches(word, named, 1)
            hint = f" Did you mean {near[0].removeprefix('x_')!r}?" if near else ""
            raise InputError(
                f"{signature.name}: this model has the parts {parts}; got {name!r} too.{hint}"
            )
    lacking = [name for name, tensor in named.items() if name not in given and not tensor.missing]
    if lacking or not given:
        what = lacking[0].removeprefix("x_") if lacking else "every part"
        raise InputError(
            f"{signature.name}: {what} is not given, and may not be absent in this model."
        )
    for name, value in given.items():
        if named[name].shape == (1,):
            _refuse_scalar_or_text(f"{signature.name}: {name.removeprefix('x_')}", value)
    rows = len(next(iter(given.values())))
    found = {}
    for name, tensor in named.items():
        if name not in given:
            found[name] = np.full((rows, *tensor.shape), np.nan, np.float32)
            continue
        value = given[name]
        flat = tensor.shape == (1,) and np.ndim(value) == 1
        found[name] = _column(value) if flat else value
    return found


def latent_inputs(takes: Sequence[str], z: Any) -> dict[str, Any]:
    """Returns latents as inputs of `decode` by name.

    Args:
        takes: the inputs that are latents.
        z: an array of the only latent; or a dict of arrays by the names of the latents or of the
            inputs.

    Raises:
        InputError: if the latents are not those of the model.
        DtypeError: if codes are no whole numbers.

    Example:
        >>> latent_inputs(["z_z1", "z_z2"], {"z1": [[0.0]], "z_z2": [[1.0]]})
        {'z_z1': [[0.0]], 'z_z2': [[1.0]]}
    """
    names = ", ".join(name.removeprefix("z_") for name in takes)
    given = {takes[0]: z} if len(takes) == 1 else {}
    if isinstance(z, Mapping):
        words = {name: f"z_{as_word(str(name))}" for name in z}
        given = {name if name in takes else words[name]: value for name, value in z.items()}
    if set(given) != set(takes):
        got = f"one {type(z).__name__}"
        if isinstance(z, Mapping):
            got = ", ".join(map(str, z)) or "an empty dict"
        what = f"latents {names}; expected a dict of arrays by these names"
        if len(takes) == 1:
            what = f"latent {names}; expected an array of it, or a dict with this name"
        raise InputError(f"decode: this model has the {what}, got {got}.")
    if "codes" in given and (dtype := np.asarray(given["codes"]).dtype).kind == "f":
        raise DtypeError(
            "decode: expected codes, whole numbers of an integer dtype, which encode returns as "
            f"'codes'; got {dtype}."
        )
    return given


def _refuse_scalar_or_text(where: str, value: Any) -> None:
    """Refuses a value of a single row without its axis, and labels in place of codes."""
    if np.ndim(value) == 0:
        raise InputError(
            f"{where} is {value!r}; expected one value for each row, as in [{value!r}]."
        )
    array = np.asarray(value)
    if array.dtype.kind not in "OU":
        return
    texts = [each for each in array.ravel() if isinstance(each, str)]
    if texts:
        raise DtypeError(
            f"{where} holds {texts[0]!r}; a server takes the code of a category, its place from 0 "
            "on in observations.PART.categories of the artifact's manifest.json."
        )


def _columns(x: Any) -> dict[Any, Any] | None:
    """Returns the columns of a dict or of a data frame, None of anything else."""
    if isinstance(x, Mapping):
        return dict(x)
    if hasattr(x, "columns") and hasattr(x, "__getitem__"):
        return {name: x[name] for name in x.columns}
    return None


def _column(value: Any) -> Any:
    if np.ma.isMaskedArray(value):
        return value[:, np.newaxis]
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    return np.asarray(value)[:, np.newaxis]
