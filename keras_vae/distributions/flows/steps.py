"""Stacks of invertible steps: couplings and autoregressive maps, as pure functions of weights."""

import abc
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_vae.arguments import as_count
from keras_vae.distributions.flows.transforms import TRANSFORMS, Affine, Mapped, Spline

__all__ = ["Autoregressive", "Coupling", "Moved", "Step", "Steps"]

_GOLDEN = 0.5 * (5.0**0.5 - 1.0)


class Moved(NamedTuple):
    """Vectors after a map.

    Attributes:
        value: the vectors, [..., L].
        log_det: logarithm of the determinant of the Jacobian, [...]; of an inverse that of the map
            itself, at the vectors that it returns.
    """

    value: tf.Tensor
    log_det: tf.Tensor


class Step(abc.ABC):
    """A map of vectors whose network sees some of the numbers and moves others.

    Args:
        size: numbers L in a vector.
        hidden: widths of the hidden layers.
        transform: map of single numbers.
        context_size: numbers of the condition; 0 for none.
    """

    def __init__(
        self, size: int, hidden: Sequence[int], transform: Affine | Spline, context_size: int
    ) -> None:
        self.size, self.hidden, self.transform = size, tuple(hidden), transform
        self.context_size = context_size

    @property
    @abc.abstractmethod
    def seen(self) -> int:
        """Count of the first numbers, which the network sees."""

    @property
    @abc.abstractmethod
    def moved(self) -> int:
        """Count of the last numbers, which are moved."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Sizes of the layers, from what is seen to the raw parameters."""
        return (self.seen, *self.hidden, self.transform.size * self.moved)

    def masks(self) -> list[np.ndarray | None]:
        """Returns what each kernel is multiplied with; None is 1."""
        return [None] * (len(self.widths) - 1)

    @abc.abstractmethod
    def forward(self, weights: Any, x: tf.Tensor, context: tf.Tensor | None) -> Moved:
        """Maps vectors.

        Args:
            weights: the weights of the network, as `Steps.tensors` returns them.
            x: vectors [..., L].
            context: conditions [..., C], whose axes in front broadcast against those of x.
        """

    @abc.abstractmethod
    def inverse(self, weights: Any, y: tf.Tensor, context: tf.Tensor | None) -> Moved:
        """Maps vectors back; arguments as for `forward`."""

    def raw(self, weights: Any, x: tf.Tensor, context: tf.Tensor | None) -> tf.Tensor:
        """Returns the raw parameters [..., size of the transform, moved], by the network."""
        (kernel, bias), *rest = weights["layers"]
        features = _product(x, kernel) + bias
        if context is not None:
            features = features + _product(context, weights["context"])
        for kernel, bias in rest:
            features = _product(tf.tanh(features), kernel) + bias
        sizes = [self.transform.size, self.moved]
        return tf.reshape(features, tf.concat([tf.shape(features)[:-1], sizes], 0))


class Coupling(Step):
    """A step that moves the last half of the numbers, given the first half.

    Both directions take one pass of the network. Source: Dinh, Sohl-Dickstein and Bengio (2017),
    Density estimation using Real NVP, arXiv:1605.08803.
    """

    @property
    def seen(self) -> int:
        """Half of the numbers."""
        return self.size // 2

    @property
    def moved(self) -> int:
        """The others."""
        return self.size - self.seen

    def forward(self, weights: Any, x: tf.Tensor, context: tf.Tensor | None) -> Moved:
        """Maps vectors in one pass; arguments as for `Step.forward`."""
        return self._moved(self.transform.forward, weights, x, context)

    def inverse(self, weights: Any, y: tf.Tensor, context: tf.Tensor | None) -> Moved:
        """Maps vectors back in one pass; arguments as for `Step.forward`."""
        return self._moved(self.transform.inverse, weights, y, context)

    def _moved(
        self,
        transform: Callable[[tf.Tensor, tf.Tensor], Mapped],
        weights: Any,
        x: tf.Tensor,
        context: tf.Tensor | None,
    ) -> Moved:
        kept, rest = x[..., : self.seen], x[..., self.seen :]
        value, log_slope = transform(rest, self.raw(weights, kept, context))
        kept = tf.broadcast_to(kept, tf.concat([tf.shape(value)[:-1], [self.seen]], 0))
        return Moved(tf.concat([kept, value], -1), tf.reduce_sum(log_slope, -1))


