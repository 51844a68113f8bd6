"""The programs in the pages for Node, C and the browser run as they are printed there."""

import json
import os
import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from artifacts import published, published_vae

from export import saved_model
from export.runtimes import needs

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def vae():
    return published_vae()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return published(tmp_path_factory)


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Writes the programs of the Node page, named by their first lines, beside node_modules."""
    directory = tmp_path_factory.mktemp("node")
    for block in blocks("serving-node.md", "js"):
        (directory / re.match(r"// ([a-z]+\.mjs):", block)[1]).write_text(block)
    (directory / "node_modules").symlink_to(needs.node_modules())
    return directory


def node(program, *arguments, given=""):
    command = ["node", str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, input=given)
    return json.loads(done.stdout)


def test_node_draws_what_python_draws(vae, artifact, programs):
    answer = node(programs / "draw.mjs", artifact, 7)
    expected = vae.sample(2, seed=7).numpy()
    assert answer["shape"] == list(expected.shape)
    np.testing.assert_array_equal(answer["sample"], expected.ravel())


def test_node_scores_as_python_does(artifact, programs):
    x = (np.random.default_rng(0).random((5, 4, 4, 1)) < 0.3).astype(np.float32)
    given = json.dumps(x.reshape(5, -1).tolist())
    answer = node(programs / "score.mjs", artifact, given=given)
    seed = np.stack([np.zeros(5), np.arange(5)], axis=1).astype(np.int32)
    inputs = {"score": {"x": x, "seed": seed}, "encode": {"x": x}, "reconstruct": {"x": x}}
    for name, output in [("score", "elbo"), ("encode", "loc"), ("reconstruct", "mean")]:
        session = onnxruntime.InferenceSession(artifact / "onnx" / f"{name}.onnx")
        (expected,) = session.run([output], inputs[name])
        # Two releases of ONNX Runtime may add in another order.
        np.testing.assert_allclose(answer[output], expected.ravel(), rtol=1e-5, atol=1e-5)


def test_c_draws_what_python_draws(vae, artifact, tmp_path):
    source = blocks("serving-c.md", "c")[0]
    compile_it = blocks("serving-c.md", "sh")[0]
    (tmp_path / "draw.c").write_text(source)
    tensorflow = needs._tensorflow()
    # A library with no more than the names of the functions: the real one takes long to link.
    stub, functions = tmp_path / needs._C_LIBRARY, set(re.findall(r"\bTF_\w+(?=\()", source))
    needs._gcc(
        ["-shared", f"-Wl,-soname,{needs._C_LIBRARY}", "-x", "c", "-", "-o", str(stub)],
        "".join(f"void {name}(void) {{}}\n" for name in functions),
    )
    (tmp_path / "include").symlink_to(tensorflow / "include")
    environment = {**os.environ, "TENSORFLOW": str(tmp_path)}
    subprocess.run(compile_it, shell=True, check=True, cwd=tmp_path, env=environment)
    names = saved_model.tensor_names(artifact)
    words = [str(artifact), "7", names["sample", "seed"], names["sample", "sample"]]
    done = subprocess.run(
        [tmp_path / "draw", *words],
        env={**needs.runner_environment(), "LD_LIBRARY_PATH": str(tensorflow)},
        capture_output=True,
        text=True,
        check=True,
    )
    got = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
    np.testing.assert_array_equal(got, vae.sample(2, seed=7).numpy().reshape(2, -1))


def test_c_draws_what_python_draws_on_onnx_runtime(vae, artifact, tmp_path):
    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    (tmp_path / "onnx.c").write_text(blocks("serving-c.md", "c")[1])
    (tmp_path / "include").symlink_to(Path(__file__).parent / "c")
    (tmp_path / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (tmp_path / "lib" / name).symlink_to(library)
    environment = {**os.environ, "ONNXRUNTIME": str(tmp_path)}
    compile_it = blocks("serving-c.md", "sh")[2]
    subprocess.run(compile_it, shell=True, check=True, cwd=tmp_path, env=environment)
    done = subprocess.run(
        [tmp_path / "onnx", artifact / "onnx" / "sample.onnx", "7"],
        capture_output=True,
        text=True,
        check=True,
    )
    got = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
    np.testing.assert_array_equal(got, vae.sample(2, seed=7).numpy().reshape(2, -1))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_page_shows_what_python_decodes(vae, artifact, tmp_path):
    page = tmp_path / "page"
    page.mkdir()
    shutil.copytree(artifact / "onnx", page / "onnx")
    shutil.copy(artifact / "manifest.json", page)
    (page / "dist").symlink_to(needs.node_modules() / "onnxruntime-web" / "dist")
    (page / "index.html").write_text(blocks("serving-browser.md", "html")[0])
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=page)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            command = [needs.chromium(), "--headless", "--no-sandbox", "--disable-gpu"]
            command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=60000"]
            command += ["--dump-dom", f"http://127.0.0.1:{server.server_port}/index.html"]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
        finally:
            server.shutdown()
            thread.join()
    numbers = re.search(r'<p id="numbers">(.*?)</p>', done.stdout)[1]
    expected = vae.decode(np.zeros((1, 2), np.float32)).mean().numpy().ravel()
    # Four decimals are printed.
    np.testing.assert_allclose([float(word) for word in numbers.split()], expected, atol=6e-5)


def test_first_block_of_a_page_is_a_command():
    for page in ("serving-node.md", "serving-c.md", "serving-browser.md", "serving-batch.md"):
        block = re.search(r"^```(?:sh)?\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)
        assert (
            block[1]
            .split()[0]
            .startswith(("keras-vae", "pip", "python", "npm", "gcc", "ONNXRUNTIME_NODE"))
        ), page
