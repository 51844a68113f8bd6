"""From a file to a published artifact with no option but --data, on every kind of data at hand.

    python benchmarks/edges.py --data DIR --out DIR [--quick] [--only wine series ...]

DIR of --data holds `mnist` and `fashion` (IDX files), `tabular` (.npz of ADBench), `mixed/Wine`
(data.csv.gz of HI-VAE) and `counts` (a 10x matrix, HDF5); other data is generated here. For each
data set the commands train, evaluate, export, verify, serving local (models, one `sample`, one
`score` of real rows) and explore --out run one after the other, each in a process of its own.
--quick trains for two epochs. Everything that was printed lies in OUT/NAME/log.txt and what was
found in OUT/NAME/walk.json, so that --only repeats some data sets and the tables, on the screen and
in OUT/edges.txt, show all. The exit code is the number of data sets on which a command failed or a
number contradicts another.
"""

import argparse
import contextlib
import csv
import dataclasses
import gzip
import importlib.metadata
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

WINE = [
    *("fixed acidity", "volatile acidity", "citric acid", "residual sugar", "chlorides"),
    *("free sulphur", "total sulphur", "density", "ph", "sulphates", "alcohol", "quality"),
    "colour",
]
STEPS = ("train", "evaluate", "export", "verify", "serve", "explore")
SCORED = 64


@dataclasses.dataclass
class Walk:
    """Result for one data set.

    Attributes:
        name: of the data set.
        codes: exit code by step; a step after a failed one is absent.
        seconds: of each step.
        values: what was measured.
        doubts: sentences about numbers that contradict one another.
    """

    name: str
    codes: dict[str, int] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    doubts: list[str] = dataclasses.field(default_factory=list)

    @property
    def is_right(self) -> bool:
        """Whether every step succeeded and every number is trusted."""
        return all(self.codes.get(step) == 0 for step in STEPS) and not self.doubts


def whole_numbers(folder: Path) -> Path:
    """Writes a CSV of ages, hours, gains and salaries; returns its path."""
    rng, count = np.random.default_rng(0), 2000
    age = rng.integers(18, 80, count)
    hours = (20 + age * 0.4 + rng.normal(size=count) * 5).astype(int)
    gain = rng.integers(0, 20000, count)
    salary = (1000 * age + rng.normal(size=count) * 3000).astype(int)
    return write_csv(
        folder / "people.csv",
        ["age", "hours", "gain", "salary"],
        np.stack([age, hours, gain, salary], axis=1).tolist(),
    )


def series(folder: Path) -> Path:
    """Writes 2000 series of 24 steps and 2 channels, sines of random phase and height."""
    rng = np.random.default_rng(0)
    phase, height = rng.uniform(0, 2 * np.pi, (2, 2000, 1))
    angle = np.linspace(0, 2 * np.pi, 24) + phase
    x = np.stack([10 + height * np.sin(angle), 200 + 30 * np.cos(angle)], axis=-1)
    np.save(folder / "series.npy", x + rng.normal(size=x.shape) * [0.3, 3.0])
    return folder / "series.npy"


def sprites(folder: Path) -> Path:
    """Writes 400 RGB pictures of 16 x 16 pixels: a coloured disc on a background."""
    from PIL import Image

    rng = np.random.default_rng(0)
    target = folder / "sprites"
    target.mkdir()
    rows, columns = np.mgrid[:16, :16]
    for index in range(400):
        centre, radius = rng.uniform(4, 11, 2), rng.uniform(2, 5)
        inside = ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2)[..., None]
        picture = np.where(inside, rng.integers(120, 256, 3), rng.integers(0, 60, 3))
        picture = picture + rng.normal(size=picture.shape) * 6
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(target / f"{index:04}.png")
    return target


