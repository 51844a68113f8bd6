"""Artifacts from strangers: every change of one is refused, and no path of one leaves it."""

import hashlib
import itertools
import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from artifacts import published
from click.testing import CliRunner
from manifests import reseal

from export.cli import main as export_main
from keras_vae import integrity
from keras_vae.integrity import ArtifactError, observations
from keras_vae.report import tables
from keras_vae.runs.config import RunError
from serving.artifact import Artifact
from serving.deploy import deployment
from serving.errors import ServingError
from serving.explore import site
from serving.ranges import Range

ZEROS = "0" * 64
EVERYWHERE = random.Random(20131220)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return published(tmp_path_factory)


@pytest.fixture
def artifact(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "digits" / "1"))


def refusal(directory: Path) -> str:
    """Returns the message with which an artifact is refused."""
    with pytest.raises(ArtifactError) as found:
        integrity.check(directory)
    return one_sentence(str(found.value), directory)


def one_sentence(text: str, directory: Path) -> str:
    assert text.isprintable(), text
    assert len(text) < 700 + 2 * len(str(directory)), text
    return text


# What is published


def test_what_is_published_is_sealed(original):
    manifest = integrity.check(original)
    assert manifest.is_covered
    assert manifest.entries["schema_version"] == integrity.SCHEMA_VERSION == 2
    assert manifest.entries["files"] == integrity.hashes(original)
    text = (original / "manifest.json").read_bytes()
    digest = manifest.entries["digest"]
    assert text.startswith(b'{\n  "digest": "' + digest.encode())
    zeros = text.replace(digest.encode(), ZEROS.encode(), 1)
    assert hashlib.sha256(zeros).hexdigest() == digest
    assert hashlib.sha256(text).hexdigest() == manifest.sha256
    assert all(any(Path(root).iterdir()) for root, _, _ in os.walk(original))


def as_schema_1(directory: Path) -> None:
    """Rewrites the artifact as an earlier version of the package wrote it."""
    entries = json.loads((directory / "manifest.json").read_text())
    del entries["digest"]
    entries["schema_version"] = 1
    (directory / "manifest.json").write_text(json.dumps(entries, indent=2) + "\n")
    (directory / "assets").mkdir()


def test_schema_1_is_read_and_covers_its_files(artifact):
    as_schema_1(artifact)
    assert not integrity.check(artifact).is_covered
    Artifact.read(artifact).verify()
    (artifact / "onnx" / "decode.onnx").write_bytes(b"")
    assert "onnx/decode.onnx was changed after publishing" in refusal(artifact)


# Every change of one


