"""Cases: the models that every system trains, their data and their initial weights.

NumPy alone, since both environments import it. Layers are written down once, in Keras' layout, and
each system makes its own network of them.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["CASES", "Case", "Layer", "data", "initial_weights"]

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7
"""Of Adam, in every system: the defaults of Keras."""

CHECKED = 500
"""Examples of the first epoch that the loss is computed on after it."""


class Layer(NamedTuple):
    """One layer: `dense`, `conv` (stride 2, or 1 for a head) or `deconv` (stride 2), 3x3, "same".

    Attributes:
        kind: dense, conv or deconv.
        inputs, outputs: features or channels.
        rows: height and width of the smaller of the two images, or 0.
        stride: of a convolution.
    """

    kind: str
    inputs: int
    outputs: int
    rows: int = 0
    stride: int = 2

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the kernel in Keras."""
        if self.kind == "dense":
            return (self.inputs, self.outputs)
        ends = (self.inputs, self.outputs)
        return (3, 3, *(ends[::-1] if self.kind == "deconv" else ends))

    def product(self, batch: int) -> tuple[int, int, int]:
        """Sizes (m, k, n) of the matrix product [m, k] x [k, n] that the layer amounts to."""
        if self.kind == "dense":
            return batch, self.inputs, self.outputs
        pixels = batch * self.rows**2
        if self.kind == "deconv":
            return pixels, self.inputs, 9 * self.outputs
        return pixels, 9 * self.inputs, self.outputs


@dataclasses.dataclass(frozen=True)
class Case:
    """One model at one batch size, and how many examples make an epoch.

    Attributes:
        name: as on the command line.
        event_shape: of one example.
        latent_size: number of latents.
        batch: examples per step.
        examples: of an epoch, a multiple of the batch.
        hidden: widths, or filters of a convolutional model.
        likelihood: bernoulli, or normal with scale 1.
        num_samples: draws per example; above 1 the objective is IWAE.
        convolutional: whether the networks are those of `keras_vae.conv_vae`.
        task: "fit", or "evidence" for log p(x) from `num_samples` draws for each of `examples`.
        learning_rate: of Adam; the default is that of Keras.
        held_out: examples that are not trained on and that the loss is computed on after every
            epoch; 0 computes it once, on examples of the training.
    """

    name: str
    event_shape: tuple[int, ...]
    latent_size: int
    batch: int
    examples: int
    hidden: tuple[int, ...] = (200, 200)
    likelihood: str = "bernoulli"
    num_samples: int = 1
    convolutional: bool = False
    task: str = "fit"
    learning_rate: float = 1e-3
    held_out: int = 0

    def to_json(self) -> str:
        """The attributes, for another process."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Case":
        """The case that `to_json` wrote."""
        values = json.loads(text)
        lists = {name: tuple(values[name]) for name in ("event_shape", "hidden")}
        return cls(**{**values, **lists})

    def split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The examples of an epoch, and those that the loss is computed on."""
        if not self.held_out:
            return x, x[:CHECKED]
        return x[: self.examples], x[self.examples :]

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.examples // self.batch

    @property
    def encoder(self) -> list[Layer]:
        """Layers of the encoder; the last is the head, of locations and raw scales."""
        head = 2 * self.latent_size
        if not self.convolutional:
            return _dense(math.prod(self.event_shape), *self.hidden, head)
        rows, channels = self.event_shape[0], self.event_shape[-1]
        layers = []
        for filters in self.hidden:
            rows //= 2
            layers.append(Layer("conv", channels, filters, rows))
            channels = filters
        return [*layers, *_dense(rows * rows * channels, 256, head)]

    @property
    def decoder(self) -> list[Layer]:
        """Layers of the decoder; the last is the head, of logits or locations."""
        if not self.convolutional:
            return _dense(self.latent_size, *self.hidden[::-1], math.prod(self.event_shape))
        rows = self.event_shape[0] // 2 ** len(self.hidden)
        channels = self.hidden[-1]
        layers = _dense(self.latent_size, 256, rows * rows * channels)
        for filters in self.hidden[::-1]:
            layers.append(Layer("deconv", channels, filters, rows))
            channels, rows = filters, rows * 2
        return [*layers, Layer("conv", channels, self.event_shape[-1], rows, stride=1)]


def _dense(*sizes: int) -> list[Layer]:
    return [Layer("dense", a, b) for a, b in itertools.pairwise(sizes)]


def _mlp(name: str, batch: int, examples: int, **changes: object) -> Case:
    return Case(name, (784,), 50, batch, examples, **changes)  # type: ignore[arg-type]


CASES = {
    case.name: case
    for case in (
        _mlp("mlp-20", 20, 4_000),
        _mlp("mlp-100", 100, 10_000),
        _mlp("mlp-512", 512, 20_480),
        _mlp("iwae-5", 20, 10_000, num_samples=5),
        _mlp("iwae-50", 20, 2_000, num_samples=50),
        Case("conv-28", (28, 28, 1), 50, 100, 1_000, (32, 64), convolutional=True),
        Case("conv-64", (64, 64, 3), 64, 64, 128, (32, 64, 128, 256), "normal", convolutional=True),
        Case("table-20", (20,), 4, 128, 25_600, (64, 64), "normal"),
        _mlp("evidence", 1, 100, num_samples=5_000, task="evidence"),
    )
}


def data(case: Case, grey: np.ndarray | None = None) -> np.ndarray:
    """Examples [N, *D], float32: drawn from a low-dimensional model, or binarised grey levels.

    Args:
        case: whose shape and likelihood they have.
        grey: images in [0, 1], [M, 28, 28], to binarise instead, where the case is of that size.

    Raises:
        ValueError: if there are fewer images than the case needs.
    """
    rng = np.random.default_rng(0)
    size, count = math.prod(case.event_shape), case.examples + case.held_out
    if grey is not None and size == 784:
        if len(grey) < count:
            raise ValueError(f"{case.name} needs {count} images; got {len(grey)}.")
        x = (rng.random((count, size)) < grey[:count].reshape(-1, size)) * 1.0
    else:
        rank = min(8, size // 2)
        signal = rng.standard_normal((count, rank)) @ rng.standard_normal((rank, size))
        if case.likelihood == "bernoulli":
            x = (rng.random(signal.shape) < 1 / (1 + np.exp(2.0 - 1.5 * signal))) * 1.0
        else:
            x = (signal + rng.standard_normal(signal.shape)) / math.sqrt(rank + 1)
    return x.reshape(-1, *case.event_shape).astype(np.float32)


def initial_weights(layers: Sequence[Layer], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of each layer, in Keras' layout: Glorot uniform and zero."""
    rng = np.random.default_rng(seed)
    weights = []
    for layer in layers:
        shape = layer.kernel_shape
        limit = math.sqrt(6.0 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))
        kernel = rng.uniform(-limit, limit, shape).astype(np.float32)
        weights.append((kernel, np.zeros(layer.outputs, np.float32)))
    return weights
