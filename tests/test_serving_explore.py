"""The explorer in a browser: its pictures and scores are Python's, all requests on its origin."""

import base64
import functools
import hashlib
import http.server
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from chromium import ALL_VIEWS, browser
from click.testing import CliRunner
from models import digits
from PIL import Image

import keras_vae
from export import manifest as manifests
from export import onnx_graphs
from export.pipeline import export_model
from export.runtimes import needs
from keras_vae import integrity
from keras_vae.data.preparation import Preparation
from keras_vae.signatures import signatures
from keras_vae.tokens import END, UNKNOWN, Tokens
from serving.artifact import Artifact
from serving.cli import main
from serving.errors import ServingError
from serving.explore import runtime, server, site

READY = "document.body?.dataset.ready !== undefined"
FAILED = "document.body?.dataset.failed !== undefined"
MINUS = "\u2212"
MEAN, DRAW = "#pictures figure:nth-of-type(1)", "#pictures figure:nth-of-type(2)"
PAGE = Path(site.__file__).parent / "page"
GREY = Preparation("binarize", 16.0, sentence="grey levels 0 to 16 binarised")


# Models and their pages


def quick(vae, preparation, names, directory, num_samples=0):
    """Makes an artifact of some signatures, as far as the page reads it."""
    table = signatures(vae, preparation, num_samples)
    table = {name: signature for name, signature in table.items() if name in names}
    (directory / "onnx").mkdir(parents=True)
    graphs = {name: onnx_graphs.convert(signature) for name, signature in table.items()}
    for name, graph in graphs.items():
        graph.save(directory / "onnx" / f"{name}.onnx")
    manifest = manifests.build(
        name=directory.parent.name,
        about=manifests.metadata(vae, preparation, num_samples=num_samples),
        signatures=table,
        functions={name: onnx_graphs.traced(signature) for name, signature in table.items()},
        opsets={name: graph.opset for name, graph in graphs.items()},
        omitted={},
        variants={},
        comparisons=[],
        training={},
    )
    integrity.seal(directory, manifest)
    return directory


@pytest.fixture(scope="module")
def vae():
    keras.utils.set_random_seed(3)
    return keras_vae.mlp_vae((8, 8, 1), 3, "bernoulli", hidden=(16,))


@pytest.fixture(scope="module")
def python(vae):
    """Returns the live signatures of the model, on NumPy arrays."""
    table = signatures(vae, GREY)

    def call(name, **inputs):
        tensors = {key: tf.constant(value) for key, value in inputs.items()}
        return {key: value.numpy() for key, value in table[name].function(**tensors).items()}

    return call


@pytest.fixture(scope="module")
def image(vae, tmp_path_factory):
    return export_model(vae, tmp_path_factory.mktemp("artifacts") / "digits", preparation=GREY)


