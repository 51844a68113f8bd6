"""Makes the pictures of the pages by running the code that stands in them.

    python docs/make_pictures.py                 all of them
    python docs/make_pictures.py readme          those of one page
    python docs/make_pictures.py explorer DIR    the explorer of the artifact in DIR

The printed numbers of why-the-elbo-is-tractable.md are updated on the way. Tutorials save their own
pictures. The explorer is not among all: it shows a model of MNIST, and needs Chromium and npm.
"""

import base64
import contextlib
import functools
import http.server
import io
import re
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
EXPLORED = 28
"""Seed of the picture of the explorer."""
PAGE = HERE / "why-the-elbo-is-tractable.md"
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)


def blocks() -> list[tuple[str, str | None]]:
    """The code blocks of the page, each with what it is said to print, or None."""
    return [(match[1], match[2]) for match in BLOCK.finditer(PAGE.read_text())]


def run(code: str, namespace: dict[str, Any]) -> str:
    """Runs a block and returns its output."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(PAGE), "exec"), namespace)
    return printed.getvalue()


def _axes(figure: Figure, position: tuple[int, int, int], x: str, y: str) -> Axes:
    axes = figure.add_subplot(*position)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return axes


def _save(figure: Figure, name: str) -> None:
    figure.tight_layout()
    (HERE / "images").mkdir(exist_ok=True)
    figure.savefig(HERE / "images" / name, dpi=110)


def evidence(names: dict[str, Any]) -> None:
    """Error of three estimates against the number of latents."""
    figure = Figure(figsize=(6.2, 3.4))
    axes = _axes(figure, (1, 1, 1), "number of latents", "estimate - log p(x), nats")
    for label, key, marker in (
        ("10 000 draws from the prior", "naive", "o"),
        ("10 000 draws from q, weighted", "weighted", "s"),
        ("ELBO from 10 draws of q", "bounds", "^"),
    ):
        values = np.array(names[key])
        low, middle, high = np.percentile(values, [10, 50, 90], axis=1)
        axes.plot(names["sizes"], middle, marker=marker, markersize=4, label=label)
        axes.fill_between(names["sizes"], low, high, alpha=0.2)
    axes.set_title("median and 10 to 90 % of 50 examples, linear-Gaussian model", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    _save(figure, "evidence.png")


def gradient(names: dict[str, Any]) -> None:
    """Both gradient estimates."""
    figure = Figure(figsize=(6.2, 3.0))
    axes = _axes(figure, (1, 1, 1), "gradient of the first centre from one draw", "density")
    low, high = np.percentile(names["score"], [1, 99])
    edges = np.linspace(low, high, 120)
    for label, key in (("pathwise", "pathwise"), ("score function", "score")):
        axes.hist(names[key], edges.tolist(), density=True, alpha=0.6, label=label)
    axes.axvline(names["pathwise"].mean(), color="black", linewidth=1, label="mean of both")
    axes.set_yscale("log")
    axes.set_title("40 latents, 4000 draws; the density is on a logarithmic axis", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    _save(figure, "gradient.png")


def bounds(names: dict[str, Any]) -> None:
    """The k-sample bound against k, and the truth."""
    figure = Figure(figsize=(6.2, 3.0))
    axes = _axes(figure, (1, 1, 1), "samples k", "nats per example")
    axes.semilogx(names["counts"], names["levels"], "o-", label="L_k; at k = 1 the ELBO")
    axes.axhline(names["truth"], color="black", linewidth=1, label="log p(x) by quadrature")
    axes.axhline(names["annealed"], color="tab:red", linestyle="--", label="annealed, 16 chains")
    best = np.mean(names["gap"].elbo_family)
    axes.axhline(best, color="tab:green", linestyle=":", label="ELBO of the best diagonal q")
    axes.set_title("two-latent Bernoulli VAE, mean of 100 test digits", fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="center right")
    _save(figure, "bounds.png")


def posteriors(names: dict[str, Any]) -> None:
    """Posteriors on a grid with the encoder's q, the best diagonal and the best full q."""
    from keras_vae.evaluation.inference_gap import _make_climb

    vae, part, gap = names["vae"], names["part"], names["gap"]
    order = np.argsort(gap.gap)
    rows = order[[len(order) // 4, len(order) // 2, -3]]
    fits = _make_climb(vae, "diagonal", 500, 128)(tf.constant(part[rows]), tf.constant([0, 0]))
    figure = Figure(figsize=(9.0, 3.5))
    turn = np.linspace(0.0, 2.0 * np.pi, 200)
    circle = np.stack([np.cos(turn), np.sin(turn)])
    for column, row in enumerate(rows):
        axes = _axes(figure, (1, 3, column + 1), "first latent", "second latent")
        loc, spread = fits[2][0][column].numpy(), fits[2][1][column].numpy()
        deviation = np.sqrt((spread**2).sum(axis=1)).max()
        span = np.linspace(-4.5, 4.5, 161) * deviation
        first, second = np.meshgrid(loc[0] + span, loc[1] + span)
        z = np.stack([first.ravel(), second.ravel()], axis=1)[:, None].astype("float32")
        log_p = vae.log_joint(part[row : row + 1], z).numpy().reshape(first.shape)
        density = np.exp(log_p - log_p.max())
        axes.contourf(first, second, density, levels=12, cmap="Greys")
        for (centre, factor), color, style, label in zip(
            fits,
            ("tab:blue", "tab:green", "tab:red"),
            ("-", "--", ":"),
            ("encoder's q", "best diagonal q", "best full q"),
            strict=True,
        ):
            ring = centre[column].numpy()[:, None] + 2.0 * factor[column].numpy() @ circle
            axes.plot(*ring, color=color, linestyle=style, linewidth=1.6, label=label)
        axes.set_title(
            f"gap {gap.gap[row]:.2f}: approximation {gap.approximation[row]:.2f}\n"
            f"(full {gap.approximation_full[row]:.2f}), amortisation {gap.amortisation[row]:.2f}",
            fontsize=8.5,
        )
        axes.set_aspect("equal")
    axes.legend(fontsize=7.5, loc="upper right")
    _save(figure, "posteriors.png")


def family(names: dict[str, Any]) -> None:
    """Cost of a diagonal posterior against the correlation."""
    figure = Figure(figsize=(6.2, 3.0))
    axes = _axes(figure, (1, 1, 1), "correlation of the posterior", "cost of a diagonal q, nats")
    r = np.linspace(-0.995, 0.0, 300)
    axes.plot(r, -0.5 * np.log(1.0 - r**2), label=r"$-\frac{1}{2}\,\log(1 - r^2)$")
    axes.plot(names["correlations"], names["losses"], "o", markersize=4, label="model.gap()")
    axes.legend(fontsize=8, frameon=False)
    _save(figure, "family.png")


def readme(names: dict[str, Any]) -> None:
    """Test digits, their reconstructions, and decoder means of draws from the prior."""
    from keras_vae.runs.pictures import tile

    vae, x_test = names["vae"], names["x_test"][:40]
    panels = {
        "test digits x": x_test / 16,
        "reconstructions, E[x | mean of q(z | x)]": vae.reconstruct(x_test) / 16,
        "decoder means at z from the prior": names["images"] / 16,
    }
    figure = Figure(figsize=(9.0, 1.75))
    for column, (title, images) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, 3, column)
        axes.imshow(tile(np.asarray(images), 10, (0.0, 1.0)), cmap="gray", vmin=0.0, vmax=1.0)
        axes.set_title(title, fontsize=8.5)
        axes.axis("off")
    _save(figure, "readme.png")


def make_explorer(artifact: Path, target: Path = HERE / "images" / "explorer.png") -> None:
    """Saves the top of the explorer's page, at a seed whose draw shows a digit.

    Args:
        artifact: the artifact, `artifacts/NAME` or one of its versions.
        target: the picture.
    """
    sys.path.insert(0, str(HERE.parent / "tests"))
    from chromium import browser

    from serving.artifact import Artifact, latest
    from serving.explore import runtime, site

    chosen = Artifact.read(artifact) if artifact.name.isdigit() else latest(artifact)
    with tempfile.TemporaryDirectory() as directory:
        site.write(chosen, runtime.find(None, print), Path(directory))
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=directory)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, browser() as tab:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            tab.open(f"http://127.0.0.1:{server.server_address[1]}/#seed={EXPLORED}")
            tab.wait("document.body?.dataset.ready !== undefined")
            size = {"width": 1165, "height": 1290, "deviceScaleFactor": 1, "mobile": False}
            tab.call("Emulation.setDeviceMetricsOverride", **size)
            found = tab.call("Page.captureScreenshot", format="png")["data"]
            server.shutdown()
    target.write_bytes(base64.b64decode(found))


