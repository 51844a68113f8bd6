// The model of an artifact: its manifest, and its signatures as asynchronous functions.

import { describe } from "./data.js";
import { Rows } from "./parts.js";
import { Space } from "./space.js";

const ROWS = 64; // of one call: a long batch is split so that a newer one need not wait

export class Model {
  /** Reads the manifest; throws an error with a message for the user if that fails. */
  static async open() {
    const [site, manifest] = await Promise.all([json("site.json"), json("artifact/manifest.json")]);
    if (!manifest.signatures?.decode || !(manifest.data || site.parts) || !manifest.latent_size) {
      throw new Error("artifact/manifest.json is damaged: it names no signatures or no data.");
    }
    return new Model(site, manifest);
  }

  constructor(site, manifest) {
    this.site = site;
    this.manifest = manifest;
    this.space = new Space(manifest);
    this.about = describe(manifest, site);
    this.rows = new Rows(this.about);
    this.condition = null; // numbers of one condition, for conditional models
    this.waiting = new Map();
    this.count = 0;
    // A worker from a blob obeys the Content-Security-Policy of this page on every host.
    const module = JSON.stringify(new URL("worker.js", import.meta.url).href);
    const source = new Blob([`import ${module};`], { type: "text/javascript" });
    this.worker = new Worker(URL.createObjectURL(source), { type: "module" });
    this.worker.onmessage = ({ data: { id, results, problem } }) => {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      if (problem) reject(new Error(problem));
      else resolve(results);
    };
    this.worker.onerror = (event) => {
      event.preventDefault();
      const error = new Error("ONNX Runtime could not be started: is the folder ort/ complete?");
      for (const { reject } of this.waiting.values()) reject(error);
      this.waiting.clear();
    };
  }

  /** Returns why a signature is not available, or null if it is. */
  lack(name) {
    if (this.manifest.signatures[name]?.onnx) return null;
    const reason = this.manifest.omitted?.[name];
    return `This artifact has no ${name} in ONNX${reason ? `: ${reason}` : "."}`;
  }

  /** Returns why examples have no point in latent space, or null if they have one. */
  get lacksPoints() {
    const lack = this.lack("encode");
    if (lack || this.space.encoded(this.manifest.signatures.encode)) return lack;
    return "The posterior of this model has no single point to go to.";
  }

  /** Means of p(x | z) at points. */
  async decode(points) {
    return this.rows.join(await this.run("decode", this.space.split(points), this.rows.names("mean")), "mean");
  }

  /** Points of rows of x: posterior means, or codes. */
  async encode(rows) {
    const names = this.space.encoded(this.manifest.signatures.encode);
    const found = await this.run("encode", this.rows.split(rows), names);
    return names.length > 1 ? this.space.join(found) : found[names[0]];
  }

  /** A draw, its mean and its point z for every seed pair. */
  async sample(seeds) {
    const names = ["sample", "mean"].map((kind) => this.rows.names(kind));
    const found = await this.run("sample", { seed: seeds }, [...names.flat(), ...this.space.tensors]);
    return { sample: this.rows.join(found, "sample"), mean: this.rows.join(found, "mean"), z: this.space.join(found) };
  }

  /** Means of p(x | z) at the posterior means of rows of x. */
  async reconstruct(rows) {
    return this.rows.join(await this.run("reconstruct", this.rows.split(rows), this.rows.names("mean")), "mean");
  }

  /** All outputs of `score` in nats, and p-values, for rows of x and seed pairs. */
  score(rows, seeds) {
    const { outputs } = this.manifest.signatures.score;
    return this.run("score", { ...this.rows.split(rows), seed: seeds }, Object.keys(outputs));
  }

  /** Outputs by name, each a list of rows; a row of scalars is an array of one number. */
  async run(name, inputs, outputs) {
    const lack = this.lack(name);
    if (lack) throw new Error(lack);
    const total = Object.values(inputs)[0].length;
    const rows = Object.fromEntries(outputs.map((output) => [output, []]));
    for (let start = 0; start < total; start += ROWS) {
      const count = Math.min(ROWS, total - start);
      const part = await this.#ask(name, inputs, outputs, start, count);
      for (const output of outputs) {
        const size = part[output].length / count;
        for (let i = 0; i < count; i++) {
          rows[output].push(part[output].subarray(i * size, (i + 1) * size));
        }
      }
    }
    return rows;
  }

  #ask(name, inputs, outputs, start, count) {
    const { inputs: table, onnx } = this.manifest.signatures[name];
    const feeds = {};
    for (const [input, { dtype, shape }] of Object.entries(table)) {
      const size = shape.slice(1).reduce((a, b) => a * b, 1);
      const data = new (dtype === "int32" ? Int32Array : Float32Array)(count * size);
      for (let i = 0; i < count; i++) {
        const row = input === "condition" ? this.condition : inputs[input][start + i];
        data.set(row, i * size);
      }
      feeds[input] = { type: dtype, data, dims: [count, ...shape.slice(1)] };
    }
    const id = ++this.count;
    const sha256 = this.manifest.files?.[onnx];
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, file: onnx, sha256, feeds, outputs });
    });
  }
}

async function json(path) {
  const reply = await fetch(path);
  if (!reply.ok) throw new Error(`${path} is missing on this server (status ${reply.status}).`);
  try {
    return await reply.json();
  } catch {
    throw new Error(`${path} is damaged: it is not JSON. Write the folder again.`);
  }
}
