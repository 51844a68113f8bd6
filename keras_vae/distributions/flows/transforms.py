"""Monotone maps of single numbers, with their inverses and the logarithms of their slopes.

Every map is the identity, to the last bit and in both directions, where its raw parameters are 0.
"""

from typing import Final, NamedTuple

import tensorflow as tf

__all__ = ["TRANSFORMS", "Affine", "Mapped", "Spline"]

_LARGEST_LOG_SCALE = 2.0
_BINS = 8
_HALF_WIDTH = 4.0
_SMALLEST_SHARE = 1e-3


class Mapped(NamedTuple):
    """Mapped numbers.

    Attributes:
        value: the numbers, [..., L].
        log_slope: logarithm of the slope of the map at each of them, [..., L]; of an inverse that
            of the map, not of the inverse.
    """

    value: tf.Tensor
    log_slope: tf.Tensor


def _clamped(raw: tf.Tensor, most: float) -> tf.Tensor:
    """Maps the reals to (-most, most), with slope 1 at 0."""
    return most * tf.tanh(raw / most)


class Affine:
    """The map y = x exp(s) + t; s is clamped softly to (-2, 2), so no scale overflows."""

    size = 2
    """Raw parameters of each number."""

    def forward(self, x: tf.Tensor, raw: tf.Tensor) -> Mapped:
        """Maps numbers.

        Args:
            x: numbers [..., L].
            raw: raw parameters [..., size, L].
        """
        shift, log_scale = self._read(raw)
        return Mapped(x * tf.exp(log_scale) + shift, log_scale)

    def inverse(self, y: tf.Tensor, raw: tf.Tensor) -> Mapped:
        """Maps numbers back; arguments as for `forward`."""
        shift, log_scale = self._read(raw)
        return Mapped((y - shift) * tf.exp(-log_scale), log_scale)

    def _read(self, raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return raw[..., 0, :], _clamped(raw[..., 1, :], _LARGEST_LOG_SCALE)


class _Bin(NamedTuple):
    """The bin of a spline that each number lies in.

    Attributes:
        left, width: where the bin begins, and its width.
        bottom: the value of the spline at its left end.
        excess: slope of its chord minus 1.
        first, last: slopes of the spline at its ends minus 1.
    """

    left: tf.Tensor
    width: tf.Tensor
    bottom: tf.Tensor
    excess: tf.Tensor
    first: tf.Tensor
    last: tf.Tensor


class Spline:
    """A monotone rational-quadratic spline of 8 bins on [-4, 4], followed by an affine map.

    Outside of the interval the spline is the identity. With chord slope 1 + c and end slopes 1 + a
    and 1 + b of a bin, and e = t (1 - t) at the share t of its width w,

        y - x = bottom - left + w (c (1 + c) t^2 + (1 + c) a e - (a + b - 2 c) t e) / D
        D = 1 + c + (a + b - 2 c) e

    which is the spline of the source, written so that no digits are lost near the identity. Source:
    Durkan, Bekasov, Murray and Papamakarios (2019), Neural spline flows, arXiv:1906.04032.
    """

    affine = Affine()
    size = Affine.size + 3 * _BINS - 1

    def forward(self, x: tf.Tensor, raw: tf.Tensor) -> Mapped:
        """Maps numbers; arguments as for `Affine.forward`."""
        value, log_slope = self._curved(x, raw[..., self.affine.size :, :])
        mapped = self.affine.forward(value, raw)
        return Mapped(mapped.value, mapped.log_slope + log_slope)

    def inverse(self, y: tf.Tensor, raw: tf.Tensor) -> Mapped:
        """Maps numbers back; arguments as for `Affine.forward`."""
        mapped = self.affine.inverse(y, raw)
        value, log_slope = self._straightened(mapped.value, raw[..., self.affine.size :, :])
        return Mapped(value, mapped.log_slope + log_slope)

    def _curved(self, x: tf.Tensor, raw: tf.Tensor) -> Mapped:
        inside = tf.clip_by_value(x, -_HALF_WIDTH, _HALF_WIDTH)
        own = _bins_at(inside, raw, by_value=False)
        shift, log_slope = _within(own, (inside - own.left) / own.width)
        return Mapped(x + _inside(shift, x), _inside(log_slope, x))

    def _straightened(self, y: tf.Tensor, raw: tf.Tensor) -> Mapped:
        inside = tf.clip_by_value(y, -_HALF_WIDTH, _HALF_WIDTH)
        own = _bins_at(inside, raw, by_value=True)
        chord = 1.0 + own.excess
        bend = own.first + own.last - 2.0 * own.excess
        height, above = own.width * chord, inside - own.bottom
        square = height * (own.excess - own.first) + above * bend
        linear = height * (1.0 + own.first) - above * bend
        root = tf.sqrt(tf.maximum(linear**2 + 4.0 * square * chord * above, 0.0))
        share = 2.0 * chord * above / (linear + root)
        shift, log_slope = _within(own, tf.clip_by_value(share, 0.0, 1.0))
        return Mapped(y - _inside(shift, y), _inside(log_slope, y))


def _inside(value: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.abs(x) < _HALF_WIDTH, value, tf.zeros_like(value))


def _bins_at(x: tf.Tensor, raw: tf.Tensor, by_value: bool) -> _Bin:
    """Finds the bin of each number [..., L]; by its value, or by where it is mapped from."""
    widths, heights, slopes = tf.split(raw, [_BINS, _BINS, _BINS - 1], axis=-2)
    widths, heights = _sizes(widths), _sizes(heights)
    left, bottom = (_HALF_WIDTH * -1.0 + _sums_before(each) for each in (widths, heights))
    slopes = tf.exp(_clamped(slopes, _LARGEST_LOG_SCALE)) - 1.0
    end = tf.zeros_like(slopes[..., :1, :])
    edges = bottom if by_value else left
    after = tf.cast(x[..., tf.newaxis, :] >= edges[..., 1:, :], x.dtype)
    first = tf.ones_like(after[..., :1, :])
    chosen = tf.concat([first, after], -2) - tf.concat([after, 0.0 * first], -2)

    def of(each: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(chosen * each, axis=-2)

    width = of(widths)
    return _Bin(
        of(left),
        width,
        of(bottom),
        (of(heights) - width) / width,
        of(tf.concat([end, slopes], -2)),
        of(tf.concat([slopes, end], -2)),
    )


def _sizes(raw: tf.Tensor) -> tf.Tensor:
    """Returns the sizes of the bins [..., K, L], which sum to the interval."""
    shares = tf.exp(raw - tf.stop_gradient(tf.reduce_max(raw, axis=-2, keepdims=True)))
    shares = shares / tf.reduce_sum(shares, axis=-2, keepdims=True)
    return 2.0 * _HALF_WIDTH * (_SMALLEST_SHARE + (1.0 - _BINS * _SMALLEST_SHARE) * shares)


def _sums_before(sizes: tf.Tensor) -> tf.Tensor:
    """Returns the sums of the sizes before each bin, [..., K, L]."""
    found = [tf.zeros_like(sizes[..., 0, :])]
    for k in range(_BINS - 1):
        found.append(found[-1] + sizes[..., k, :])
    return tf.stack(found, axis=-2)


def _within(own: _Bin, share: tf.Tensor) -> Mapped:
    """Returns y - x and the logarithm of the slope at a share of the width of a bin."""
    product = share * (1.0 - share)
    chord, bend = 1.0 + own.excess, own.first + own.last - 2.0 * own.excess
    divisor = chord + bend * product
    risen = chord * (own.excess * share**2 + own.first * product) - bend * share * product
    shift = own.bottom - own.left + own.width * risen / divisor
    steepness = (
        1.0 + own.last * share**2 + 2.0 * own.excess * product + own.first * (1.0 - share) ** 2
    )
    return Mapped(shift, 2.0 * tf.math.log(chord / divisor) + tf.math.log(steepness))


TRANSFORMS: Final[dict[str, Affine | Spline]] = {"affine": Affine(), "spline": Spline()}
"""Maps by name."""
