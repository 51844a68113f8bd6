"""Draws of the angle between a direction and the mean direction, by inversion."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_vae.random.elementary import horner, total
from keras_vae.random.philox import Tensor

__all__ = ["polar_angle"]

_PANELS = 16
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)
_SHARES, _MASSES = 0.5 * (1.0 + _NODES), 0.5 * _WEIGHTS
_STEPS = 3
_BELOW, _ABOVE = 8.0, 12.0
"""Standard deviations below and above the mode that the panels cover, if they lie in [0, pi]."""

_LARGEST = 1e18
"""Concentration whose angles, about 1e-9, are far below the rounding of a unit vector."""

_TINY = 1e-37
_LOG1P_REST = [2.0 / (2 * k + 3) for k in range(8)]


class _Density(NamedTuple):
    """Density of angles at a distance from the mode, relative to that at the mode.

    With the dimension d, log p(a) = k cos a + (d - 2) log sin a + constant. Since its slope is 0
    at the mode, both terms are expanded around it without the first order, which would cancel.

    Attributes:
        power: d - 2.
        mode: angle of the largest density, of the shape of the concentration.
        curvature: minus the second derivative of log p at the mode.
        cotangent: cot(mode); 0 for d = 2, whose mode is 0.
        slope: d - 2 + k cos(mode).
    """

    power: float
    mode: Tensor
    curvature: Tensor
    cotangent: Tensor
    slope: Tensor

    @classmethod
    def of(cls, concentration: Tensor, size: int) -> "_Density":
        """Returns the density for a concentration."""
        power = float(size - 2)
        if size == 2:
            zeros = tf.zeros_like(concentration)
            return cls(power, zeros, concentration, zeros, concentration)
        root = tf.sqrt(power * power + 4.0 * tf.square(concentration))
        cosine = 2.0 * concentration / (power + root)
        sine = tf.sqrt(2.0 * power / (power + root))
        mode = 2.0 * tf.math.atan(sine / (1.0 + cosine))
        curvature = concentration * cosine + 0.5 * (power + root)
        return cls(power, mode, curvature, cosine / sine, power + concentration * cosine)

    def more(self, axes: int) -> "_Density":
        """Returns the density for distances of more axes."""
        parts = []
        for part in self[1:]:
            for _ in range(axes):
                part = part[..., tf.newaxis]
            parts.append(part)
        return _Density(self.power, *parts)

    def at(self, distance: Tensor) -> Tensor:
        """Returns the density at distances from the mode."""
        versine = _versine(distance)
        exponent = -self.slope * versine
        if self.power:
            change = self.cotangent * tf.sin(distance) - versine
            exponent += self.power * _log1p_excess(tf.maximum(change, 2.0**-20 - 1.0))
        return tf.exp(exponent)


def _versine(angle: Tensor) -> Tensor:
    """Computes 1 - cos(angle)."""
    return 2.0 * tf.square(tf.sin(0.5 * angle))


def _log1p_excess(x: Tensor) -> Tensor:
    """Computes log(1 + x) - x for x > -1."""
    near = tf.clip_by_value(x, -0.5, 1.0)
    ratio = near / (2.0 + near)
    square = ratio * ratio
    inner = ratio * (square * horner(square, _LOG1P_REST) - near)
    return tf.where(tf.abs(x - 0.25) < 0.75, inner, tf.math.log(1.0 + x) - x)


def polar_angle(u: Tensor, concentration: Tensor, size: int = 3) -> Tensor:
    """Draws the angle between a von Mises-Fisher vector and its mean direction.

    In d dimensions the angle a has the density exp(k cos a) sin(a)^(d - 2) on [0, pi], up to a
    constant. Gauss-Legendre quadrature sums it over 16 panels around its mode, from the end that is
    nearer to the draw, and three steps of Newton's method in logarithms invert the distribution
    function within a panel. The distribution function at a draw is within 4e-6 of u.

    The derivative with respect to the concentration is that of the quantile: minus the derivative
    of the distribution function, divided by the density.

    Sources: Davidson, Falorsi, De Cao, Kipf and Tomczak (2018), Hyperspherical variational
    auto-encoders, arXiv:1804.00891. Figurnov, Mohamed and Mnih (2018), Implicit reparameterization
    gradients, arXiv:1805.08498.

    Args:
        u: Uniforms in (0, 1), float32.
        concentration: Number k of at least 0, of a shape that broadcasts to that of `u`. One above
            1e18 is drawn as 1e18, whose square does not overflow.
        size: Dimension d of the vector, at least 2.

    Returns:
        float32 in [0, pi].
    """
    table = _Table.of(tf.minimum(tf.stop_gradient(concentration), _LARGEST), size)
    each = tf.broadcast_to(concentration, tf.shape(u))

    @tf.custom_gradient
    def inverted(_: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        place = table.invert(u)
        return place.angle, lambda upstream: upstream * table.derivative(place)

    return inverted(each)


class _Place(NamedTuple):
    """Position of a draw.

    Attributes:
        angle: the draw.
        anchor: the end of its panel that is farther from the median, as a distance from the mode.
        sign: 1 if the draw lies above the anchor, -1 if below.
        step: distance from the anchor.
        panel: one-hot vector of its panel, on a last axis.
    """

    angle: Tensor
    anchor: Tensor
    sign: Tensor
    step: Tensor
    panel: Tensor


class _Table(NamedTuple):
    """Probabilities of panels, by concentration; vectors have the panels on the last axis.

    Attributes:
        density: the density.
        width: width of a panel.
        edges: lower ends of the panels, as distances from the mode.
        masses: integrals of the density over the panels.
        versines: integrals of the density times (1 - cos a - its mean).
        mean: mean of 1 - cos a.
    """

    density: _Density
    width: Tensor
    edges: Tensor
    masses: Tensor
    versines: Tensor
    mean: Tensor

    @classmethod
    def of(cls, concentration: Tensor, size: int) -> "_Table":
        """Computes the table of a concentration."""
        density = _Density.of(concentration, size)
        spread = tf.math.rsqrt(density.curvature)
        low = -tf.minimum(_BELOW * spread, density.mode)
        width = (tf.minimum(_ABOVE * spread, math.pi - density.mode) - low) / _PANELS
        numbers = tf.range(_PANELS, dtype=tf.float32)
        edges = low[..., tf.newaxis] + width[..., tf.newaxis] * numbers
        wide = width[..., tf.newaxis][..., tf.newaxis]
        nodes = edges[..., tf.newaxis] + wide * tf.constant(_SHARES, tf.float32)
        whole = density.more(2)
        parts = whole.at(nodes) * tf.constant(_MASSES, tf.float32) * wide
        versines = parts * _versine(whole.mode + nodes)
        masses = total(parts)
        mean = total(total(versines)) / total(masses)
        moments = total(versines) - mean[..., tf.newaxis] * masses
        return cls(density, width, edges, masses, moments, mean)

    def invert(self, u: Tensor) -> _Place:
        """Finds the angle whose distribution function is u."""
        is_low = u < 0.5
        below = tf.cumsum(self.masses, axis=-1, exclusive=True)
        above = tf.cumsum(self.masses, axis=-1, exclusive=True, reverse=True)
        whole = below[..., -1] + self.masses[..., -1]
        tail = (tf.minimum(u, 1.0 - u) * whole)[..., tf.newaxis]

        passed = tf.cast(below[..., 1:] <= tail, tf.float32)
        edge = tf.ones_like(tail)
        from_low = tf.concat([edge, passed], -1) - tf.concat([passed, tf.zeros_like(edge)], -1)
        passed = tf.cast(above[..., :-1] <= tail, tf.float32)
        from_high = tf.concat([passed, edge], -1) - tf.concat([tf.zeros_like(edge), passed], -1)

        low_side = tf.cast(is_low, tf.float32)[..., tf.newaxis]
        panel = low_side * from_low + (1.0 - low_side) * from_high
        outside = low_side * below + (1.0 - low_side) * above
        rest = tail[..., 0] - total(panel * outside)
        anchor = total(panel * self.edges)
        anchor += tf.where(is_low, 0.0, self.width)
        sign = tf.where(is_low, 1.0, -1.0)
        place = _Place(anchor, anchor, sign, tf.zeros_like(u), panel)
        mass = total(panel * self.masses)
        step = self._refine(place, rest, rest / tf.maximum(mass, _TINY))
        angle = self.density.mode + (anchor + sign * step)
        return place._replace(angle=angle, step=step)

    def _refine(self, place: _Place, rest: Tensor, share: Tensor) -> Tensor:
        """Solves for the step from the anchor whose probability is `rest`."""
        log_rest = tf.math.log(tf.maximum(rest, _TINY))
        step = self.width * tf.clip_by_value(share, 0.0, 1.0)
        for _ in range(_STEPS):
            step = tf.maximum(step, 1e-6 * self.width)
            mass = tf.maximum(self._integral(place, step), _TINY)
            density = self.density.at(place.anchor + place.sign * step)
            slope = tf.clip_by_value(mass / (step * tf.maximum(density, 1e-30)), 0.0, 2.0)
            step *= tf.exp((log_rest - tf.math.log(mass)) * slope)
            step = tf.minimum(step, self.width)
        return step

    def _integral(self, place: _Place, step: Tensor, centered: bool = False) -> Tensor:
        """Integrates the density over steps from the anchor; or times 1 - cos a - its mean."""
        shares = tf.constant(_SHARES, tf.float32)
        nodes = (place.sign * step)[..., tf.newaxis] * shares + place.anchor[..., tf.newaxis]
        whole = self.density.more(1)
        parts = whole.at(nodes) * tf.constant(_MASSES, tf.float32)
        if centered:
            parts *= _versine(whole.mode + nodes) - self.mean[..., tf.newaxis]
        return step * total(parts)

    def derivative(self, place: _Place) -> Tensor:
        """Returns the derivative of the draw with respect to the concentration."""
        below = tf.cumsum(self.versines, axis=-1, exclusive=True)
        above = tf.cumsum(self.versines, axis=-1, exclusive=True, reverse=True)
        outside = tf.where(tf.expand_dims(place.sign, -1) > 0.0, below, above)
        tail = total(place.panel * outside)
        tail += self._integral(place, place.step, centered=True)
        density = self.density.at(place.anchor + place.sign * place.step)
        return place.sign * tail / tf.maximum(density, 1e-30)
