"""Peak memory of a training on data of MNIST's size, and what an import adds to TensorFlow's.

    python benchmarks/memory.py                      # two minutes; prints, and writes the results

60 000 rows of 784 numbers, the 784-200-200-50 network at batch 100, one epoch. Each line is a
process of its own: an import of TensorFlow and Keras alone, the pattern of the Keras example (a
`train_step`, float32 arrays in memory), `fit` on the same array, and `keras-vae train` on a .npy
file of bytes. The peak is VmHWM, the time that of the processor, so other processes do not count.
"""

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
ROWS = 60_000

BEGIN = """
import os, re, sys
def cpu():
    used = os.times()
    return used.user + used.system
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
import numpy as np
import tensorflow as tf
import keras
begin = cpu()
"""
DATA = "x = (np.load(sys.argv[1]).reshape(-1, 784) > 127).astype('float32')\n"
END = "\nprint(begin, imported - begin, peak())\n"
PROGRAMS = {
    "import of TensorFlow": "imported = begin",
    "import of keras_vae": "import keras_vae\nkeras_vae.VAE, keras_vae.mlp_vae\nimported = cpu()",
    "Keras example": f"""
imported = begin
{DATA}
class Example(keras.Model):
    def __init__(self):
        super().__init__()
        widths = ((784, 200, 200, 100), (50, 200, 200, 784))
        self.encoder, self.decoder = (
            keras.Sequential([
                keras.Input([first]),
                *(keras.layers.Dense(width, "tanh") for width in hidden),
                keras.layers.Dense(last),
            ])
            for first, *hidden, last in widths
        )
        self.tracker = keras.metrics.Mean("loss")
        self.seeds = keras.random.SeedGenerator(0)
    def train_step(self, x):
        with tf.GradientTape() as tape:
            loc, log_var = tf.split(self.encoder(x), 2, axis=-1)
            z = loc + tf.exp(0.5 * log_var) * keras.random.normal(tf.shape(loc), seed=self.seeds)
            logits = self.decoder(z)
            cross = tf.nn.sigmoid_cross_entropy_with_logits(x, logits)
            kl = 0.5 * tf.reduce_sum(loc**2 + tf.exp(log_var) - 1.0 - log_var, axis=-1)
            loss = tf.reduce_mean(tf.reduce_sum(cross, axis=-1) + kl)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights))
        self.tracker.update_state(loss)
        return {{"loss": self.tracker.result()}}
model = Example()
model.compile(keras.optimizers.Adam())
model.fit(x, batch_size=100, epochs=1, verbose=0)
""",
    "fit": f"""
import keras_vae
keras_vae.mlp_vae
imported = cpu()
{DATA}
vae = keras_vae.mlp_vae(784, 50, "bernoulli", hidden=(200, 200))
vae.compile()
vae.fit(x, batch_size=100, epochs=1, verbose=0)
""",
    "keras-vae train": """
from keras_vae.runs.config import RunConfig
from keras_vae.runs.train import train
imported = cpu()
config = RunConfig(data=sys.argv[1], likelihood="bernoulli", latent=50, epochs=1, batch_size=100)
train(config, sys.argv[2])
""",
}


def main() -> None:
    """Measures and prints."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        x = np.random.default_rng(0).integers(0, 256, (ROWS, 28, 28, 1), dtype=np.uint8)
        np.save(path, x)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = f"{folder}/compiled"
        subprocess.run(
            [sys.executable, "-c", "import keras_vae; keras_vae.VAE; import keras_vae.runs.train"],
            env=environment,
            check=True,
            stderr=subprocess.DEVNULL,
        )  # compiles what the others import
        for name, program in PROGRAMS.items():
            command = [sys.executable, "-c", BEGIN + program + END, str(path), f"{folder}/run"]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise SystemExit(done.stderr)
            rows.append((name, *map(float, done.stdout.split()[-3:])))
    example = next(peak for name, *_, peak in rows if name == "Keras example")
    lines = [
        f"python benchmarks/memory.py    ({len(os.sched_getaffinity(0))} cores, "
        f"{platform.platform()})",
        "",
        f"{'process':24s} {'TensorFlow, s':>14s} {'import after it, s':>19s} {'peak, MiB':>10s} "
        f"{'over example':>13s}",
        *(
            f"{name:24s} {tensorflow:14.2f} {imported:19.2f} {peak:10.0f} {peak / example:13.2f}"
            for name, tensorflow, imported, peak in rows
        ),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    (ROOT / "benchmarks" / "results" / "memory.txt").write_text(text)


if __name__ == "__main__":
    main()
