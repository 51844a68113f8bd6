"""Every runtime gives the model's numbers, refuses what it should, and says what it lacks."""

import ast
import contextlib
import dataclasses
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae
from export import onnx_graphs, saved_model
from export.cases import Case, read_answers, read_cases, write_answers, write_cases
from export.runtimes import RUNTIMES, RuntimeFailure, __main__, needs
from export.runtimes.python.browser import Site
from keras_vae import random
from keras_vae.data.preparation import Preparation
from keras_vae.signatures import Signature, signatures

BATCHES = (0, 1, 2, 7)
ALONE = (0, 3, 6)  # rows of the largest batch that come again by themselves
WORDS = 10  # two and a half blocks of the generator
EXAMPLES = Path(needs.__file__).parent / "examples"
FILES = {  # what a runtime reads first
    "onnx": "onnx/decode.onnx",
    "saved_model": "saved_model.pb",
}


@pytest.fixture(scope="module")
def vae():
    keras.utils.set_random_seed(7)
    return keras_vae.mlp_vae((4, 4, 1), 3, "bernoulli", hidden=(16,))


@pytest.fixture(scope="module")
def table(vae):
    """Returns the five signatures, raw words of the generator, and imputations of named parts."""
    words = Signature(
        "bits",
        lambda seed: {"bits": random.bits(seed, WORDS, stream=16)},
        {"seed": tf.TensorSpec([None, 2], tf.int32, "seed")},
        ("bits",),
        "Words of the generator.",
    )
    parts = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Parts(
            {
                "age": keras_vae.Normal(1, missing=True),
                "label": keras_vae.Categorical(3, missing=True),
                "pixels": keras_vae.Bernoulli((2, 2), missing=True),
            }
        ),
        posterior=keras_vae.DiagonalNormal(2, network=keras_vae.PartsEncoder()),
    )
    imputed = signatures(parts, {"label": Preparation(categories=3)}, num_samples=5)["impute"]
    return {**signatures(vae), "bits": words, "impute": imputed}


@pytest.fixture(scope="module")
def artifact(vae, table, tmp_path_factory):
    directory = tmp_path_factory.mktemp("artifact") / "1"
    functions = {name: onnx_graphs.traced(signature) for name, signature in table.items()}
    saved_model.write(functions, directory)
    (directory / "onnx").mkdir()
    for name, signature in table.items():
        onnx_graphs.convert(signature).save(directory / "onnx" / f"{name}.onnx")
    return directory


def draw(generator, name, spec, batch):
    shape = [batch, *spec.shape[1:]]
    if name == "seed":
        return generator.integers(-(2**31), 2**31, shape).astype(np.int32)
    if name.startswith("x"):
        values = generator.integers(0, 2, shape).astype(np.float32)
        return (
            values
            if name == "x"
            else np.where(generator.random(shape) < 0.4, np.float32(np.nan), values)
        )
    return generator.standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def cases(table):
    """Makes for each signature all batches, single rows, a wrong shape, and a batch again.

    Where it takes data, the batch comes a third time, in which each part has a number in a row of
    its own that is no data: half a pixel, half a category, infinity.
    """
    generator = np.random.default_rng(0)
    result = []
    for name, signature in table.items():
        inputs = signature.inputs.items()
        for batch in BATCHES if name != "impute" else filter(None, BATCHES):
            tensors = {key: draw(generator, key, spec, batch) for key, spec in inputs}
            result.append(Case(name, tensors, signature.outputs, "batch"))
        for row in ALONE:
            part = {key: value[row : row + 1] for key, value in tensors.items()}
            result.append(Case(name, part, signature.outputs, f"row {row}"))
        wrong = {key: np.concatenate([value, value], axis=1) for key, value in tensors.items()}
        result.append(Case(name, wrong, signature.outputs, "wrong"))
        result.append(Case(name, tensors, signature.outputs, "batch"))
        if data := [key for key in tensors if key.startswith("x")]:
            unlike = {key: value.copy() for key, value in tensors.items()}
            for row, key in enumerate(data):
                unlike[key].reshape(BATCHES[-1], -1)[row, 0] = np.inf if key == "x_age" else 0.5
            result.append(Case(name, unlike, signature.outputs, f"{len(data)} impossible"))
    return result


