"""Manifests made by hand, for tests."""

import json
from pathlib import Path
from typing import Any

from keras_vae import integrity


def seal(directory: Path, signatures: dict[str, Any], **entries: Any) -> None:
    """Writes a manifest with these signatures and, beside what is given, the least there may be."""
    manifest = {
        "name": "m",
        "signatures": signatures,
        "omitted": {},
        "variants": {},
        "data": {
            "shape": [4],
            "dtype": "float32",
            "range": [None, None],
            "one_hot": False,
            "preparation": {"step": "none", "divide": 1.0, "sentence": "as in the file"},
            "preparation_is_inside": True,
        },
        "likelihood": {"family": "Normal", "parameters": [], "options": {}, "how_to_read": ""},
        "posterior": {"family": "DiagonalNormal", "parameters": []},
        "prior": {"family": "StandardNormal", "components": 1},
        "latent_size": 2,
        "condition_shape": None,
        "seed_protocol": dict.fromkeys(
            ("generator", "key", "counter", "streams", "uniform", "row_seeds"), ""
        ),
        "weights_digest": "0" * 64,
        "training": {},
        "versions": {"tensorflow": "2.21.0"},
    }
    integrity.seal(directory, {**manifest, **entries})


def reseal(directory: Path, change: Any = lambda entries: None) -> None:
    """Changes the manifest of an artifact as its publisher could, files and digest included."""
    entries = json.loads((directory / integrity.MANIFEST).read_text())
    change(entries)
    for key in ("digest", "schema_version", "files"):
        entries.pop(key, None)
    integrity.seal(directory, entries)
