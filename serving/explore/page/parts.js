// Named parts: their tensors as one row of numbers, and back.

/** Converts between the tensors of a model and rows; of a single x both are the same. */
export class Rows {
  constructor(about) {
    this.parts = about.entries ?? null;
    this.size = about.size;
  }

  /** Names of the tensors of a kind: x, mean or sample. */
  names(kind) {
    return this.parts ? this.parts.map(({ tensors }) => tensors[kind]) : [kind];
  }

  /** Joins means or draws to rows. */
  join(found, kind) {
    if (!this.parts) return found[kind];
    const [first] = this.names(kind);
    return found[first].map((_, i) => {
      const row = new Float32Array(this.size);
      for (const part of this.parts) row.set(spread(part, found[part.tensors[kind]][i]), part.start);
      return row;
    });
  }

  /** Splits rows into the tensors of x. */
  split(rows) {
    if (!this.parts) return { x: rows };
    const entries = this.parts.map(({ tensors, start, size, shares, oneHot }) => [
      tensors.x,
      rows.map((row) => {
        const own = row.subarray(start, start + size);
        return shares && !oneHot ? Float32Array.from({ length: size / shares }, (_, i) => codeOf(own.subarray(i * shares, (i + 1) * shares))) : own;
      }),
    ]);
    return Object.fromEntries(entries);
  }
}

/** Numbers of a part as they stand in a row: codes and probabilities of a one become shares. */
function spread({ variables, shares, size }, values) {
  if (!shares || values.length === size) return values;
  const row = new Float32Array(size);
  for (let i = 0; i < variables; i++) {
    const value = values[i];
    const isCode = Number.isInteger(value) || Number.isNaN(value);
    for (let k = 0; k < shares; k++) {
      if (Number.isNaN(value)) row[i * shares + k] = NaN;
      else if (isCode) row[i * shares + k] = k === value ? 1 : 0;
      else row[i * shares + k] = k ? value : 1 - value;
    }
  }
  return row;
}

const codeOf = (shares) => (Number.isNaN(shares[0]) ? NaN : shares.indexOf(Math.max(...shares)));

/** Pairs of share and label, the most probable first. */
export function sharesOf(shares, labels) {
  return Array.from(shares, (share, k) => [share, labels[k]]).sort((a, b) => b[0] - a[0]);
}

export const percent = (share) => `${Math.round(100 * share)} %`;