@pytest.fixture(scope="module")
def expected(table, cases):
    """Computes the answers of the live model."""
    return [
        None
        if case.kind == "wrong"
        else {k: v.numpy() for k, v in table[case.signature].function(**case.inputs).items()}
        for case in cases
    ]


@pytest.fixture(scope="module")
def asked(artifact, cases, tmp_path_factory):
    directory = tmp_path_factory.mktemp("cases")
    write_cases(directory, cases, saved_model.tensor_names(artifact))
    return directory


@pytest.fixture(scope="module", params=list(RUNTIMES))
def answered(request, artifact, asked, tmp_path_factory):
    """Runs all cases in a runtime; a missing runtime is a failure."""
    runtime = RUNTIMES[request.param]
    assert runtime.missing() is None
    directory = tmp_path_factory.mktemp(runtime.name)
    runtime.run(artifact, asked, directory)
    return SimpleNamespace(name=runtime.name, answers=read_answers(directory))


def pairs(cases, expected, answered, signature, output):
    for case, want, got in zip(cases, expected, answered.answers, strict=True):
        if case.signature == signature and want is not None:
            assert isinstance(got, dict), got
            yield case, want[output], got[output]


def test_outputs_have_the_shape_and_type_of_the_model(cases, expected, answered):
    for want, got in zip(expected, answered.answers, strict=True):
        if want is not None:
            assert isinstance(got, dict), got
            described = {name: (value.shape, value.dtype) for name, value in got.items()}
            assert described == {name: (v.shape, v.dtype) for name, v in want.items()}


def test_words_of_the_generator_are_equal(cases, expected, answered):
    for _, want, got in pairs(cases, expected, answered, "bits", "bits"):
        np.testing.assert_array_equal(got, want)


def test_absent_values_are_imputed_alike(cases, expected, answered):
    """Draws are equal, for no uniform lies at a threshold; means are sums of float32."""
    outputs = [f"{kind}_{part}" for kind in ("value", "sample") for part in ("label", "pixels")]
    for output in outputs:
        for _, want, got in pairs(cases, expected, answered, "impute", output):
            np.testing.assert_array_equal(got, want)
    for output in ("sample_age", "mean_age", "mean_label", "mean_pixels", "ess"):
        for case, want, got in pairs(cases, expected, answered, "impute", output):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
            if output == "mean_age" and "impossible" not in case.kind:
                given = ~np.isnan(case.inputs["x_age"])
                np.testing.assert_array_equal(got[given], case.inputs["x_age"][given])


def test_latents_from_a_seed_are_within_2e_6(cases, expected, answered):
    for _, want, got in pairs(cases, expected, answered, "sample", "z"):
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


def test_draws_differ_only_where_a_uniform_is_at_its_threshold(vae, cases, expected, answered):
    for (case, want, got), (_, mean, _) in zip(
        pairs(cases, expected, answered, "sample", "sample"),
        pairs(cases, expected, answered, "sample", "mean"),
        strict=True,
    ):
        seed = tf.constant(case.inputs["seed"])
        u = random.uniform(seed, vae.event_shape, stream=random.OBSERVATION).numpy()
        assert set(np.unique(got)) <= {0.0, 1.0}
        assert (np.abs(u - mean)[got != want] < 1e-6).all()


@pytest.mark.parametrize(
    ("signature", "output", "tolerance"),
    [
        ("decode", "mean", 1e-5),
        ("decode", "logits", 1e-5),
        ("encode", "loc", 1e-5),
        ("encode", "scale", 1e-5),
        ("sample", "mean", 1e-5),
        ("reconstruct", "mean", 1e-5),
        ("score", "elbo", 1e-3),  # nats, and so are the next two
        ("score", "distortion", 1e-3),
        ("score", "rate", 1e-3),
    ],
)
def test_numbers_are_those_of_the_model(cases, expected, answered, signature, output, tolerance):
    compared = list(pairs(cases, expected, answered, signature, output))
    assert len(compared) >= len(BATCHES) + len(ALONE)
    for _, want, got in compared:
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)


