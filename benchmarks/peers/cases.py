"""Cases: the models that every system trains, their data and their initial weights.

NumPy alone, since both environments import it. Layers are written down once, in Keras' layout, and
each system makes its own networks of them.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "CASES",
    "Case",
    "Layer",
    "all_weights",
    "checks",
    "data",
    "held_out_loss",
    "initial_weights",
    "orders",
    "presented",
    "sampled_rows",
]

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7
"""Of Adam, in every system: the defaults of Keras."""

CHECKED = 500
"""Examples of the first epoch that the loss is computed on after it."""

TIGHT_EXAMPLES, TIGHT_CHUNK = 1_000, 20
"""Held-out examples that a bound of many draws is computed on, and how many of them at once."""

SAME_STEPS = 3
"""Steps on copied noise in which the systems show that they train the same model."""

LOG_SOFTPLUS_ONE = math.log(math.e - 1.0)
"""Number whose softplus is 1: scales are softplus(raw + this) + `SMALLEST_SCALE`."""

SMALLEST_SCALE = 1e-6

COUPLINGS, COUPLING_WIDTHS, LARGEST_LOG_SCALE = 4, (64, 64), 2.0
"""Of a flow prior: number of its steps, widths of their networks, clamp of their scales."""

CODES, CODE_SIZE, COMMITMENT = 128, 16, 0.25
"""Of a VQ-VAE: vectors in the book, their size, weight of the commitment."""

DECAY, REVIVE, ROWS_PER_CODE, LLOYD_STEPS = 0.99, 0.05, 16, 10
"""Of its book: what a batch leaves of the means; share of the mean use below which a vector moves;
rows for each vector of which it starts, and steps of that."""

FORGOTTEN = 0.01
"""Share of past examples that a scale in closed form forgets with each batch."""


class Layer(NamedTuple):
    """One layer: `dense`, or of images `conv`, `deconv` (3x3, "same") or `pointwise` (1x1).

    Attributes:
        kind: dense, conv, deconv or pointwise.
        inputs, outputs: features or channels.
        rows: height and width of the smaller of the two images, or 0.
        stride: of a convolution.
        is_head: whether its output is raw, without the activation.
    """

    kind: str
    inputs: int
    outputs: int
    rows: int = 0
    stride: int = 2
    is_head: bool = False

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the kernel in Keras."""
        if self.kind in ("dense", "pointwise"):
            return (self.inputs, self.outputs)
        ends = (self.inputs, self.outputs)
        return (3, 3, *(ends[::-1] if self.kind == "deconv" else ends))

    def product(self, batch: int) -> tuple[int, int, int]:
        """Sizes (m, k, n) of the matrix product [m, k] x [k, n] that the layer amounts to."""
        if self.kind == "dense":
            return batch, self.inputs, self.outputs
        pixels = batch * self.rows**2
        if self.kind == "pointwise":
            return pixels, self.inputs, self.outputs
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
        convolutional: whether the networks are convolutions, as of `keras_vae.conv_vae`.
        model: "vae"; "flow" for a VAE with a flow prior; "ladder"; "codes" for a VQ-VAE, whose
            normal likelihood has its optimal scale.
        levels: sizes of the latents of a ladder, from the top down.
        task: "fit"; "same" for the losses of `SAME_STEPS` steps on copied noise; or "evidence" for
            log p(x) from `num_samples` draws for each of `examples`.
        learning_rate: of Adam; the default is that of Keras.
        decay: epochs in which the learning rate falls to zero, once an epoch, as a cosine; 0 keeps
            it.
        held_out: examples that are not trained on and that the loss is computed on after every
            epoch; 0 computes it once, on examples of the training.
        tight: loss on the held-out examples below which a bound of `tight_draws` draws replaces
            it, on `TIGHT_EXAMPLES` of them.
        tight_draws: draws per example of that bound.
        binarise: whether the examples of an epoch are grey levels, which every system binarises
            anew in each epoch, within its time; held-out examples are binarised once.
        seed: of the order of the examples, of the noise and of what is binarised.
        band: relative distance of a system's loss from the median of all above which its row is
            void. Other seeds move the loss of a ladder by 7 % after its first hundred steps.
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
    model: str = "vae"
    levels: tuple[int, ...] = ()
    task: str = "fit"
    learning_rate: float = 1e-3
    decay: int = 0
    held_out: int = 0
    tight: float = -math.inf
    tight_draws: int = 500
    binarise: bool = False
    seed: int = 0
    band: float = 0.02

    def to_json(self) -> str:
        """The attributes, for another process."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Case":
        """The case that `to_json` wrote."""
        values = json.loads(text)
        lists = {name: tuple(values[name]) for name in ("event_shape", "hidden", "levels")}
        return cls(**{**values, **lists})

    def split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The examples of an epoch, and those that the loss is computed on."""
        if not self.held_out:
            return x, x[:CHECKED]
        return x[: self.examples], x[self.examples :]

    def rate(self, epoch: int) -> float:
        """The learning rate in an epoch, counted from 0."""
        if not self.decay:
            return self.learning_rate
        return self.learning_rate * (1 + math.cos(math.pi * epoch / self.decay)) / 2

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.examples // self.batch

    @property
    def networks(self) -> dict[str, list[Layer]]:
        """Layers of every network by its name; the first is the one that sees the data."""
        if self.model == "ladder":
            return self._ladder()
        if self.model == "codes":
            rows = self.event_shape[0] // 2 ** len(self.hidden)
            return {
                "encoder": self._halving(),
                "features": [Layer("pointwise", self.hidden[-1], CODE_SIZE, rows, is_head=True)],
                "decoder": self._doubling(CODE_SIZE),
            }
        found = {"encoder": self.encoder, "decoder": self.decoder}
        if self.model == "flow":
            seen = self.latent_size // 2
            sizes = (seen, *COUPLING_WIDTHS, 2 * (self.latent_size - seen))
            found |= {f"coupling_{index}": _dense(*sizes) for index in range(COUPLINGS)}
        return found

    @property
    def encoder(self) -> list[Layer]:
        """Layers of the encoder of a VAE; the last is the head, of locations and raw scales."""
        head = 2 * self.latent_size
        if not self.convolutional:
            return _dense(math.prod(self.event_shape), *self.hidden, head)
        layers = self._halving()
        return [*layers, *_dense(layers[-1].rows ** 2 * layers[-1].outputs, 256, head)]

    @property
    def decoder(self) -> list[Layer]:
        """Layers of the decoder of a VAE; the last is the head, of logits or locations."""
        if not self.convolutional:
            return _dense(self.latent_size, *self.hidden[::-1], math.prod(self.event_shape))
        rows = self.event_shape[0] // 2 ** len(self.hidden)
        inner = _dense(self.latent_size, 256, rows * rows * self.hidden[-1], is_head=False)
        return [*inner, *self._doubling(self.hidden[-1])]

    def _halving(self) -> list[Layer]:
        """Convolutions that halve the image."""
        rows, channels = self.event_shape[0], self.event_shape[-1]
        layers = []
        for filters in self.hidden:
            rows //= 2
            layers.append(Layer("conv", channels, filters, rows))
            channels = filters
        return layers

    def _doubling(self, channels: int) -> list[Layer]:
        """Transposed convolutions that double the image again, and the head."""
        rows = self.event_shape[0] // 2 ** len(self.hidden)
        layers = []
        for filters in self.hidden[::-1]:
            layers.append(Layer("deconv", channels, filters, rows))
            channels, rows = filters, rows * 2
        head = Layer("conv", channels, self.event_shape[-1], rows, stride=1, is_head=True)
        return [*layers, head]

    def _ladder(self) -> dict[str, list[Layer]]:
        """Networks of a ladder: level 1 is the top, and the encoder begins at the last level."""
        down, width, count = self.hidden[::-1], self.hidden[-1], len(self.levels)
        found = {f"up_{count}": _dense(math.prod(self.event_shape), *self.hidden, is_head=False)}
        for level in range(count - 1, 0, -1):
            found[f"up_{level}"] = _dense(width, *self.hidden, is_head=False)
        for level, size in enumerate(self.levels, 1):
            found[f"q_{level}"] = _dense(width, 2 * size)
            if level > 1:
                found[f"p_{level}"] = _dense(down[-1], 2 * size)
            found[f"down_{level}"] = _dense(size, *down, is_head=False)
        return {**found, "decoder": _dense(down[-1], math.prod(self.event_shape))}

    def noise_shapes(self, batch: int) -> list[tuple[int, ...]]:
        """Shapes of the normal noise of a batch, one for each latent; codes take none."""
        if self.model == "codes":
            return []
        return [(self.num_samples, batch, size) for size in self.levels or (self.latent_size,)]


