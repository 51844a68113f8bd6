"""Model card: what a manifest says, for readers."""

from typing import Any

from keras_vae.integrity import codes_of
from keras_vae.runs import measurements
from keras_vae.spelling import counted

__all__ = ["model_card"]

_COLUMNS = 50
_LABELS = 12


def model_card(manifest: dict[str, Any]) -> str:
    """Renders the model card in Markdown."""
    training = manifest["training"]
    lines = [f"# {manifest['name']}", "", *(_parts(manifest) or _alone(manifest)), ""]
    trained_in = manifest["precision"]["trained_in"]
    if trained_in != ["float32"]:
        lines += [f"Trained under {' and '.join(trained_in)}; computes in float32 here.", ""]
    if manifest["condition_shape"] is not None:
        lines += [_condition(manifest), ""]
    lines += ["## Measurements", "", *measurements.in_markdown(training.get("evaluation"))]
    config = training.get("config")
    if config:
        beta = training["final_beta"]
        lines += [
            "",
            "## Training",
            "",
            f"Data {config['data']}, {counted(config['epochs'], 'epoch')} of batches of "
            f"{config['batch_size']}, Adam at {config['learning_rate']}, objective "
            f"{config['objective']} with {config['num_samples']} "
            f"{'draw' if config['num_samples'] == 1 else 'draws'}, "
            f"{'no beta' if beta is None else f'final beta {beta:g}'}, seed {config['seed']}.",
        ]
    if known := manifest.get("calibration"):
        lines += [
            "",
            "## P-values",
            "",
            "The output `p_value` of `score` is (1 + the number of calibration scores that are at "
            f"least as high) / (1 + n). The score is -elbo and n = {known['n']}, so no p-value is "
            f"below {known['least_p_value']:.2g}. Small p-values are of unusual examples. "
            f"{known['validity']}",
        ]
    if manifest["variants"]:
        lines += ["", "## Variants", "", "| files | what | nats per example |", "|---|---|---|"]
        lines += _variants(manifest["variants"])
    if manifest["omitted"]:
        lines += ["", "## Without an ONNX form", ""]
        lines += [f"- {reason}" for reason in manifest["omitted"].values()]
    lines += ["", f"Weights: sha256 {manifest['weights_digest']}.", ""]
    return "\n".join(lines)


def _condition(manifest: dict[str, Any]) -> str:
    """Describes the condition: its shape, and the classes if it is a label."""
    text = f"Conditional: shape {tuple(manifest['condition_shape'])} beside each x"
    classes = (manifest["training"].get("config") or {}).get("classes")
    if not classes:
        return f"{text}."
    return f"{text}, the label one-hot in this order: {', '.join(map(_cell, classes))}."


def _alone(manifest: dict[str, Any]) -> list[str]:
    """Describes a model of a single x."""
    data, likelihood = manifest["data"], manifest["likelihood"]
    names = data.get("feature_names")
    absent = " Entries may be absent, which are NaN." if data.get("missing") else ""
    return [
        f"{_model(manifest)}: prior {manifest['prior']['family']}, likelihood "
        f"{likelihood['family']}, posterior {manifest['posterior']['family']}.",
        "",
        "## Data",
        "",
        f"Examples of shape {tuple(data['shape'])} as float32 in the units of the data file, "
        f"{_range_in_words(*data['range'])}.{absent} Prepared inside the graphs: "
        f"{data['preparation']['sentence']}.",
        "",
        *([_columns(names), ""] if names else []),
        *_texts(manifest),
        f"How to read p(x | z): {likelihood['how_to_read']}",
    ]


def _texts(manifest: dict[str, Any]) -> list[str]:
    """Describes the tokens of texts; nothing for other data."""
    about = manifest.get("observations", {}).get("x", {}).get("vocabulary")
    if about is None:
        return []
    unit = "characters" if about["unit"] == "characters" else "words between spaces"
    others = (
        "token 1 stands for others" if about["unknown"] else "a text with others has no probability"
    )
    return [
        f"Texts are numbers of tokens, {unit}: a text ends with token 0, and {others}. What "
        "follows the end is not read; draws repeat the end there. The manifest has the "
        f"{counted(len(about['tokens']), 'token')}.",
        "",
    ]


def _parts(manifest: dict[str, Any]) -> list[str]:
    """Describes a model of named parts, which are a table; nothing for any other model."""
    if "data" in manifest:
        return []
    entries = manifest["observations"]
    rows = [
        f"| {_cell(name)} | `{entry['tensors']['x']}` | {tuple(entry['shape'])} | "
        f"{entry['family']} | {_cell(_values(entry))} | {'yes' if entry['missing'] else ''} |"
        for name, entry in entries.items()
    ]
    readings = {entry["family"]: entry["how_to_read"] for entry in entries.values()}
    given = "the latents" if "structure" in manifest else "z"
    return [
        f"{_model(manifest, f' of {len(entries)} named parts')}: prior "
        f"{manifest['prior']['family']}, posterior {manifest['posterior']['family']}. The parts "
        f"are independent given {given}.",
        "",
        "## Data",
        "",
        "Parts as float32 in the units of the data file; they are prepared inside the graphs. An "
        "absent value is NaN, and may stand where the last column says so. Categories are codes.",
        "",
        "| part | tensor | shape | likelihood | values | may be absent |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "How to read p(part | z):",
        "",
        *(f"- {family}: {reading}" for family, reading in readings.items()),
    ]


def _latents(manifest: dict[str, Any]) -> str:
    """Describes the latents: their number, or the codes that they hold."""
    codes = codes_of(manifest)
    if codes is None:
        return counted(manifest["latent_size"], "latent")
    return f"{' x '.join(map(str, codes['shape']))} codes of {codes['num_codes']}"


def _model(manifest: dict[str, Any], what: str = "") -> str:
    """Names the model and its latents."""
    if "structure" not in manifest:
        return f"A variational autoencoder{what} with {_latents(manifest)}"
    latents = ", ".join(
        f"{_cell(name)} `{entry['tensor']}` {tuple(entry['shape'])}"
        for name, entry in manifest["latents"].items()
    )
    return f"A {manifest['structure']}{what} with the latents {latents}"


def _values(entry: dict[str, Any]) -> str:
    """Describes the values of a part: its categories in the order of their codes, or its range."""
    labels = entry["categories"]
    if not labels:
        return _range_in_words(*entry["range"])
    rest = len(labels) - _LABELS
    return ", ".join(map(str, labels[:_LABELS])) + (f" and {rest} more" if rest > 0 else "")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


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


def _variants(entries: dict[str, Any]) -> list[str]:
    rows = {}
    for file, entry in entries.items():
        _, _, ending = file.partition(".")
        cost = "-" if entry["mean_nats"] is None else f"{entry['mean_nats']:.2g}"
        rows[ending] = f"| *.{ending} | {entry['what']} | {cost} |"
    return list(rows.values())