def test_row_alone_is_the_row_in_a_batch(cases, answered):
    whole = {}
    for case, answer in zip(cases, answered.answers, strict=True):
        if case.kind == "batch":
            whole[case.signature] = answer
        elif case.kind.startswith("row"):
            row = int(case.kind.split()[1])
            for name, alone in answer.items():
                among = whole[case.signature][name][row : row + 1]
                # ELBO and distortion are sums of 16 terms, and rounded at about 10 nats.
                tolerance = 1e-5 if case.signature == "score" else 1e-6
                tolerance = 0.0 if name in ("bits", "sample") else tolerance
                np.testing.assert_allclose(alone, among, rtol=0, atol=tolerance)


def test_rows_of_impossible_data_are_nan_and_no_others(cases, answered):
    asked = []
    for case, answer in zip(cases, answered.answers, strict=True):
        if "impossible" in case.kind:
            count = int(case.kind.split()[0])
            for name, value in answer.items():
                assert np.isnan(value[:count]).all(), (case.signature, name)
                assert np.isfinite(value[count:]).all(), (case.signature, name)
            asked.append(case.signature)
    assert asked == ["encode", "reconstruct", "score", "impute"]


def test_refused_case_is_an_error_of_that_case(cases, answered):
    refused = [
        answer for case, answer in zip(cases, answered.answers, strict=True) if case.kind == "wrong"
    ]
    assert len(refused) == 7
    for answer in refused:
        assert isinstance(answer, str)
        assert 5 < len(answer) <= 500


@pytest.fixture(scope="module")
def one_case(artifact, tmp_path_factory):
    directory = tmp_path_factory.mktemp("one-case")
    case = Case("decode", {"z": np.zeros((1, 3), np.float32)}, ("mean",))
    write_cases(directory, [case], saved_model.tensor_names(artifact))
    return directory


@pytest.mark.parametrize("name", RUNTIMES)
def test_damaged_model_is_a_failure_in_one_sentence(name, artifact, one_case, tmp_path):
    runtime = RUNTIMES[name]
    damaged = tmp_path / "artifact"
    shutil.copytree(artifact, damaged)
    file = damaged / FILES[runtime.format]
    file.write_bytes(file.read_bytes()[:200] + b"\xff" * 200)
    with pytest.raises(RuntimeFailure, match=rf"^{name}: the .* cannot be loaded: [^\n]+$"):
        runtime.run(damaged, one_case, tmp_path / "answers")
    assert not (tmp_path / "answers" / "answers.txt").exists() or name == "c"


def test_unknown_type_is_an_error_of_the_case(artifact, tmp_path):
    good = Case("decode", {"z": np.zeros((1, 3), np.float32)}, ("mean",))
    wide = Case("decode", {"z": np.zeros((1, 3), np.float64)}, ("mean",))
    write_cases(tmp_path, [wide, good], saved_model.tensor_names(artifact))
    for name in ("onnxruntime", "reference", "openvino", "node", "c"):
        RUNTIMES[name].run(artifact, tmp_path, tmp_path / name)
        refused, answer = read_answers(tmp_path / name)
        assert isinstance(refused, str), name
        assert answer["mean"].shape == (1, 4, 4, 1), name


def test_case_without_tensor_names_is_an_error_in_c(artifact, tmp_path):
    write_cases(tmp_path, [Case("decode", {"z": np.zeros((1, 3), np.float32)}, ("mean",))])
    RUNTIMES["c"].run(artifact, tmp_path, tmp_path / "answers")
    assert read_answers(tmp_path / "answers") == ["the SavedModel has no tensor - for z"]


