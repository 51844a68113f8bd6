"""Gates: requirements on a model and its signatures that are checked before anything is written."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from export.errors import ExportError, sentence
from export.purity import impurity
from keras_vae import random
from keras_vae.distributions import ConditionalDistribution
from keras_vae.distributions.noise import from_rows
from keras_vae.latent_variable_model import LatentVariableModel
from keras_vae.model import VAE
from keras_vae.signatures import Signature

__all__ = [
    "check_contract",
    "check_function",
    "check_model",
    "check_names",
    "family",
    "layer_of",
]

_ROWS = 11
_NAME = re.compile(r"[A-Za-z0-9_]+")
_RESERVED = frozenset({"condition", "mean", "sample", "seed", "x", "z"})


def family(vae: LatentVariableModel) -> str:
    """Describes the model, as in "Bernoulli with DiagonalNormal and VampPrior"."""
    if not isinstance(vae, VAE):
        return type(vae).__name__
    posterior, prior = (type(each).__name__ for each in (vae.posterior, vae.prior))
    likelihood = ", ".join(
        dict.fromkeys(type(each).__name__ for each in vae.likelihood.by_part().values())
    )
    return f"{likelihood} with {posterior} and {prior}"


def check_model(vae: Any) -> None:
    """Refuses other models than those of latent variables, infinite weights, and Lambda layers.

    Raises:
        ExportError: naming the weight or the layer.
    """
    if not isinstance(vae, LatentVariableModel):
        raise ExportError(
            "Expected a keras_vae.VAE or another keras_vae.LatentVariableModel; got a "
            f"{type(vae).__name__}."
        )
    for layer in vae._flatten_layers():
        if isinstance(layer, keras.layers.Lambda):
            raise ExportError(
                f"The layer {layer.name} is a Lambda, which runs its own Python code. Replace "
                "it with a registered layer of keras.ops."
            )
    for weight in vae.weights:
        if not np.isfinite(weight.numpy()).all():
            raise ExportError(
                f"The weight {weight.path} holds NaN or infinity; export the last good model."
            )


def check_contract(vae: LatentVariableModel) -> None:
    """Refuses distributions whose shapes are not those of a batch of events.

    Raises:
        ExportError: naming the family and what has the wrong shape.
    """
    if not isinstance(vae, VAE):
        _check_structure(vae)
        return
    condition = [] if vae.condition_shape is None else [tf.zeros([_ROWS, *vae.condition_shape])]
    seeds = random.row_seeds(0, _ROWS)
    z = random.normal(seeds, (vae.latent_size,), stream=random.LATENT)
    with _blamed_on(vae.likelihood):
        inputs = _inputs(vae, [vae.posterior.features(z), *condition])
        by_part = vae.likelihood.parameters_by_part(inputs)
    data = {}
    for name, layer in vae.likelihood.by_part().items():
        with _blamed_on(layer):
            p = _distribution(layer, by_part[name])
            x = data[name] = layer.draw_rows(seeds, **by_part[name])
            events = (_ROWS, *layer.event_shape)
            shapes = {
                "the mean of its distribution": (p.mean(), events),
                "what `draw` returns": (x, events),
            }
            _check_shapes(layer, shapes)
            shapes = {"the log-probability of a draw": (p.log_prob(x), (_ROWS,))}
            _check_shapes(layer, shapes)
    with _blamed_on(vae.posterior):
        given = dict(zip(("condition",), condition, strict=False))
        encoded = {**data, **given} if vae.data.is_dict else [data["x"], *condition]
        parameters = vae.posterior.parameters(_inputs(vae, encoded))
        _distribution(vae.posterior, parameters)
        latents = (_ROWS, vae.latent_size)
        centre = vae.posterior.centre(parameters, "The export")
        noise = from_rows(vae.posterior.noise(), seeds, dtype=vae.float_dtype)
        draw = vae.posterior.draw(noise, **parameters)
        shapes = {
            "the mean of its distribution": (centre, latents),
            "what `draw` returns": (draw.value, latents),
        }
        if draw.log_prob is not None:
            shapes["the log-probability that `draw` returns"] = (draw.log_prob, (_ROWS,))
        _check_shapes(vae.posterior, shapes)


def _check_structure(model: LatentVariableModel) -> None:
    """Refuses a model of any structure whose sites or traces are not those of a batch.

    Raises:
        ExportError: naming the family or the latent, and what has the wrong shape.
    """
    seeds = random.row_seeds(0, _ROWS)
    part = model.data.parts.get("condition")
    condition = None if part is None else tf.zeros([_ROWS, *part.shape], model.float_dtype)
    noise = from_rows(model.generation_noise(), seeds, dtype=model.float_dtype)
    try:
        generation = model.generated(noise, condition=condition)
        draws = model.draws(generation, seeds)
        given = {} if condition is None else {"condition": condition}
        x = model.data.together({**draws, **given})
        trace = model.infer(x).trace(from_rows(model.noise(), seeds, 1, model.float_dtype))
        weights = trace.log_weights()
    except Exception as error:
        raise ExportError(
            f"{type(model).__name__} cannot be exported: {sentence(error)}"
        ) from error
    for name, site in generation.observations.items():
        with _blamed_on(site.layer):
            p = _distribution(site.layer, site.parameters)
            events = (_ROWS, *site.layer.event_shape)
            shapes = {
                "the mean of its distribution": (p.mean(), events),
                "what `draw` returns": (draws[name], events),
                "the log-probability of a draw": (p.log_prob(draws[name]), (_ROWS,)),
            }
            _check_shapes(site.layer, shapes)
    for name, value in generation.latents.items():
        found = trace.latents.get(name)
        wanted = (1, *value.shape)
        if value.shape[:1] != (_ROWS,) or found is None or tuple(found.value.shape) != wanted:
            raise ExportError(
                f"{type(model).__name__}: the latent {name} has shape {tuple(value.shape)} from "
                f"generate for {_ROWS} rows, and from infer "
                f"{None if found is None else tuple(found.value.shape)} for one draw of them; "
                f"expected ({_ROWS}, ...) and {wanted}."
            )
    if tuple(weights.shape) != (1, _ROWS):
        raise ExportError(
            f"{type(model).__name__}: the log-weights of one draw have shape "
            f"{tuple(weights.shape)} for {_ROWS} rows; expected (1, {_ROWS})."
        )


def check_names(signatures: Mapping[str, Signature]) -> None:
    """Refuses tensors that have no name in every runtime.

    Raises:
        ExportError: naming the tensor.
    """
    for signature in signatures.values():
        for name in (*signature.inputs, *signature.outputs):
            if not _NAME.fullmatch(name):
                raise ExportError(
                    f"{signature.name}: expected names of letters, digits and _; got {name!a}. "
                    "Rename the parameter, or the part of the data."
                )
            if name.endswith("_bytes"):
                raise ExportError(
                    f"{signature.name}: rename the parameter or the part of {name}; TensorFlow "
                    "Serving reads names in _bytes as base64."
                )


def check_function(signature: Signature, concrete: Any) -> None:
    """Refuses a traced signature that is not a pure function of its inputs and the weights.

    Raises:
        ExportError: naming the signature, the op and the layer.
    """
    name = signature.name
    graph = concrete.graph.as_graph_def()
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    impure = [(node, why) for body in bodies for node in body if (why := impurity(node.op))]
    if impure:
        node, why = min(impure, key=lambda pair: pair[1] not in ("is random", "runs Python"))
        raise ExportError(
            f"{name}: the op {node.op} of {layer_of(node.name)} {why}. Exported functions neither "
            "draw (keras_vae.random does, from row seeds), nor keep state, nor run Python, nor "
            "touch files."
        )
    for output in signature.outputs:
        shape = concrete.structured_outputs[output].shape
        if shape.rank is None or shape.rank == 0 or None in shape[1:].as_list():
            raise ExportError(
                f"{name}: the output {output} has shape {shape}; expected the batch as axis 0 and "
                "known sizes."
            )


def layer_of(node_name: str) -> str:
    """Returns the layer that made a node, by the scopes in the node's name."""
    parts = [part for part in node_name.split("/") if "PartitionedCall" not in part]
    return "layer " + "/".join(parts[:-1]) if len(parts) > 1 else f"node {node_name}"


