"""Measurements of `keras-vae evaluate`: their file, and their text for all readers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_vae import estimators, evaluation
from keras_vae.distributions.noise import from_seed
from keras_vae.evaluation.pareto import TRUSTED
from keras_vae.hierarchical import HierarchicalVAE
from keras_vae.model import VAE
from keras_vae.runs.run import read_json
from keras_vae.spelling import counted

__all__ = [
    "SCHEMA_VERSION",
    "Columns",
    "Table",
    "columns",
    "examples",
    "heavy_tails",
    "in_markdown",
    "rate_per_latent",
    "rate_per_level",
    "read",
    "summary",
    "table",
    "use_in_words",
    "use_of_latents",
]

SCHEMA_VERSION = 2
"""Schema version of `evaluation.json`. Since version 2, every number is in the units of the data
file, and all numbers use the same examples."""


_CHUNK = 1000


class Table(NamedTuple):
    """The measurements as text.

    Attributes:
        title: examples, quantity and units.
        rows: name, mean of log p(x) and standard error, the best model first.
        notes: notes on the table.
    """

    title: str
    rows: list[tuple[str, str, str]]
    notes: list[str]


def read(path: Path) -> dict[str, Any] | None:
    """Reads the content of an `evaluation.json`.

    Returns None if there is no file, or one of an earlier version, whose numbers have other units.

    Raises:
        RunError: if the file cannot be read.
    """
    if not path.is_file():
        return None
    values = read_json(path)
    return values if values.get("schema_version") == SCHEMA_VERSION else None


def rate_per_latent(vae: VAE, x: Any, seed: int) -> list[float] | None:
    """Returns the rate of each latent; None where it is not one of normal distributions."""
    if not evaluation.is_normal(vae):
        return None
    return evaluation.rate_per_latent(vae, x, seed=seed).tolist()


def summary(values: Any) -> dict[str, Any]:
    """Returns mean, standard error and number of examples for JSON, which has no NaN."""
    mean, error = evaluation.mean_and_error(values)
    return {
        "mean": mean,
        "standard_error": None if math.isnan(error) else error,
        "examples": len(values),
    }


def rate_per_level(vae: HierarchicalVAE, x: Any, seed: int) -> dict[str, float]:
    """Returns the mean rate of each level by name, from one draw per example."""
    sums: dict[str, float] = dict.fromkeys(vae.blocks, 0.0)
    count = len(keras.tree.flatten(x)[0])
    for start in range(0, count, _CHUNK):
        rows = slice(start, start + _CHUNK)
        batch = keras.tree.map_structure(lambda part, rows=rows: part[rows], x)
        shape = [1, min(_CHUNK, count - start)]
        noise = from_seed(vae.noise(), [seed, start], shape, vae.float_dtype)
        rates = estimators.rates_of(vae.infer(batch).trace(noise))
        sums = {name: sums[name] + float(np.sum(rates[name], dtype=np.float64)) for name in sums}
    return {name: total / count for name, total in sums.items()}


def use_of_latents(vae: VAE | HierarchicalVAE, x: Any, seed: int) -> dict[str, Any]:
    """Measures what the latents carry: the rate of each, or how many codes occur.

    Args:
        vae: the model.
        x: prepared test examples.
        seed: seed of the draws.
    """
    if isinstance(vae, HierarchicalVAE):
        return {
            "rate_per_level": rate_per_level(vae, x, seed),
            "active_units": evaluation.active_units(vae, x),
            "latent_size": vae.latent_size,
        }
    if not vae.posterior.is_discrete:
        return {
            "rate_per_latent": rate_per_latent(vae, x, seed),
            "active_units": evaluation.active_units(vae, x),
            "latent_size": vae.latent_size,
        }
    usage = evaluation.code_usage(vae, x)
    return {
        "codes": {
            "shape": list(usage.shape),
            "num_codes": usage.num_codes,
            "used": usage.used,
            "perplexity": usage.perplexity,
        }
    }


def use_in_words(values: dict[str, Any]) -> str:
    """Describes the content of `use_of_latents`."""
    codes = values.get("codes")
    if codes is None:
        active = f"{values['active_units']} of {counted(values['latent_size'], 'latent')} active"
        levels = values.get("rate_per_level", {})
        rates = ", ".join(f"{name} {rate:.2f}" for name, rate in levels.items())
        return f"{active}; nats per level: {rates}" if rates else active
    size = " x ".join(map(str, codes["shape"]))
    return (
        f"{size} codes, {codes['used']:g} of {codes['num_codes']} used, perplexity "
        f"{codes['perplexity']:.1f}"
    )


def examples(count: int, available: int) -> str:
    """Describes which test examples were used."""
    if count < available:
        return f"the first {count} of {available} test examples"
    return f"all {available} test examples"


def table(values: dict[str, Any]) -> Table:
    """Formats the content of an `evaluation.json` as text.

    Args:
        values: the content.
    """
    vae, kind = values["log_marginal"], values["quantity"]
    rows = [
        (f"VAE, {vae['method']} (lower bound)", vae),
        ("VAE, ELBO (lower bound)", values["elbo"]),
        *values["baselines"].items(),
    ]
    rows.sort(key=lambda row: -row[1]["mean"])
    return Table(
        title=f"{values['examples'].capitalize()}: {kind} of {values['data']}, nats per example",
        rows=[(name, f"{value['mean']:.2f}", _error(value)) for name, value in rows],
        notes=_notes(values),
    )


def in_markdown(values: dict[str, Any] | None) -> list[str]:
    """Formats the content of an `evaluation.json`, or its absence, as lines of Markdown."""
    if not values:
        return ["Not measured. `keras-vae evaluate RUN` measures a run."]
    title, rows, notes = table(values)
    gap = values["log_marginal"]["mean"] - values["elbo"]["mean"]
    return [
        f"{title}, natural logarithm.",
        "",
        "| model | log p(x) | standard error |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"The bound lies at least {gap:.2f} nats below log p(x). {' '.join(notes)}",
    ]


class Columns(NamedTuple):
    """The measurements of the columns of a table as text.

    Attributes:
        title: what is measured.
        header: names of the columns of this table.
        rows: name of the column and its numbers.
        notes: notes on the table.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: list[str]