SENTENCES = {
    "onnxruntime": "the Python package onnxruntime is not installed; run `pip install onnxruntime`",
    "reference": "the Python package onnx is not installed; run `pip install onnx`",
    "openvino": "the Python package openvino is not installed; run `pip install openvino`",
    "node": "there is no node on the path; run `apt-get install nodejs`",
    "browser": "there is no Chromium; run `apt-get install chromium`",
    "saved_model": "the Python package tensorflow is not installed; run `pip install tensorflow`",
    "c": "the Python package tensorflow is not installed; run `pip install tensorflow`",
}


@pytest.mark.parametrize("name", RUNTIMES)
def test_missing_runtime_says_what_to_install(name, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert RUNTIMES[name].missing() == f"{name}: {SENTENCES[name]}"
    with pytest.raises(RuntimeFailure, match=re.escape(SENTENCES[name])):
        RUNTIMES[name].run(tmp_path, tmp_path, tmp_path)


def test_missing_compiler_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    lack = RUNTIMES["c"].missing()
    assert lack == "c: there is no gcc on the path; run `apt-get install gcc libc6-dev`"


def test_missing_javascript_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_VAE_CACHE", str(tmp_path))
    for name, package in (("node", "onnxruntime-node"), ("browser", "onnxruntime-web")):
        sentence = f"{package} is not installed; run `python -m export.runtimes install`"
        assert RUNTIMES[name].missing() == f"{name}: {sentence}"


def test_registry_is_consistent():
    for name, runtime in RUNTIMES.items():
        assert runtime.name == name
        assert runtime.format in FILES
        assert re.fullmatch(r"[a-z-]+ \d[\d.]+", runtime.version())


def with_command(*command):
    return dataclasses.replace(RUNTIMES["reference"], command=lambda: list(command))


def with_python(source):
    return with_command(sys.executable, "-c", source)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("", "expected 1 answers; got 0."),
        ("raise SystemExit(3)", "ended with status 3 and no message"),
        ("import sys; sys.exit('first\\nlast ')", "last"),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL"),
        ("import time; time.sleep(60)", "expected answers within 1 seconds; got none."),
    ],
)
def test_runner_that_fails_is_a_failure_in_one_sentence(source, sentence, one_case, tmp_path):
    (tmp_path / "answers.txt").write_text("case 0 decode\n")  # from an earlier run
    with pytest.raises(RuntimeFailure, match=f"^reference: {re.escape(sentence)}$"):
        with_python(source).run(tmp_path, one_case, tmp_path, timeout=1.0)


def test_runner_that_does_not_listen_is_killed(one_case, tmp_path, monkeypatch):
    monkeypatch.setattr("export.runtimes._PATIENCE", 0.2)
    script = "trap '' TERM; echo $$ > $3/pid; sleep 60 & wait; wait"
    with pytest.raises(RuntimeFailure, match=r"within 0\.5 seconds"):
        with_command("bash", "-c", script, "runner").run(tmp_path, one_case, tmp_path, timeout=0.5)
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def processes_that_mention(text):
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text in (entry / "cmdline").read_text():
                yield entry.name


def test_browser_that_takes_too_long_leaves_nothing_running(artifact, asked, tmp_path, monkeypatch):
    # Chromium's sockets lie in TMPDIR, and a socket's path has no more than 107 characters.
    with tempfile.TemporaryDirectory(prefix="slow-") as directory:
        monkeypatch.setenv("TMPDIR", directory)
        with pytest.raises(RuntimeFailure, match=r"^browser: expected answers within 0.8 seconds"):
            RUNTIMES["browser"].run(artifact, asked, tmp_path / "answers", timeout=0.8)
        assert not list(processes_that_mention(directory))


