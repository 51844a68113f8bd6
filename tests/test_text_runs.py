"""Runs of texts: from a file of lines to texts that are drawn, scored and served."""

import dataclasses
import itertools
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

from export.pipeline import export
from keras_vae import random
from keras_vae.cli import main
from keras_vae.data import DataError, Vocabulary
from keras_vae.data.preparation import Preparation
from keras_vae.runs import baselines, sequences
from keras_vae.runs.config import RunConfig, RunError
from keras_vae.runs.run import Run
from keras_vae.runs.train import train
from serving.artifact import Artifact
from serving.errors import DtypeError, ServingError, ShapeError, ValueRangeError
from serving.protocol.checks import check_inputs
from serving.protocol.rest import read_predict
from serving.protocol.texts import texts_of
from serving.score.files import schema_and_rows
from serving.score.plan import Job, Part, plan
from serving.score.run import _task
from serving.score.worker import Worker

SMALL = {"hidden": (6,), "latent": 2, "epochs": 2, "batch_size": 24}


def sentences(count: int, seed: int = 0) -> list[str]:
    """Sentences of two or three words, "the" and the longest of them among the first."""
    rng = np.random.default_rng(seed)
    words = [["cat", "dog", "ship"][k] for k in rng.integers(0, 3, count)]
    more = rng.random(count) < 0.5
    return [f"the {'small ' if long else ''}{word}" for word, long in zip(words, more, strict=True)]


def invoke(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(word) for word in words])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts.txt, and the run of a model trained on it."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "texts.txt").write_text("\n".join(sentences(80)) + "\n")
    code, output = invoke(
        *("train", "--data", folder / "texts.txt", "--out", folder / "run", "--tokens", "words"),
        *("--autoregressive", "--word-dropout", 0.2, "--hidden", 6, "--latent", 2),
        *("--epochs", 1, "--batch-size", 24),
    )
    assert code == 0, output
    assert "texts as words, 7 different ones, at most 3 a text" in output
    assert "72 training and 8 test texts" in output
    code, output = invoke("train", "--resume", "--out", folder / "run", "--epochs", 2)
    assert code == 0, output
    assert "Continuing after epoch 1 of 2" in output
    return folder


def test_the_run_keeps_what_the_data_decided(folder: Path) -> None:
    run = Run(folder / "run")
    assert (run.config.likelihood, run.config.network, run.config.longest) == (
        "text",
        "recurrent",
        3,
    )
    assert Vocabulary.load(folder / "run" / "vocabulary.json").coding == run.tokens
    assert "[preparation.vocabulary]" not in (folder / "run" / "config.toml").read_text()
    numbers, _ = run.raw()
    assert numbers.shape == (72, 4)
    lines = (folder / "texts.txt").read_text().splitlines()
    assert set(sequences.of_texts(numbers, run.tokens)) <= set(lines)
    vae = run.load()
    assert vae.event_shape == (4, 7)
    assert vae.likelihood.word_dropout == 0.2


def test_resume_notices_other_texts_of_the_same_words(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "texts.txt").read_text().splitlines()
    (tmp_path / "texts.txt").write_text("\n".join(reversed(lines)) + "\n")
    code, output = invoke(
        *("train", "--resume", "--out", folder / "run", "--epochs", 3),
        *("--data", tmp_path / "texts.txt"),
    )
    assert code == 1
    assert "has changed or other data was given" in output


def test_measured_per_text_and_per_token(folder: Path) -> None:
    code, output = invoke("evaluate", folder / "run", "--num-samples", 5)
    assert code == 0, output
    assert "tokens given the one before" in output
    assert "Per token: ELBO -" in output
    values = json.loads((folder / "run" / "evaluation.json").read_text())
    run = Run(folder / "run")
    test = sequences.of_texts(run.raw()[1], run.tokens)
    steps = sum(len(text.split()) + 1 for text in test)
    step = values["per_step"]
    assert (step["steps"], step["mean_steps"]) == (steps, steps / 8)
    assert step["elbo"] == pytest.approx(8 * values["elbo"]["mean"] / steps, rel=1e-12)
    assert step["perplexity"] == pytest.approx(math.exp(-step["log_marginal"]), rel=1e-12)
    assert values["bits_per_dim"] is None
    assert values["quantity"] == "log-probability"


