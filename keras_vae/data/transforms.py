"""Random steps applied to whole batches, each a stateless function of (batch, seed).

Both have the form that `batches(..., transform=)` expects: from a batch and an int32 seed of shape
[2] they return a float32 batch of the same shape, and equal arguments give equal bits. They run
eagerly and inside a graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

_MANTISSA_BITS = 23
_MAX_LEVELS = 2**16


def binarize(x: Any, seed: Any) -> tf.Tensor:
    """Draws Bernoulli variables with the grey levels as probabilities: dynamic binarisation.

        b ~ Bernoulli(x),    b in {0, 1},    E[b] = x

    A new seed for each presentation gives the "dynamically binarised" data for which bounds are
    usually quoted; one fixed seed gives a static binarisation. Levels 0 and 1 never change.

    Args:
        x: Probabilities in [0, 1], of any shape.
        seed: int32 of shape [2].

    Returns:
        float32 tensor of zeros and ones, of the shape of `x`.

    Raises:
        tf.errors.InvalidArgumentError: A value lies outside [0, 1] or is NaN.

    Example:
        >>> binarize([[0.0, 1.0, 1.0]], seed=[1, 2]).numpy().tolist()
        [[0.0, 1.0, 1.0]]

    References:
        Salakhutdinov and Murray (2008), On the quantitative analysis of deep belief networks,
        ICML. Burda, Grosse and Salakhutdinov (2015), Importance weighted autoencoders,
        arXiv:1509.00519.
    """
    import tensorflow as tf

    x = tf.cast(x, tf.float32)
    low, high = tf.reduce_min(x), tf.reduce_max(x)
    tf.debugging.Assert(
        (low >= 0.0) & (high <= 1.0),
        [
            "binarize: expected probabilities in [0, 1]; got values between",
            low,
            "and",
            high,
            "(rescale grey levels, for example with batches(..., rescale=1 / 255))",
        ],
    )
    return tf.cast(_uniform(x, seed) < x, tf.float32)


def dequantize(x: Any, seed: Any, *, levels: int) -> tf.Tensor:
    """Adds uniform noise to integer levels: a density on (0, 1) for discrete data.

        y = (x + u) / levels,    u ~ U(0, 1),    x in {0, ..., levels - 1}

    A density p(y) fitted to y bounds the probability of the integers from below:

        log P(x) >= E_u[log p(y)] - D log(levels)

    So the bound on the *discrete* log-likelihood is `elbo - D * log(levels)` nats, where D is the
    number of values in one example. Divided by -D log 2, it is in bits per dimension.

    u lies on a grid of midpoints so fine that x + u is exact in float32: y is strictly inside
    (0, 1), and no level reaches the next one.

    Args:
        x: Integer levels, not rescaled, of any shape and real dtype.
        seed: int32 of shape [2].
        levels: Number of levels, 2 to 65536: 256 for uint8 images, 17 for the digits.

    Returns:
        float32 tensor in (0, 1), of the shape of `x`.

    Raises:
        ValueError: `levels` is out of range.
        tf.errors.InvalidArgumentError: A value is not one of the integers 0 to levels - 1.

    Example:
        >>> y = dequantize([[0, 3], [1, 2]], seed=[1, 2], levels=4)
        >>> (y.numpy() * 4).astype(int).tolist()
        [[0, 3], [1, 2]]

    References:
        Theis, van den Oord and Bethge (2015), A note on the evaluation of generative models,
        arXiv:1511.01844. Uria, Murray and Larochelle (2013), RNADE, arXiv:1306.0186.
    """
    import tensorflow as tf

    if not 2 <= levels <= _MAX_LEVELS:
        raise ValueError(
            f"Expected `levels` from 2 to {_MAX_LEVELS}; got {levels}. Give the number of "
            "integer levels in the data: 256 for uint8 images."
        )
    x = tf.cast(x, tf.float32)
    low, high = tf.reduce_min(x), tf.reduce_max(x)
    fraction = tf.reduce_max(x - tf.floor(x))
    tf.debugging.Assert(
        (low >= 0.0) & (high <= levels - 1.0) & (fraction <= 0.0),
        [
            f"dequantize: expected integers 0 to levels - 1 = {levels - 1}; got values between",
            low,
            "and",
            high,
            "with a fractional part up to",
            fraction,
            "(give the levels as they are in the file, without rescale)",
        ],
    )
    cells = 2.0 ** (_MANTISSA_BITS - (levels - 1).bit_length())
    u = (tf.floor(_uniform(x, seed) * cells) + 0.5) / cells
    return (x + u) / levels


def _uniform(x: tf.Tensor, seed: Any) -> tf.Tensor:
    import tensorflow as tf

    return tf.random.stateless_uniform(tf.shape(x), seed, alg="philox")
