// One row of a model with named parts: a form whose blank fields the model fills, and its scores.

import { announce, h, problemBox } from "../dom.js";

const BLANK = "blank";

/** Builds the panel with one field per part; a blank field is a missing value. */
export async function formPanel(section, model, parts) {
  const problem = problemBox();
  const fields = parts.map((part) => new Field(part));
  const canImpute = !model.lack("impute") && parts.some((part) => part.missing);
  const seed = h("input", { type: "number", id: "row-seed", value: "0", step: "1" });
  const head = ["part", "value", ...(canImpute ? ["imputed", "one draw"] : []), "−log p, nats"];
  const body = h("tbody", {}, ...fields.map((field) => field.row(canImpute)));
  const summary = h("table", { class: "scores" });
  const attempt = (work) => async () => {
    try {
      problem.show(null);
      await work();
    } catch (error) {
      problem.show(error);
    }
  };
  const pair = () => {
    const value = Number(seed.value);
    if (seed.value.trim() === "" || !Number.isInteger(value) || Math.abs(value) >= 2 ** 31) {
      throw new Error("Expected a whole number as seed.");
    }
    return [value, 0];
  };
  const draw = attempt(async () => {
    const names = parts.map((part) => part.tensors.sample);
    const drawn = await model.run("sample", { seed: [pair()] }, names);
    for (const field of fields) field.fill(drawn[field.part.tensors.sample][0]);
    clear();
    announce("A row was drawn from the model.");
  });
  const compute = attempt(async () => {
    const inputs = { seed: [pair()] };
    for (const field of fields) inputs[field.part.tensors.x] = [field.read()];
    const distortions = parts.map((part) => part.tensors.distortion);
    const scored = await model.run("score", inputs, ["elbo", "distortion", "rate", ...distortions]);
    const missing = fields.filter(({ part }) => part.missing);
    const wanted = missing.flatMap(({ part }) => ["value", "mean", "sample"].map((kind) => name(kind, part)));
    const found = canImpute ? await model.run("impute", inputs, [...wanted, "ess"]) : {};
    for (const field of fields) {
      field.show(found, scored[field.part.tensors.distortion][0][0]);
    }
    const lines = [["ELBO", scored.elbo], ["distortion", scored.distortion], ["rate", scored.rate]];
    summary.replaceChildren(
      ...lines.map(([label, [value]]) => line(label, `${digits(value[0])} nats`)),
      ...(canImpute && fields.some((field) => field.isBlank())
        ? [line("effective draws", `${digits(found.ess[0][0])} of ${model.manifest.imputation.num_samples}`)]
        : []),
    );
    announce("The blanks are filled and the row is scored.");
  });
  function clear() {
    for (const field of fields) field.forget();
    summary.replaceChildren();
  }
  for (const field of fields) field.input.addEventListener("input", clear);
  section.append(
    h(
      "div",
      { class: "controls" },
      h("button", { class: "strong", id: "impute", onclick: compute }, canImpute ? "Impute the blanks and score" : "Score"),
      h("button", { id: "draw-row", onclick: draw }, "Draw a row"),
      h("label", { for: "row-seed" }, "seed"),
      seed,
    ),
    problem.box,
    h("table", { class: "values form" }, h("thead", {}, h("tr", {}, ...head.map((word) => h("th", { scope: "col" }, word)))), body),
    summary,
    h("p", { class: "note" }, notes(canImpute)),
  );
  await draw();
}

function notes(canImpute) {
  if (!canImpute) return "Scores are of one draw of the latents. Draws and scores are those of the seed in every runtime.";
  return (
    "A blank field is absent. Imputed is E[x | what is present] of numbers, and the probabilities of categories; the draw " +
    "is one from p(absent | present). Scores are of what is present, from one draw of the latents."
  );
}

const name = (kind, part) => part.tensors[kind] ?? `${kind}${part.tensors.x.slice(1)}`;

function line(label, value) {
  return h("tr", {}, h("th", { scope: "row" }, label), h("td", { class: "number" }, value));
}

