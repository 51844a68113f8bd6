"""Command `keras-vae explore`."""

from __future__ import annotations

import tempfile
import threading
import webbrowser
from pathlib import Path

import click

__all__ = ["explore"]


@click.command("explore")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8600,
    show_default=True,
    help="Port on the loopback interface; 0 picks a free port.",
)
@click.option("--no-open", is_flag=True, help="Do not open the page in the browser.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write the page into this folder for a static host instead of serving it.",
)
@click.option(
    "--ort",
    type=click.Path(path_type=Path),
    help="Folder of onnxruntime-web, instead of a download by npm.",
)
def explore(artifact: Path, port: int, no_open: bool, out: Path | None, ort: Path | None) -> None:
    """Explore the latents of ARTIFACT in the browser.

    The page itself runs the ONNX files. ARTIFACT is a version such as artifacts/quickstart/1, or
    artifacts/quickstart for the newest version.
    """
    from serving.artifact import Artifact, latest
    from serving.explore import runtime, server, site

    chosen = Artifact.read(artifact) if artifact.name.isdigit() else latest(artifact)
    files = runtime.find(ort, click.echo)
    if out is not None:
        site.bundle(chosen, files, out)
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        click.secho(f"Wrote {out} ({size / 1e6:.0f} MB).", bold=True)
        click.echo(f"Look at it with: python -m http.server --directory {out}")
        return
    with tempfile.TemporaryDirectory(prefix="explore-") as directory:
        site.write(chosen, files, Path(directory))
        with server.listen(port) as listener:
            address = f"http://{server.HOST}:{listener.getsockname()[1]}/"
            click.secho(f"Exploring {chosen.name}, version {chosen.version}: {address}", bold=True)
            click.echo("Everything is computed in the page. Stop with Ctrl-C.")
            if not no_open:
                # The socket already listens: the browser waits until the first request is accepted.
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
            server.serve(Path(directory), listener)
