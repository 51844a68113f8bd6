"""Manifest: everything a consumer needs to use an artifact without Python."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from export.calibration import CALIBRATION_SEED
from export.parity import Comparison
from keras_vae import __version__, random
from keras_vae.conformal import Conformal
from keras_vae.distributions import Likelihood
from keras_vae.distributions.codes import CodePosterior, CodePrior
from keras_vae.distributions.noise import Noise, centre
from keras_vae.distributions.tfp import tfd
from keras_vae.integrity import as_word
from keras_vae.latent_variable_model import LatentVariableModel
from keras_vae.model import VAE
from keras_vae.runs.weights import digest
from keras_vae.signatures import Preparations, RawPart, Signature, raw_parts

__all__ = ["build", "metadata", "properties", "stated"]

_OF_THE_ARTIFACT = frozenset(
    {"digest", "schema_version", "name", "signatures", "omitted"}
    | {"variants", "training", "versions", "files"}
)
_PACKAGES = ("keras-vae", "tensorflow", "keras", "tensorflow-probability", "tf2onnx", "onnx")
_SEED_PROTOCOL: dict[str, Any] = {
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
_OF_IMPUTATIONS = {
    "choice of a weighted z, imputed": random.RESAMPLING,
    "x given z, imputed": random.IMPUTED + random.OBSERVATION,
}
_OF_PARTS = {
    "counter": "(block, index, stream, 0), block = 0, 1, 2, ...; word i is word i mod 4 of block "
    "i / 4; index is 0 for z, and the place of a part in observations, from 0 on",
}
_OF_STRUCTURES = {
    "counter": "(block, index, stream, 0), block = 0, 1, 2, ...; word i is word i mod 4 of block "
    "i / 4; index and stream of a latent stand in latents, and the index of a part is its place "
    "in observations, from 0 on",
}


def metadata(
    vae: LatentVariableModel,
    preparation: Preparations = None,
    trained_in: Sequence[str] = (),
    num_samples: int = 0,
    calibration: Conformal | None = None,
) -> dict[str, Any]:
    """Describes the model itself, as the manifest states it.

    Args:
        vae: the model, whose layers compute in float32.
        preparation: how raw numbers become data, as for `keras_vae.signatures`.
        trained_in: dtype policies of the trained model, if other than float32.
        num_samples: draws of `impute` and `classify`; 0 where there are none.
        calibration: calibration of the p-values of `score`; None where there are none.
    """
    parts, own = vae.data.parts, _of_vae(vae) if isinstance(vae, VAE) else _of_structure(vae)
    layers = _layers(vae)
    observations = {
        name: _observation(layers[name], part, vae.data.feature_names)
        for name, part in raw_parts(vae, preparation).items()
    }
    is_named = vae.data.is_dict or len(observations) > 1
    imputes = num_samples > 0 and any(each["missing"] for each in observations.values())
    protocol = _SEED_PROTOCOL | (_OF_PARTS if is_named else {})
    if not isinstance(vae, VAE):
        protocol |= _OF_STRUCTURES
    if imputes:
        protocol["streams"] = {**_SEED_PROTOCOL["streams"], **_OF_IMPUTATIONS}
    return {
        **({} if is_named else _only(next(iter(observations.values())))),
        **({"imputation": {"num_samples": num_samples}} if imputes else {}),
        **({} if calibration is None else {"calibration": _calibration(calibration)}),
        "observations": observations,
        **own,
        "condition_shape": list(parts["condition"].shape) if "condition" in parts else None,
        "precision": {"trained_in": list(trained_in) or ["float32"], "exported_in": "float32"},
        "seed_protocol": protocol,
        "weights_digest": digest(vae),
    }


def _of_vae(vae: VAE) -> dict[str, Any]:
    """Describes the latent vector of a VAE."""
    components = vae.prior.components()
    posterior = {
        "family": type(vae.posterior).__name__,
        "parameters": list(vae.posterior.parameter_specs()),
    }
    prior = {
        "family": type(vae.prior).__name__,
        "components": 1 if components is None else len(components.loc),
        "standard": vae.prior.is_standard,
    }
    return {
        "latents": {
            "z": {
                "shape": [vae.latent_size],
                **_codes(vae),
                **({} if vae.posterior.is_discrete else {"support": _support(vae.posterior)}),
                "posterior": posterior,
                "prior": prior,
            }
        },
        "posterior": posterior,
        "prior": prior,
        "latent_size": vae.latent_size,
    }


def _calibration(calibration: Conformal) -> dict[str, Any]:
    """Describes the calibration of the p-values."""
    return {
        "output": "p_value",
        "score": "-elbo of the signature score, nats; one draw of z from the row's seed",
        "seed": CALIBRATION_SEED,
        "validity": "P(p_value <= a) <= a for every a from 0 to 1, if the example is exchangeable "
        f"with the {calibration.n} calibration examples, which the model was not trained on. The "
        "probability is over the example and the calibration examples. It does not hold after a "
        "drift of the data.",
        "least_p_value": 1.0 / (calibration.n + 1),
        **calibration.get_config(),
    }


def _support(layer: Any) -> str:
    """Returns where the latents of a layer lie: any vector, or vectors of length 1."""
    return "sphere" if getattr(layer, "on_sphere", False) else "reals"


def _codes(vae: VAE) -> dict[str, Any]:
    """Describes the codes of a discrete latent; nothing if it is continuous."""
    codes = vae.posterior
    if not isinstance(codes, CodePosterior):
        return {}
    is_drawn = isinstance(vae.prior, CodePrior) and vae.prior.is_uniform
    about = {"shape": list(codes.codes_shape), "num_codes": codes.num_codes}
    return {"codes": {**about, "code_size": codes.code_size, "uniform": is_drawn}}


def _of_structure(model: LatentVariableModel) -> dict[str, Any]:
    """Describes the latents of a model of another structure, each with its noise from p and q."""
    trace, noise = model.centre_trace(), {"p": model.generation_noise(), "q": model.noise()}
    latents: dict[str, Any] = {}
    for name in noise["p"]:
        found = trace.latents[name]
        layer: Any = found.layer
        specs = layer.parameter_specs() if hasattr(layer, "parameter_specs") else {}
        q = "" if found.q is None else _family_of(found.q(False))
        latents[name] = {
            "tensor": f"z_{as_word(name)}" if len(noise["p"]) > 1 else "z",
            "shape": list(found.value.shape[2:]),
            "support": _support(layer),
            "posterior": {
                "family": q if layer is None else type(layer).__name__.strip("_"),
                "parameters": list(specs),
            },
            "prior": {"family": _family_of(found.p), "components": 1, "standard": False},
            "noise": {key: _noise(each[name]) for key, each in noise.items() if name in each},
        }
    families = {
        key: ", ".join(dict.fromkeys(each[key]["family"] for each in latents.values()))
        for key in ("posterior", "prior")
    }
    return {
        "structure": type(model).__name__,
        "latents": latents,
        "posterior": {"family": families["posterior"], "parameters": []},
        "prior": {"family": families["prior"], "components": 1, "standard": False},
        "latent_size": sum(math.prod(each["shape"]) for each in latents.values()),
    }


def _layers(model: LatentVariableModel) -> dict[str, Likelihood]:
    """Returns the likelihoods of the parts of a model's data, by name."""
    if isinstance(model, VAE):
        return model.likelihood.by_part()
    part = model.data.parts.get("condition")
    condition = None if part is None else tf.zeros([1, *part.shape], model.float_dtype)
    noise = centre(model.generation_noise(), [1], model.float_dtype)
    sites = model.generated(noise, condition=condition).observations
    return {name: site.layer for name, site in sites.items()}