@pytest.fixture(scope="module")
def ort():
    return needs.node_modules() / "onnxruntime-web"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """Starts a static server; yields its folder and its address."""
    folder = tmp_path_factory.mktemp("host")
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as plain:
        thread = threading.Thread(target=plain.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{plain.server_address[1]}"
        plain.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def bundle(image, ort, host):
    """Writes the page of the image model for a static host."""
    target = host[0] / "digits"
    words = ["explore", str(image), "--out", str(target), "--ort", str(ort)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return target


@pytest.fixture(scope="module")
def browsing():
    with browser() as tab:
        yield tab


@pytest.fixture
def tab(browsing, host):
    """Opens the browser; every request has to stay on the page's own origin."""
    yield browsing
    origins = (host[1], f"blob:{host[1]}", "data:", "about:blank")
    assert all(address.startswith(origins) for address in browsing.requests)
    assert browsing.complaints == []


@pytest.fixture
def page(tab, bundle, host):
    tab.open(f"{host[1]}/digits/")
    tab.wait(READY)
    return tab


def pixels(tab, selector):
    """Reads 8-bit levels of a canvas, [height, width, 3], from a copy: Chromium counts reads."""
    script = f"""(() => {{
      const canvas = document.querySelector({json.dumps(selector + " canvas")});
      if (!canvas) return null;
      const {{ width, height }} = canvas;
      const copy = new OffscreenCanvas(width, height).getContext("2d");
      copy.drawImage(canvas, 0, 0);
      const {{ data }} = copy.getImageData(0, 0, width, height);
      return [width, height, Array.from(data)];
    }})()"""
    width, height, data = tab.wait(script)
    return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]


def levels(x, high=1.0):
    """Converts a picture of x on [0, high] to 8-bit levels, [height, width, 3]."""
    grey = np.floor(np.clip(np.asarray(x, np.float64) / high, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.broadcast_to(grey, (*grey.shape[:2], 3))


def shows(tab, selector, expected):
    return np.array_equal(pixels(tab, selector), expected)


def is_clear(mean):
    """Tells whether no value is so near half a level that runtimes may round it differently.

    Runtimes agree within 1e-5; a level is 1/255.
    """
    return np.abs((mean * 255) % 1 - 0.5).min() > 1e-5 * 255


def clear_seeds(vae, count):
    """Finds the first seeds whose mean pictures are the same in every runtime."""
    means = ((seed, vae.sample_mean(1, seed).numpy()) for seed in range(100))
    return [seed for seed, mean in means if is_clear(mean)][:count]


def fill(tab, selector, value):
    """Changes the value of a field as a reader does."""
    tab.run(
        f"(() => {{ const field = document.querySelector({json.dumps(selector)});"
        f"field.value = {json.dumps(value)};"
        "for (const name of ['input', 'change'])"
        "  field.dispatchEvent(new Event(name, { bubbles: true })); })()"
    )


def click(tab, text, within="body"):
    tab.run(
        f"[...document.querySelectorAll({json.dumps(within + ' button')})]"
        f".find((button) => button.textContent === {json.dumps(text)}).click()"
    )


def show_seed(tab, seed, row=0):
    fill(tab, "[name=seed]", str(seed))
    fill(tab, "[name=row]", str(row))
    click(tab, "Show")
    tab.wait(f"location.hash === '#seed={seed}&row={row}'")


def see(tab, panel, cells):
    """Scrolls to a panel until its grid is there: what is above it grows meanwhile."""
    script = f"""(() => {{
      const panel = document.getElementById('{panel}');
      panel.scrollIntoView({{ behavior: "instant" }});
      return panel.querySelectorAll("[role=gridcell]").length === {cells};
    }})()"""
    tab.wait(script)


def is_at(tab, z):
    """Tells whether the sliders are at z, in steps of 0.01."""
    script = (
        "[...document.querySelectorAll('.sliders input')].map((i) => [i.ariaLabel[1], i.value])"
    )
    return all(abs(float(value) - z[int(latent)]) < 0.0051 for latent, value in tab.run(script))


def said(tab, selector):
    return tab.run(f"document.querySelector({json.dumps(selector)}).textContent")


# Pictures


def test_same_seed_is_the_same_picture_as_in_python(page, vae):
    for seed in clear_seeds(vae, 3):
        show_seed(page, seed)
        np.testing.assert_array_equal(pixels(page, DRAW), levels(vae.sample(1, seed).numpy()[0]))
        mean = levels(vae.sample_mean(1, seed).numpy()[0])
        np.testing.assert_array_equal(pixels(page, MEAN), mean)
    show_seed(page, -5, row=2)
    np.testing.assert_array_equal(pixels(page, DRAW), levels(vae.sample(3, -5).numpy()[2]))
    assert said(page, "#seed code") == "vae.sample(3, seed=-5)[2]"


def test_history_brings_a_seed_back(page, vae):
    first, second = clear_seeds(vae, 2)
    for seed in (first, second):
        show_seed(page, seed)
    label = f"seed {first}, row 0"
    page.run(f"document.querySelector('[aria-label=\"{label}\"]').click()")
    page.wait(f"location.hash === '#seed={first}&row=0'")
    np.testing.assert_array_equal(pixels(page, MEAN), levels(vae.sample_mean(1, first).numpy()[0]))
    assert page.run("document.querySelectorAll('.history button').length") == len(
        {0, first, second}
    )


def test_slider_changes_the_picture_to_that_of_its_point(page, python):
    show_seed(page, 0)
    before = pixels(page, MEAN)
    z = python("sample", seed=[[0, 0]])["z"]
    latent = int(page.run("document.querySelector('.sliders input').ariaLabel")[1])
    for value in np.arange(-3, 3, 0.25, dtype=np.float32):
        z[0, latent] = value
        mean = python("decode", z=z)["mean"][0] / 16.0
        if is_clear(mean) and not np.array_equal(levels(mean), before):
            break
    fill(page, ".sliders input", str(value))
    page.wait(f"!document.querySelector({json.dumps(DRAW + ' canvas')})")
    np.testing.assert_array_equal(pixels(page, MEAN), levels(mean))
    assert "has left the seed" in said(page, DRAW)
    page.run("document.querySelector('.sliders input').focus()")
    page.press("ArrowRight")
    moved = page.wait("document.querySelector('.sliders input').valueAsNumber")
    assert moved == pytest.approx(value + 0.01, abs=1e-6)
    click(page, "Back to the seed")
    page.wait(f"document.querySelector({json.dumps(DRAW + ' canvas')})")
    np.testing.assert_array_equal(pixels(page, MEAN), before)


def test_grids_go_to_the_point_that_is_picked(page):
    see(page, "traversals", 27)
    page.run("document.querySelector('#traversals [role=gridcell]').focus()")
    page.press("ArrowRight")
    label = page.wait("document.activeElement.ariaLabel")
    assert re.fullmatch(rf"z\d = {MINUS}2.25", label)
    page.press("Enter")
    name = f"document.querySelector('[type=range][aria-label^=\"{label[:2]},\"]').value"
    page.wait(f"{name} === '-2.25'")
    see(page, "map", 121)
    page.run("document.querySelector('#map [role=gridcell]').click()")
    across = page.run("document.querySelector('#map select').value")
    page.wait(f"document.querySelector('[aria-label^=\"z{across},\"]').value === '-3'")


@pytest.mark.parametrize("kind", ["spherical", "linear"])
def test_interpolation_goes_from_end_to_end(page, python, kind):
    see(page, "path", 9)
    for label, seed in (("From", 11), ("To", 12)):
        fill(page, f'[aria-label="{label}: seed"]', str(seed))
    fill(page, "#path label select", kind)
    middle = "document.querySelectorAll('#path [role=gridcell]')[4]"
    a, b = python("sample", seed=[[11, 0], [12, 0]])["z"].astype(np.float64)
    point = (a + b) / 2
    if kind == "spherical":  # half way between two directions, at the mean of the two lengths
        sizes = np.linalg.norm(a), np.linalg.norm(b)
        direction = a / sizes[0] + b / sizes[1]
        point = direction / np.linalg.norm(direction) * np.mean(sizes)
    # The grid of the seeds before may still be there when it is clicked.
    page.wait_for(lambda: page.run(f"{middle}.click()") or is_at(page, point))


def test_picture_is_saved_as_png(page, vae, tmp_path):
    (seed,) = clear_seeds(vae, 1)
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    show_seed(page, seed)
    click(page, "Mean as PNG")
    file = tmp_path / f"digits-1-seed-{seed}-0-mean.png"
    page.wait_for(file.exists)
    picture = np.asarray(Image.open(file).convert("RGB"))
    mean = levels(vae.sample_mean(1, seed).numpy()[0])
    np.testing.assert_array_equal(picture, mean.repeat(40, 0).repeat(40, 1))


# The reader's data


@pytest.fixture
def digit(tmp_path):
    """Makes a handwritten digit as an image file, and as the page has to read it."""
    grey = np.floor(digits()[17].reshape(8, 8) * 255 + 0.5).astype(np.uint8)
    path = tmp_path / "digit.png"
    Image.fromarray(grey).save(path)
    return path, (grey / 255.0 * 16.0).astype(np.float32)[None, ..., None]


def scores(tab):
    tab.wait("document.querySelectorAll('.scores td').length")
    cells = tab.run(
        "[...document.querySelectorAll('.scores tr')].map("
        "(row) => [row.cells[0].textContent, Number(row.cells[1].dataset.value)])"
    )
    return dict(cells)


def test_uploaded_digit_is_scored_as_in_python(page, python, digit):
    path, x = digit
    page.upload("input[type=file]", path)
    expected = python("score", x=x, seed=[[0, 0]])
    found = scores(page)
    assert found["ELBO"] == pytest.approx(expected["elbo"][0], abs=1e-3)
    assert found["distortion"] == pytest.approx(expected["distortion"][0], abs=1e-3)
    assert found["rate"] == pytest.approx(expected["rate"][0], abs=1e-3)
    fill(page, "#yours label:nth-of-type(2) select", "16")
    seeds = np.stack([np.zeros(16), np.arange(16)], axis=1).astype(np.int32)
    all_seeds = python("score", x=np.repeat(x, 16, axis=0), seed=seeds)["elbo"]
    page.wait("document.querySelector('.scores td').textContent.includes('±')")
    assert scores(page)["ELBO"] == pytest.approx(all_seeds.mean(), abs=1e-3)
    error = all_seeds.std(ddof=1) / 4.0
    assert f"± {error:.3f} nats" in said(page, ".scores")
    # It is seen as it is, reconstructed as in Python, and the point can go to its latents.
    np.testing.assert_array_equal(pixels(page, ".item figure"), levels(x[0], 16.0))
    click(page, "Go there")
    loc = python("encode", x=x)["loc"]
    page.wait_for(lambda: is_at(page, loc[0]))
    mean = python("reconstruct", x=x)["mean"][0]
    difference = pixels(page, ".item figure:nth-of-type(2)") - levels(mean, 16.0).astype(int)
    assert np.abs(difference).max() <= 1  # the digit was not chosen for its rounding


def test_draw_is_taken_as_data_and_removed(page):
    click(page, "Take the draw of the seed")
    page.wait("document.querySelector('.item')")
    assert np.array_equal(pixels(page, ".item figure"), pixels(page, DRAW))
    page.run("document.querySelector('[aria-label^=Remove]').click()")
    page.wait("!document.querySelector('.item')")


UNFIT = [
    ("a.csv", "1,2,3", "a.csv: expected 64 numbers (8 \u00d7 8 \u00d7 1); got 3."),
    ("b.csv", ",".join(["nan"] * 64), "b.csv: expected finite numbers; x[0] is none."),
    ("c.csv", ",".join(["1"] * 63), "c.csv: expected 64 numbers"),
    (
        "d.json",
        json.dumps([17] * 64),
        "expected numbers of at least 0 and at most 16; x[0] is 17.",
    ),
    ("e.json", "[1, 2", "e.json is no JSON"),
    ("f.json", '["1"]', "f.json: expected 64 numbers"),
    ("g.csv", "", "g.csv holds no numbers."),
    ("h.png", "no image", "h.png is no image that this browser can read."),
]


def test_file_that_does_not_fit_is_refused_in_a_sentence(page, tmp_path):
    for name, content, sentence in UNFIT:
        (tmp_path / name).write_text(content)
        page.upload("input[type=file]", tmp_path / name)
        shown = "document.querySelector('#yours .problem:not([hidden])')?.textContent"
        page.wait(f"{shown}?.includes({json.dumps(sentence)})")
        assert page.run("document.querySelectorAll('.item').length") == 0


# Tables, series, colours and conditions


COLUMNS = ("sepal length", "b", "<b>c</b>", "d 1")


def of_kind(kind, host, ort):
    """Opens the page of a model of a kind of data, without a signature or two."""
    keras.utils.set_random_seed(5)
    names = {"decode", "encode", "score"}
    preparation = Preparation()
    if kind == "table":
        center, spread = (10.0, -1.0, 0.0, 3.0), (2.0, 1.0, 0.5, 1.0)
        preparation = Preparation(center=center, spread=spread, sentence="standardised")
        mixture = {"prior": "normal_mixture", "num_components": 3}
        vae = keras_vae.mlp_vae(4, 2, "normal", hidden=(8,), **mixture)
        vae.feature_names = COLUMNS
    elif kind == "series":
        vae = keras_vae.mlp_vae((12, 2), 2, "normal", hidden=(8,))
    else:
        names = {"decode", "sample"}
        vae = keras_vae.mlp_vae(
            (5, 6, 3), 2, "continuous_bernoulli", hidden=(8,), condition_shape=3
        )
    artifact = quick(vae, preparation, names, host[0].parent / "artifacts" / kind / "1")
    site.bundle(Artifact.read(artifact), runtime.find(ort), host[0] / kind)
    return vae, preparation


def test_named_parts_are_a_form_with_blanks(tab, host, ort):
    """What the page puts into the blanks, and its scores, are those of Python for the seed."""
    keras.utils.set_random_seed(0)
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Parts(
            {
                "age": keras_vae.Normal(1, scale="learned", missing=True),
                "the city": keras_vae.Categorical(3, missing=True),
                "size": keras_vae.Normal(2),
            }
        ),
        posterior=keras_vae.DiagonalNormal(2, network=keras_vae.PartsEncoder(complete=["size"])),
    )
    how = {"age": Preparation(center=(40.0,), spread=(9.0,)), "the city": Preparation(categories=3)}
    names = {"decode", "sample", "score", "impute"}
    artifact = quick(vae, how, names, host[0].parent / "artifacts" / "parts" / "1", 16)
    site.bundle(Artifact.read(artifact), runtime.find(ort), host[0] / "parts")
    tab.open(f"{host[1]}/parts/")
    tab.wait(READY)
    table = signatures(vae, how, 16)
    seed = tf.constant([[0, 0]])
    drawn = table["sample"].function(seed=seed)
    field = "document.getElementById('part-x_{}')"
    assert float(tab.run(field.format("age") + ".value")) == pytest.approx(
        float(drawn["sample_age"][0, 0]), rel=1e-4
    )
    city = tab.run(field.format("the_city") + ".value")
    assert float(city) == float(drawn["sample_the_city"][0, 0])
    fill = "Object.assign({}, {{value: {!r}}}).dispatchEvent(new Event('input'))"
    for name, value in (("age", ""), ("the_city", ""), ("size", "0.5 -1.5")):
        tab.run(fill.format(field.format(name), value))
    tab.run("document.getElementById('impute').click()")
    tab.wait("document.getElementById('ess')")
    absent = tf.constant([[np.nan]])
    inputs = {"x_age": absent, "x_the_city": absent, "x_size": tf.constant([[0.5, -1.5]])}
    seeds = tf.constant([[0, row] for row in range(64)])
    many = {name: tf.repeat(value, 64, axis=0) for name, value in inputs.items()}
    imputed = table["impute"].function(**many, seed=seeds)
    scored = table["score"].function(**inputs, seed=seed)
    cells = tab.run(
        "[...document.querySelectorAll('.form tbody tr')].map((row) =>"
        " [...row.querySelectorAll('td')].slice(1).map((cell) => cell.innerText))"
    )
    low, high = np.quantile(imputed["sample_age"], [0.05, 0.95], method="closest_observation")
    age = re.fullmatch(r"(.*)\s90 %: (.*) to (.*)", cells[0][0].replace(MINUS, "-"))
    for shown, value in (
        (age[1], imputed["mean_age"][0, 0]),
        (cells[0][1], imputed["sample_age"][0, 0]),
        (cells[2][2], scored["distortion_size"][0]),
        (said(tab, ".scores td").split()[0], scored["elbo"][0]),
    ):
        assert float(shown.replace(MINUS, "-")) == pytest.approx(float(value), rel=1e-3)
    ordered = np.sort(imputed["sample_age"][:, 0])
    for shown, value in ((age[2], low), (age[3], high)):
        place = int(np.argmin(np.abs(ordered - float(shown))))
        assert abs(place - int(np.searchsorted(ordered, value))) <= 1  # quantiles differ by one
    best = int(np.argmax(imputed["mean_the_city"][0]))
    share = round(100 * float(imputed["mean_the_city"][0, best]))
    assert cells[1][0].startswith(f"{best}: {share} %")
    assert cells[1][1:] == [f"{imputed['sample_the_city'][0, 0]:.0f}", "absent"]
    click(tab, "Keep what was filled in", "#row")
    kept = float(imputed["value_the_city"][0, 0])
    assert float(tab.run(field.format("the_city") + ".value")) == kept
    # The point of the seed is the whole row, its means and its draw, and moves with the sliders.
    lines = tab.run(
        "[...document.querySelectorAll('#pictures tbody tr')].map((row) => row.innerText)"
    )
    assert [line.split("\t")[0] for line in lines] == ["age", "the city", "size"]
    mean = table["decode"].function(z=drawn["z"])["mean_age"][0, 0]
    number = lines[0].removeprefix("age").split()[0].replace(MINUS, "-")
    assert float(number) == pytest.approx(float(mean), rel=1e-3)
    see(tab, "traversals", 18)
    tab.run(fill.format(field.format("size"), ""))
    tab.run("document.getElementById('impute').click()")
    tab.wait("!document.querySelector('#row .problem').hidden")
    assert "size may not be blank in this model" in said(tab, "#row .problem")


def test_levels_have_sliders_and_rates_of_their_own(tab, host, ort):
    keras.utils.set_random_seed(2)
    vae = keras_vae.hierarchical_vae((4, 4, 1), (2, 7), hidden=(8,))
    names = {"decode", "encode", "sample", "score"}
    artifact = quick(vae, None, names, host[0].parent / "artifacts" / "levels" / "1")
    site.bundle(Artifact.read(artifact), runtime.find(ort), host[0] / "levels")
    tab.open(f"{host[1]}/levels/")
    tab.wait(READY)
    table = signatures(vae, None)
    seeds = tf.constant([[0, row] for row in range(64)])
    drawn = table["sample"].function(seed=seeds)
    scored = table["score"].function(x=drawn["sample"], seed=seeds)
    for level, size in (("z1", 2), ("z2", 7)):
        rate = float(tf.reduce_mean(scored[f"rate_{level}"]))
        heading = f"section[aria-label='Level {level}'] h3"
        assert said(tab, heading) == f"{level}{size} latents, {rate:.2f} nats"
        visible = f"section[aria-label='Level {level}'] li:not([hidden])"
        assert tab.run(f"document.querySelectorAll(`{visible}`).length") == min(size, 6)
    click(tab, "All 7 latents of z2")
    for level, size in (("z1", 2), ("z2", 7)):
        for latent in range(size):
            slider = f"document.querySelector('[aria-label^=\"{level}[{latent}]\"]')"
            value = float(drawn[f"z_{level}"][0, latent])
            assert tab.run(f"Number({slider}.value)") == pytest.approx(value, abs=0.0051)
    z = {f"z_{level}": drawn[f"z_{level}"][:1].numpy() for level in ("z1", "z2")}
    z["z_z2"][0, 3] = 1.25
    fill(tab, "[aria-label^='z2[3]']", "1.25")
    tab.wait(f"!document.querySelector({json.dumps(DRAW + ' canvas')})")
    mean = table["decode"].function(**z)["mean"][0].numpy()
    assert np.abs(pixels(tab, MEAN) - levels(mean).astype(int)).max() <= 1
    see(tab, "traversals", 18)
    fill(tab, "#traversals select", "1")
    see(tab, "traversals", 63)
    assert tab.run("document.querySelector('#map optgroup').label") == "level z1"
    click(tab, "Back to the seed")
    tab.wait(f"document.querySelector({json.dumps(DRAW + ' canvas')})")
    click(tab, "Take the draw of the seed")
    tab.wait("document.querySelectorAll('.scores tr').length === 5")
    shown = tab.run("[...document.querySelectorAll('.scores td')].map((c) => c.dataset.value)")
    expected = [scored[name][0] for name in ("elbo", "distortion", "rate", "rate_z1", "rate_z2")]
    np.testing.assert_allclose([float(value) for value in shown], expected, atol=1e-3)
    assert tab.faults() == []


def test_sliders_stay_on_the_sphere(tab, host, ort):
    keras.utils.set_random_seed(2)
    vae = keras_vae.mlp_vae(
        (4, 4, 1),
        3,
        "bernoulli",
        hidden=(8,),
        posterior="von_mises_fisher",
        prior="uniform_sphere",
    )
    names = {"decode", "encode", "sample"}
    artifact = quick(vae, None, names, host[0].parent / "artifacts" / "sphere" / "1")
    assert Artifact.read(artifact).manifest["latents"]["z"]["support"] == "sphere"
    site.bundle(Artifact.read(artifact), runtime.find(ort), host[0] / "sphere")
    tab.open(f"{host[1]}/sphere/")
    tab.wait(READY)
    z = signatures(vae)["sample"].function(seed=tf.constant([[0, 0]]))["z"][0].numpy()
    assert is_at(tab, z)
    assert tab.run("document.querySelector('.sliders input').max") == "1"
    fill(tab, "[aria-label^='z1']", "0.8")
    tab.wait(f"!document.querySelector({json.dumps(DRAW + ' canvas')})")
    moved = z * 0.6 / np.hypot(z[0], z[2])
    moved[1] = 0.8
    assert is_at(tab, moved)
    mean = vae.decode(moved[np.newaxis]).mean()[0].numpy()
    assert np.abs(pixels(tab, MEAN) - levels(mean).astype(int)).max() <= 1
    assert "Points have length 1" in said(tab, "#latents .note")
    assert "All to 0" not in tab.run("document.body.textContent")
    see(tab, "map", 121)
    see(tab, "path", 9)
    fill(tab, "#path .controls label select", "linear")
    tab.wait("document.querySelector('#path .note').textContent.includes('brought back to')")


def test_codes_are_picked_in_a_grid(tab, host, ort):
    keras.utils.set_random_seed(2)
    layers = [keras.layers.Flatten(), keras.layers.Dense(24), keras.layers.Reshape((2, 3, 4))]
    posterior = keras_vae.VectorQuantizer((2, 3), 40, 2, keras.Sequential(layers))
    vae = keras_vae.VAE(
        prior=keras_vae.UniformCodes(),
        likelihood=keras_vae.Bernoulli((4, 4, 1), network=keras.layers.Dense(8, "tanh")),
        posterior=posterior,
    )
    names = {"decode", "encode", "sample"}
    artifact = quick(vae, None, names, host[0].parent / "artifacts" / "codes" / "1")
    site.bundle(Artifact.read(artifact), runtime.find(ort), host[0] / "codes")
    tab.open(f"{host[1]}/codes/")
    tab.wait(READY)
    assert "with 2 \u00d7 3 codes of 40" in said(tab, "#about")
    table = signatures(vae, None)
    codes = table["sample"].function(seed=tf.constant([[0, 0]]))["codes"].numpy()
    cells = "[...document.querySelectorAll('.codes [role=gridcell]')]"
    assert tab.run(f"{cells}.map((cell) => Number(cell.innerText))") == codes.ravel().tolist()
    tab.run(f"{cells}[0].focus()")
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        tab.press(key)
    assert said(tab, "#latents label") == "Code at position (1, 1) "
    tab.wait(f"{cells}[4].ariaSelected === 'true'")
    see(tab, "traversals", 32)
    fill(tab, "#traversals select", "32")
    see(tab, "traversals", 8)
    entry = "document.querySelectorAll('#traversals [role=gridcell]')[5]"
    tab.wait(f"{entry}.ariaLabel === 'code 37 at position (1, 1)'")
    tab.run(f"{entry}.click()")
    codes[0, 1, 1] = 37
    tab.wait(f"{cells}[4].innerText === '37'")
    mean = table["decode"].function(codes=tf.constant(codes))["mean"][0].numpy()
    assert np.abs(pixels(tab, MEAN) - levels(mean).astype(int)).max() <= 1
    assert said(tab, "#status") == "position (1, 1) has code 37."
    assert not tab.run("document.getElementById('map')")
    see(tab, "path", 9)
    click(tab, "Back to the seed")
    tab.wait(f"document.querySelector({json.dumps(DRAW + ' canvas')})")
    click(tab, "Take the draw of the seed")
    tab.wait("document.querySelector('.item')")
    click(tab, "Go there")
    x = table["sample"].function(seed=tf.constant([[0, 0]]))["sample"]
    found = table["encode"].function(x=x)["codes"].numpy().ravel().tolist()
    tab.wait_for(lambda: tab.run(f"{cells}.map((cell) => Number(cell.innerText))") == found)
    assert tab.faults() == []


def test_label_of_a_semi_supervised_model_is_a_choice(tab, host, ort):
    """A latent that is a part of the data has no sliders; its class is chosen by name."""
    keras.utils.set_random_seed(0)

    def joined(sizes):
        inputs = [keras.Input((size,)) for size in sizes]
        outputs = keras.layers.Dense(4, "tanh")(keras.layers.Concatenate()(inputs))
        return keras.Model(inputs, outputs)

    vae = keras_vae.SemiSupervisedVAE(
        num_classes=3,
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Normal(4, network=joined((2, 3))),
        posterior=keras_vae.DiagonalNormal(2, network=joined((4, 3))),
    )
    names = {"decode", "sample", "classify"}
    artifact = quick(vae, None, names, host[0].parent / "artifacts" / "semi" / "1")
    site.bundle(Artifact.read(artifact), runtime.find(ort), host[0] / "semi")
    tab.open(f"{host[1]}/semi/")
    tab.wait(READY)
    table = signatures(vae, None)
    drawn = table["sample"].function(seed=tf.constant([[0, 0]]))
    code = int(np.argmax(drawn["sample_label"][0]))
    chosen = "document.querySelector('section[aria-label=\"Level label\"] select').value"
    assert tab.run(chosen) == str(code)
    assert tab.run("document.querySelectorAll('.sliders input').length") == 2
    other = (code + 1) % 3
    fill(tab, "section[aria-label='Level label'] select", str(other))
    label = "[...document.querySelectorAll('#pictures tbody tr')].at(-1).innerText"
    tab.wait(f"{label}.startsWith('label') && {label}.includes('{other}')")
    click(tab, "All to 0")
    tab.wait("document.querySelector('.sliders output').value === '0.00'")
    assert tab.run(chosen) == str(other)
    see(tab, "traversals", 18)
    x = drawn["sample_x"]
    fill(tab, "#part-x_label", "")
    click(tab, "Fill the blanks and score", "#row")
    tab.wait("document.querySelector('#row [data-label=expected] .stacked')")
    shares = table["classify"].function(x_x=x)["probabilities_label"][0].numpy()
    best = int(np.argmax(shares))
    cell = "[...document.querySelectorAll('#row [data-label=expected]')].at(-1).innerText"
    # The row's numbers have five digits, so the shares are those of nearly the same row.
    assert tab.run(cell).startswith(f"{best}: {round(100 * float(shares[best]))} %")


def test_table_is_a_table(tab, host, ort, tmp_path):
    vae, preparation = of_kind("table", host, ort)
    tab.open(f"{host[1]}/table/")
    tab.wait(READY)
    assert "no sample in ONNX" in said(tab, "#seed .lack")
    rows = "[...document.querySelectorAll('#pictures tbody tr')].map((row) => row.innerText)"
    mean = signatures(vae, preparation)["decode"].function(z=tf.zeros((1, 2)))["mean"].numpy()[0]
    for name, row, value in zip(COLUMNS, tab.run(rows), mean, strict=True):
        assert row.startswith(name)
        number = row.removeprefix(name).split()[0]
        assert float(number.replace(MINUS, "-")) == pytest.approx(value, rel=1e-3)
    x = np.array([[11.0, -1.5, 0.25, 2.0], [9.0, 0.0, 0.0, 4.0]], np.float32)
    file = tmp_path / "rows.csv"
    order = [2, 0, 3, 1]  # the page finds columns by their names
    lines = [[f'"{COLUMNS[place]}"' for place in order], *x[:, order].tolist()]
    file.write_text("\n".join(",".join(map(str, line)) for line in lines))
    tab.upload("input[type=file]", file)
    tab.wait("document.querySelectorAll('.scores').length === 2")
    inputs = {"x": tf.constant(x[:1]), "seed": tf.constant([[0, 0]])}
    expected = signatures(vae, preparation)["score"].function(**inputs)["elbo"].numpy()[0]
    first = tab.run("Number(document.querySelector('.scores td').dataset.value)")
    assert first == pytest.approx(expected, abs=1e-3)
    assert "no reconstruct in ONNX" in said(tab, "#yours")
    assert ("region", "Mean at this point") in tab.names()
    file.write_text("b,c,d\n1,2,3\n")
    tab.upload("input[type=file]", file)
    tab.wait("document.querySelector('#yours .problem:not([hidden])')")
    lack = "rows.csv has no column sepal length, <b>c</b>, d 1."
    assert said(tab, "#yours .problem") == lack
    see(tab, "path", 9)
    assert said(tab, "#path .note").endswith(
        "the direction turns evenly and the length changes evenly."
    )


def test_series_is_a_line(tab, host, ort):
    of_kind("series", host, ort)
    tab.open(f"{host[1]}/series/")
    tab.wait(READY)
    drawn = pixels(tab, MEAN)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 2  # two colours and the background
    fill(tab, ".sliders input", "2")
    tab.wait("document.querySelector('.sliders output').value === '2.00'")
    tab.wait(f"document.querySelector({json.dumps(MEAN + ' canvas')}).ariaLabel")
    names = {name for role, name in tab.names() if role in ("image", "img")}
    assert any(re.match("Mean at this point: series, 12 by 2, values from", n) for n in names)
    assert "how much the mean changes" in said(tab, "#latents")


def test_condition_chooses_the_picture_in_colour(tab, host, ort):
    vae, _ = of_kind("colour", host, ort)
    tab.open(f"{host[1]}/colour/")
    tab.wait(READY)
    for place, condition in enumerate(np.eye(3, dtype=np.float32)):
        seed = next(
            seed
            for seed in range(100)
            if is_clear(vae.sample_mean(1, seed, condition=condition).numpy())
        )
        fill(tab, "#condition select", str(place))
        tab.wait(f"document.querySelector('#condition select').value === '{place}'")
        expected = levels(vae.sample_mean(1, seed, condition=condition).numpy()[0])
        show_seed(tab, seed)
        tab.wait_for(
            functools.partial(lambda want: np.array_equal(pixels(tab, MEAN), want), expected)
        )
    shown = pixels(tab, MEAN)
    fill(tab, "[name=seed]", "7777")
    fill(tab, "#condition select", "0")
    tab.wait_for(lambda: not np.array_equal(pixels(tab, MEAN), shown))
    assert tab.run("document.querySelector('[name=seed]').value") == "7777"
    fill(tab, "#condition input", "1, 2")
    assert said(tab, "#condition .problem") == "Expected 3 numbers between commas; got 1, 2."
    for panel in ("score", "encode", "reconstruct"):
        assert f"no {panel} in ONNX" in said(tab, "#yours")


# Order, accessibility, what is damaged


def test_latents_are_ordered_by_the_rates_of_the_evaluation(tab, bundle, host):
    copy = shutil.copytree(bundle, host[0] / "rated")
    manifest = json.loads((copy / "artifact" / "manifest.json").read_text())
    manifest["training"] = {"evaluation": {"rate_per_latent": [0.5, 0.001, 2.25]}}
    (copy / "artifact" / "manifest.json").write_text(json.dumps(manifest))
    tab.open(f"{host[1]}/rated/")
    tab.wait(READY)
    labels = tab.run("[...document.querySelectorAll('.sliders input')].map((i) => i.ariaLabel)")
    assert labels == ["z2, 2.25 nats", "z0, 0.50 nats", "z1, unused"]
    assert said(tab, "#latents .note").startswith("Ordered by rate")


def test_everything_that_is_used_has_a_name(page, digit):
    page.upload("input[type=file]", digit[0])
    scores(page)
    for panel, cells in (("traversals", 27), ("map", 121), ("path", 9)):
        see(page, panel, cells)
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "checkbox", "combobox", "grid", "gridcell", "image", "link", "slider"}
    roles |= {"region", "spinbutton", "textbox"}
    used = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    assert [node["role"]["value"] for node in used if not node["name"]["value"]] == []
    assert page.names() >= {
        ("heading", "digits version 1"),
        ("spinbutton", "Seed"),
        ("spinbutton", "Row"),
        ("button", "New seed"),
        ("button", "seed 0, row 0"),
        ("grid", "Traversals"),
        ("grid", "Map over two latents"),
        ("grid", "Interpolation"),
        ("combobox", "From: what"),
        ("spinbutton", "To: seed"),
        ("button", "Remove 1: digit.png"),
        ("checkbox", "dark on light: invert"),
    }
    status = page.run("document.getElementById('status').ariaLive")
    assert status == "polite"
    assert said(page, "#status").startswith("1 scored. digit.png: ELBO ")


def test_page_has_no_faults_on_a_desk_or_on_a_phone(page):
    assert page.faults(ALL_VIEWS) == []


def page_has_alert(tab):
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    return any(node["role"]["value"] == "alert" for node in nodes if not node["ignored"])


def truncate(path):
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("file", "damage", "sentence"),
    [
        ("artifact/onnx/decode.onnx", truncate, "is not the file that was published"),
        ("artifact/onnx/decode.onnx", Path.unlink, "artifact/onnx/decode.onnx is missing"),
        ("artifact/manifest.json", truncate, "artifact/manifest.json is damaged: it is not JSON"),
        ("artifact/manifest.json", lambda path: path.write_text("{}"), "names no signatures"),
        ("site.json", Path.unlink, "site.json is missing on this server (status 404)"),
        ("ort/ort.wasm", Path.unlink, "ort/ort.wasm is missing on this server"),
        ("ort/ort.wasm", truncate, "cannot be loaded by ONNX Runtime"),
        ("ort/ort.js", Path.unlink, "ONNX Runtime could not be started"),
    ],
)
def test_damage_is_refused_in_one_message(browsing, bundle, host, tmp_path, file, damage, sentence):
    copy = host[0] / tmp_path.name
    shutil.copytree(bundle, copy)
    (copy / "artifact" / "onnx" / "sample.onnx").unlink()  # decode is then what is asked first
    manifest = copy / "artifact" / "manifest.json"
    entries = json.loads(manifest.read_text())
    entries["signatures"]["sample"]["onnx"] = None
    manifest.write_text(json.dumps(entries))
    damage(copy / file)
    browsing.open(f"{host[1]}/{copy.name}/")
    browsing.wait(FAILED)
    assert sentence in said(browsing, "#failure")
    assert page_has_alert(browsing)


