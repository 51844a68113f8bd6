// Values along an axis of latent space.

/** Values from -limit to limit, evenly spaced. */
export function evenly(limit, count) {
  return Array.from({ length: count }, (_, i) => limit * ((2 * i) / (count - 1) - 1));
}

/** A value with as many digits as a label needs. */
export function short(value) {
  return String(Number(value.toFixed(2))).replace("-", "−");
}
