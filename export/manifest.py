"""Manifest: everything a consumer needs to use an artifact without Python."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from export.parity import Comparison
from keras_vae import __version__, random
from keras_vae.data.preparation import Preparation
from keras_vae.model import VAE
from keras_vae.runs import measurements
from keras_vae.runs.units import value_range
from keras_vae.signatures import Signature

__all__ = ["build", "digest", "metadata", "model_card", "properties", "stated"]

_OF_THE_ARTIFACT = frozenset(
    {"digest", "schema_version", "name", "signatures", "omitted"}
    | {"variants", "training", "versions", "files"}
)
_PACKAGES = ("keras-vae", "tensorflow", "keras", "tensorflow-probability", "tf2onnx", "onnx")
_COLUMNS = 50
_SEED_PROTOCOL = {
    "generator": "Philox-4x32-10",
    "key": "the row's seed pair as two uint32 words",
    "counter": "(block, 0, stream, 0), block = 0, 1, 2, ...; word i is word i mod 4 of block i / 4",
    "streams": {
        "z": random.LATENT,
        "mixture component": random.COMPONENT,
        "x given z": random.OBSERVATION,
        "preparation of x": random.PREPARATION,
        "z given x": random.POSTERIOR,
        "mixture component of z given x": random.POSTERIOR_COMPONENT,
    },
    "uniform": "((word >> 9) + 1/2) / 2^23",
    "row_seeds": "row i of sample(n, seed) in Python has the seed pair [seed, i]",
}


def metadata(vae: VAE, preparation: Preparation, trained_in: Sequence[str] = ()) -> dict[str, Any]:
    """Describes the model itself, as the manifest states it.

    Args:
        vae: the model, whose layers compute in float32.
        preparation: how raw numbers become data.
        trained_in: dtype policies of the trained model, if other than float32.
    """
    likelihood, support = vae.likelihood, vae.likelihood.support
    found = {name: getattr(likelihood, name, None) for name in likelihood.options()}
    config = likelihood.get_config()
    found |= {name: config[name] for name in likelihood.of_condition if name in config}
    options = {name: value for name, value in found.items() if isinstance(value, str | int | float)}
    as_it_is = preparation.step == "none" and preparation.divide == 1.0 and not preparation.center
    shape = vae.event_shape[:-1] if preparation.categories else vae.event_shape
    components = vae.prior.components()
    return {
        "data": {
            "shape": list(shape),
            "dtype": "float32",
            "range": list(value_range(vae, preparation)),
            "one_hot": support.is_one_hot and not preparation.categories,
            "whole": support.is_whole and as_it_is,
            "feature_names": None if vae.feature_names is None else list(vae.feature_names),
            "preparation": dataclasses.asdict(preparation),
            "preparation_is_inside": True,
        },
        "likelihood": {
            "family": type(likelihood).__name__,
            "parameters": [*likelihood.parameter_specs(), *likelihood.shared_parameters()],
            "options": options,
            "how_to_read": likelihood.reading,
            "discrete": support.is_discrete,
            "threshold": likelihood.is_threshold,
        },
        "posterior": {
            "family": type(vae.posterior).__name__,
            "parameters": list(vae.posterior.parameter_specs()),
        },
        "prior": {
            "family": type(vae.prior).__name__,
            "components": 1 if components is None else len(components.loc),
            "standard": vae.prior.is_standard,
        },
        "latent_size": vae.latent_size,
        "condition_shape": None if vae.condition_shape is None else list(vae.condition_shape),
        "precision": {"trained_in": list(trained_in) or ["float32"], "exported_in": "float32"},
        "seed_protocol": _SEED_PROTOCOL,
        "weights_digest": digest(vae),
    }


def build(
    *,
    name: str,
    about: dict[str, Any],
    signatures: dict[str, Signature],
    functions: dict[str, Any],
    opsets: dict[str, int],
    omitted: dict[str, str],
    variants: dict[str, Any],
    comparisons: Sequence[Comparison],
    training: dict[str, Any],
) -> dict[str, Any]:
    """Builds the manifest for `keras_vae.integrity.seal`.

    Args:
        name: name of the artifact.
        about: from `metadata`.
        signatures: all signatures.
        functions: the traced signatures.
        opsets: op set by name of each signature that has an ONNX file.
        omitted: reason by name of each signature that has no ONNX form.
        variants: files of other precisions and formats, with their cost.
        comparisons: results of the verification.
        training: configuration and measurements of the run, or empty.
    """
    return {
        "name": name,
        "signatures": {
            key: {
                "description": signature.description,
                "inputs": {entry: _tensor(spec) for entry, spec in signature.inputs.items()},
                "outputs": {
                    entry: _tensor(functions[key].get_concrete_function().structured_outputs[entry])
                    for entry in signature.outputs
                },
                "onnx": f"onnx/{key}.onnx" if key in opsets else None,
                "opset": opsets.get(key),
                "takes_empty_batch": all(
                    entry.takes_empty_batch for entry in comparisons if entry.signature == key
                ),
            }
            for key, signature in signatures.items()
        },
        "omitted": omitted,
        "variants": variants,
        **about,
        "training": training,
        "versions": {package: _version(package) for package in _PACKAGES},
    }


def stated(manifest: dict[str, Any]) -> dict[str, Any]:
    """Selects the entries about the model itself, which its ONNX files state too."""
    return {key: value for key, value in manifest.items() if key not in _OF_THE_ARTIFACT}


def properties(about: dict[str, Any], signature: str) -> dict[str, str]:
    """Returns the `metadata_props` of a signature's ONNX file, by key."""
    entries = {"signature": signature, **about}
    return {
        f"keras_vae.{key}": value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for key, value in entries.items()
    }


