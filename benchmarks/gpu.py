"""Training, export and noise on a GPU: step times beside JAX and PyTorch, and what must be equal.

    python -m benchmarks.gpu all [--before CHECKOUT] [--out FILE]    everything, in processes
    python -m benchmarks.gpu steps | jax | torch | reference | checks    one part, in this process

`all` writes benchmarks/results/gpu.txt unless another file is given; CHECKOUT is another revision
to measure `fit` of. A step is the median epoch after the first over its number of steps; the first
epoch holds tracing and compilation. Every system trains the same network from the same weights on
data that is on the device where the system allows it. JAX and PyTorch may be missing.

`checks` compares a GPU with the same program on the CPU: noise, losses, export and verification.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.cases import CASES, Case, data

ROOT = Path(__file__).parents[1]
ROWS = {"mlp-100": 60_000, "mlp-512": 61_440, "conv-28": 20_000, "conv-64": 6_400}
MOST_ROWS = 240_000
"""Number of rows of a large table, on which a step must not be slower."""

EXAMPLES = 10_000
"""Number of examples in the checks."""

STEPS, FEW = 3_000, 1_080
"""Number of training steps, enough for `jit_compile="auto"` to compile in every version."""


def cases() -> list[Case]:
    """The cases, with a data set of the usual size."""
    return [dataclasses.replace(CASES[name], examples=rows) for name, rows in ROWS.items()]


class OutOfEpochsError(Exception):
    """The epochs to be timed are over."""


class Gate:
    """Times a number of epochs, as `benchmarks.peers.worker.Gate` does for a runner."""

    def __init__(self, epochs: int) -> None:
        self.left, self.seconds, self._begin = epochs, [], 0.0

    def begin(self) -> None:
        """Starts an epoch."""
        if not self.left:
            raise OutOfEpochsError
        self.left -= 1
        self._begin = time.perf_counter()

    def end(self, loss: Any = None) -> None:
        """Ends it."""
        self.seconds.append(time.perf_counter() - self._begin)


def timed(
    name: str,
    case: Case,
    train: Callable[[Case, np.ndarray, Gate], None],
    least: int = STEPS,
) -> None:
    """Trains `least` steps; prints microseconds per step and seconds of the first epoch."""
    gate = Gate(max(3, -(-least // case.steps)))
    x = data(case)
    try:
        with contextlib.suppress(OutOfEpochsError):
            train(case, x, gate)
    except Exception as error:  # one system must not end the others
        print(f"{name:34} failed: {type(error).__name__}: {str(error)[:200]}", flush=True)
        return
    step = statistics.median(gate.seconds[1:]) / case.steps * 1e6
    print(
        f"{name:34} {step:9.0f} us/step   first epoch {gate.seconds[0]:6.1f} s   "
        f"{case.steps} steps of {case.batch}, {len(gate.seconds)} epochs",
        flush=True,
    )


def steps(label: str, least: int) -> None:
    """Times `fit` as the README calls it, and on a table four times as large."""
    import keras

    from benchmarks.peers.keras_systems import model

    class Epochs(keras.callbacks.Callback):
        def __init__(self, gate: Gate) -> None:
            super().__init__()
            self.gate = gate

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.gate.begin()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.gate.end()

    def fit(case: Case, x: np.ndarray, gate: Gate) -> None:
        keras.utils.set_random_seed(0)
        vae = model(case)
        vae.compile()
        epochs = gate.left
        vae.fit(x, batch_size=case.batch, epochs=epochs, verbose=0, callbacks=[Epochs(gate)])

    for case in cases():
        timed(f"{case.name} {label}", case, fit, least)
    large = dataclasses.replace(CASES["mlp-100"], examples=MOST_ROWS)
    timed(f"mlp-100, {MOST_ROWS} rows {label}", large, fit, least)


def jax() -> None:
    """Times an epoch as one `lax.scan`, with the data on the device."""
    from benchmarks.peers import jax_systems

    for case in cases():
        timed(f"{case.name} JAX scan", case, jax_systems.scan)


def torch() -> None:
    """Times a PyTorch loop, with the data on the device and TF32 products."""
    import torch as library

    from benchmarks.peers import torch_systems

    library.set_float32_matmul_precision("high")
    library.backends.cudnn.allow_tf32 = library.backends.cudnn.benchmark = True
    library.set_default_device("cuda")
    of = torch_systems.channels_first
    torch_systems.channels_first = lambda case, x: of(case, x).cuda()
    for case in cases():
        timed(f"{case.name} PyTorch eager", case, torch_systems.eager, FEW)


def _history(jit_compile: bool | str) -> dict[str, list[float]]:
    """Trains a small model; returns its losses."""
    import keras

    import keras_vae

    x = data(dataclasses.replace(CASES["mlp-100"], examples=EXAMPLES))
    keras.utils.set_random_seed(1)
    vae = keras_vae.mlp_vae((784,), 50)
    vae.compile(jit_compile=jit_compile)
    fitted = vae.fit(x, batch_size=100, epochs=3, verbose=0, validation_data=x[:500])
    _history.weights = np.concatenate([w.ravel() for w in vae.get_weights()])  # type: ignore[attr-defined]
    return fitted.history


def answers() -> dict[str, np.ndarray]:
    """Returns everything that seeds determine, by name: noise, draws and bounds of a new model."""
    import keras
    import tensorflow as tf

    import keras_vae
    from keras_vae import random

    seeds = random.row_seeds(7, 4096)
    rng = np.random.default_rng(3)
    a, b = (tf.constant(rng.random(100_000) + 0.01, tf.float32) for _ in range(2))
    found = {
        "sum, product, quotient": tf.stack([a + b, a * b, a / b]),
        "square root in float32": tf.sqrt(a),
        "square root in float64, rounded": tf.cast(tf.sqrt(tf.cast(a, tf.float64)), tf.float32),
        "words": random.bits(seeds, 51, stream=0),
        "uniforms": random.uniform(seeds, (51,), stream=2),
        "normals": random.normal(seeds, (51,), stream=0),
    }
    for inverse in ("logistic", "laplace"):
        found[inverse] = getattr(random, inverse)(found["uniforms"])
    keras.utils.set_random_seed(1)
    vae = keras_vae.mlp_vae((784,), 50)
    x = data(dataclasses.replace(CASES["mlp-100"], examples=500))
    found |= {
        "sample": vae.sample(64, seed=7),
        "sample_mean": vae.sample_mean(64, seed=7),
        "reconstruct": vae.reconstruct(x),
        "elbo": vae.elbo(x, num_samples=4, seed=3).elbo,
    }
    return {name: np.asarray(value) for name, value in found.items()}


def reference(path: Path) -> None:
    """Writes what the CPU computes: run it where TensorFlow sees no GPU."""
    np.savez(path, **answers())
    path.with_suffix(".json").write_text(json.dumps(_history(False)))


def checks(path: Path) -> None:
    """Prints how a GPU differs from the reference, and whether export passes."""
    import tensorflow as tf

    from keras_vae.devices import device, without_tensor_float_32

    print("device:", device(), flush=True)
    expected = np.load(path)
    for name, value in answers().items():
        want = expected[name]
        error = np.max(np.abs(value.astype("d") - want.astype("d")))
        print(f"{name:34} {np.mean(value != want):8.3%} differ, by at most {error:.2g}", flush=True)
    want = json.loads(path.with_suffix(".json").read_text())
    for title, off, jit_compile in (
        ("losses, TF32 off, not compiled", True, False),
        ("losses, TF32 off, compiled", True, True),
        ("losses, TF32 on, compiled", False, True),
    ):
        weights = []
        with without_tensor_float_32() if off else contextlib.nullcontext():
            for _ in range(2):
                history = _history(jit_compile)
                weights.append(_history.weights)  # type: ignore[attr-defined]
        worst = {
            part: max(
                abs(value / other - 1)
                for name in want
                if name.startswith("val_") == (part == "validation")
                for value, other in zip(history[name], want[name], strict=True)
            )
            for part in ("training", "validation")
        }
        again = np.max(np.abs(weights[0] - weights[1]))
        print(
            f"{title:34} relative to the CPU {worst}; weights of the same seed again differ by "
            f"{again:.2g}",
            flush=True,
        )
    for name in ("mlp", "conv"):
        _export(name)
    _evaluators()
    print("TF32 still on:", tf.config.experimental.tensor_float_32_execution_enabled(), flush=True)


def _export(name: str) -> None:
    """Exports and verifies a model with TensorFlow's defaults."""
    import keras_vae
    from export.pipeline import export_model
    from export.verify import verify

    vae = (
        keras_vae.mlp_vae((8, 8, 1), 8, "bernoulli")
        if name == "mlp"
        else keras_vae.conv_vae((28, 28, 1), 16, "bernoulli", filters=(16, 32))
    )
    begin = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            verify(export_model(vae, Path(folder) / "model"))
        print(f"export and verification of {name}: passed, {time.perf_counter() - begin:.0f} s")
    except Exception as error:  # the other checks go on
        print(f"export of {name} FAILED: {type(error).__name__}: {str(error)[:500]}")
    sys.stdout.flush()


