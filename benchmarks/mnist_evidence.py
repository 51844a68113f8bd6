"""ELBO, L_5000 and annealed importance sampling on a trained binary-MNIST VAE.

keras-vae train --config recipes/mnist-mlp.toml --data PATH_OF_MNIST --out runs/mnist
python benchmarks/mnist_evidence.py runs/mnist
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np

from keras_vae.evaluation import bdmc, log_marginal, mean_and_error
from keras_vae.runs.run import Run


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--temperatures", type=int, default=1000)
    arguments = parser.parse_args()
    warnings.simplefilter("always")
    run = Run(arguments.run)
    vae = run.load()
    _, test_raw = run.raw()
    x = run.preparation.array(test_raw[: arguments.images], 0)
    if not len(x):
        return
    elbo = np.concatenate(
        [vae.elbo(x[i : i + 50], num_samples=200, seed=i).elbo for i in range(0, len(x), 50)]
    )
    print(f"{len(x)} test images, nats, mean and standard error over images")
    print("ELBO            {:9.3f} +- {:.3f}".format(*mean_and_error(elbo)), flush=True)
    marginal = log_marginal(vae, x, num_samples=5000)
    assert marginal.pareto_k is not None
    print("L_5000          {:9.3f} +- {:.3f}".format(*mean_and_error(marginal.value)))
    print(
        f"  median ESS {np.median(marginal.effective_sample_size):.1f}, "
        f"median Pareto-k {np.median(marginal.pareto_k):.2f}",
        flush=True,
    )
    started = time.perf_counter()
    annealed = log_marginal(vae, x, "annealed", temperatures=arguments.temperatures)
    assert annealed.acceptance is not None
    print(
        "AIS from q      {:9.3f} +- {:.3f}".format(*mean_and_error(annealed.value)),
        f"({arguments.temperatures} temperatures, 16 chains, acceptance "
        f"{annealed.acceptance.mean():.2f}, {time.perf_counter() - started:.0f} s)",
        flush=True,
    )
    for name, low, high in (
        ("L_5000 - ELBO", elbo, marginal.value),
        ("AIS - L_5000", marginal.value, annealed.value),
    ):
        mean, error = mean_and_error(high - low)
        print(f"{name:15s} {mean:9.3f} +- {error:.3f}, least {np.min(high - low):.3f}", flush=True)
    bracket = bdmc(vae, 32, temperatures=arguments.temperatures // 2)
    print(
        f"BDMC, 32 images drawn from the model, {arguments.temperatures // 2} temperatures: "
        f"{bracket.lower.mean():.3f} to {bracket.upper.mean():.3f}, "
        f"width {bracket.width:.3f} +- {bracket.width_error:.3f}"
    )


if __name__ == "__main__":
    main()