# The command


def test_command_serves_the_page_on_this_machine_alone(browsing, image, ort, vae):
    command = [sys.executable, "-m", "serving", "explore", str(image.parent), "--port", "0"]
    command += ["--no-open", "--ort", str(ort)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        try:
            first = process.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/", first)[0]
            assert first.startswith("Exploring digits, version 1")
            (seed,) = clear_seeds(vae, 1)
            browsing.open(f"{address}#seed={seed}&row=0")
            browsing.wait(READY)
            mean = levels(vae.sample_mean(1, seed).numpy()[0])
            np.testing.assert_array_equal(pixels(browsing, MEAN), mean)
            asked = [url.removeprefix("blob:") for url in browsing.requests]
            assert all(url.startswith(address) or url == "about:blank" for url in asked)
            assert browsing.complaints == []
            with urllib.request.urlopen(address, timeout=10) as reply:
                assert reply.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
            stranger = urllib.request.Request(address, headers={"Host": "rebound.example"})
            with pytest.raises(urllib.error.HTTPError, match="400"):
                urllib.request.urlopen(stranger, timeout=10)
        finally:
            process.terminate()


def test_page_allows_no_other_origin():
    html = (site.PAGE / "index.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    allowed = {word for words in rules.values() for word in words.split()}
    assert allowed == {"'none'", "'self'", "blob:", "data:", "'wasm-unsafe-eval'"}
    for path in site.PAGE.rglob("*"):
        if path.suffix in (".js", ".html", ".css"):
            assert not re.search(r"https?://", path.read_text()), path


def sentence_of(*words):
    result = CliRunner().invoke(main, ["explore", *map(str, words)])
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return result.output.strip()


def test_command_refuses_in_a_sentence(image, ort, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    there = sentence_of(image, "--ort", ort, "--out", tmp_path / "full")
    assert there.endswith("is not an empty folder; name another, or remove it first.")
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    assert "has no ort.wasm.bundle.min.mjs" in sentence_of(image, "--ort", tmp_path)
    assert "holds no version of an artifact" in sentence_of(tmp_path, "--ort", ort)
    copy = shutil.copytree(image, tmp_path / "digits" / "1")
    (copy / "onnx" / "score.onnx").unlink()
    lost = sentence_of(copy, "--ort", ort, "--out", tmp_path / "new")
    assert "onnx/score.onnx is missing after publishing" in lost
    assert not (tmp_path / "new").exists()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = sentence_of(image, "--ort", ort, "--no-open", "--port", port)
        assert f"Port {port} cannot be opened (Address already in use)" in answer
    with server.listen(0) as free:
        assert free.getsockname()[0] == "127.0.0.1"


# The runtime


def test_runtime_is_the_one_that_artifacts_are_verified_in():
    lock = json.loads((needs.JAVASCRIPT / "package-lock.json").read_text())["packages"]
    entry = lock["node_modules/onnxruntime-web"]
    assert (entry["version"], entry["integrity"]) == (runtime.VERSION, runtime.INTEGRITY)


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Makes a function that puts our own npm on the path, with bash and an empty cache."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("KERAS_VAE_CACHE", str(tmp_path / "cache"))
    bash = shutil.which("bash", path="/usr/local/bin:/usr/bin:/bin")

    def put(script):
        (programs / "npm").write_text(f"#!{bash}\nPATH=/usr/bin:/bin\n{script}\n")
        (programs / "npm").chmod(0o755)

    return put


def test_runtime_comes_by_npm_once(npm, tmp_path, monkeypatch):
    package = tmp_path / "package.tgz"
    with tarfile.open(package, "w:gz") as archive:
        for name in (*runtime.FILES, "other.js"):
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    npm(f"[[ $1 == pack && $2 == onnxruntime-web@{runtime.VERSION} ]] && cp {package} ort.tgz")
    with pytest.raises(ServingError, match=r"expected sha512-.*; got sha512-.* It was not kept"):
        runtime.find()
    assert list((tmp_path / "cache").iterdir()) == []
    digest = hashlib.sha512(package.read_bytes()).digest()
    monkeypatch.setattr(runtime, "INTEGRITY", "sha512-" + base64.b64encode(digest).decode())
    said = []
    found = runtime.find(echo=said.append)
    assert len(said) == 1
    assert {path.name for path in found.iterdir()} == set(runtime.FILES)
    npm("exit 1")
    assert runtime.find() == found


def test_runtime_that_does_not_come_says_what_to_do(npm, tmp_path):
    with pytest.raises(ServingError, match=r"npm is not on the path: install Node.js, or .*--ort"):
        runtime.find()
    npm("echo no network >&2; exit 1")
    with pytest.raises(ServingError, match=r"could not download .* \(no network\): try again"):
        runtime.find()
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("posterior", "point"),
    [
        ({"loc": [3], "scale": [3]}, ["loc"]),
        ({"loc": [3], "scale": [3], "context": [16]}, None),
        ({"weights": [5], "loc": [5, 3], "scale": [5, 3]}, None),
    ],
    ids=["normal", "flow", "mixture"],
)
def test_page_takes_loc_for_a_point_only_where_it_is_the_mean(posterior, point):
    """A flow moves the centre of its noise, and a mixture has several."""
    outputs = {name: {"shape": ["batch", *shape]} for name, shape in posterior.items()}
    manifest = {"latents": {"z": {"shape": [3], "support": "reals"}}}
    code = f"""
      import {{ Space }} from {json.dumps((PAGE / "space.js").as_uri())};
      const space = new Space({json.dumps(manifest)});
      console.log(JSON.stringify(space.encoded({json.dumps({"outputs": outputs})})));"""
    ran = subprocess.run(
        ["node", "--input-type=module", "-e", code], check=True, capture_output=True, text=True
    )
    assert json.loads(ran.stdout) == point


# Texts


WORDS = Tokens((END, UNKNOWN, "a", "cat", "sees"), "words", unknown=False)
LETTERS = Tokens((END, UNKNOWN, "a", "\U0001f600", " "), "characters", unknown=True)


def in_page(tokens, steps, script):
    """Evaluates an expression with the page's own reading of texts, of at most steps - 1 tokens."""
    about = {"vocabulary": tokens.stated(), "size": steps}
    code = f"""
      import * as data from {json.dumps((PAGE / "data.js").as_uri())};
      const about = {json.dumps(about)};
      let found;
      try {{ found = {script}; }} catch (error) {{ found = error.message; }}
      console.log(JSON.stringify(found));"""
    ran = subprocess.run(
        ["node", "--input-type=module", "-e", code], check=True, capture_output=True, text=True
    )
    return json.loads(ran.stdout)


@pytest.mark.parametrize(
    ("tokens", "texts"),
    [(WORDS, ["a cat", "cat sees a", "a"]), (LETTERS, ["a \U0001f600", "xa", " "])],
)
def test_page_reads_texts_as_python_does(tokens, texts):
    lines = json.dumps("\n".join(texts) + "\n")
    rows = in_page(tokens, 5, f"data.parseRows(about, {lines}, 't.txt').map((x) => Array.from(x))")
    found = [[np.nan if number is None else number for number in row] for row in rows]
    np.testing.assert_array_equal(found, [tokens.padded(text, 5) for text in texts])
    script = f"data.parseRows(about, {lines}, 't.txt').map((x) => data.textOf(about, x))"
    shown = [tokens.text(tokens.numbers(text)) for text in texts]
    assert in_page(tokens, 5, script) == shown
    drawn = in_page(tokens, 5, "Array.from(data.ended(Float32Array.of(2, 3, 0, 2, 0)))")
    assert drawn == [2, 3, 0, None, None]


@pytest.mark.parametrize(
    ("words", "name", "message"),
    [
        ("a\n\ncat", "t.txt", "t.txt, line 2 is empty."),
        ("a cow", "t.txt", 't.txt: "cow" is not in the vocabulary of the model.'),
        ("a a a", "t.txt", "t.txt: expected at most 2 words; got 3."),
        (
            '"a"\n[1]',
            "t.jsonl",
            't.jsonl, line 2: expected a text, or an object with the key "text".',
        ),
    ],
)
def test_page_refuses_texts_that_the_model_cannot_take(words, name, message):
    script = f"data.parseRows(about, {json.dumps(words)}, {json.dumps(name)})"
    assert in_page(WORDS, 3, script) == message