class Autoregressive(Step):
    """A step that moves each number given those before it, by a network with masked kernels.

    The map takes one pass of the network, its inverse one pass for each number. Sources: Germain,
    Gregor, Murray and Larochelle (2015), MADE, arXiv:1502.03509; Kingma, Salimans, Jozefowicz,
    Chen, Sutskever and Welling (2016), Improving variational inference with inverse autoregressive
    flow, arXiv:1606.04934; Papamakarios, Pavlakou and Murray (2017), Masked autoregressive flow,
    arXiv:1705.07057.
    """

    @property
    def seen(self) -> int:
        """All numbers, by kernels that are masked."""
        return self.size

    @property
    def moved(self) -> int:
        """All numbers."""
        return self.size

    def masks(self) -> list[np.ndarray | None]:
        """Returns the masks of the kernels.

        A hidden unit of degree d sees the first d numbers, and number j is moved given the units
        of degrees below j; those of degree 0 see the context alone.
        """
        inputs = np.arange(1, self.size + 1)
        degrees = [inputs, *(np.arange(width) * self.size // width for width in self.hidden)]
        masks = [
            (after >= before[:, np.newaxis]).astype("float32")
            for before, after in itertools.pairwise(degrees)
        ]
        outputs = np.tile(inputs, self.transform.size)
        return [*masks, (outputs > degrees[-1][:, np.newaxis]).astype("float32")]

    def forward(self, weights: Any, x: tf.Tensor, context: tf.Tensor | None) -> Moved:
        """Maps vectors in one pass; arguments as for `Step.forward`."""
        value, log_slope = self.transform.forward(x, self.raw(weights, x, context))
        return Moved(value, tf.reduce_sum(log_slope, -1))

    def inverse(self, weights: Any, y: tf.Tensor, context: tf.Tensor | None) -> Moved:
        """Maps vectors back in L passes, of which each settles one number more."""
        x, log_slope = tf.zeros_like(y), tf.zeros_like(y)
        for _ in range(self.size):
            x, log_slope = self.transform.inverse(y, self.raw(weights, x, context))
        return Moved(x, tf.reduce_sum(log_slope, -1))


class Steps(keras.layers.Layer):
    """A stack of steps, each of which sees the numbers in an order of its own.

    The stack is the identity when it is new: the last layer of each network is zero. There are no
    batch statistics, so a row never depends on its neighbours.

    Args:
        step: `Coupling` or `Autoregressive`.
        size: numbers L in a vector.
        num_layers: number of steps.
        hidden: widths of the hidden layers of each network.
        transform: "affine", or "spline" for a spline followed by an affine map.
        context_size: numbers of the condition; 0 for none.

    Raises:
        ValueError: if a number is out of range or the transform is unknown.
    """

    def __init__(
        self,
        step: type[Step],
        size: int,
        *,
        num_layers: int,
        hidden: Sequence[int],
        transform: str,
        context_size: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        if transform not in TRANSFORMS:
            raise ValueError(
                f"Invalid value for argument `transform`. Expected one of {', '.join(TRANSFORMS)}. "
                f"Received: transform={transform!r}"
            )
        self.size, self.context_size = size, context_size
        self.num_layers = as_count("num_layers", num_layers, least=1)
        self.hidden = tuple(as_count("hidden", width, least=1) for width in hidden)
        self.transform = transform
        self.steps = [
            step(size, self.hidden, TRANSFORMS[transform], context_size)
            for _ in range(self.num_layers)
        ]
        self.orders = [_order(index, size) for index in range(self.num_layers)]
        for index, each in enumerate(self.steps):
            self._add(index, each)
        self.built = True

    def _add(self, index: int, step: Step) -> None:
        """Creates the weights of the network of one step; those of its last layer are zero."""
        own: dict[str, Any] = {"dtype": self.compute_dtype, "autocast": False}
        last = len(step.hidden)
        for depth, shape in enumerate(itertools.pairwise(step.widths)):
            start = "zeros" if depth == last else "glorot_uniform"
            self.add_weight(name=f"kernel_{index}_{depth}", shape=shape, initializer=start, **own)
            self.add_weight(
                name=f"bias_{index}_{depth}", shape=shape[1:], initializer="zeros", **own
            )
        if self.context_size:
            start = "glorot_uniform" if step.hidden else "zeros"
            shape = (self.context_size, step.widths[1])
            self.add_weight(name=f"context_{index}", shape=shape, initializer=start, **own)

    def tensors(self) -> list[dict[str, Any]]:
        """Returns the weights of each step, masked where it is autoregressive."""
        own = {weight.name: tf.convert_to_tensor(weight) for weight in self.weights}
        found = []
        for index, step in enumerate(self.steps):
            layers = []
            for depth, mask in enumerate(step.masks()):
                kernel = own[f"kernel_{index}_{depth}"]
                if mask is not None:
                    kernel = kernel * tf.cast(mask, kernel.dtype)
                layers.append((kernel, own[f"bias_{index}_{depth}"]))
            found.append({"layers": layers})
            if self.context_size:
                found[-1]["context"] = own[f"context_{index}"]
        return found

    def forward(self, weights: Any, x: tf.Tensor, context: tf.Tensor | None = None) -> Moved:
        """Maps vectors through all steps; arguments as for `Step.forward`."""
        return self._through("forward", range(self.num_layers), weights, x, context)

    def inverse(self, weights: Any, y: tf.Tensor, context: tf.Tensor | None = None) -> Moved:
        """Maps vectors back; arguments as for `Step.forward`."""
        return self._through("inverse", reversed(range(self.num_layers)), weights, y, context)

    def _through(
        self, way: str, indices: Any, weights: Any, x: tf.Tensor, context: tf.Tensor | None
    ) -> Moved:
        x, layout = tf.convert_to_tensor(x), np.arange(self.size)
        log_det = tf.zeros([], x.dtype)
        for index in indices:
            x, layout = _ordered(x, layout, self.orders[index]), self.orders[index]
            x, added = getattr(self.steps[index], way)(weights[index], x, context)
            log_det = log_det + added
        return Moved(_ordered(x, layout, np.arange(self.size)), log_det)


def _order(index: int, size: int) -> np.ndarray:
    """Returns the order of the numbers in a step: even steps spread them, odd ones reverse that.

    Numbers that a coupling keeps in an even step are moved in the next one, all but the middle one
    of an odd number, which both move. The first order is the natural one.
    """
    spread = np.argsort(np.modf(np.arange(size) * (index // 2) * _GOLDEN)[0], kind="stable")
    return spread[::-1].copy() if index % 2 else spread


def _ordered(x: tf.Tensor, layout: np.ndarray, order: np.ndarray) -> tf.Tensor:
    """Returns vectors, whose numbers lie in one order, with their numbers in another."""
    indices = np.argsort(layout)[order]
    return x if np.array_equal(indices, np.arange(len(order))) else _permuted(x, indices)


def _permuted(x: tf.Tensor, indices: np.ndarray) -> tf.Tensor:
    """Gathers by a permutation, whose gradient gathers by its inverse instead of adding up."""
    back = np.argsort(indices)

    @tf.custom_gradient
    def permuted(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.gather(x, indices, axis=-1), lambda upstream: _permuted(upstream, back)

    return permuted(x)


def _product(x: tf.Tensor, kernel: Any) -> tf.Tensor:
    """Returns x [..., I] times a kernel [I, J], with the axes in front folded into one."""
    x = tf.convert_to_tensor(x)
    if x.shape.rank == 2:
        return tf.matmul(x, kernel)
    flat = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel)
    return tf.reshape(flat, tf.concat([tf.shape(x)[:-1], kernel.shape[-1:]], 0))
