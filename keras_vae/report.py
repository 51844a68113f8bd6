"""Report: one HTML file about a run, with every picture inside and nothing fetched."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from scipy.special import logsumexp

from keras_vae import data, estimators, evaluation, measurements
from keras_vae.backup import write_atomically
from keras_vae.model import VAE
from keras_vae.pictures import tile
from keras_vae.runs import Run, read_json

__all__ = ["write"]

_EXAMPLES = 1000
_HARD = 64
_GAP = 32
_DRAWS = 1000
_SIZE = (4.1, 2.8)
_BLUE, _ORANGE, _GREY = "#2a6fbb", "#d9822b", "#8a8a8a"

_STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1c1c1c; --paper: #ffffff; --soft: #f6f6f4; --line: #dcdcd8; --accent: #2a6fbb;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e6; --paper: #17181a; --soft: #222427; --line: #3a3d41; }
}
body {
  font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 0 auto; max-width: 1160px; padding: 1.5rem clamp(0.8rem, 3vw, 2rem) 4rem;
}
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 0.4rem; overflow-wrap: anywhere; }
h2 {
  font-size: 1.25rem; margin: 2.6rem 0 0.9rem; padding-bottom: 0.3rem;
  border-bottom: 1px solid var(--line);
}
p { max-width: 72ch; margin: 0.6rem 0; }
p.verdict { border-left: 4px solid var(--accent); padding: 0.1rem 0 0.1rem 0.9rem; }
.figures {
  display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr));
}
figure {
  margin: 0; background: var(--soft); border: 1px solid var(--line); border-radius: 8px;
  overflow: hidden;
}
figure.wide { grid-column: 1 / -1; }
figure img {
  width: 100%; height: auto; display: block; box-sizing: border-box; padding: 0.5rem;
  background: #ffffff;
}
figure.pixels img { image-rendering: pixelated; }
figcaption { font-size: 0.875rem; line-height: 1.45; padding: 0.6rem 0.8rem 0.7rem; }
figcaption strong { display: block; font-size: 0.95rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
th, td {
  text-align: left; padding: 0.35rem 1.1rem 0.35rem 0;
  border-bottom: 1px solid var(--line);
}
th { font-size: 0.875rem; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
pre { font-size: 0.8125rem; line-height: 1.5; margin: 0; columns: 20rem; }
@media (max-width: 480px) {
  body { font-size: 15px; }
  h1 { font-size: 1.6rem; }
  table { font-size: 0.8125rem; }
  th { font-size: 0.75rem; }
  th, td { padding-right: 0.55rem; }
}
"""


@dataclass(frozen=True)
class _Picture:
    """One figure of the report.

    Attributes:
        title: in a few words.
        caption: units and method, in one line.
        image: data URI.
        kind: CSS class, "", "wide" or "wide pixels".
    """

    title: str
    caption: str
    image: str
    kind: str = ""


def write(
    run: Run,
    *,
    artifact: Path | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda sentence: None,
) -> str:
    """Measures what the report shows and writes `report.html` into the run.

    Args:
        run: a run with a finished epoch.
        artifact: directory of an exported version, whose `parity.json` is shown; None leaves it
            out.
        seed: of all draws.
        report: called with sentences about what is done.

    Returns:
        The path written, as a string.

    Raises:
        RunError: if the run has no model, or the artifact no parity.
    """
    vae = run.load()
    parity = [] if artifact is None else _parity(artifact)
    raw = run.raw()[1]
    x = run.preparation.array(raw[:_EXAMPLES], run.config.seed)
    sections: list[tuple[str, list[_Picture]]] = []
    report("Learning curves and the bound")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what the curve shows, it need not say too
        bounds = [*_bounds(vae, x, seed), _gap(vae, x, seed)]
        worst = _least_likely(vae, x, seed)
    sections.append(("Training", [*_curves(run), *_watched(run)]))
    sections.append(("How far the bound is from the truth", [*bounds, *_frontier(run)]))
    report("Latents")
    sections.append(("Latents", _latents(run, vae, x)))
    report("What the model draws")
    sections.append(("Data and draws", [*_draws(vae, x, seed), *worst]))
    verdict = evaluation.diagnose(vae, x, seed=seed).verdict
    page = _page(run, vae, verdict, sections, parity)
    path = run.path / "report.html"
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return str(path)