@contextlib.contextmanager
def _blamed_on(layer: ConditionalDistribution) -> Iterator[None]:
    """Raises every exception inside the block as an `ExportError` that names the layer."""
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(
            f"{type(layer).__name__} cannot be exported: {sentence(error)}"
        ) from error


def _inputs(vae: VAE, inputs: Any) -> Any:
    """Returns tensors in the dtype of a network, alone if there is only one."""
    cast = keras.tree.map_structure(lambda part: tf.cast(part, vae.float_dtype), inputs)
    return cast[0] if isinstance(cast, list) and len(cast) == 1 else cast


def _distribution(layer: ConditionalDistribution, parameters: dict[str, Any]) -> Any:
    """Returns the distribution of a layer at a batch."""
    _check_names(layer, parameters)
    for name in layer.parameter_specs():
        value = parameters[name]
        if value.shape.rank == 0 or value.shape[0] != _ROWS:
            raise ExportError(
                f"{type(layer).__name__}: the parameter {name} has shape {tuple(value.shape)} for "
                f"{_ROWS} rows; its axis 0 must be the batch. Return parameters of the layer alone "
                "from `shared_parameters`."
            )
    if not getattr(layer, "tells_density", True):
        return None
    found = layer.make_distribution(**parameters)
    if found.batch_shape != [_ROWS] or found.event_shape != layer.event_shape:
        raise ExportError(
            f"{type(layer).__name__}: its distribution has batch shape {tuple(found.batch_shape)} "
            f"and event shape {tuple(found.event_shape)}; expected ({_ROWS},) and "
            f"{layer.event_shape}. `independent` makes one event of independent entries."
        )
    return found


def _check_names(layer: ConditionalDistribution, names: Iterable[str]) -> None:
    for name in names:
        if name in _RESERVED or name.endswith("_bytes"):
            why = (
                "TensorFlow Serving reads names in _bytes as base64"
                if name.endswith("_bytes")
                else "the signatures use that name"
            )
            raise ExportError(f"{type(layer).__name__}: rename the parameter {name}; {why}.")


def _check_shapes(
    layer: ConditionalDistribution, shapes: Mapping[str, tuple[tf.Tensor, tuple[int, ...]]]
) -> None:
    for what, (value, expected) in shapes.items():
        if tuple(value.shape) != expected:
            raise ExportError(
                f"{type(layer).__name__}: {what} has shape {tuple(value.shape)} for {_ROWS} rows; "
                f"expected {expected}."
            )