def make_why() -> None:
    """Rewrites the printed numbers of the page on the ELBO and makes its pictures."""
    names: dict[str, Any] = {}
    page = PAGE.read_text()
    for code, printed in blocks():
        found = run(code, names)
        if printed is not None:
            old, new = (f"{code}```\n\n```text\n{text}```" for text in (printed, found))
            page = page.replace(old, new)
    PAGE.write_text(page)
    for picture in (evidence, gradient, bounds, posteriors, family):
        picture(names)


def run_page(page: Path) -> dict[str, Any]:
    """Runs the code of a page in order, in a fresh namespace, and returns the namespace."""
    keras.utils.set_random_seed(0)
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
        exec(compile(code, str(page), "exec"), names)
    return names


def main() -> None:
    """Makes the pictures of the pages that are named, or of all."""
    if sys.argv[1:2] == ["explorer"]:
        if len(sys.argv) != 3:
            sys.exit("Expected the artifact, as in: make_pictures.py explorer artifacts/mnist")
        make_explorer(Path(sys.argv[2]))
        return
    tutorials = {path.stem: path for path in sorted((HERE / "tutorials").glob("*.md"))}
    for name in sys.argv[1:] or ["why-the-elbo-is-tractable", "readme", *tutorials]:
        print(f"== {name}", flush=True)
        if name == "why-the-elbo-is-tractable":
            make_why()
        elif name == "readme":
            with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
                readme(run_page(HERE.parent / "README.md"))
        else:
            with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
                run_page(tutorials[name])
                for picture in Path(directory).glob("*.png"):
                    shutil.copy(picture, HERE / "images")


if __name__ == "__main__":
    main()
