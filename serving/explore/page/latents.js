// Latents: the order in which they are shown, the reason for it, and the range of their sliders.

import { inUnits, scaleOf } from "./data.js";

const UNUSED = 0.01; // nats
const DRAWS = 64;
const MOST = 128; // latents of a level that are measured

/**
 * Measures the latents before the page is shown.
 *
 * @returns levels: {name, label, order} of each, the most important latent first; how: the measure in
 *     a sentence; worth: the measure of each latent in words, and share in numbers; limit: how far each
 *     slider goes; scale: what pictures are shown on, and fine: the same for means alone.
 */
export async function survey(model, about) {
  const { space } = model;
  const examples = await some(model, about);
  const scale = scaleOf(about, [...examples.means, ...examples.draws]);
  const fine = about.kind === "image" ? scale : scaleOf(about, examples.means);
  const shown = { space, scale, fine };
  if (space.codes) return shown;
  const limit = limits(model, examples.z);
  const rates = model.manifest.training?.evaluation?.rate_per_latent;
  if (rates?.length === space.size && rates.every(Number.isFinite)) {
    return {
      ...shown,
      limit,
      levels: levels(space, rates, await ratesOf(model, examples)),
      worth: rates.map((rate) => (rate < UNUSED ? "unused" : `${rate.toFixed(2)} nats`)),
      share: shares(rates),
      how: "Ordered by rate, the KL of q(z | x) from the prior that each latent takes on the test data.",
    };
  }
  const base = space.isDeep ? examples.z[0] : new Float32Array(space.size);
  const changes = await sensitivities(model, about, scale, base);
  const most = Math.max(...changes) || 1;
  const known = await ratesOf(model, examples);
  return {
    ...shown,
    limit,
    levels: levels(space, changes, known),
    worth: changes.map((change) => (change < 0 ? "" : `${Math.round((100 * change) / most)} %`)),
    share: shares(changes),
    how:
      `Ordered by how much the mean changes ${space.isDeep ? "from 1 below to 1 above the value of seed 0" : "between −1 and 1"} ` +
      "of each latent, relative to the " + (space.isDeep ? "largest" : "first") +
      (known.words ? `. ${known.words}` : ": the artifact says nothing of rates (export after keras-vae evaluate)."),
  };
}

/** Returns draws and means of the model, or means around the origin if it cannot draw. */
async function some(model, about) {
  if (!model.lack("sample")) {
    const seeds = Array.from({ length: DRAWS }, (_, row) => [0, row]);
    const { sample, mean, z } = await model.sample(seeds);
    return { z, draws: sample, means: mean.map((row) => inUnits(about, row)) };
  }
  const z = around(new Float32Array(model.space.size), all(model.space), 2);
  return { z, draws: [], means: (await model.decode(z)).map((row) => inUnits(about, row)) };
}

/** How far the slider of each latent goes: to 3, or as far as draws of its level from another prior. */
function limits(model, z) {
  const limit = new Float64Array(model.space.size);
  for (const { start, size, isSphere } of model.space.levels) {
    if (isSphere) {
      limit.fill(1, start, start + size);
      continue;
    }
    const furthest = Math.max(...z.map((row) => row.subarray(start, start + size).reduce((a, b) => Math.max(a, Math.abs(b)), 0)));
    limit.fill(model.site.standard ? 3 : Math.max(1, Math.ceil(furthest)), start, start + size);
  }
  return limit;
}

/** Rates of the levels in words, on the test data, or else on draws of the model itself. */
async function ratesOf(model, { draws }) {
  const { space, manifest } = model;
  if (!space.isDeep) return { rates: {}, words: "" };
  const measured = manifest.training?.evaluation?.rate_per_level;
  if (space.levels.every(({ name }) => Number.isFinite(measured?.[name]))) {
    return { rates: measured, words: "Nats of a level: KL of q from p given the levels above, on the test data." };
  }
  if (model.lack("score") || !draws.length) return { rates: {}, words: "The artifact says nothing of rates." };
  const found = await model.score(draws, draws.map((_, i) => [0, i]));
  const rates = Object.fromEntries(
    space.levels.map(({ name, rate }) => [name, found[rate].reduce((sum, [value]) => sum + value, 0) / draws.length]),
  );
  return {
    rates,
    words: `Nats of a level: KL of q from p given the levels above, on ${draws.length} draws of the model (on test data after keras-vae evaluate).`,
  };
}

function levels(space, values, { rates }) {
  return space.levels.map(({ name, start, size }) => ({
    name,
    label: Number.isFinite(rates[name]) ? `${rates[name].toFixed(2)} nats` : "",
    order: descending(values.slice(start, start + size)).map((i) => start + i),
  }));
}

/** Latents that are measured: of a large level only the first. */
const all = (space) => space.levels.flatMap(({ start, size }) => Array.from({ length: Math.min(size, MOST) }, (_, i) => start + i));

/**
 * Root mean square change of the mean, in widths of the scale, from 1 below to 1 above the base of
 * each latent; -1 for those that are not measured.
 */
async function sensitivities(model, about, { low, high }, base) {
  const latents = all(model.space);
  const rows = await model.decode(around(base, latents, 1));
  const means = rows.map((row) => inUnits(about, row));
  const changes = new Array(model.space.size).fill(-1);
  for (const [place, latent] of latents.entries()) {
    const [up, down] = [means[2 * place], means[2 * place + 1]];
    let sum = 0;
    for (let i = 0; i < about.size; i++) {
      const width = (high[i] ?? high) - (low[i] ?? low) || 1;
      sum += ((up[i] - down[i]) / width) ** 2;
    }
    changes[latent] = Math.sqrt(sum / about.size);
  }
  return changes;
}

function around(base, latents, step) {
  return latents.flatMap((latent) =>
    [step, -step].map((move) => {
      const z = Float32Array.from(base);
      z[latent] += move;
      return z;
    }),
  );
}

const descending = (values) => Array.from(values, (_, i) => i).sort((a, b) => values[b] - values[a]);

const shares = (values) => {
  const most = Math.max(...values) || 1;
  return values.map((value) => Math.max(0, value) / most);
};