def deep_pictures(folder: Path) -> Path:
    """Writes 400 grey pictures of 12 x 12 pixels and 16 bits, of 12 bits of range."""
    from PIL import Image

    rng = np.random.default_rng(0)
    target = folder / "deep"
    target.mkdir()
    rows, columns = np.mgrid[:12, :12]
    for index in range(400):
        centre, width = rng.uniform(3, 8, 2), rng.uniform(1.5, 4)
        squares = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2
        picture = 4000 * np.exp(-squares / (2 * width**2)) + rng.normal(size=squares.shape) * 20
        Image.fromarray(np.clip(picture, 0, 4095).astype(np.uint16)).save(
            target / f"{index:04}.png"
        )
    return target


def wine(source: Path, folder: Path) -> Path:
    """Writes Wine as it is, with names for its columns, which its file lacks."""
    with gzip.open(source, "rt") as file:
        return write_csv(folder / "wine.csv", WINE, list(csv.reader(file)))


def cells(source: Path, folder: Path) -> Path:
    """Writes a 10x matrix of counts as cells x genes."""
    import h5py
    from scipy.sparse import csc_matrix

    with h5py.File(source) as file:
        matrix = file["matrix"]
        genes = csc_matrix((matrix["data"], matrix["indices"], matrix["indptr"]), matrix["shape"])
    np.save(folder / "cells.npy", genes.T.toarray().astype(np.int32))
    return folder / "cells.npy"