def _dense(*sizes: int, is_head: bool = True) -> list[Layer]:
    """Dense layers between these sizes; whether the last is a head."""
    pairs = list(itertools.pairwise(sizes))
    last = len(pairs) - 1
    return [
        Layer("dense", a, b, is_head=is_head and index == last)
        for index, (a, b) in enumerate(pairs)
    ]


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
        _mlp("flow-prior", 100, 10_000, model="flow"),
        Case(
            "ladder-4", (784,), 120, 100, 10_000, model="ladder", levels=(8, 16, 32, 64), band=0.08
        ),
        Case(
            "vq-vae",
            (28, 28, 1),
            7 * 7 * CODE_SIZE,
            128,
            1_280,
            (32, 64),
            "normal",
            convolutional=True,
            model="codes",
        ),
        _mlp("evidence", 1, 100, num_samples=5_000, task="evidence"),
    )
}


def data(case: Case, grey: np.ndarray | None = None) -> np.ndarray:
    """Examples [N, *D], float32: drawn from a low-dimensional model, or images.

    Args:
        case: whose shape and likelihood they have.
        grey: images in [0, 1], [M, 28, 28], to take instead, where the case is of that size:
            binarised, or for a normal likelihood centred.

    Raises:
        ValueError: if there are fewer images than the case needs.
    """
    rng = np.random.default_rng(0)
    size, count = math.prod(case.event_shape), case.examples + case.held_out
    if grey is not None and size == 784:
        if len(grey) < count:
            raise ValueError(f"{case.name} needs {count} images; got {len(grey)}.")
        x = grey[:count].reshape(-1, size)
        if case.likelihood == "bernoulli":
            grey_rows = case.examples if case.binarise else 0
            x = np.concatenate([x[:grey_rows], ((rng.random(x.shape) < x) * 1.0)[grey_rows:]])
        else:
            x = x - 0.5
    else:
        rank = min(8, size // 2)
        signal = rng.standard_normal((count, rank)) @ rng.standard_normal((rank, size))
        if case.likelihood == "bernoulli":
            x = (rng.random(signal.shape) < 1 / (1 + np.exp(2.0 - 1.5 * signal))) * 1.0
        else:
            x = (signal + rng.standard_normal(signal.shape)) / math.sqrt(rank + 1)
    return x.reshape(-1, *case.event_shape).astype(np.float32)


def presented(case: Case, rows: np.ndarray, epoch: int) -> np.ndarray:
    """The examples of an epoch: grey levels, binarised with draws of NumPy.

    50 000 images take it 0.44 s on one core, PyTorch 0.60 and JAX 0.88.
    """
    rng = np.random.default_rng([case.seed, epoch])
    return (rng.random(rows.shape, dtype=np.float32) < rows).astype(np.float32)


def initial_weights(
    layers: Sequence[Layer], seed: int, bias: float = 0.0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel and bias of each layer, in Keras' layout: Glorot uniform and a number."""
    rng = np.random.default_rng(seed)
    weights = []
    for layer in layers:
        shape = layer.kernel_shape
        limit = math.sqrt(6.0 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))
        kernel = rng.uniform(-limit, limit, shape).astype(np.float32)
        weights.append((kernel, np.full(layer.outputs, bias, np.float32)))
    return weights


def all_weights(case: Case) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Initial weights of every network by its name.

    Where steps on copied noise are compared, biases are not zero, so that one that is left out
    shows.
    """
    bias = 0.1 if case.task == "same" else 0.0
    return {
        name: initial_weights(layers, seed, bias)
        for seed, (name, layers) in enumerate(case.networks.items(), 1)
    }


def held_out_loss(case: Case, loss: Callable[[Case, Any, int], float], x: Any) -> float:
    """The loss on held-out examples: the objective's, or below `tight` the bound of many draws.

    Args:
        case: with its `tight`.
        loss: computes the mean loss of a case on examples, with as many draws as the case has, and
            noise of its own for each seed.
        x: held-out examples, an array of any system.
    """
    value = loss(case, x, 0)
    if value >= case.tight:
        return value
    tight = dataclasses.replace(case, num_samples=case.tight_draws)
    starts = range(0, TIGHT_EXAMPLES, TIGHT_CHUNK)
    chunks = (loss(tight, x[at : at + TIGHT_CHUNK], at) for at in starts)
    return math.fsum(chunks) / len(starts)


def orders(case: Case) -> list[np.ndarray]:
    """The order of the latents in each coupling of a flow; the first half of it is kept."""
    golden = 0.5 * (math.sqrt(5.0) - 1.0)
    found = []
    for index in range(COUPLINGS):
        places = np.modf(np.arange(case.latent_size) * (index // 2) * golden)[0]
        order = np.argsort(places, kind="stable")
        found.append(order[::-1].copy() if index % 2 else order)
    return found


def sampled_rows(count: int) -> np.ndarray:
    """Places of the rows, of `count`, from which a code book starts and is revived."""
    return np.rint(np.linspace(0.0, count - 1, ROWS_PER_CODE * CODES)).astype(np.int32)


def checks(case: Case, x: np.ndarray) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Batches, and the noise of each latent, for steps that every system takes alike."""
    rng = np.random.default_rng(7)
    for index in range(SAME_STEPS):
        rows = (index * case.batch + np.arange(case.batch)) % len(x)
        shapes = case.noise_shapes(case.batch)
        yield x[rows], [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
