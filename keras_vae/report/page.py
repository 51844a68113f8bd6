"""Page of a report: its HTML and style."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from keras_vae.report.figures import Picture
from keras_vae.report.subject import Subject
from keras_vae.runs import measurements
from keras_vae.runs.config import RunError
from keras_vae.runs.run import Run, read_json

__all__ = ["page"]

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


def page(
    subject: Subject,
    verdict: str,
    sections: Iterable[tuple[str, list[Picture]]],
    artifact: Path | None,
) -> str:
    """Returns the report as HTML.

    Args:
        subject: what it is about.
        verdict: the sentence at its head.
        sections: titles and pictures.
        artifact: directory of an exported version, whose parity is shown, or None.

    Raises:
        RunError: if the artifact's `parity.json` cannot be read.
    """
    run, vae, config = subject.run, subject.vae, subject.run.config
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
        *([] if artifact is None else _parity(artifact)),
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


def _parity(artifact: Path) -> list[str]:
    """Table of the largest difference of each signature between Keras and each runtime."""
    path = artifact / "parity.json"
    try:
        return _parity_table(read_json(path), artifact)
    except (AttributeError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} is no list of comparisons as an export writes it; check the artifact with "
            f"`keras-vae verify {artifact}`."
        ) from error


def _parity_table(rows: Any, artifact: Path) -> list[str]:
    signatures = list(dict.fromkeys(row["signature"] for row in rows))
    worst: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        runtime = worst.setdefault((row["runtime"], row["precision"]), {})
        largest = max(runtime.get(row["signature"], 0.0), row["max_abs"])
        runtime[row["signature"]] = largest
    passed = sum(row["passed"] for row in rows)
    labels = [name if kind == "float32" else f"{name}, {kind}" for name, kind in worst]
    lines = [
        '<h2>Export parity</h2><div class="scroll"><table><tr><th>signature</th>',
        *(f'<th class="number">{html.escape(label)}</th>' for label in labels),
        "</tr>",
    ]
    for signature in signatures:
        lines.append(f"<tr><td>{html.escape(signature)}</td>")
        for found in worst.values():
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


def _settings(run: Run) -> str:
    shown = {k: v for k, v in vars(run.config).items() if k != "preparation"}
    return json.dumps(shown, indent=2, default=str)