/** One part: its input field and its computed values. */
class Field {
  constructor(part) {
    this.part = part;
    this.size = part.shape.reduce((a, b) => a * b, 1);
    this.labels = part.labels;
    this.input = this.#input();
    this.imputed = h("td", { class: "number" });
    this.drawn = h("td", { class: "number" });
    this.nats = h("td", { class: "number" });
  }

  #input() {
    const { part } = this;
    const id = `part-${part.tensors.x}`;
    if (this.size > 1) return h("textarea", { id, spellcheck: "false", placeholder: part.missing ? BLANK : null });
    if (this.labels.length) {
      const blank = part.missing ? [h("option", { value: "" }, BLANK)] : [];
      return h("select", { id }, ...blank, ...this.labels.map((label, code) => h("option", { value: code }, String(label))));
    }
    const { low, high } = part;
    return h("input", { type: "number", id, step: part.whole ? "1" : "any", min: low, max: high, placeholder: part.missing ? BLANK : null });
  }

  row(canImpute) {
    const { part } = this;
    const title = h("th", { scope: "row" }, h("label", { for: this.input.id }, part.name), h("span", { class: "worth" }, ` ${this.#range()}`));
    return h("tr", {}, title, h("td", {}, this.input), ...(canImpute ? [this.imputed, this.drawn] : []), this.nats);
  }

  #range() {
    const { low, high, whole } = this.part;
    if (this.labels.length) return `${this.labels.length} categories`;
    const kind = whole ? "whole " : "";
    if (low === null && high === null) return `${kind}numbers`;
    if (high === null) return `${kind}from ${low} on`;
    return low === null ? `${kind}up to ${high}` : `${kind}from ${low} to ${high}`;
  }

  isBlank() {
    return this.input.value.trim() === "";
  }

  fill(values) {
    this.input.value = this.size > 1 ? Array.from(values, digits).join(" ").replaceAll("−", "-") : digits(values[0]).replace("−", "-");
  }

  /** Returns the numbers of the field, NaN if it is blank; throws an error if it is not valid. */
  read() {
    const { part, size } = this;
    if (this.isBlank()) {
      if (this.input.validity?.badInput) throw new Error(`${part.name}: expected a number.`);
      if (!part.missing) throw new Error(`${part.name} may not be blank in this model.`);
      return new Float32Array(size).fill(NaN);
    }
    const words = this.input.value.trim().split(/[\s,;]+/);
    if (words.length !== size) throw new Error(`${part.name}: expected ${size} numbers; got ${words.length}.`);
    const values = Float32Array.from(words, Number);
    for (const [i, value] of values.entries()) {
      if (!Number.isFinite(value)) throw new Error(`${part.name}: expected numbers; got ${words[i]}.`);
      if ((part.low !== null && value < part.low) || (part.high !== null && value > part.high)) {
        throw new Error(`${part.name}: expected ${this.#range()}; got ${words[i]}.`);
      }
      if (part.whole && !Number.isInteger(value)) throw new Error(`${part.name}: expected whole numbers; got ${words[i]}.`);
    }
    return values;
  }

  forget() {
    for (const cell of [this.imputed, this.drawn, this.nats]) cell.textContent = "";
  }

  show(found, distortion) {
    this.forget();
    this.nats.textContent = this.isBlank() ? "absent" : digits(distortion);
    if (!this.isBlank() || !found.ess) return;
    const { part } = this;
    const [mean, draw] = ["mean", "sample"].map((kind) => found[name(kind, part)][0]);
    this.imputed.textContent = this.labels.length ? this.#probabilities(mean) : this.#words(mean);
    this.drawn.textContent = this.#words(draw);
  }

  #words(values) {
    if (this.labels.length && this.size === 1) return String(this.labels[values[0]]);
    const shown = Array.from(values.subarray(0, 4), digits).join(", ");
    return values.length > 4 ? `${shown}, …` : shown;
  }

  #probabilities(mean) {
    const shares = mean.length === 1 ? [1 - mean[0], mean[0]] : Array.from(mean);
    return shares
      .map((share, code) => [share, code])
      .sort((a, b) => b[0] - a[0])
      .slice(0, 3)
      .map(([share, code]) => `${this.labels[code]}: ${Math.round(100 * share)} %`)
      .join(", ");
  }
}

function digits(value) {
  return String(Number(value.toPrecision(5))).replace("-", "−");
}
