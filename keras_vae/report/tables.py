"""Tables of a report: measurements, and differences of the runtimes from Keras."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from keras_vae import evaluation
from keras_vae.runs import measurements
from keras_vae.runs.config import RunError
from keras_vae.runs.run import read_json

__all__ = ["measured", "numbers", "parity", "synthetic", "words"]


def measured(values: dict[str, Any]) -> list[str]:
    """Renders the table of measurements as lines of HTML.

    Args:
        values: content of `evaluation.json`.
    """
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
        *_columns(values),
    ]


def _columns(values: dict[str, Any]) -> list[str]:
    """Renders what was measured of the columns of a table."""
    found = measurements.columns(values)
    if found is None:
        return []
    notes = [f"<p>{html.escape(note)}</p>" for note in found.notes]
    return [f"<h2>{found.title}</h2>", *numbers(found.header, found.rows), *notes]


def synthetic(report: evaluation.SyntheticReport) -> list[str]:
    """Renders how like the real table drawn rows are."""
    table = report.table
    rows = [(str(name), *(f"{value:.3f}" for value in row)) for name, row in table.iterrows()]
    return [
        "<h2>Drawn rows beside real ones</h2>",
        *numbers(("measure", *map(str, table.columns)), rows),
        "<p>Column distance and pair difference are 0 for equal tables. Told apart is the area "
        "under the ROC curve of trees that tell a table from training rows: 0.5 if they cannot. "
        "Closer to training is 0.5 if nothing was copied. Real: held-out rows, the best that can "
        "be expected. Independent: training columns shuffled one by one.</p>",
    ]


def numbers(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Renders a table whose first column is text."""
    heads = (f'<th class="number">{html.escape(name)}</th>' for name in header[1:])
    lines = [f'<div class="scroll"><table><tr><th>{html.escape(header[0])}</th>', *heads, "</tr>"]
    for name, *cells in rows:
        numbers = "".join(f'<td class="number">{html.escape(cell)}</td>' for cell in cells)
        lines.append(f"<tr><td>{html.escape(name)}</td>{numbers}</tr>")
    return [*lines, "</table></div>"]


def words(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Renders a table of text."""
    heads = (f"<th>{html.escape(name)}</th>" for name in header)
    lines = ['<div class="scroll"><table class="words"><tr>', *heads, "</tr>"]
    for row in rows:
        lines.append(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>")
    return [*lines, "</table></div>"]


def parity(artifact: Path) -> list[str]:
    """Renders the largest difference of each signature in each runtime as lines of HTML.

    Args:
        artifact: directory of an exported version.

    Raises:
        RunError: if its `parity.json` cannot be read.
    """
    path = artifact / "parity.json"
    try:
        return _parity_table(read_json(path), artifact)
    except (AttributeError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} is not a list of comparisons as an export writes it; check the artifact with "
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