def test_simple_models_of_tokens_count_them() -> None:
    """Both are probabilities: over all texts of two tokens they sum to at most one."""
    vocabulary = Vocabulary.of(["ab", "b", "ba"])
    how = Preparation(categories=4, vocabulary=vocabulary.coding)
    train_x = vocabulary.ids(["ab", "b", "ba", "b"])
    every = [f"{a}{b}" for a in "ab" for b in "ab"]
    found = baselines.log_probs(train_x, vocabulary.ids(every), how, None, 2)
    counts = Counter("ab.b.ba.b.")
    alone = {token: (counts[token] + 0.25) / 11.0 for token in "ab."}
    names = ["independent tokens", "tokens given the one before"]
    assert list(found) == names
    for text, value in zip(every, found[names[0]], strict=True):
        assert value == pytest.approx(math.log(math.prod(alone[token] for token in f"{text}.")))
    texts = ("ab", "b", "ba", "b")
    pairs = Counter(pair for text in texts for pair in itertools.pairwise(f".{text}."))
    first = Counter(before for before, _ in pairs.elements())
    given = {(a, b): (pairs[a, b] + alone[b]) / (first[a] + 1.0) for a in "ab." for b in "ab."}
    path = itertools.pairwise(".ab.")
    assert found[names[1]][1] == pytest.approx(sum(math.log(given[pair]) for pair in path))


def test_texts_are_drawn_into_files(folder: Path, tmp_path: Path) -> None:
    code, output = invoke("sample", folder / "run", "--n", 5, "--out", tmp_path / "draws.txt")
    assert code == 0, output
    drawn = (tmp_path / "draws.txt").read_text().splitlines()
    run = Run(folder / "run")
    assert drawn == Vocabulary.of_tokens(run.tokens).texts(run.load().sample(5, seed=0))
    code, _ = invoke("sample", folder / "run", "--mean", "--n", 5, "--out", tmp_path / "m.jsonl")
    assert code == 0
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    assert all(set(json.loads(line)) == {"text"} for line in lines)
    assert len(lines) == 5
    code, output = invoke("sample", folder / "run", "--out", tmp_path / "draws.png")
    assert code == 1
    assert "Expected --out to end in .txt or .jsonl" in output
    with pytest.raises(RunError, match=r"several lines.*choose \.jsonl"):
        sequences.write_texts(["a\nb"], tmp_path / "lines.txt")


def test_an_edited_or_lost_vocabulary_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("config.toml", "model.keras", "vocabulary.json", "history.csv"):
        (tmp_path / name).write_bytes((folder / "run" / name).read_bytes())
    path = tmp_path / "vocabulary.json"
    path.write_text(path.read_text().replace("cat", "cow"))
    with pytest.raises(RunError, match=r"\[preparation\] has the digest"):
        Run(tmp_path).load()
    for content in ("[1]", "{}", '{"unit": "words", "tokens": ["a", "a"]}', "\0", None):
        path.unlink() if content is None else path.write_text(content)
        message = r"vocabulary\.json is no vocabulary .*[^.]\. It belongs.* from a backup"
        with pytest.raises(RunError, match=message):
            Run(tmp_path)