def write_csv(path: Path, names: list[str], rows: list[list[Any]]) -> Path:
    """Writes a CSV file; returns its path."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def data_sets(source: Path) -> dict[str, Callable[[Path], Path]]:
    """Functions from a folder to write in to the path for --data, by name, the quick ones first."""
    (counts,) = (source / "counts").glob("*.h5")
    tables = {
        path.stem.split("_", 1)[-1]: (lambda folder, path=path: path)
        for path in sorted((source / "tabular").glob("*.npz"))
    }
    return {
        "people": whole_numbers,
        "series": series,
        **tables,
        "wine": lambda folder: wine(source / "mixed" / "Wine" / "data.csv.gz", folder),
        "cells": lambda folder: cells(counts, folder),
        "deep": deep_pictures,
        "sprites": sprites,
        "mnist": lambda folder: source / "mnist",
        "fashion": lambda folder: source / "fashion",
    }


def walk(name: str, make: Callable[[Path], Path], out: Path, quick: bool) -> Walk:
    """Takes one data set through all commands, until one fails."""
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path, run, artifacts = make(folder), folder / "run", folder / "artifacts" / name
    found = Walk(name)
    train = ["keras_vae", "train", "--data", str(path), "--out", str(run)]
    commands = {
        "train": [*train, *(["--epochs", "2"] if quick else [])],
        "evaluate": ["keras_vae", "evaluate", str(run)],
        "export": ["export", str(run / "model.keras"), "--out", str(artifacts)],
        "verify": ["export", "verify", str(artifacts / "1")],
        "serve": [],
        "explore": ["serving", "explore", str(artifacts / "1"), "--out", str(folder / "site")],
    }
    with (folder / "log.txt").open("a") as log:
        for step, words in commands.items():
            print(f"  {step}", end="", flush=True)
            started = time.monotonic()
            if step == "serve":
                try:
                    found.codes[step] = serve(found, run, artifacts.parent, log)
                except (OSError, RuntimeError) as error:  # of the server, which ended or refused
                    log.write(f"{type(error).__name__}: {error}\n")
                    found.codes[step] = 1
            else:
                log.write(f"\n$ python -m {' '.join(words)}\n")
                log.flush()
                done = subprocess.run(
                    [sys.executable, "-m", *words], stdout=log, stderr=subprocess.STDOUT
                )
                found.codes[step] = done.returncode
            found.seconds[step] = time.monotonic() - started
            if found.codes[step]:
                break
    if (run / "evaluation.json").is_file():
        measure(found, run)
    if (artifacts / "1" / "parity.json").is_file():
        rows = json.loads((artifacts / "1" / "parity.json").read_text())
        # A draw of a whole number is the next one where a uniform number lies at the edge of two.
        whole = found.values["evaluation"]["quantity"] == "log-probability"
        draws = [row for row in rows if whole and row["output"] == "sample"]
        numbers = [row["max_scaled"] or 0.0 for row in rows if row not in draws]
        found.values["parity"] = max(numbers)
        if draws:
            found.values["draws"] = max(row["different"] / row["numbers"] for row in draws)
    return found


def measure(found: Walk, run: Path) -> None:
    """Reads the evaluation and notes what contradicts itself."""
    values = json.loads((run / "evaluation.json").read_text())
    found.values["evaluation"] = values
    elbo, log_p = values["elbo"], values["log_marginal"]
    counts = [row["examples"] for row in (elbo, log_p, *values["baselines"].values())]
    if set(counts) != {values["test_examples"]}:
        found.doubts.append(f"rows stand on {sorted(set(counts))} examples")
    # Many draws against one, on the same examples: their mean may fall short by the noise of one.
    if log_p["mean"] < elbo["mean"] - (elbo["standard_error"] or math.inf):
        found.doubts.append(f"log p(x) {log_p['mean']:.2f} lies below ELBO {elbo['mean']:.2f}")
    if values["bits_per_dim"] is not None and values["bits_per_dim"] < 0.0:
        found.doubts.append(f"{values['bits_per_dim']:.3f} bits per dimension")
    served = found.values.get("served")
    if served is not None and not abs(served["score"] - served["python"]) < served["tolerance"]:
        found.doubts.append(f"served ELBO {served['score']:.3f}, Python's {served['python']:.3f}")


def serve(found: Walk, run: Path, artifacts: Path, log: Any) -> int:
    """Starts a local server, asks for its model, a sample and a score of real rows, and ends it."""
    from keras_vae.runs.run import Run

    trained = Run(run)
    raw = trained.raw()[1][:SCORED]
    vae = trained.load()
    x = trained.preparation.array(raw, trained.config.seed)
    offset = trained.preparation.nats_offset * math.prod(vae.event_shape)
    expected = np.asarray(vae.elbo(x, seed=7).elbo, np.float64) + offset
    with server(artifacts, log) as (process, url):
        log.write(f"\nGET {url}\n{ask(url)}\n")
        seeds = [[7, row] for row in range(len(raw))]
        sample = ask(url, "sample", {"seed": seeds[:2]})
        score = ask(url, "score", {"x": raw.astype(float).tolist(), "seed": seeds})
        shape = np.shape(sample["outputs"]["sample"])
        elbo = np.asarray(score["outputs"]["elbo"])
        log.write(f"sample of shape {shape}; score {elbo.mean()} against {expected.mean()}\n")
    # The server and Python prepare with other noise where there is any, each by a draw of its own.
    scatter = np.std(elbo - expected) / math.sqrt(len(elbo))
    found.values["served"] = {
        "score": float(elbo.mean()),
        "python": float(expected.mean()),
        "tolerance": 5.0 * float(scatter) + 1e-5 * float(np.abs(expected).mean()),
    }
    if shape != (2, *raw.shape[1:]) or not np.isfinite(elbo).all():
        return 1
    return process.returncode


@contextlib.contextmanager
def server(artifacts: Path, log: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Runs a local server of the one model below a folder; yields it and the model's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["serving", "local", str(artifacts), "--port", str(port), "--grpc-port", "0"]
    log.write(f"\n$ python -m {' '.join(words)}\n")
    log.flush()
    process = subprocess.Popen(
        [sys.executable, "-m", *words], stdout=log, stderr=subprocess.STDOUT, text=True
    )
    (model,) = artifacts.iterdir()
    url = f"http://127.0.0.1:{port}/v1/models/{model.name}"
    try:
        deadline = time.monotonic() + 60.0
        while True:
            with contextlib.suppress(OSError):
                ask(url)
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The server did not answer: exit code {process.poll()}.")
            time.sleep(0.2)
        yield process, url
    finally:
        process.terminate()
        process.wait(30)


def ask(url: str, signature: str = "", inputs: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns the answer to a request of TensorFlow Serving's REST interface."""
    if not signature:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)
    body = json.dumps({"signature_name": signature, "inputs": inputs}).encode()
    request = urllib.request.Request(f"{url}:predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def tables(walks: list[Walk], quick: bool) -> str:
    """Returns what was found as text."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("tensorflow", "keras")
    )
    lines = [
        f"benchmarks/edges.py{' --quick' if quick else ''}, {time.strftime('%Y-%m-%d')}, "
        f"{versions}, {os.cpu_count()} CPU cores",
        "",
        "What was taken and measured: log p(x) by importance sampling, k = 1000, a lower bound, in",
        "nats per example and units of the file, on the first n test examples. P: log-probability,",
        "d: log-density. Beside it the same of independent entries, and of the best simple model.",
        "",
        f"{'data set':10} {'n':>6} {'log p(x)':>18}   {'bits/dim':>8} {'independent':>12} "
        f"{'best simple model':>18}  likelihood; preparation",
    ]
    for found in walks:
        values = found.values.get("evaluation")
        if values is None:
            lines.append(f"{found.name:10} not measured")
            continue
        log_p, bits, simple = values["log_marginal"], values["bits_per_dim"], values["baselines"]
        alone = [row["mean"] for name, row in simple.items() if name.startswith("independent")]
        best = max((row["mean"] for row in simple.values()), default=math.nan)
        kind = {"log-probability": "P", "log-density": "d"}.get(values["quantity"], "?")
        lines.append(
            f"{found.name:10} {values['test_examples']:6} {log_p['mean']:10.2f} ± "
            f"{log_p['standard_error'] or math.nan:5.2f} {kind} "
            f"{'-' if bits is None else f'{bits:.3f}':>8} "
            f"{f'{alone[0]:.2f}' if alone else '-':>12} {best:18.2f}  "
            f"{values['likelihood']}; {values['preparation']}"
        )
    lines += [
        "",
        "What became of it: exit codes of " + ", ".join(STEPS) + "; the largest difference between",
        "Keras and a runtime as a share of max(1, |value|); the share of draws of whole numbers",
        f"that differ; the mean ELBO of {SCORED} rows that the local server gave, and Python's;",
        "seconds of each step.",
        "",
        f"{'data set':10} {'exit codes':12} {'parity':>8} {'draws':>8} {'served':>10} "
        f"{'Python':>10}  {'seconds':34} {'all':>5}",
    ]
    for found in walks:
        codes = " ".join(str(found.codes.get(step, "-")) for step in STEPS)
        served = found.values.get("served")
        parity, draws = (found.values.get(name) for name in ("parity", "draws"))
        seconds = " ".join(f"{found.seconds.get(step, 0.0):5.0f}" for step in STEPS)
        lines.append(
            f"{found.name:10} {codes:12} {'-' if parity is None else f'{parity:.0e}':>8} "
            f"{'-' if draws is None else f'{draws:.0e}':>8} "
            + (f"{served['score']:10.2f} {served['python']:10.2f}" if served else f"{'-':>10} " * 2)
            + f"  {seconds:34} {sum(found.seconds.values()):5.0f}"
        )
        lines += [f"{'':10} ! {doubt}" for doubt in found.doubts]
    right = sum(found.is_right for found in walks)
    minutes = sum(sum(found.seconds.values()) for found in walks) / 60.0
    return "\n".join([*lines, "", f"{right} of {len(walks)} right, {minutes:.0f} minutes", ""])


def main() -> int:
    """Walks and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="two epochs")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of data sets")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    known = data_sets(arguments.data)
    unknown = set(arguments.only or ()) - set(known)
    if unknown:
        parser.error(f"unknown data sets {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    for name in arguments.only or known:
        print(f"{name}:", end="", flush=True)
        found = walk(name, known[name], arguments.out, arguments.quick)
        (arguments.out / name / "walk.json").write_text(json.dumps(dataclasses.asdict(found)))
        print()
    kept = [arguments.out / name / "walk.json" for name in known]
    walks = [Walk(**json.loads(path.read_text())) for path in kept if path.is_file()]
    text = tables(walks, arguments.quick)
    (arguments.out / "edges.txt").write_text(text)
    print(f"\n{text}")
    return sum(not found.is_right for found in walks)


if __name__ == "__main__":
    sys.exit(main())