@pytest.mark.parametrize(
    ("seconds", "script", "sentence"),
    [
        ("20", "echo first; echo 'no sandbox'; exit 1", "Chromium ended .*: no sandbox"),
        ("20", "exit 0", "Chromium ended before the page did: no word"),
        ("0.5", "sleep 60", "the page gave no answer within 0.5 seconds"),
    ],
)
def test_browser_that_fails_says_so(seconds, script, sentence, artifact, asked, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "chromium").write_text(f"#!/bin/bash\n{script}\n")
    (programs / "chromium").chmod(0o755)
    environment = {
        **needs.runner_environment(),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "RUNNER_TIMEOUT": seconds,
    }
    command = [*needs.python_runner("browser")(), str(artifact), str(asked), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(f"{sentence}\n", done.stderr)


def status(address, data=None):
    try:
        with urllib.request.urlopen(address, data, timeout=10) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_site_of_the_browser_gives_its_folders_and_no_more(tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "a.html").write_text("hello")
    (tmp_path / "secret").write_text("no")
    answers = tmp_path / "answers"
    answers.mkdir()
    with Site({"page": tmp_path / "page"}, answers) as site:
        assert status(f"{site.address}/page/a.html") == 200
        for path in ("page/../secret", "page/b.html", "page", "other/a.html", "answers/a"):
            assert status(f"{site.address}/{path}") == 404
        assert status(f"http://127.0.0.1:{site.server_address[1]}/page/a.html") == 404
        assert status(f"{site.address}/answers/0-z.bin", b"1") == 204
        for path in ("answers/../secret", "answers/.hidden", "answers/a/b", "page/a.html"):
            assert status(f"{site.address}/{path}", b"1") == 404
        assert not site.ended.is_set()
        assert status(f"{site.address}/end", "große".encode()) == 204
        assert site.ended.wait(10)
        assert site.complaint == "große"
    assert [path.name for path in answers.iterdir()] == ["0-z.bin"]
    assert (tmp_path / "secret").read_text() == "no"


def run_python(source, *arguments):
    return subprocess.run(
        [sys.executable, "-P", "-c", source, *arguments],
        env=needs.runner_environment(),
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("package", ["keras", "tf_keras", "tensorflow_probability", "keras_vae"])
def test_saved_model_runner_blocks(package):
    source = "from export.runtimes.python import saved_model as s; s.block(); import " + package
    done = run_python(source)
    assert done.stderr.splitlines()[-1].endswith(f"Error: {package} is blocked in this process")


def test_saved_model_runner_refuses_to_start_too_late():
    source = "import sys; sys.modules['keras'] = sys; "
    done = run_python(source + "from export.runtimes.python import saved_model as s; s.block()")
    assert "keras was imported before it could be blocked" in done.stderr


def test_saved_model_is_answered_without_keras(artifact):
    source = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from export.runtimes.python import saved_model as s\n"
        "s.block()\n"
        "call = s.load(Path(sys.argv[1]), 'sample')\n"
        "print(call({'seed': np.zeros((2, 2), np.int32)}, ('z',))[0].shape)\n"
        "print(sorted(s.BLOCKED & sys.modules.keys()))\n"
    )
    assert run_python(source, str(artifact)).stdout == "(2, 3)\n[]\n"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("export.runtimes", "numpy onnxruntime onnx openvino tensorflow keras"),
        ("export.runtimes.python.browser", "numpy onnxruntime onnx tensorflow keras"),
        ("export.runtimes.python.onnxruntime", "onnx tensorflow keras keras_vae"),
        ("export.runtimes.python.reference", "onnxruntime tensorflow keras keras_vae"),
        ("export.runtimes.python.openvino", "onnx onnxruntime tensorflow keras keras_vae"),
    ],
)
def test_runners_import_no_more_than_they_need(module, absent):
    source = f"import sys, {module}; print(set({absent.split()}) & sys.modules.keys())"
    assert run_python(source).stdout == "set()\n"