def _evaluators() -> None:
    """Times evaluators on numbers of examples that they have not met."""
    import keras_vae

    x = data(dataclasses.replace(CASES["mlp-100"], examples=EXAMPLES))
    vae = keras_vae.mlp_vae((784,), 50)
    vae.compile()
    for count in (1000, 999, 900, 700):
        begin = time.perf_counter()
        keras_vae.evaluation.log_marginal(vae, x[:count], num_samples=1000)
        print(f"log_marginal of {count}, 1000 draws: {time.perf_counter() - begin:.2f} s")
    for count in (EXAMPLES, EXAMPLES, EXAMPLES - 1):
        begin = time.perf_counter()
        vae.evaluate(x[:count], verbose=0)
        print(f"evaluate of {count}: {time.perf_counter() - begin:.2f} s", flush=True)


def _run(arguments: list[str], checkout: Path, hide: bool = False) -> Iterator[str]:
    """Runs a part in a process of its own; yields its lines."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    paths = [str(checkout), str(ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    if hide:
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__)), *arguments],
        cwd=checkout,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    yield from process.stdout
    if process.wait():
        yield f"{' '.join(arguments)} ended with status {process.returncode}\n"


def everything(before: Path | None, out: Path) -> None:
    """Runs all parts and writes their output."""
    with tempfile.TemporaryDirectory() as folder, out.open("w") as file:
        expected = str(Path(folder) / "reference.npz")
        parts = [(["steps", "--label", "fit"], ROOT, False), (["jax"], ROOT, False)]
        if before is not None:
            few = ["--label", "fit before", "--steps", str(FEW)]
            parts.append((["steps", *few], before, False))
        parts += [
            (["torch"], ROOT, False),
            (["reference", "--path", expected], ROOT, True),
            (["checks", "--path", expected], ROOT, False),
        ]
        for arguments, checkout, hide in parts:
            for line in _run(arguments, checkout, hide):
                print(line, end="", flush=True)
                file.write(line)
                file.flush()


def main() -> None:
    """Runs one part, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("all", "steps", "jax", "torch", "reference", "checks"))
    parser.add_argument("--before", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/gpu.txt")
    parser.add_argument("--label", default="fit")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--path", type=Path)
    given = parser.parse_args()
    if given.part == "all":
        everything(given.before, given.out)
    elif given.part == "steps":
        steps(given.label, given.steps)
    elif given.part in ("reference", "checks"):
        {"reference": reference, "checks": checks}[given.part](given.path)
    else:
        {"jax": jax, "torch": torch}[given.part]()


if __name__ == "__main__":
    main()