def _curves(run: Run) -> list[_Picture]:
    history = run.history()
    epochs = [row["epoch"] for row in history]
    figure, axes = _figure()
    _pair(axes, epochs, history, "elbo", _BLUE)
    early = history[len(history) // 10 :]
    values = [row[key] for row in early for key in ("elbo", "val_elbo") if key in row]
    if len(history) > 10:
        margin = 0.1 * (max(values) - min(values)) + 1e-9
        axes.set_ylim(min(values) - margin, max(values) + margin)
    _label(axes, "epoch", "ELBO, nats per example")
    pictures = [_line("ELBO", "Unweighted lower bound on log p(x), one draw of z each.", figure)]
    figure, axes = _figure()
    _pair(axes, epochs, history, "distortion", _BLUE)
    _pair(axes, epochs, history, "rate", _ORANGE)
    _label(axes, "epoch", "nats per example")
    caption = "Its two terms: -E log p(x | z) and KL(q(z | x) || p(z)). Their sum is -ELBO."
    pictures.append(_line("Distortion and rate", caption, figure))
    if any(abs(row["loss"] + row["elbo"]) > 1e-3 * abs(row["loss"]) for row in history):
        figure, axes = _figure()
        _pair(axes, epochs, history, "loss", _GREY)
        _label(axes, "epoch", "loss, nats per example")
        caption = f"What was minimised ({run.config.objective}, beta {run.config.beta:g})."
        pictures.append(_line("Loss, which is not the ELBO", caption, figure))
    return pictures


def _watched(run: Run) -> list[_Picture]:
    """What the monitor logged, if the run had one."""
    history = run.history()
    if "active_units" not in history[0]:
        return []
    epochs = [row["epoch"] for row in history]
    units, axes = _figure()
    _pair(axes, epochs, history, "active_units", _BLUE)
    axes.set_ylim(bottom=0.0)
    _label(axes, "epoch", "number of latents")
    rates, axes = _figure()
    _pair(axes, epochs, history, "rate_max", _BLUE)
    _pair(axes, epochs, history, "rate_median", _ORANGE)
    _label(axes, "epoch", "KL(q(z_j | x) || p(z_j)), nats")
    return [
        _line("Active latents", "Var_x(E_q z_j) > 0.01, over the examples of each epoch.", units),
        _line("Rate of the latents", "Largest and median over latents, means over x.", rates),
    ]


def _frontier(run: Run) -> list[_Picture]:
    """Rate against distortion, if models at several beta were trained."""
    path = run.path / "rate_distortion.json"
    if not path.is_file():
        return []
    values = read_json(path)
    rate, distortion = np.array(values["rate"]), np.array(values["distortion"])
    figure, axes = _figure()
    span = np.array([0.0, 1.05 * rate.max()])
    best = (rate + distortion).min()
    axes.plot(span, best - span, "--", color=_GREY, label=f"ELBO = {-best:.1f}")
    axes.plot(rate, distortion, "o-", color=_BLUE)
    for beta, x, y in zip(values["beta"], rate, distortion, strict=True):
        axes.annotate(f"{beta:g}", (x, y), (5, 5), textcoords="offset points", fontsize=8)
    axes.legend(fontsize=8, frameon=False)
    _label(axes, "rate, nats per example", "distortion, nats per example")
    caption = (
        f"Models trained at the beta written beside them, means over {values['test_examples']} "
        "test examples. The dashed line joins models of the best ELBO; -beta is the slope of the "
        "ideal curve."
    )
    return [_line("Rate against distortion", caption, figure)]


def _parity(artifact: Path) -> list[str]:
    """Table of the largest difference between Keras and each runtime, by signature."""
    rows: Any = read_json(artifact / "parity.json")
    signatures = list(dict.fromkeys(row["signature"] for row in rows))
    worst: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        runtime = worst.setdefault((row["runtime"], row["precision"]), {})
        largest = max(runtime.get(row["signature"], 0.0), row["max_abs"])
        runtime[row["signature"]] = largest
    passed = sum(row["passed"] for row in rows)
    lines = [
        '<h2>Export parity</h2><div class="scroll"><table><tr><th>runtime</th>',
        *(f'<th class="number">{html.escape(name)}</th>' for name in signatures),
        "</tr>",
    ]
    for (name, precision), found in worst.items():
        label = name if precision == "float32" else f"{name}, {precision}"
        lines.append(f"<tr><td>{html.escape(label)}</td>")
        for signature in signatures:
            value = found.get(signature)
            text = "" if value is None else "equal" if value == 0.0 else f"{value:.1e}"
            lines.append(f'<td class="number">{text}</td>')
        lines.append("</tr>")
    where = html.escape("/".join(artifact.resolve().parts[-2:]))
    lines.append(
        f"</table></div><p>Largest absolute difference from Keras over the outputs of each "
        f"signature, in their units (nats for score), of the artifact {where}; {passed} of "
        f"{len(rows)} comparisons lie within their tolerance.</p>"
    )
    return lines


def _bounds(vae: VAE, x: np.ndarray, seed: int) -> list[_Picture]:
    """The multi-sample bounds against k, annealed importance sampling above them."""
    few = x[:_HARD]
    log_w = _log_weights(vae, few, seed)
    sizes = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    means = []
    for k in sizes:
        groups = log_w.reshape(_DRAWS // k, k, len(few))
        means.append(float(np.mean(logsumexp(groups, axis=1) - math.log(k))))
    annealed = evaluation.log_marginal(
        vae, few, "annealed", num_samples=8, temperatures=200, seed=seed
    )
    top, top_error = evaluation.mean_and_error(annealed.value)
    figure, axes = _figure()
    axes.plot(sizes, means, "o-", color=_BLUE, label="L_k, importance sampling")
    axes.axhline(top, color=_ORANGE, label="annealed importance sampling")
    axes.set_xscale("log")
    axes.legend(fontsize=8, frameon=False)
    _label(axes, "k, draws per example", "bound on log p(x), nats")
    caption = (
        f"Means over {len(few)} test examples: ELBO = L_1 = {means[0]:.2f}, L_1000 = "
        f"{means[-1]:.2f}, AIS (8 chains, 200 temperatures) = {top:.2f}; the examples scatter by "
        f"{top_error:.2f} (standard error), which all share."
    )
    return [_line("The bound rises towards log p(x)", caption, figure)]


def _gap(vae: VAE, x: np.ndarray, seed: int) -> _Picture:
    """The gap log p(x) - ELBO and what causes it."""
    few = x[:_GAP]
    gap = evaluation.bound_gap(
        vae, few, steps=200, num_samples=64, num_chains=8, temperatures=200, seed=seed
    )
    shares = {
        "the family of q": float(np.mean(gap.approximation)),
        "one encoder for all": float(np.mean(gap.amortisation)),
    }
    figure, axes = _figure()
    axes.barh([*shares], [*shares.values()], color=[_BLUE, _ORANGE])
    axes.invert_yaxis()
    axes.set_xlabel("nats per example", fontsize=9)
    axes.tick_params(labelsize=8)
    return _line(
        "Why the bound is below log p(x)", f"Mean over {len(few)} test examples: {gap}.", figure
    )


def _log_weights(vae: VAE, x: np.ndarray, seed: int) -> np.ndarray:
    """Log-weights log p(x, z) - log q(z | x) of `_DRAWS` draws, [S, N]."""
    laws = vae.laws(tf.constant(x))

    @tf.function
    def chunk(index: tf.Tensor) -> tf.Tensor:
        z = laws.sample(_DRAWS // 10, tf.stack([seed, index]))
        return tf.add(*estimators.log_weights(laws, z))

    return np.concatenate([chunk(tf.constant(index)).numpy() for index in range(10)])


def _latents(run: Run, vae: VAE, x: np.ndarray) -> list[_Picture]:
    q = vae.encode(x)
    centre, scale = q.mean().numpy(), q.stddev().numpy()
    rate = 0.5 * (scale**2 + centre**2 - 1.0) - np.log(scale)
    per_latent = rate.mean(axis=0)
    order = np.argsort(-per_latent)
    figure, axes = _figure()
    axes.bar(range(len(order)), per_latent[order], color=_BLUE)
    axes.axhline(0.0, color=_GREY, linewidth=0.8)
    _label(axes, "latent, most used first", "KL(q(z_j | x) || N(0, 1)), nats")
    active = evaluation.active_units(vae, x)
    caption = (
        f"Mean over {len(x)} test examples, against a standard normal; {active} of "
        f"{vae.latent_size} latents are active (the posterior mean varies by more than 0.01)."
    )
    pictures = [_line("Nats per latent", caption, figure)]
    first, second = order[0], order[min(1, len(order) - 1)]
    figure, axes = _figure()
    grid = np.linspace(-4.0, 4.0, 300)
    for latent, color in ((first, _BLUE), (second, _ORANGE)):
        gaps = (grid[:, None] - centre[:, latent]) / scale[:, latent]
        density = np.exp(-0.5 * gaps**2) / (scale[:, latent] * math.sqrt(2.0 * math.pi))
        axes.plot(grid, density.mean(axis=1), color=color, label=f"q(z), latent {latent}")
    prior = vae.prior.components()
    if len(prior.loc) == 1:
        normal = np.exp(-0.5 * grid**2) / math.sqrt(2.0 * math.pi)
        axes.plot(grid, normal, "--", color=_GREY, label="p(z)")
    axes.legend(fontsize=8, frameon=False)
    _label(axes, "z_j", "density")
    caption = "Posterior averaged over the test set against the prior, the two most used latents."
    pictures.append(_line("Posterior and prior overlap", caption, figure))
    figure, axes = _figure()
    colors = _labels(run, len(x))
    marks = {"c": colors, "cmap": "tab10"} if colors is not None else {"color": _BLUE}
    axes.scatter(centre[:, first], centre[:, second], s=6, alpha=0.7, **marks)
    _label(axes, f"latent {first}", f"latent {second}")
    caption = "Posterior means of the test set on the two most used latents" + (
        ", coloured by label." if colors is not None else "."
    )
    pictures.append(_line("Map of the latents", caption, figure))
    return pictures


def _draws(vae: VAE, x: np.ndarray, seed: int) -> list[_Picture]:
    if len(vae.event_shape) != 3:
        return _table_draws(vae, x, seed)
    count = 60
    shown = x[:20]
    means = vae.reconstruct(shown).numpy()
    return [
        _pixels("Test data", "As prepared for the model.", x[:count], 20),
        _pixels(
            "Draws from p(x)",
            "z from the prior, x from the likelihood.",
            vae.sample(count, seed=seed).numpy(),
            20,
        ),
        _pixels(
            "Decoder means at the same z",
            "No draws: the noise of the likelihood is left out.",
            vae.sample_mean(count, seed=seed).numpy(),
            20,
        ),
        _pixels(
            "Reconstructions",
            "Test data above, decoder mean at the posterior mean below.",
            np.concatenate([shown, means]),
            20,
        ),
        _pixels(
            "Interpolations",
            "Decoder means on lines between posterior means of test pairs.",
            _interpolations(vae, x, 4, 20),
            20,
        ),
        _pixels(
            "Traversals",
            "One latent from -3 to 3, the others at one example's posterior mean; "
            "the four most used latents, one a row.",
            _traversals(vae, x, 4, 20),
            20,
        ),
    ]


def _least_likely(vae: VAE, x: np.ndarray, seed: int) -> list[_Picture]:
    if len(vae.event_shape) != 3:
        return []
    log_p = evaluation.log_marginal(vae, x[:300], num_samples=100, seed=seed).value
    worst = np.argsort(log_p)[:20]
    caption = (
        f"The 20 of {len(log_p)} test examples with the lowest log p(x), from "
        f"{log_p[worst[0]]:.1f} to {log_p[worst[-1]]:.1f} nats (importance sampling, k = 100)."
    )
    return [_pixels("Least likely examples", caption, x[worst], 20)]


def _table_draws(vae: VAE, x: np.ndarray, seed: int) -> list[_Picture]:
    flat = x.reshape(len(x), -1)
    draws = vae.sample(len(x), seed=seed).numpy().reshape(len(x), -1)
    pictures = []
    for feature in range(min(6, flat.shape[1])):
        figure, axes = _figure()
        edges = np.histogram_bin_edges(
            np.clip(
                np.concatenate([flat[:, feature], draws[:, feature]]),
                *np.quantile(flat[:, feature], [0.005, 0.995]),
            ),
            40,
        )
        axes.hist(flat[:, feature], edges, density=True, color=_GREY, alpha=0.6, label="test data")
        axes.hist(
            draws[:, feature], edges, density=True, histtype="step", color=_BLUE, label="draws"
        )
        axes.legend(fontsize=8, frameon=False)
        _label(axes, f"feature {feature}", "density")
        caption = "Prepared units; draws from p(x), as many as test examples."
        pictures.append(_line(f"Feature {feature}", caption, figure))
    return pictures


def _interpolations(vae: VAE, x: np.ndarray, rows: int, columns: int) -> np.ndarray:
    centre = vae.encode(x[: 2 * rows]).mean().numpy()
    weights = np.linspace(0.0, 1.0, columns, dtype=np.float32)[:, None]
    lines = [(1 - weights) * centre[2 * r] + weights * centre[2 * r + 1] for r in range(rows)]
    return vae.decode(np.concatenate(lines)).mean().numpy()


def _traversals(vae: VAE, x: np.ndarray, rows: int, columns: int) -> np.ndarray:
    centre = vae.encode(x).mean().numpy()
    used = np.argsort(-centre.var(axis=0))[:rows]
    lines = np.repeat(centre[None, :1], len(used) * columns, axis=1)[0]
    for row, latent in enumerate(used):
        lines[row * columns : (row + 1) * columns, latent] = np.linspace(-3.0, 3.0, columns)
    return vae.decode(lines).mean().numpy()


def _labels(run: Run, count: int) -> np.ndarray | None:
    """Labels of the test examples as integers, where the data has any and they can be matched."""
    config = run.config
    try:
        if config.test_data:
            found = data.load(config.test_data, labels=True).labels
        elif config.data == "digits":
            labels = data.load("digits", labels=True).labels
            found = data.split(
                np.asarray(labels), test_fraction=config.test_fraction, seed=config.seed
            )[1]
        else:
            found = data.load(config.data, labels=True, split="test").labels
    except data.DataError:
        return None
    if found is None or len(np.unique(found)) > 20:
        return None
    return np.unique(found, return_inverse=True)[1][:count]


def _page(
    run: Run,
    vae: VAE,
    verdict: str,
    sections: Iterable[tuple[str, list[_Picture]]],
    parity: list[str],
) -> str:
    config = run.config
    name = html.escape(run.path.resolve().name)
    law = type(vae.likelihood).__name__
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name}: a variational autoencoder</title><style>{_STYLE}</style></head><body>",
        f"<h1>{name}</h1>",
        f"<p>{vae.latent_size} latents; prior {type(vae.prior).__name__}, likelihood {law}, "
        f"posterior {type(vae.posterior).__name__}. {len(run.history())} epochs on "
        f"{html.escape(config.data)}: {html.escape(run.preparation.sentence)}.</p>",
    ]
    lines.append(f'<p class="verdict">{html.escape(verdict)}</p>')
    values = measurements.read(run.path / "evaluation.json")
    if values is not None:
        lines += _measurements(values)
    else:
        lines.append("<p>Not measured yet: <code>keras-vae evaluate</code> adds a table here.</p>")
    for title, pictures in sections:
        lines.append(f'<h2>{html.escape(title)}</h2><div class="figures">')
        for picture in pictures:
            lines.append(
                f'<figure class="{picture.kind}"><img alt="{html.escape(picture.title)}: '
                f'{html.escape(picture.caption)}" src="{picture.image}"><figcaption><strong>'
                f"{html.escape(picture.title)}</strong> {html.escape(picture.caption)}"
                "</figcaption></figure>"
            )
        lines.append("</div>")
    lines += [
        *parity,
        "<h2>Settings</h2>",
        '<div class="scroll"><pre>',
        html.escape(_settings(run)),
        "</pre></div>",
    ]
    return "\n".join([*lines, "</body></html>", ""])


def _measurements(values: dict[str, Any]) -> list[str]:
    title, rows, notes = measurements.table(values)
    return [
        "<h2>Measurements</h2>",
        f"<p>{html.escape(title)}, natural logarithm.</p>",
        '<div class="scroll"><table><tr><th>model</th><th class="number">log p(x)</th>'
        '<th class="number">standard error</th></tr>',
        *(
            f'<tr><td>{html.escape(name)}</td><td class="number">{mean}</td>'
            f'<td class="number">{error}</td></tr>'
            for name, mean, error in rows
        ),
        "</table></div>",
        *(f"<p>{html.escape(note)}</p>" for note in notes),
    ]


def _settings(run: Run) -> str:
    shown = {k: v for k, v in vars(run.config).items() if k != "preparation"}
    return json.dumps(shown, indent=2, default=str)


def _pair(
    axes: Any, epochs: list[float], history: list[dict[str, float]], name: str, color: str
) -> None:
    axes.plot(epochs, [row[name] for row in history], color=color, label=f"{name}, training")
    if f"val_{name}" in history[0]:
        held_out = [row[f"val_{name}"] for row in history]
        axes.plot(epochs, held_out, "--", color=color, label=f"{name}, held-out")
    axes.legend(fontsize=8, frameon=False)


def _figure() -> tuple[Figure, Any]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _label(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)


def _line(title: str, caption: str, figure: Figure) -> _Picture:
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return _Picture(title, caption, _uri("svg+xml", stream.getvalue()))


def _pixels(title: str, caption: str, images: np.ndarray, columns: int) -> _Picture:
    canvas = tile(images, columns)
    if canvas.shape[-1] == 1:
        canvas = 1.0 - canvas.repeat(3, axis=-1)
    png = tf.io.encode_png(np.round(255 * canvas[..., :3]).astype(np.uint8)).numpy()
    return _Picture(title, caption, _uri("png", png), "wide pixels")


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
