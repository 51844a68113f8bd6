"""Page of a report: `page.html` and `style.css`, filled in."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from keras_vae import evaluation
from keras_vae.report import tables
from keras_vae.report.figures import Picture, Words
from keras_vae.report.subject import Subject, described
from keras_vae.runs import measurements
from keras_vae.runs.run import Run
from keras_vae.spelling import counted

__all__ = ["document", "figure_of", "page"]

_PAGE = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
_EMPTY: tuple[object, ...] = ("", (), {})
_STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


def page(
    subject: Subject,
    verdict: str,
    sections: Iterable[tuple[str, Sequence[Picture | Words]]],
    artifact: Path | None,
    synthetic: evaluation.SyntheticReport | None = None,
) -> str:
    """Renders the report as HTML.

    Args:
        subject: the run and its test examples.
        verdict: the sentence at the top.
        sections: titles and pictures.
        artifact: directory of an exported version whose parity is included, or None.
        synthetic: comparison of drawn rows of a table with real ones, or None.

    Raises:
        RunError: if the artifact's `parity.json` cannot be read.
    """
    run, vae = subject.run, subject.vae
    values = measurements.read(run.path / "evaluation.json")
    lines = ["<p>Not measured yet: <code>keras-vae evaluate</code> adds a table here.</p>"]
    if values is not None:
        lines = tables.measured(values)
    if synthetic is not None:
        lines += tables.synthetic(synthetic)
    for title, pictures in sections:
        lines += [
            f'<h2>{html.escape(title)}</h2><div class="figures">',
            *map(figure_of, pictures),
            "</div>",
        ]
    if artifact is not None:
        lines += tables.parity(artifact)
    settings = [
        f'<h2>Settings</h2><div class="scroll"><pre>\n{html.escape(_settings(run))}\n</pre></div>'
    ]
    return document(
        name=run.path.resolve().name,
        summary=(
            f"{html.escape(described(vae))}, likelihood {type(vae.likelihood).__name__}. "
            f"{counted(len(run.history()), 'epoch')} on {html.escape(run.config.data)}. "
            f"{html.escape(_data(run))}."
        ),
        verdict=verdict,
        body=[*lines, *settings],
    )


def document(*, name: str, summary: str, verdict: str, body: Iterable[str]) -> str:
    """Renders a page.

    Args:
        name: its title, text.
        summary: the line below the title, HTML.
        verdict: the sentence at the top, text.
        body: the rest, lines of HTML.
    """
    return _PAGE.substitute(
        name=html.escape(name),
        style=_STYLE,
        summary=summary,
        verdict=html.escape(verdict),
        body="\n".join(body),
    )


def _data(run: Run) -> str:
    """Describes how the data became that of the model."""
    if run.schema is None:
        return f"Preparation: {run.preparation.sentence}"
    columns = f"{len(run.schema)} of {len(run.schema.table)} columns"
    return f"Modelled: {columns}, each with its own likelihood"


def figure_of(picture: Picture | Words) -> str:
    """Renders a picture or a table of texts with its caption."""
    title, caption = html.escape(picture.title), html.escape(picture.caption)
    if isinstance(picture, Words):
        shown = "\n".join(tables.words(picture.header, picture.rows))
        about = f"<figcaption><strong>{title}</strong> {caption}</figcaption>"
        return f'<figure class="wide">{shown}{about}</figure>'
    return (
        f'<figure class="{picture.kind}"><img alt="{title}: {caption}" src="{picture.image}">'
        f"<figcaption><strong>{title}</strong> {caption}</figcaption></figure>"
    )


def _settings(run: Run) -> str:
    given = {name: value for name, value in run.config.effective().items() if value not in _EMPTY}
    return json.dumps(given, indent=2, default=str)
