// Latents: the order in which they are shown, the reason for it, and the range of their sliders.

import { inUnits, scaleOf } from "./data.js";

const UNUSED = 0.01; // nats

/**
 * Measures the latents before the page is shown.
 *
 * @returns order: latents, most important first; how: the measure in a sentence; worth: the measure
 *     of each latent in words, and share in numbers; limit: how far sliders go; scale: what pictures
 *     are shown on, and fine: the same for means alone.
 */
export async function survey(model, about) {
  const examples = await some(model, about);
  const scale = scaleOf(about, [...examples.means, ...examples.draws]);
  const fine = about.kind === "image" ? scale : scaleOf(about, examples.means);
  const furthest = Math.max(...examples.z.map((z) => Math.max(...z.map(Math.abs))));
  const limit = model.site.standard ? 3 : Math.max(1, Math.ceil(furthest));
  const rates = model.manifest.training?.evaluation?.rate_per_latent;
  if (rates?.length === model.latents && rates.every(Number.isFinite)) {
    return {
      scale,
      fine,
      limit,
      order: descending(rates),
      worth: rates.map((rate) => (rate < UNUSED ? "unused" : `${rate.toFixed(2)} nats`)),
      share: shares(rates),
      how: "Ordered by rate, the KL of q(z | x) from the prior that each latent takes on the test data.",
    };
  }
  const changes = await sensitivities(model, about, scale);
  const most = Math.max(...changes) || 1;
  return {
    scale,
    fine,
    limit,
    order: descending(changes),
    worth: changes.map((change) => `${Math.round((100 * change) / most)} %`),
    share: shares(changes),
    how:
      "Ordered by how much the mean changes between −1 and 1 of each latent, relative to the first: " +
      "the artifact says nothing of rates (export after keras-vae evaluate).",
  };
}

/** Returns draws and means of the model, or means around the origin if it cannot draw. */
async function some(model, about) {
  if (!model.lack("sample")) {
    const seeds = Array.from({ length: 64 }, (_, row) => [0, row]);
    const { sample, mean, z } = await model.sample(seeds);
    return { z, draws: sample, means: mean.map((row) => inUnits(about, row)) };
  }
  const z = around(model.latents, 2);
  return { z, draws: [], means: (await model.decode(z)).map((row) => inUnits(about, row)) };
}

/** Root mean square change of the mean, in widths of the scale, from -1 to 1 of each latent. */
async function sensitivities(model, about, { low, high }) {
  const rows = await model.decode(around(model.latents, 1));
  const means = rows.map((row) => inUnits(about, row));
  return Array.from({ length: model.latents }, (_, latent) => {
    const [up, down] = [means[2 * latent], means[2 * latent + 1]];
    let sum = 0;
    for (let i = 0; i < about.size; i++) {
      const width = (high[i] ?? high) - (low[i] ?? low) || 1;
      sum += ((up[i] - down[i]) / width) ** 2;
    }
    return Math.sqrt(sum / about.size);
  });
}

function around(latents, step) {
  return Array.from({ length: 2 * latents }, (_, i) => {
    const z = new Float32Array(latents);
    z[i >> 1] = i % 2 ? -step : step;
    return z;
  });
}

const descending = (values) => values.map((_, i) => i).sort((a, b) => values[b] - values[a]);

const shares = (values) => {
  const most = Math.max(...values) || 1;
  return values.map((value) => Math.max(0, value) / most);
};
