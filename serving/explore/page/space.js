// Space: the latents of a model as one flat list of numbers, in levels, or of codes.

const product = (shape) => shape.reduce((a, b) => a * b, 1);

export class Space {
  /** Reads the latents of a manifest; those of the first versions name only their number. */
  constructor({ latents, latent_size: size, signatures }) {
    const inputs = signatures?.decode?.inputs ?? {};
    const entries = Object.entries(latents ?? { z: { shape: [size] } });
    const codes = entries.length === 1 ? entries[0][1].codes : null;
    this.codes = codes && "codes" in inputs ? { shape: codes.shape, count: codes.num_codes } : null;
    let start = 0;
    this.levels = entries.map(([name, { tensor, shape, support }]) => {
      const own = this.codes ? this.codes.shape : shape;
      const level = {
        name,
        tensor: this.codes ? "codes" : (tensor ?? "z"),
        rate: entries.length > 1 ? `rate_${(tensor ?? "z").replace(/^z_/, "")}` : "rate",
        shape: own,
        start,
        size: product(own),
        isSphere: support === "sphere",
      };
      start += level.size;
      return level;
    });
    this.size = start;
  }

  /** Whether there is more than one level. */
  get isDeep() {
    return this.levels.length > 1;
  }

  /** Whether latents of some level have length 1. */
  get hasSphere() {
    return this.levels.some(({ isSphere }) => isSphere);
  }

  /**
   * Returns a point with other values of some latents, pairs of latent and value. On a sphere the
   * other latents of the level are scaled so that its length stays 1.
   */
  placed(point, changes) {
    const z = Float32Array.from(point);
    for (const [latent, value] of changes) z[latent] = value;
    for (const { isSphere, start, size } of this.levels) {
      const own = changes.map(([latent]) => latent - start).filter((i) => i >= 0 && i < size);
      if (isSphere && own.length) bringBack(z.subarray(start, start + size), new Set(own));
    }
    return z;
  }

  /** Returns the level of a latent. */
  levelOf(latent) {
    return this.levels.find(({ start, size }) => latent < start + size);
  }

  /** Returns the name of a latent: z3, of several levels z1[3], of a code its place. */
  label(latent) {
    const { name, shape, start } = this.levelOf(latent);
    const place = placeOf(latent - start, shape);
    if (this.codes) return `position ${shape.length > 1 ? `(${place.join(", ")})` : place[0]}`;
    return this.isDeep || shape.length > 1 ? `${name}[${place.join(", ")}]` : `${name}${place[0]}`;
  }

  /** Returns the name of a latent where its level is known. */
  shortLabel(latent) {
    return this.isDeep ? this.label(latent).slice(this.levelOf(latent).name.length) : this.label(latent);
  }

  /** Splits points into the tensors of the levels. */
  split(rows) {
    const parts = this.levels.map(({ tensor, start, size }) => [
      tensor,
      rows.map((row) => row.subarray(start, start + size)),
    ]);
    return Object.fromEntries(parts);
  }

  /** Joins the tensors of the levels to points. */
  join(found) {
    const [first] = this.levels;
    return found[first.tensor].map((_, i) => {
      const row = new Float32Array(this.size);
      for (const { tensor, start } of this.levels) row.set(found[tensor][i], start);
      return row;
    });
  }

  /** Names of the tensors of a point. */
  get tensors() {
    return this.levels.map(({ tensor }) => tensor);
  }

  /** Names of the outputs of `encode` that are a point; null if there are none, as of a flow, whose loc is no mean. */
  encoded({ outputs }) {
    const has = (names) => names.every((name, i) => product(outputs[name]?.shape.slice(1) ?? []) === this.levels[i].size && name in outputs);
    if (has(this.tensors)) return this.tensors;
    return !this.isDeep && !("context" in outputs) && has(["loc"]) ? ["loc"] : null;
  }

  /** Describes the latents in a few words. */
  describe() {
    const sizes = ({ shape }) => shape.join(" × ");
    if (this.codes) return `${sizes(this.levels[0])} codes of ${this.codes.count}`;
    if (!this.isDeep) return `${this.size} latents`;
    return `${this.size} latents on ${this.levels.length} levels, ${this.levels.map((level) => `${level.name} of ${sizes(level)}`).join(", ")}`;
  }
}

/** Scales the entries of a vector that are not kept so that its length becomes 1; all of them if the kept ones are longer. */
function bringBack(z, kept) {
  const others = Array.from(z.keys()).filter((i) => !kept.has(i));
  const square = (places) => places.reduce((sum, i) => sum + z[i] ** 2, 0);
  const rest = 1 - square([...kept]);
  if (rest <= 0 || !others.length) {
    for (const i of others) z[i] = 0;
    const length = Math.hypot(...z) || 1;
    for (const i of z.keys()) z[i] /= length;
    return;
  }
  const length = Math.sqrt(square(others));
  for (const i of others) z[i] = length > 1e-6 ? (z[i] * Math.sqrt(rest)) / length : Math.sqrt(rest / others.length);
}

/** Indices along each axis of the entry at a position in row-major order. */
export function placeOf(index, shape) {
  const place = [];
  for (const size of shape.toReversed()) {
    place.unshift(index % size);
    index = Math.floor(index / size);
  }
  return place;
}