def digest(vae: VAE) -> str:
    """Returns the SHA-256 of the weights in order: shape, dtype and bytes of each."""
    result = hashlib.sha256()
    for layer in (vae.prior, vae.likelihood, vae.posterior):
        for weight in layer.weights:
            array = np.ascontiguousarray(tf.convert_to_tensor(weight))
            result.update(f"{array.dtype.str}{array.shape}".encode())
            result.update(array.data)
    return result.hexdigest()


def model_card(manifest: dict[str, Any]) -> str:
    """Renders the model card in Markdown."""
    data, likelihood, training = manifest["data"], manifest["likelihood"], manifest["training"]
    names = data.get("feature_names")
    lines = [
        f"# {manifest['name']}",
        "",
        f"A variational autoencoder with {manifest['latent_size']} latents: prior "
        f"{manifest['prior']['family']}, likelihood {likelihood['family']}, posterior "
        f"{manifest['posterior']['family']}.",
        "",
        "## Data",
        "",
        f"Examples of shape {tuple(data['shape'])} as float32 in the units of the data file, "
        f"{_range_in_words(*data['range'])}. Prepared inside the graphs: "
        f"{data['preparation']['sentence']}.",
        "",
        *([_columns(names), ""] if names else []),
        f"How to read p(x | z): {likelihood['how_to_read']}",
        "",
    ]
    trained_in = manifest["precision"]["trained_in"]
    if trained_in != ["float32"]:
        lines += [f"Trained under {' and '.join(trained_in)}; computes in float32 here.", ""]
    if manifest["condition_shape"] is not None:
        lines += [f"Conditional: shape {tuple(manifest['condition_shape'])} beside each x.", ""]
    lines += ["## Measurements", "", *_measurements(training.get("evaluation"))]
    config = training.get("config")
    if config:
        beta = training["final_beta"]
        lines += [
            "",
            "## Training",
            "",
            f"Data {config['data']}, {config['epochs']} epochs of batches of "
            f"{config['batch_size']}, Adam at {config['learning_rate']:g}, objective "
            f"{config['objective']} with {config['num_samples']} "
            f"{'draw' if config['num_samples'] == 1 else 'draws'}, "
            f"{'no beta' if beta is None else f'final beta {beta:g}'}, seed {config['seed']}.",
        ]
    if manifest["variants"]:
        lines += ["", "## Variants", "", "| files | what | nats per example |", "|---|---|---|"]
        lines += _variants(manifest["variants"])
    if manifest["omitted"]:
        lines += ["", "## Without an ONNX form", ""]
        lines += [f"- {reason}" for reason in manifest["omitted"].values()]
    lines += ["", f"Weights: sha256 {manifest['weights_digest']}.", ""]
    return "\n".join(lines)


def _range_in_words(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return "any real number"
    if high is None:
        return f"from {low:g} on"
    return f"up to {high:g}" if low is None else f"from {low:g} to {high:g}"


def _columns(names: list[str]) -> str:
    rest = len(names) - _COLUMNS
    more = f" and {rest} more, which manifest.json lists" if rest > 0 else ""
    shown = ", ".join(f"`{' '.join(name.split())}`" for name in names[:_COLUMNS])
    return f"Columns, in this order: {shown}{more}."


def _measurements(evaluation: dict[str, Any] | None) -> list[str]:
    if not evaluation:
        return ["Not measured before the export. `keras-vae evaluate RUN` measures a run."]
    title, rows, notes = measurements.table(evaluation)
    gap = evaluation["log_marginal"]["mean"] - evaluation["elbo"]["mean"]
    return [
        f"{title}, natural logarithm.",
        "",
        "| model | log p(x) | standard error |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"The bound lies at least {gap:.2f} nats below log p(x). {' '.join(notes)}",
    ]


def _variants(entries: dict[str, Any]) -> list[str]:
    rows = {}
    for file, entry in entries.items():
        _, _, ending = file.partition(".")
        cost = "-" if entry["mean_nats"] is None else f"{entry['mean_nats']:.2g}"
        rows[ending] = f"| *.{ending} | {entry['what']} | {cost} |"
    return list(rows.values())


def _tensor(spec: Any) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": ["batch", *spec.shape.as_list()[1:]]}


def _version(package: str) -> str:
    return __version__ if package == "keras-vae" else importlib.metadata.version(package)
