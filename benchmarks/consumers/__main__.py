"""A table of programs that read the ONNX files of an artifact, and how far each gets.

    make consumers

Three models are exported: the kind of the quickstart (levels by a discretised logistic, dense
layers), binary images by dense layers, and binary images by convolutions. Each consumer answers the
same inputs in a process of its own, in an environment that this project does not need, and is
compared with ONNX Runtime: the largest difference divided by max(1, |value|); for draws, whether
they are equal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.consumers.run import CONSUMERS

SIGNATURES = ("decode", "encode", "reconstruct", "sample", "score")
ROWS = 5
_TIMEOUT = 600.0
_GOOD = 1e-3


def models() -> dict[str, Any]:
    """The models by name, with the weights of their construction."""
    import keras

    import keras_vae

    keras.utils.set_random_seed(0)
    return {
        "levels, dense": keras_vae.mlp_vae(
            (8, 8, 1), 16, "discretized_logistic", hidden=(128,), levels=17
        ),
        "binary, dense": keras_vae.mlp_vae((28, 28, 1), 16, "bernoulli", hidden=(128,)),
        "binary, convolutions": keras_vae.conv_vae((28, 28, 1), 16, "bernoulli", filters=(8, 16)),
    }


def write(vae: Any, directory: Path) -> None:
    """Writes the ONNX files of a model, and inputs for each."""
    from export import onnx_graphs
    from keras_vae.signatures import signatures

    generator = np.random.default_rng(0)
    for name, signature in signatures(vae).items():
        onnx_graphs.convert(signature, vae.weights).save(directory / f"{name}.onnx")
        inputs: dict[str, np.ndarray] = {}
        for key, spec in signature.inputs.items():
            shape = (ROWS, *spec.shape[1:])
            if key == "seed":
                inputs[key] = generator.integers(-(2**31), 2**31, shape).astype(np.int32)
            elif key == "x":
                inputs[key] = generator.integers(0, 2, shape).astype(np.float32)
            else:
                inputs[key] = generator.standard_normal(shape).astype(np.float32)
        np.savez(directory / f"{name}.npz", **inputs)  # type: ignore[arg-type]


def asked(python: Path, consumer: str, directory: Path) -> Iterator[dict[str, Any]]:
    """Yields the answer of a consumer for each signature, or how it failed."""
    waiting = list(SIGNATURES)
    program = Path(__file__).with_name("run.py")
    # A converter that calls pip finds the environment's own, and that no index.
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    while waiting:
        words = [str(python), str(program), consumer, str(directory), *waiting]
        try:
            done = subprocess.run(
                words, env=environment, capture_output=True, text=True, timeout=_TIMEOUT
            )
            lines, end = done.stdout.splitlines(), f"ended with status {done.returncode}"
            if not lines and done.returncode == 1:
                end = done.stderr.strip().splitlines()[-1]
        except subprocess.TimeoutExpired as slow:
            lines, end = (slow.stdout or b"").decode().splitlines(), f"took {_TIMEOUT:g} s"
        for line in lines:
            yield json.loads(line)
        waiting = waiting[len(lines) :]
        if waiting:
            yield {"signature": waiting.pop(0), "version": "", "error": end}


def compared(directory: Path, signature: str, consumer: str) -> str:
    """Compares the answer with that of ONNX Runtime, in a word."""
    with (
        np.load(directory / f"{signature}.onnxruntime.npz") as want,
        np.load(directory / f"{signature}.{consumer}.npz") as got,
    ):
        worst, drawn = 0.0, ""
        for name in want:
            if got[name].shape != want[name].shape:
                return f"{name} has shape {got[name].shape}"
            difference = np.abs(got[name].astype(np.float64) - want[name])
            if name == "sample":
                different = int((difference > 0).sum())
                drawn = f"{different} of {difference.size} differ, " if different else "equal, "
            else:
                worst = max(worst, float((difference / np.maximum(1.0, np.abs(want[name]))).max()))
    return f"{'' if worst < _GOOD else 'WRONG: '}{drawn}{worst:.0e}"


def main() -> None:
    """Asks every consumer and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, required=True, help="of the consumers' environment")
    parser.add_argument("--results", type=Path, help="file for the table")
    parser.add_argument("--consumers", nargs="+", default=list(CONSUMERS), choices=CONSUMERS)
    options = parser.parse_args()
    chosen = list(dict.fromkeys(["onnxruntime", *options.consumers]))
    lines, reasons = [], []
    for title, vae in models().items():
        lines += ["", f"{title}:", f"{'':46}" + "".join(f"{name:>22}" for name in SIGNATURES)]
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            write(vae, directory)
            for consumer in chosen:
                cells, version = [], consumer
                for answer in asked(options.python.absolute(), consumer, directory):
                    version = answer["version"] or version
                    if answer["error"] is None:
                        cells.append(compared(directory, answer["signature"], consumer))
                    else:
                        cells.append("fails")
                        where = f"{consumer}, {title}, {answer['signature']}"
                        reasons.append(f"{where}: {answer['error']}")
                lines.append(f"{version:46}" + "".join(f"{cell:>22}" for cell in cells))
                print(lines[-1], flush=True)
    text = "\n".join([*lines[1:], "", *reasons])
    print(text)
    if options.results:
        options.results.write_text(text + "\n")


if __name__ == "__main__":
    main()