def flipped(content: bytes, places: int) -> list[bytes]:
    """Yields the content with one bit flipped at many places, cut off, and extended."""
    step = max(1, len(content) // places)
    changes = [content[:-1], content + b"\0", b"", content + content]
    for place in range(EVERYWHERE.randrange(step), len(content), step):
        changed = bytearray(content)
        changed[place] ^= 1 << EVERYWHERE.randrange(8)
        changes.append(bytes(changed))
    return changes


def test_every_byte_counts(artifact):
    count = 0
    for path in sorted(path for path in artifact.rglob("*") if path.is_file()):
        content = path.read_bytes()
        name = path.relative_to(artifact).as_posix()
        for changed in flipped(content, 600 if name == "manifest.json" else 40):
            path.write_bytes(changed)
            said = refusal(artifact)
            assert name in said
            count += 1
        path.write_bytes(content)
    integrity.check(artifact)
    assert count > 1000


VALUES = (None, True, -1, "../x", [1], {"x": 1})


def changes_of(value: Any) -> Any:
    """Yields every value with one field changed, removed or added, at any depth."""
    if isinstance(value, dict):
        yield {**value, "added": 1}
        for key, entry in value.items():
            yield {name: kept for name, kept in value.items() if name != key}
            yield {f"{name}_" if name == key else name: kept for name, kept in value.items()}
            for other in changes_of(entry):
                yield {**value, key: other}
    elif isinstance(value, list):
        yield [*value, 1]
        for index, entry in enumerate(value):
            yield value[:index] + value[index + 1 :]
            for other in changes_of(entry):
                yield [*value[:index], other, *value[index + 1 :]]
    yield from (other for other in VALUES if type(other) is not type(value) or other != value)


def test_every_field_of_the_manifest_counts(artifact):
    path = artifact / "manifest.json"
    entries = json.loads(path.read_text())
    count = 0
    for changed in changes_of(entries):
        path.write_text(json.dumps(changed, indent=2) + "\n")
        refusal(artifact)
        count += 1
    assert count > 1000
    path.write_text(json.dumps(dict(reversed(entries.items())), indent=2) + "\n")
    refusal(artifact)
    path.write_text(json.dumps(entries) + "\n")
    refusal(artifact)


def entries_of(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*"))


def test_every_entry_of_the_directory_counts(artifact, tmp_path):
    outside = Path(shutil.copytree(artifact, tmp_path / "outside"))
    for path in entries_of(artifact):
        inside = path.relative_to(artifact)
        away = tmp_path / "away"
        path.rename(away)
        refusal(artifact)  # removed
        path.symlink_to(outside / inside)
        assert "link" in refusal(artifact)  # the same bytes, elsewhere
        path.unlink()
        path.symlink_to(os.path.relpath(outside / inside, path.parent))
        assert "link" in refusal(artifact)
        path.unlink()
        if away.is_file():
            path.mkdir()
            refusal(artifact)
            path.rmdir()
            os.mkfifo(path)
            refusal(artifact)
        else:
            path.write_bytes(b"")
            refusal(artifact)
        path.unlink()
        away.rename(path)
        for name in (f"{path.name}_", f".{path.name}", f"{path.name}\n", f"a{path.name}"):
            path.rename(path.with_name(name))
            refusal(artifact)
            path.with_name(name).rename(path)
    integrity.check(artifact)


def test_everything_that_is_added_counts(artifact):
    places = [artifact, *(path for path in entries_of(artifact) if path.is_dir())]
    names = ("x", ".hidden", "manifest.json~", "é", "a\nb", "\x1b[31m", "-rf")
    for place, name in itertools.product(places, names):
        path = place / name
        path.write_bytes(b"")
        assert "added" in refusal(artifact)
        path.unlink()
        path.mkdir()
        refusal(artifact)
        path.rmdir()
        path.symlink_to("nowhere")
        refusal(artifact)
        path.unlink()
        os.mkfifo(path)
        refusal(artifact)
        path.unlink()
    integrity.check(artifact)


# What a forger seals anew: refused where it could do harm, whoever sealed it


def seal_anyway(directory: Path, change: Any) -> None:
    """Writes a manifest that is consistent in itself, as a forger would."""
    entries = json.loads((directory / "manifest.json").read_text())
    del entries["digest"]
    change(entries)
    write_sealed(directory, json.dumps({"digest": ZEROS, **entries}, indent=2) + "\n")


def write_sealed(directory: Path, text: str) -> None:
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
    sealed = text.replace(ZEROS, digest, 1).encode(errors="surrogateescape")
    (directory / "manifest.json").write_bytes(sealed)


PATHS = (
    "/etc/passwd",
    "../../../outside.onnx",
    "onnx/../../outside.onnx",
    "onnx/../onnx/decode.onnx",
    "./onnx/decode.onnx",
    "onnx//decode.onnx",
    "onnx/decode.onnx/",
    "onnx\\decode.onnx",
    "C:/decode.onnx",
    "~/decode.onnx",
    "onnx/decode.onnx\n",
    "onnx/\x00",
    ".hidden",
    "onnx/.hidden",
    "",
    "é.onnx",
    "x" * 2000,
    "manifest.json",
)


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_no_path_leaves_the_directory(artifact, path):
    def of_a_signature(entries):
        entries["signatures"]["decode"]["onnx"] = path

    def of_a_file(entries):
        of_a_signature(entries)
        entries["files"][path] = entries["files"]["onnx/decode.onnx"]

    def of_a_variant(entries):
        entries["variants"][path] = {
            "signature": "decode",
            "format": "onnx",
            "precision": "float16",
            "what": "",
            "bytes": 1,
            "mean_nats": None,
            "max_nats": None,
        }

    text = (artifact / "manifest.json").read_text()
    for change in (of_a_signature, of_a_file, of_a_variant):
        seal_anyway(artifact, change)
        refusal(artifact)
        with pytest.raises(ServingError):
            Artifact.read(artifact)
        (artifact / "manifest.json").write_text(text)


def test_a_file_that_is_needed_is_named(artifact):
    def nothing(entries):
        entries["signatures"]["decode"]["onnx"] = None

    seal_anyway(artifact, nothing)
    assert "signatures/decode/onnx: expected a file" in refusal(artifact)


def first(member: str) -> str:
    """Makes a manifest of its digest and one member."""
    return f'{{\n  "digest": "{ZEROS}",\n  {member}\n}}\n'


TEXTS = {
    "nothing": "",
    "another type": "[1, 2]",
    "a word": '"x"',
    "half": '{\n  "digest": "',
    "deep": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "deep lists": "[" * 100_000,
    "not a number": first('"latent_size": NaN'),
    "too large": first('"latent_size": 1e999'),
    "many digits": first(f'"latent_size": {"9" * 5000}'),
    "repeated": first('"name": "a", "name": "b"'),
    "no utf-8": first('"name": "\udcff"'),
    "nul": "\0" * 1000,
    "huge": " " * (2**24 + 1),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_file_that_is_no_manifest_is_refused_in_one_message(artifact, text):
    write_sealed(artifact, text)
    refusal(artifact)


def test_another_schema_is_reported(artifact):
    for version in (0, 3, "2", 2.0, True, None, [2]):
        seal_anyway(artifact, lambda entries, v=version: entries.update(schema_version=v))
        assert "expected schema_version 1 or 2" in refusal(artifact)
    seal_anyway(artifact, lambda entries: entries.update(schema_version=1))
    assert "schema 1 has none" in refusal(artifact)


def test_every_forged_field_is_read_or_refused(artifact, tmp_path):
    """Whatever a field holds, what reads manifests refuses it in a sentence or works."""
    settings = deployment.Settings()
    entries = json.loads((artifact / "manifest.json").read_text())
    del entries["digest"]
    read = 0
    for number, changed in enumerate(changes_of(entries)):
        if number % 4 or not isinstance(changed, dict):
            continue
        seal_anyway(artifact, lambda known, now=changed: (known.clear(), known.update(now)))
        try:
            found = Artifact.read(artifact)
            for part in observations(found.manifest).values():
                Range.of(part)
            found.content(found.signatures["decode"].onnx)
            if changed.get("versions") != entries["versions"]:
                deployment._check(artifact.parent, 1, settings)
        except ServingError as error:
            one_sentence(str(error), artifact)
        else:
            read += 1
    assert read  # a description may be another


# Commands


def said_by_export(*words: Any) -> str:
    result = CliRunner().invoke(export_main, [str(word) for word in words])
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    return line


def test_explore_writes_nothing_of_a_forged_artifact(artifact, tmp_path):
    ort = tmp_path / "ort"
    ort.mkdir()
    for name in site.runtime.FILES:
        (ort / name).write_bytes(b"x")
    genuine = Artifact.read(artifact)
    site.bundle(genuine, ort, tmp_path / "site")
    assert (tmp_path / "site" / "artifact" / "onnx" / "decode.onnx").is_file()
    (artifact / "onnx" / "score.onnx").write_bytes(b"x")
    before = {path for path in tmp_path.rglob("*") if artifact not in path.parents}
    with pytest.raises(ServingError, match="was changed after publishing"):
        site.bundle(genuine, ort, tmp_path / "again")
    assert {path for path in tmp_path.rglob("*") if artifact not in path.parents} == before


@pytest.mark.parametrize("rows", [[1], [{}], {"a": 1}, None, [{"signature": [], "max_abs": "x"}]])
def test_a_report_refuses_a_forged_parity(rows, tmp_path):
    (tmp_path / "parity.json").write_text(json.dumps(rows))
    with pytest.raises(RunError, match="is not a list of comparisons"):
        tables.parity(tmp_path)


FORGED = {
    "weights": lambda path: flip(path / "variables" / "variables.data-00000-of-00001"),
    "a graph": lambda path: (path / "saved_model.pb").write_bytes(b"\x00\xff garbage"),
    "no graph": lambda path: (path / "saved_model.pb").write_bytes(b""),
    "metadata": lambda path: without_metadata(path / "onnx" / "decode.onnx"),
    "an ONNX file": lambda path: (path / "onnx" / "decode.onnx").write_bytes(b"\xff" * 100),
    "warm-up": lambda path: (path / "assets.extra" / "tf_serving_warmup_requests").write_bytes(
        b"\x01" * 40
    ),
}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)


def without_metadata(path: Path) -> None:
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_resealed_artifact_that_cannot_run_is_refused_in_one_message(artifact, forge):
    forge(artifact)
    reseal(artifact)
    line = said_by_export("verify", artifact)
    assert re.match("Error: .*(export the model again|disagree about|damaged)", line), line
    assert len(line) < 1000


def test_another_artifact_than_the_one_meant_is_refused(original):
    found = integrity.read(original).sha256
    other = found.translate(str.maketrans("01", "10"))
    assert f"expected manifest.json with the sha256 {other}" in said_by_export(
        "verify", original, "--sha256", other
    )


def test_a_manifest_that_the_files_contradict_is_refused(artifact):
    reseal(artifact, lambda entries: entries["likelihood"].update(how_to_read="logits"))
    assert "disagree about likelihood" in said_by_export("verify", artifact)