def test_report_shows_texts(folder: Path) -> None:
    from keras_vae.report.page import figure_of
    from keras_vae.report.subject import Subject
    from keras_vae.report.text_draws import _texts, text_draws

    subject = Subject.of(Run(folder / "run"), 0)
    assert _texts(subject, [[0, math.nan]]) == ["(empty)"]
    shown = text_draws(subject)
    assert [each.title for each in shown] == [
        "Draws from p(x)",
        "Reconstructions",
        "Interpolations",
    ]
    assert shown[1].rows[0][0] == sequences.of_texts(subject.raw[:1], subject.run.tokens)[0]
    assert len(shown[2].rows) == 5
    text = figure_of(shown[1])
    assert f"<td>{shown[1].rows[0][0]}</td>" in text
    assert "each given those before it" in text


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"a cat\n\na dog\n", {}, r"line 2, is empty; every line is a text"),
        (b"a cat\ncaf\xe9\n", {}, r"line 2, is not UTF-8. Save the file in UTF-8"),
        (b"", {}, r"is empty \(0 bytes\)"),
        (b"a cat\na very long dog\n", {"longest": 5}, r"text 2, has 15 characters, and the most"),
        (b"a\n" * 9, {"network": "conv"}, r"texts are sequences: choose recurrent"),
        (b"a\n" * 9, {"hidden": (4, 5)}, r"the same width for each layer.*got 4, 5"),
        (b"a\n" * 9, {"latents": "codes"}, r"is for arrays and images.*leave it out"),
        (b"a\n" * 9, {"text_column": "words"}, r"no columns: leave the column out"),
        (b"a\n" * 9, {"vocabulary_size": 2}, r"at least 3 tokens.*got 2. Choose a larger size"),
        (b"a\n" * 9, {"likelihood": "normal"}, r"likelihood of their own: leave it out"),
        (b"a\n" * 9 + b"a" * 10001, {}, r"Text 10 has 10001 .*at most 1; .*--longest 10001"),
    ],
)
def test_what_is_no_corpus_is_refused_in_a_sentence(
    content: bytes, options: dict, message: str, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_bytes(content)
    with pytest.raises((DataError, RunError), match=message):
        train(RunConfig(data=str(tmp_path / "texts.txt"), **{**SMALL, **options}), tmp_path / "run")
    assert not (tmp_path / "run" / "config.toml").exists()


def test_texts_in_columns_and_in_json_lines(tmp_path: Path) -> None:
    texts = sentences(20)
    lines = [json.dumps({"words": text, "id": row}) for row, text in enumerate(texts)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    (tmp_path / "texts.csv").write_text("\n".join(["id,words", *(f"1,{text}" for text in texts)]))
    for name in ("texts.jsonl", "texts.csv"):
        config = RunConfig(data=str(tmp_path / name), text_column="words", vocabulary_size=8)
        found = sequences.decided_texts(config)
        assert found.preparation.vocabulary.unknown
        numbers = np.concatenate(sequences.read_texts(found, found.preparation.vocabulary))
        assert (numbers == 1.0).any()
        assert numbers.shape == (20, max(map(len, texts)) + 1)
    (tmp_path / "bad.jsonl").write_text('{"words": "a"}\n{"text": 3}\n["b"]')
    for column, message in (("words", "line 2, has no key 'words'"), ("", "line 1, has no key")):
        with pytest.raises(DataError, match=message):
            sequences.load_texts(tmp_path / "bad.jsonl", column)
    for line, message in (("", "is empty"), ("{", "is no JSON"), ('"\\ud800"', "half of a surrog")):
        (tmp_path / "bad.jsonl").write_text(f'"a"\n{line}\n"b"')
        with pytest.raises(DataError, match=f"line 2, {message}|line 2, holds {message}"):
            sequences.load_texts(tmp_path / "bad.jsonl")
        with pytest.raises(ServingError, match=f"line 2, {message}|line 2, holds {message}"):
            schema_and_rows(tmp_path / "bad.jsonl")
    (tmp_path / "hole.csv").write_text("text,id\na b,1\n,2\n")
    with pytest.raises(DataError, match=r"row 1 \(counted from 0\), holds no text in 'text'"):
        sequences.load_texts(tmp_path / "hole.csv")


@pytest.fixture(scope="module")
def artifact(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    target = tmp_path_factory.mktemp("artifacts") / "texts"
    return Artifact.read(export(folder / "run" / "model.keras", target))


def test_the_manifest_states_the_vocabulary(folder: Path, artifact: Artifact) -> None:
    tokens = Run(folder / "run").tokens
    about = artifact.manifest["observations"]["x"]
    assert about["vocabulary"] == tokens.stated()
    assert "vocabulary" not in about["preparation"]
    assert artifact.signatures["score"].inputs["x"].tokens == tokens
    card = (artifact.path / "MODEL_CARD.md").read_text()
    assert "Texts are numbers of tokens, words between spaces" in card


def test_nothing_follows_the_end_of_a_text(folder: Path, artifact: Artifact) -> None:
    def asked(name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        session = onnxruntime.InferenceSession(artifact.path / "onnx" / f"{name}.onnx")
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, inputs), strict=True))

    run, seeds = Run(folder / "run"), np.asarray(random.row_seeds(3, 64))
    found = asked("sample", seed=seeds)["sample"]
    every = run.load().sample(64, seed=3).numpy().argmax(-1)
    follows = np.cumsum(every == 0, axis=-1) > (every == 0)
    assert np.any(every[follows] > 0)
    np.testing.assert_array_equal(found, np.where(follows, 0, every))
    given = {
        "ended": found,
        "drawn": every.astype(np.float32),
        "as the file": np.where(follows, np.float32("nan"), found),
    }
    bounds = {name: asked("score", x=x, seed=seeds)["elbo"] for name, x in given.items()}
    expected = run.load().elbo(run.preparation.static(given["drawn"]), seed=3).elbo
    for bound in bounds.values():
        np.testing.assert_array_equal(bound, bounds["as the file"])
        np.testing.assert_allclose(bound, expected, atol=1e-5)  # nats, of a few tokens


def test_clients_turn_texts_into_numbers(artifact: Artifact) -> None:
    signature = artifact.signatures["encode"]
    given = ["the cat", "the small dog"]
    found = check_inputs(signature, {"x": given})["x"]
    tokens = signature.inputs["x"].tokens
    np.testing.assert_array_equal(found, Vocabulary.of_tokens(tokens).ids(given))
    np.testing.assert_array_equal(check_inputs(signature, {"x": np.array(given)})["x"], found)
    for texts, message in (
        (["the cat", ""], "the text of row 1 is empty"),
        (["the small small dog"], "row 0 has 4 words, and the most are 3"),
        (["the cow"], "row 0 holds the word 'cow', which is not in the vocabulary"),
    ):
        with pytest.raises(ValueRangeError, match=message):
            check_inputs(signature, {"x": texts})
    with pytest.raises(DtypeError, match=r"a list of texts; got one text. Write \[text\]"):
        check_inputs(signature, {"x": "the cat"})
    body = b'{"signature_name": "encode", "instances": ["the cat"]}'
    with pytest.raises(DtypeError, match=r"numbers of tokens; got texts.*Client\(\.\.\., artifact"):
        read_predict(body, artifact.signatures)
    one_hot = Vocabulary.of_tokens(tokens).one_hot(given)
    assert texts_of(tokens, one_hot) == texts_of(tokens, found) == given
    for numbers, error, message in (
        ([[9]], ValueRangeError, "numbers of tokens from 0 to 6; got others"),
        ([[[1.0]]], ShapeError, r"\[n, T\] or their probabilities \[n, T, 7\]; got shape"),
    ):
        with pytest.raises(error, match=message):
            texts_of(tokens, numbers)
    plain = dataclasses.replace(signature.inputs["x"], tokens=None)
    blind = dataclasses.replace(signature, inputs={"x": plain})
    with pytest.raises(DtypeError, match=r"Client\(\.\.\., artifact=PATH\)"):
        check_inputs(blind, {"x": given})


def test_files_of_texts_are_scored(folder: Path, artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "new.txt"
    path.write_text("the dog\nthe small ship\nthe cat\n")
    job = plan(artifact, path, part_rows=16)
    assert (job.rows, job.columns) == (3, ("text",))
    out = tmp_path / "out"
    out.mkdir()
    worker = Worker(_task(artifact, job, tmp_path, out))
    (part,) = job.parts()
    assert worker.publish(part) == 3
    import pyarrow.parquet as pq

    found = pq.read_table(out / part.name)
    run = Run(folder / "run")
    one_hot = Vocabulary.of_tokens(run.tokens).one_hot(path.read_text().splitlines(), 4)
    bound = run.load().elbo(one_hot, seed=0)
    np.testing.assert_allclose(found["elbo"], bound.elbo, atol=1e-5)  # nats, of a few tokens
    job = plan(artifact, path, part_rows=16, signature="reconstruct", key=("text",))
    worker = Worker(_task(artifact, job, tmp_path, out))
    (part,) = job.parts()
    worker.publish(part)
    found = pq.read_table(out / part.name)
    assert found.column_names == ["file", "row", "text", "mean", "reconstruction"]
    mean = found["mean"].combine_chunks().flatten().to_numpy().reshape(3, 4, 7)
    again = Vocabulary.of_tokens(run.tokens).texts(mean)
    assert found["reconstruction"].to_pylist() == again
    np.testing.assert_allclose(mean, run.load().reconstruct(one_hot), atol=1e-5)  # probabilities
    chosen = plan(artifact, path, signature="reconstruct", outputs=["reconstruction"])
    assert _task(artifact, chosen, tmp_path, out).schema.names[2:] == ["reconstruction"]
    assert Job.from_json(chosen.to_json()) == chosen
    with pytest.raises(ServingError, match="reconstruct has no output 'text'; it has mean, recon"):
        plan(artifact, path, signature="reconstruct", outputs=["text"])
    path.write_text("the dog\nthe cow\n")
    job = plan(artifact, path, part_rows=16)
    with pytest.raises(ServingError, match=r"row 1: the text in 'text' holds the word 'cow'"):
        Worker(_task(artifact, job, tmp_path, out)).publish(Part(job.sources[0], 0, 2, "p"))


def test_names_of_the_special_tokens_in_a_text_are_unknown_words() -> None:
    vocabulary = Vocabulary.of(["a <end> b", "<unknown> a"], "words")
    assert vocabulary.coding.unknown
    assert vocabulary.ids(["a <end> b", "<unknown> b a"]).tolist() == [[2, 1, 3, 0], [1, 3, 2, 0]]
    closed = Vocabulary.of(["a b"], "words").coding
    assert "holds the word '<end>', which is not" in str(closed.problem("a <end>", 9))
    assert "holds the word '<unknown>', which is not" in str(closed.problem("<unknown>", 9))
    assert len(str(closed.problem("x" * 10**5, 9))) < 120
