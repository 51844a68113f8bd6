"""Model card: metadata with the measured bounds, and a text for readers."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["card"]

_BOUNDS = {"elbo": "ELBO", "log_marginal": "log p(x)"}
_PARTS = ("prior", "likelihood", "posterior")


def card(
    repo: str,
    config: dict[str, Any],
    *,
    license: str | None,
    description: str,
    evaluation: dict[str, Any] | None,
    data: str | None,
    artifact: int | None,
) -> str:
    """Writes the model card of a repository.

    Args:
        repo: OWNER/NAME.
        config: configuration of the model, as Keras writes it.
        license: licence of the weights, or None.
        description: text for the top.
        evaluation: content of an `evaluation.json`, or None if nothing was measured.
        data: name of the data set, or None.
        artifact: version of the exported artifact, or None.
    """
    from keras_vae.runs import measurements

    metadata = _metadata(repo, license, evaluation, data, artifact is not None)
    lines = [f"# {repo.split('/')[1]}", ""]
    lines += [description.strip(), ""] if description.strip() else []
    lines += [_model(config), "", "## Use", "", *_use(repo), ""]
    lines += ["## Measurements", "", *measurements.in_markdown(evaluation)]
    if artifact is not None:
        folder = f"artifact/{artifact}"
        lines += [
            "",
            "## Artifact",
            "",
            f"`{folder}` holds verified SavedModel and ONNX files, and their hashes in "
            "`manifest.json`. TensorFlow Serving reads `artifact` as it is. "
            f"[Its card]({folder}/MODEL_CARD.md) describes the data and the signatures.",
        ]
    return f"---\n{metadata}\n---\n\n" + "\n".join(lines) + "\n"


def _metadata(
    repo: str,
    license: str | None,
    evaluation: dict[str, Any] | None,
    data: str | None,
    is_exported: bool,
) -> str:
    from huggingface_hub import ModelCardData

    tags = ["keras_vae", "variational-autoencoder", *(["onnx"] if is_exported else [])]
    return ModelCardData(
        license=license,
        library_name="keras",
        tags=tags,
        model_name=repo.split("/")[1],
        eval_results=_results(evaluation, data or "unnamed") or None,
    ).to_yaml()


def _results(evaluation: dict[str, Any] | None, data: str) -> list[Any]:
    """Returns the measured bounds as the hub's `EvalResult`."""
    from huggingface_hub import EvalResult

    if evaluation is None:
        return []
    results = []
    for key, name in _BOUNDS.items():
        found = evaluation[key]
        method = found.get("method", "one draw of z per example")
        draws = re.search(r"k = (\d+)", method)
        results.append(
            EvalResult(
                task_type="density-estimation",
                task_name="Density estimation",
                dataset_type=data,
                dataset_name=data,
                dataset_split="test",
                metric_type=key,
                metric_name=f"{name}, lower bound, nats per example",
                metric_value=found["mean"],
                metric_args={
                    "unit": "nats per example",
                    "standard_error": found["standard_error"],
                    "examples": evaluation["examples"],
                    "num_examples": found["examples"],
                    "num_samples": int(draws[1]) if draws else 1,
                    "method": method,
                    "quantity": f"{evaluation['quantity']} of {evaluation['data']}",
                },
            )
        )
    return results


def _model(config: dict[str, Any]) -> str:
    """Names the model and its distributions, as its configuration has them."""
    inner = config.get("config", {})
    parts = {
        part: inner[part]["class_name"]
        for part in _PARTS
        if isinstance(inner.get(part), dict) and "class_name" in inner[part]
    }
    named = ", ".join(f"{part} {family}" for part, family in parts.items())
    return f"A `{config['class_name']}` of keras_vae{f': {named}' if named else ''}."


def _use(repo: str) -> list[str]:
    return [
        "```python",
        "import keras_vae",
        "",
        f'vae = keras_vae.from_hub("{repo}")',
        "x = vae.sample(16, seed=0)",
        "```",
        "",
        f"`keras-vae pull {repo} --out DIRECTORY` brings all files of the run.",
    ]
