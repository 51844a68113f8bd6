// A field of the form: the input of one part, and what the model says about it.

import { readFile } from "../data.js";
import { h, problemBox } from "../dom.js";
import { partPicture, stacked } from "../figure.js";
import { percent, sharesOf } from "../parts.js";

const TYPED = 16; // numbers of a part that are typed; longer parts are read from files

/** One part: its input and its computed values. */
export class Field {
  constructor(part, painter) {
    this.part = part;
    this.painter = painter;
    this.onchange = () => {};
    this.isPicture = part.variables > TYPED;
    this.values = null; // of a part that is read from files
    this.expected = h("td");
    this.drawn = h("td");
    this.nats = h("td", { class: "number" });
    this.problem = problemBox();
    this.input = this.isPicture ? this.#file() : this.#typed();
    this.input.addEventListener("input", () => {
      this.#mark(true);
      this.onchange();
    });
  }

  #typed() {
    const { part } = this;
    const { tensors, low, high, labels, variables } = part;
    const id = `part-${tensors.x}`;
    const placeholder = part.missing ? "blank" : null;
    if (variables > 1) return h("textarea", { id, spellcheck: "false", placeholder });
    if (labels.length) {
      const blank = part.missing ? [h("option", { value: "" }, "blank")] : [];
      return h("select", { id }, ...blank, ...labels.map((label, code) => h("option", { value: code }, String(label))));
    }
    return h("input", { type: "number", id, step: part.whole ? "1" : "any", min: low, max: high, placeholder });
  }

  #file() {
    const accept = `.csv,.json${this.part.about.kind === "image" ? ",image/*" : ""}`;
    const input = h("input", { type: "file", id: `part-${this.part.tensors.x}`, accept });
    input.addEventListener("change", async () => {
      if (!input.files.length) return;
      try {
        this.problem.show(null);
        const about = { ...this.part.about, names: null, isWhole: this.part.whole, mayBeAbsent: this.part.missing };
        const [{ x }] = await readFile(about, input.files[0], false);
        this.#show(x);
        this.onchange();
      } catch (error) {
        this.problem.show(error);
      }
      input.value = "";
    });
    return input;
  }

  /** A line of the form, with a cell for each of the columns. */
  row(columns) {
    const { part } = this;
    const title = h("th", { scope: "row" }, h("label", { for: this.input.id }, part.name), h("span", { class: "worth" }, ` ${this.#range()}`));
    const value = h("td", {}, this.input);
    if (this.isPicture) {
      this.picture = h("div", { class: "part" });
      const blank = h("button", { type: "button", "aria-label": `Blank ${part.name}`, onclick: () => this.clear() || this.onchange() }, "Blank");
      value.prepend(this.picture);
      value.append(part.missing ? blank : "", this.problem.box);
    }
    const cells = [value, ...[this.expected, this.drawn].slice(0, columns.length - 3), this.nats];
    for (const [i, cell] of cells.entries()) cell.dataset.label = columns[i + 1];
    return h("tr", {}, title, ...cells);
  }

  #range() {
    const { low, high, whole, labels, variables, shape, about } = this.part;
    if (about.kind === "image") return `image of ${shape.slice(0, 2).join(" × ")}`;
    if (labels.length) return `${variables > 1 ? `${variables} of ` : ""}${labels.length} categories`;
    const noun = whole ? "whole number" : "number";
    const kind = variables > 1 ? `${variables} ${noun}s` : noun;
    if (low === null && high === null) return kind;
    if (high === null) return `${kind} from ${low} on`;
    return low === null ? `${kind} up to ${high}` : `${kind} from ${low} to ${high}`;
  }

  isBlank() {
    return this.isPicture ? this.values === null : this.input.value.trim() === "" && !this.input.validity?.badInput;
  }

  clear() {
    if (this.isPicture) this.#show(null);
    else this.input.value = "";
  }

  /** Takes the part of a row. */
  fill(row) {
    const { start, size, shares, variables } = this.part;
    const own = row.subarray(start, start + size);
    const values = shares ? Array.from({ length: variables }, (_, i) => own.subarray(i * shares, (i + 1) * shares).indexOf(1)) : own;
    this.#set(values);
  }

  #set(values) {
    if (this.isPicture) this.#show(Float32Array.from(values));
    else this.input.value = Array.from(values, (value) => Number(value.toPrecision(5))).join(" ");
    this.#mark(true);
  }

  #show(values) {
    this.values = values;
    this.picture.replaceChildren(values ? this.#picture(values, "value") : h("p", { class: "empty" }, "blank"));
  }

  /** Puts the single imputation into the field if it is blank. */
  keep() {
    if (this.isBlank() && this.single) this.#set(this.single);
  }

  /** Returns the numbers of the field, NaN if it is blank; throws an error if it is not valid. */
  read() {
    try {
      const values = this.#read();
      this.#mark(true);
      const { oneHot, shares } = this.part;
      return oneHot ? oneHotOf(values[0], shares) : values;
    } catch (error) {
      this.#mark(false);
      this.input.focus();
      throw error;
    }
  }

  #mark(isGood) {
    this.input.setAttribute("aria-invalid", String(!isGood));
  }

  #read() {
    const { name, missing, variables, low, high, whole } = this.part;
    if (this.isBlank()) {
      if (!missing) throw new Error(`${name} may not be blank in this model.`);
      return new Float32Array(variables).fill(NaN);
    }
    if (this.isPicture) return this.values;
    if (this.input.validity?.badInput) throw new Error(`${name}: expected a number.`);
    const words = this.input.value.trim().split(/[\s,;]+/);
    if (words.length !== variables) throw new Error(`${name}: expected ${variables} numbers; got ${words.length}.`);
    const values = Float32Array.from(words, Number);
    for (const [i, value] of values.entries()) {
      if (!Number.isFinite(value)) throw new Error(`${name}: expected numbers; got ${words[i]}.`);
      if ((low !== null && value < low) || (high !== null && value > high)) {
        throw new Error(`${name}: expected ${this.#range().trim()}; got ${words[i]}.`);
      }
      if (whole && !Number.isInteger(value)) throw new Error(`${name}: expected whole numbers; got ${words[i]}.`);
    }
    return values;
  }

  forget() {
    this.single = null;
    for (const cell of [this.expected, this.drawn, this.nats]) cell.replaceChildren();
  }

  /** Shows the distortion of the part and, if it is blank, what was found: rows of draws and means. */
  show(found, distortion) {
    this.forget();
    if (distortion !== undefined) this.nats.textContent = this.isBlank() ? "absent" : digits(distortion);
    const { part } = this;
    const rows = (kind) => found[part.tensors[kind] ?? `${kind}${part.tensors.x.slice(1)}`];
    if (!this.isBlank() || !rows("mean")) return;
    const [mean] = rows("mean");
    const draws = rows("sample");
    this.single = this.#codes(rows("value")?.[0]);
    this.expected.replaceChildren(...this.#expected(mean, draws));
    if (draws) this.drawn.replaceChildren(this.#one(this.#codes(draws[0])));
  }

  /** Values of a part as they are typed: of a one-hot vector its code. */
  #codes(values) {
    return values && this.part.oneHot ? [values.indexOf(Math.max(...values))] : values;
  }

  #expected(mean, draws) {
    const { labels, variables } = this.part;
    if (variables > 1) return [labels.length ? "see the draw" : this.#one(mean)];
    if (labels.length) return this.#probabilities(mean);
    const ordered = Float32Array.from(draws, ([value]) => value).sort();
    const at = (share) => ordered[Math.round(share * (ordered.length - 1))];
    return [digits(mean[0]), h("span", { class: "worth" }, ` 90 %: ${digits(at(0.05))} to ${digits(at(0.95))}`)];
  }

  #probabilities(mean) {
    const shares = mean.length === 1 ? [1 - mean[0], mean[0]] : Array.from(mean);
    const words = sharesOf(shares, this.part.labels).slice(0, 3).map(([share, label]) => `${label}: ${percent(share)}`);
    return [words.join(", "), stacked(shares)];
  }

  #one(values) {
    const { labels, variables } = this.part;
    if (this.isPicture) return this.#picture(values, "filled in");
    const words = Array.from(values, (value) => (labels.length ? String(labels[value]) : digits(value)));
    return variables > 4 ? `${words.slice(0, 4).join(", ")}, …` : words.join(", ");
  }

  #picture(values, title) {
    return partPicture(this.painter, { ...this.part, shares: 0 }, values, title);
  }
}

const oneHotOf = (code, count) => Float32Array.from({ length: count }, (_, k) => (Number.isNaN(code) ? NaN : Number(k === code)));

const digits = (value) => String(Number(value.toPrecision(5))).replace("-", "−");
