// Calibration: how to read the p-values of an artifact.

/** Explains the p-value of `score`; empty if the artifact has none. */
export function calibrated({ calibration }) {
  if (!calibration) return "";
  const { n, least_p_value: least, validity } = calibration;
  return (
    ` p-value, from the first seed pair: of ${n} held-out calibration examples and this one, the share whose ELBO is as ` +
    `low or lower, so at least ${Number(least.toPrecision(2))}. Small is unusual. ${validity}`
  );
}