def columns(values: dict[str, Any]) -> Columns | None:
    """Formats the columns of a table in an `evaluation.json`; None if there are none."""
    if "columns" not in values:
        return None
    hidden = values["hidden_cells"]
    header = ["column", "present", "given z", "alone"]
    if hidden:
        header += ["imputed", "middle"]
    rows = []
    for name, found in values["columns"].items():
        row = [
            name,
            f"{found['present']:.1%}",
            *map(_cell, (found["distortion"], found["independent"])),
        ]
        error = hidden["columns"].get(name) if hidden else None
        if hidden:
            row += ["", ""] if error is None else [_cell(error["error"]), _cell(error["simple"])]
        rows.append(tuple(row))
    notes = [
        f"On average {values['observed_per_row']:.2f} of the {values['variables']} values of a row "
        "are present. given z: -E log p(column | z) of the model, nats per present value, to "
        f"which the rate of {values['rate']['mean']:.2f} nats for the whole row comes; alone: -log "
        "p of independent columns."
    ]
    alone = values["baselines"]["independent columns"]["mean"]
    if values["log_marginal"]["mean"] <= alone:
        notes.append(
            "The model is not better than independent columns, so it has not learned how columns "
            "depend on one another. Train it longer, with more --epochs."
        )
    if hidden:
        least = hidden["least_effective_sample_size"]
        used = [one for one in _ERRORS if one in _measures(hidden)]
        errors, middles = (", ".join(_ERRORS[one][k] for one in used) for k in (0, 1))
        notes.append(
            f"imputed: errors of {hidden['share']:.0%} of the cells of "
            f"{counted(hidden['rows'], 'row')}, hidden at random: {errors}; middle: those of "
            f"{middles}." + ("" if least is None else f" Least effective sample size: {least:.0f}.")
        )
    else:
        notes.append(
            "No column may have missing values in this model, so it imputes nothing; train with "
            "--missing to allow them in every column."
        )
    return Columns("Columns", tuple(header), rows, notes)


_ERRORS = {
    "share wrong": ("the share of labels that is wrong", "the most frequent label"),
    "levels apart": ("the mean distance of ordered levels", "the median level"),
    "error / standard deviation": (
        "the root mean squared error of numbers over the standard deviation",
        "the mean",
    ),
}


def _measures(hidden: dict[str, Any]) -> set[str]:
    return {error["measure"] for error in hidden["columns"].values()}


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def heavy_tails(count: int, of: int) -> str:
    """Explains that so many examples have weights with a heavy tail."""
    return (
        f"For {count} of {counted(of, 'example')} a few draws dominate the importance sampling "
        f"(Pareto-k above {TRUSTED:g}): their log p(x) lies above the value; more draws "
        "(evaluate --num-samples) come closer."
    )


def _notes(values: dict[str, Any]) -> list[str]:
    bits = values["bits_per_dim"]
    notes = [
        f"Distortion {values['distortion']['mean']:.2f}, rate {values['rate']['mean']:.2f} nats; "
        f"{use_in_words(values)}"
        + ("." if bits is None else f"; at most {bits:.3f} bits per dimension.")
    ]
    found = values["log_marginal"]
    if found.get("heavy_tails"):
        notes.append(heavy_tails(found["heavy_tails"], found["examples"]))
    if "per_step" in values:
        notes.append(_per_step(values["per_step"]))
    if "elbo_of_all" in values:
        every = values["elbo_of_all"]
        notes.append(
            f"The ELBO of {examples(every['examples'], every['examples'])} is "
            f"{every['mean']:.2f} (standard error {_error(every)})."
        )
    if values["preparation_nats"]:
        notes.append(
            f"The model sees prepared data ({values['preparation']}); "
            f"{values['preparation_nats']:+.2f} nats for the units of the file are included."
        )
    if values["quantity"] == "log-density":
        notes.append(
            "Log-densities depend on the units of the columns: they compare models of the same "
            "file and are not a number of bits."
        )
    if values["share_at_atoms"] > 0.05:
        notes.append(
            f"{100 * values['share_at_atoms']:.0f} % of the numbers are values that fill at least "
            "1 % of their column. A density has no upper bound there, so the ranking also says how "
            "sharp a spike each model puts on them, not only how well it fits."
        )
    if values.get("condition") and values["baselines"]:
        notes.append(
            "All models are given the label of each example; the simple ones have means or "
            "frequencies of their own for each label."
        )
    if not values["baselines"]:
        notes.append("No simple model of the same quantity applies to this data.")
    return notes


def _per_step(values: dict[str, Any]) -> str:
    """Describes the nats per step of sequences."""
    step = "token" if "perplexity" in values else "step"
    text = (
        f"Per {step}: ELBO {values['elbo']:.3f}, log p(x) {values['log_marginal']:.3f} nats, over "
        f"{values['steps']} {step}s, {values['mean_steps']:.1f} on average"
    )
    if "perplexity" in values:
        text += f" with the end of each text; perplexity at most {values['perplexity']:.2f}"
    return f"{text}."


def _error(value: dict[str, Any]) -> str:
    return "-" if value["standard_error"] is None else f"{value['standard_error']:.2f}"