def _family_of(p: tfd.Distribution) -> str:
    """Returns the name of the distribution of each entry."""
    return type(p.distribution if isinstance(p, tfd.Independent) else p).__name__.strip("_")


def _noise(noise: Any) -> list[dict[str, Any]]:
    """Describes the numbers that a draw takes."""
    return [
        {"kind": one.kind, "shape": list(one.shape), "stream": one.stream, "index": one.index}
        for one in tf.nest.flatten(noise)
        if isinstance(one, Noise)
    ]


def _observation(
    layer: Likelihood, part: RawPart, feature_names: Sequence[str] | None
) -> dict[str, Any]:
    """Describes a part of the data and its likelihood."""
    support, how, column = layer.support, part.how, part.column
    found = {name: getattr(layer, name, None) for name in layer.options()}
    config = layer.get_config() if layer.of_condition else {}
    found |= {name: config[name] for name in layer.of_condition if name in config}
    parameters = [*layer.parameter_specs(), *layer.shared_parameters()]
    preparation, tokens = dataclasses.asdict(how), how.vocabulary
    del preparation["vocabulary"]
    kinds = ("x", "mean", "sample", "distortion", *(["value"] if layer.missing else []))
    return {
        "tensors": {name: part.tensor(name) for name in (*kinds, *parameters)},
        "shape": list(part.shape),
        "range": list(part.range),
        "open_range": part.is_open,
        "one_hot": part.is_one_hot,
        "whole": part.is_whole,
        "grid": part.grid,
        "missing": layer.missing,
        "missing_values": [] if column is None else list(column.missing_values),
        "threshold": layer.is_threshold,
        "categories": None if column is None else list(column.categories) or None,
        "feature_names": None if feature_names is None else list(feature_names),
        "kind": None if column is None else column.kind,
        "dtype": None if column is None else column.dtype,
        "preparation": preparation,
        **({} if tokens is None else {"vocabulary": tokens.stated()}),
        "family": type(layer).__name__,
        "parameters": parameters,
        "options": {k: value for k, value in found.items() if isinstance(value, str | int | float)},
        "support": support.description,
        "how_to_read": layer.reading,
        "discrete": support.is_discrete,
    }


def _only(x: dict[str, Any]) -> dict[str, Any]:
    """Describes the only part of the data as all manifests do."""
    data = ("shape", "range", "open_range", "one_hot", "whole", "missing", "feature_names")
    likelihood = ("family", "parameters", "options", "how_to_read", "discrete", "threshold")
    return {
        "data": {
            **{key: x[key] for key in (*data, "preparation")},
            "dtype": "float32",
            "preparation_is_inside": True,
        },
        "likelihood": {key: x[key] for key in likelihood},
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


def _tensor(spec: Any) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": ["batch", *spec.shape.as_list()[1:]]}


def _version(package: str) -> str:
    return __version__ if package == "keras-vae" else importlib.metadata.version(package)