@pytest.mark.parametrize("name", ["onnxruntime", "browser", "node", "c"])
def test_runner_without_its_arguments_says_what_it_expects(name):
    done = subprocess.run(
        RUNTIMES[name].command(), env=needs.runner_environment(), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "expected ARTIFACT_DIR CASES_DIR ANSWERS_DIR"


def test_examples_print_the_samples_of_the_model(vae, artifact, tmp_path):
    # A consumer has the file in a project of his own, beside his node_modules.
    shutil.copy(EXAMPLES / "sample.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(needs.node_modules())
    for seed in (7, -1):
        expected = "".join(
            " ".join(f"{number:.4f}" for number in draw) + "\n"
            for draw in vae.sample(3, seed).numpy().reshape(3, -1)
        )
        for program, *file in (
            [sys.executable, EXAMPLES / "sample.py"],
            ["node", tmp_path / "sample.mjs"],
        ):
            command = [program, *map(str, file), str(artifact), str(seed)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            assert done.stdout == expected


def test_examples_are_short_and_need_one_runtime():
    python, javascript = ((EXAMPLES / f"sample.{end}").read_text() for end in ("py", "mjs"))
    names = {
        alias.name
        for node in ast.walk(ast.parse(python))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert names == {"sys", "numpy", "onnxruntime"}
    assert re.findall(r'(?:from|require\()\s*"(.+?)"', javascript) == ["onnxruntime-node"]
    for text in (python, javascript):
        assert len(text.splitlines()) <= 25


def test_javascript_is_pinned_and_its_lock_names_no_registry():
    wanted = json.loads((needs.JAVASCRIPT / "package.json").read_text())["dependencies"]
    lock = json.loads((needs.JAVASCRIPT / "package-lock.json").read_text())["packages"]
    assert lock.pop("")["dependencies"] == wanted
    for name, version in wanted.items():
        assert lock[f"node_modules/{name}"]["version"] == version
    for name, entry in lock.items():
        assert "resolved" not in entry, f"{name}: lock with --omit-lockfile-registry-resolved"
        assert entry["integrity"].startswith("sha512-"), name


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Makes a function that puts our own program first on the path, with an empty cache."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("KERAS_VAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")

    def put(name, script):
        (programs / name).write_text(f"#!/bin/bash\n{script}\n")
        (programs / name).chmod(0o755)

    return put


def test_installation_is_whole_and_happens_once(fake, monkeypatch, capsys):
    fake("npm", "[[ $* == ci* && -f package-lock.json ]] && mkdir node_modules")
    monkeypatch.setattr(sys, "argv", ["runtimes", "install"])
    __main__.main()
    assert needs.node_modules().is_dir()
    assert "installing the pinned" in capsys.readouterr().out
    fake("npm", "exit 1")
    __main__.main()
    assert capsys.readouterr().out == ""


def test_installation_that_fails_leaves_nothing(fake, monkeypatch):
    fake("npm", "mkdir node_modules; echo no network >&2; exit 1")
    monkeypatch.setattr(sys, "argv", ["runtimes", "install"])
    with pytest.raises(SystemExit, match=r"not installed: npm failed: no network$"):
        __main__.main()
    assert not list(needs.node_modules().parent.parent.iterdir())


def test_installation_without_npm_says_what_to_install(fake, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"no npm on the path; run `apt-get install npm`"):
        needs.install()


def test_compiler_that_fails_is_a_failure(fake, artifact, one_case, tmp_path):
    fake("gcc", "echo no headers >&2; exit 1")
    with pytest.raises(RuntimeFailure, match=r"^c: gcc failed: no headers$"):
        RUNTIMES["c"].run(artifact, one_case, tmp_path / "answers")


def test_command_line_lists_runtimes(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["runtimes"])
    __main__.main()
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [*RUNTIMES]
    monkeypatch.setattr(sys, "argv", ["runtimes", "remove"])
    with pytest.raises(SystemExit, match="Expected no argument or `install`; got remove"):
        __main__.main()


def test_cases_and_answers_come_back_as_they_were_written(tmp_path):
    case = Case("score", {"x": np.ones((0, 2), np.float32), "k": np.array(3, np.int32)}, ("a", "b"))
    write_cases(tmp_path, [case, case])
    for read in read_cases(tmp_path):
        assert (read.signature, read.outputs) == ("score", ("a", "b"))
        for name, value in case.inputs.items():
            np.testing.assert_array_equal(read.inputs[name], value, strict=True)
    value = np.arange(6, dtype=np.int32).reshape(3, 2)
    write_answers(tmp_path, [("score", {"a": value}), ("score", "two\n lines")])
    answer, error = read_answers(tmp_path)
    np.testing.assert_array_equal(answer["a"], value, strict=True)
    assert error == "two lines"
