"""Speed of a table of mixed columns as Parts, beside one Normal likelihood of the same width.

    python benchmarks/parts.py [--rows 100000] [--rounds 5]

The table has 12 columns: 5 real, 3 counts, 2 binary and 2 of 4 categories, a fifth of the entries
absent. The Normal model has as many inputs and outputs (18 numbers) and no holes. Both train by
`fit` in turns; the ratio of a step is the median over rounds. Times are those of all cores, which
hardly depend on what else the machine does. Results go to benchmarks/results/parts.txt.
"""

import argparse
import statistics
import time
from pathlib import Path

import keras
import numpy as np

import keras_vae
from keras_vae import Normal, Parts, PartsEncoder

BATCH, HIDDEN, LATENTS = 100, 64, 4


def network() -> keras.Sequential:
    """Returns two hidden layers."""
    return keras.Sequential([keras.layers.Dense(HIDDEN, "relu") for _ in range(2)])


def table(rows: int) -> dict[str, np.ndarray]:
    """Draws a table of 12 columns with holes, by name."""
    rng = np.random.default_rng(0)
    x = {f"real{k}": rng.normal(size=(rows, 1)) for k in range(5)}
    x |= {f"count{k}": rng.poisson(3.0, (rows, 1)).astype(float) for k in range(3)}
    x |= {f"binary{k}": rng.integers(0, 2, (rows, 1)).astype(float) for k in range(2)}
    x |= {f"class{k}": np.eye(4)[rng.integers(0, 4, rows)] for k in range(2)}
    for value in x.values():
        value[rng.random(rows) < 0.2] = np.nan
    return {name: value.astype("float32") for name, value in x.items()}


def parts_vae() -> keras_vae.VAE:
    """Returns the model of the table."""
    parts: dict[str, keras_vae.Likelihood] = {}
    for k in range(5):
        parts[f"real{k}"] = Normal(1, scale="learned", missing=True)
    for k in range(3):
        parts[f"count{k}"] = keras_vae.Poisson(1, missing=True)
    for k in range(2):
        parts[f"binary{k}"] = keras_vae.Bernoulli(1, missing=True)
        parts[f"class{k}"] = keras_vae.Categorical(4, missing=True)
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(LATENTS),
        likelihood=Parts(parts, network=network()),
        posterior=keras_vae.DiagonalNormal(LATENTS, network=PartsEncoder(network())),
    )


def normal_vae(width: int) -> keras_vae.VAE:
    """Returns the model of one matrix."""
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(LATENTS),
        likelihood=Normal(width, network=network(), scale="per_feature"),
        posterior=keras_vae.DiagonalNormal(LATENTS, network=network()),
    )


def main() -> None:
    """Runs the comparison and writes its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    x = table(arguments.rows)
    width = sum(value.shape[1] for value in x.values())
    dense = np.random.default_rng(0).normal(size=(arguments.rows, width)).astype("float32")
    lines = [
        f"{arguments.rows} rows, 12 mixed columns ({width} numbers), batch {BATCH}, "
        f"2 x {HIDDEN} units; microseconds of CPU per row, median of {arguments.rounds} rounds",
        f"{'':10}{'Parts':>9}{'Normal':>9}{'ratio':>7}",
    ]
    for label, jit in (("XLA", True), ("graph", False)):
        models = [(parts_vae(), x), (normal_vae(width), dense)]
        for vae, data in models:
            vae.compile(keras.optimizers.Adam(1e-3), jit_compile=jit)
            vae.fit(data, batch_size=BATCH, verbose=0)
        times: list[list[float]] = [[], []]
        for _ in range(arguments.rounds):
            for index, (vae, data) in enumerate(models):
                begin = time.process_time()
                vae.fit(data, batch_size=BATCH, verbose=0)
                times[index].append(1e6 * (time.process_time() - begin) / arguments.rows)
        ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
        ours, theirs = map(statistics.median, times)
        lines.append(f"{label:10}{ours:9.2f}{theirs:9.2f}{ratio:7.2f}")
    models = [(parts_vae(), x), (normal_vae(width), dense)]
    times = [[], []]
    for _ in range(1 + arguments.rounds):
        for index, (vae, data) in enumerate(models):
            begin = time.process_time()
            vae.elbo(data, seed=0)
            times[index].append(1e6 * (time.process_time() - begin) / arguments.rows)
    ours, theirs = (statistics.median(each[1:]) for each in times)
    lines.append(f"{'elbo':10}{ours:9.2f}{theirs:9.2f}{ours / theirs:7.2f}")
    text = "\n".join(lines) + "\n"
    (Path(__file__).parent / "results" / "parts.txt").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
