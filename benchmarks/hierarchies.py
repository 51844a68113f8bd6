"""Two levels of latents beside one on the handwritten digits of scikit-learn.

    python benchmarks/hierarchies.py --free-bits 0.2 | tee benchmarks/results/hierarchies.txt

The question is that of the IWAE paper (Burda et al., 2016, table 1): does a second stochastic layer
raise log p(x)? The data are 8 x 8 images of 17 levels under a categorical likelihood: the first
1000 for training, the next 350 for validation, the last 447 for the test. One level has 16
latents, those of two levels 8 above 16; all have two hidden layers of 200 units with tanh on either
side, Adam 1e-3 and batches of 64. --free-bits leaves nats of each latent free, in all models. With
--warm-up the weight of the rate rises from 0 over the first epochs. From then on training ends
after 15 epochs without a better validation bound, whose weights are kept. All numbers are
log-probabilities of whole images in nats.

The bound is the mean of 20 draws, log p(x) importance sampling with 500 draws. Each row is compared
with one level on the same test images and seeds, as in flows.py: paired differences of images,
averaged over seeds, plus the scatter of the seeds' means.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from flows import LEVELS, beside
from sklearn.datasets import load_digits

import keras_vae
from keras_vae import evaluation

SHAPE, ONE, TWO = (64, LEVELS), 16, (8, 16)
DRAWS, WEIGHTED = 20, 500

MODELS: dict[str, Callable[[], Any]] = {
    "one level, 16": lambda: keras_vae.mlp_vae(SHAPE, ONE, "categorical"),
    "ladder, 8 and 16": lambda: keras_vae.hierarchical_vae(SHAPE, TWO, "categorical"),
    "residual, 8 and 16": lambda: keras_vae.hierarchical_vae(
        SHAPE, TWO, "categorical", structure="residual"
    ),
}
"""Models by the name of the row."""


def measured(
    name: str, warm_up: int, free_bits: float, seed: int, epochs: int, parts: list[np.ndarray]
) -> Any:
    """Trains a model; returns bound and log p of each test image, the rates and the epochs."""
    train, held, test = parts
    keras.utils.set_random_seed(seed)
    vae = MODELS[name]()
    vae.compile(keras.optimizers.Adam(1e-3), keras_vae.ELBO(free_bits=free_bits))
    stop = keras.callbacks.EarlyStopping(
        "val_elbo", mode="max", patience=15, restore_best_weights=True, start_from_epoch=warm_up
    )
    rising = warm_up and [
        keras_vae.callbacks.LinearSchedule("beta", start=0.0, stop=1.0, epochs=warm_up)
    ]
    began = time.process_time()
    logs = vae.fit(
        train,
        epochs=epochs,
        batch_size=64,
        validation_data=held,
        callbacks=[stop, *(rising or [])],
        verbose=0,
    ).history
    seconds = time.process_time() - began
    bounds = [vae.elbo(test, seed=draw) for draw in range(DRAWS)]
    best = warm_up + int(np.argmax(logs["val_elbo"][warm_up:]))
    return {
        "elbo": np.mean([each.elbo for each in bounds], axis=0, dtype=np.float64),
        "rate": float(np.mean([each.rate for each in bounds])),
        "top": float(logs["rate_z1"][best]) if "rate_z1" in logs else np.nan,
        "log_p": evaluation.log_marginal(vae, test, num_samples=WEIGHTED, seed=seed).value,
        "epochs": best + 1,
        "seconds": seconds / len(logs["loss"]),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=100, help="at most")
    parser.add_argument("--warm-up", type=int, nargs="*", default=[0], help="epochs")
    parser.add_argument("--free-bits", type=float, default=0.0, help="nats per latent")
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)  # of weights, whose bound stays a bound
    x = np.eye(LEVELS, dtype="float32")[load_digits().data.astype(int)]
    parts = [x[:1000], x[1000:1350], x[1350:]]
    print(
        f"scikit-learn digits, {options.seeds} seeds, at most {options.epochs} epochs, nats per "
        "image\n"
    )
    print(
        f"{'model':22s}{'warm-up':>8s}{'ELBO':>10s}{'log p':>10s}{'rate':>7s}{'top':>7s}"
        f"{'ELBO beside':>15s}{'log p beside':>15s}{'epochs':>8s}{'s/epoch':>9s}"
    )
    for warm_up in options.warm_up:
        base: dict[str, list[Any]] = {}
        for name in MODELS:
            found = [
                measured(name, warm_up, options.free_bits, seed, options.epochs, parts)
                for seed in range(options.seeds)
            ]
            values = {key: [each[key] for each in found] for key in found[0]}
            base = base or values
            elbo, log_p = (float(np.mean(values[key])) for key in ("elbo", "log_p"))
            print(
                f"{name:22s}{warm_up:8d}{elbo:10.3f}{log_p:10.3f}{np.mean(values['rate']):7.2f}"
                f"{np.mean(values['top']):7.2f} {beside(values['elbo'], base['elbo'])} "
                f"{beside(values['log_p'], base['log_p'])}{np.mean(values['epochs']):8.0f}"
                f"{np.mean(values['seconds']):9.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
