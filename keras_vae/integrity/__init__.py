"""Integrity: checks that a directory is what was published, entry by entry and byte by byte.

`manifest.json` names every other file of an artifact with its SHA-256. Since schema 2 it also
covers itself: its first member is `digest`, the SHA-256 of the file with 64 zeros in place of the
digest. The directory holds only those files: no links, no hidden or empty directories.

Anyone who can write the directory can seal it again. Only the SHA-256 of `manifest.json`, compared
with the one that its publisher stated elsewhere, tells a consistent forgery from the original.
"""

from keras_vae.integrity.entries import SCHEMA_VERSION, schema
from keras_vae.integrity.files import MANIFEST, ArtifactError, check_file, content, hashes
from keras_vae.integrity.manifest import WEIGHTS, Manifest, check, read, seal
from keras_vae.integrity.names import as_word, is_name, one_line
from keras_vae.integrity.observations import (
    Observation,
    codes_of,
    is_standard,
    observation_of,
    observations,
)
from keras_vae.tokens import Tokens

__all__ = [
    "MANIFEST",
    "SCHEMA_VERSION",
    "WEIGHTS",
    "ArtifactError",
    "Manifest",
    "Observation",
    "Tokens",
    "as_word",
    "check",
    "check_file",
    "codes_of",
    "content",
    "hashes",
    "is_name",
    "is_standard",
    "observation_of",
    "observations",
    "one_line",
    "read",
    "schema",
    "seal",
]
