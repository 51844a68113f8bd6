// Large pictures of examples: canvases, or for tables an HTML table with a bar beside each number.

import { label as labelOf, position, text, textOf, tokensOf } from "./data.js";
import { percent, sharesOf } from "./parts.js";
import { h } from "./dom.js";
import { enlarged, onPaper } from "./draw.js";

/** Two examples to be compared: side by side, or as two columns of one table. */
export class Pair {
  constructor(painter, titles) {
    this.painter = painter;
    this.titles = titles;
    this.examples = titles.map(() => null);
    this.element = h("div", { class: `pair ${painter.about.kind}` });
  }

  /** Shows the examples; null is one that is not available. */
  show(examples, captions = this.titles) {
    this.examples = examples;
    const { kind } = this.painter.about;
    if (kind === "table" || kind === "row") {
      this.element.replaceChildren(table(this.painter, examples, captions, this.titles));
      return;
    }
    const figures = examples.map((x, i) =>
      h("figure", {}, this.#picture(x, this.titles[i]), ...this.#words(x), h("figcaption", {}, captions[i])),
    );
    this.element.replaceChildren(...figures);
    if (kind === "series") this.element.append(legend(this.painter.about.channels));
    this.element.classList.toggle("stack", Boolean(this.painter.about.tokens));
  }

  /** The tokens of a sequence, the most probable of each step. */
  #words(x) {
    const { about } = this.painter;
    return x && about.tokens ? [h("p", { class: "tokens" }, tokensOf(about, x).join(" ").trim())] : [];
  }

  #picture(x, title) {
    const { painter } = this;
    if (!x) return h("p", { class: "empty" }, "–");
    if (painter.about.vocabulary) return h("p", { class: "tokens" }, textOf(painter.about, x) || "(no tokens)");
    const canvas = painter.paint(x, 320, 180);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${title}: ${painter.describe(x)}`);
    if (painter.about.kind === "image") return canvas;
    const { low, high } = painter.scale;
    const axis = h("div", { class: "axis", "aria-hidden": "true" });
    axis.append(h("span", {}, text(high)), h("span", {}, text(low)));
    return h("div", { class: "plot" }, canvas, axis);
  }

  /** An example as a canvas to be saved. */
  canvas(i) {
    const { about } = this.painter;
    const x = this.examples[i];
    if (about.kind !== "image") return onPaper(this.painter.paint(x, 480, 300));
    return enlarged(this.painter.paint(x), 320);
  }
}

function table(painter, examples, captions, titles) {
  const shown = examples.map((x, i) => ({ x, caption: captions[i], title: titles[i] })).filter(({ x }) => x);
  const label = titles.join(" and ");
  const heads = shown.map(({ caption }) => h("th", { scope: "col", colspan: 2 }, caption));
  const lines = painter.about.kind === "row" ? ofParts(painter, shown) : ofNumbers(painter, shown);
  const rows = lines.map(({ name, cells }) => h("tr", {}, h("th", { scope: "row" }, name), ...cells.flat()));
  const body = h(
    "table",
    { class: "values" },
    h("caption", { class: "hidden" }, label),
    h("thead", {}, h("tr", {}, h("td"), ...heads)),
    h("tbody", {}, ...rows),
  );
  const missing = examples.map((x, i) => (x ? null : captions[i])).filter(Boolean);
  return h(
    "div",
    {},
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, body),
    ...missing.map((caption) => h("p", { class: "note" }, caption)),
  );
}

function ofNumbers({ about, scale: { low, high, zero } }, shown) {
  return Array.from({ length: about.size }, (_, i) => ({
    name: labelOf(about, i),
    cells: shown.map(({ x }) => numberCells(x[i], low[i], high[i], zero)),
  }));
}

function numberCells(value, low, high, zero) {
  const number = h("td", { class: "number" }, text(value));
  if (Number.isNaN(value)) return [number, h("td", { class: "bars" })];
  const end = position(value, low, high);
  const bar = h("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--from", Math.min(end, zero));
  bar.style.setProperty("--share", Math.abs(end - zero));
  return [number, h("td", { class: "bars" }, bar)];
}

/** Lines of named parts: a number with its bar, the shares of categories, or a picture. */
function ofParts(painter, shown) {
  const { low, high } = painter.scale;
  return painter.about.entries.map((part) => {
    const { name, start, size, variables, shares } = part;
    const own = ({ x }) => x.subarray(start, start + size);
    if (variables === 1 && shares) return { name, cells: shown.map((each) => shareCells(own(each), part)) };
    if (variables === 1) return { name, cells: shown.map(({ x }) => numberCells(x[start], low[start], high[start], 0)) };
    const cells = shown.map((each) => [h("td", { colspan: 2 }, partPicture(painter, part, own(each), each.title))]);
    return { name, cells };
  });
}

/** The most probable category with its share, and the shares of all as one bar. */
function shareCells(shares, { labels }) {
  if (Number.isNaN(shares[0])) return [h("td", { class: "number" }, "absent"), h("td", { class: "bars" })];
  const [[share, label]] = sharesOf(shares, labels);
  const words = share > 0.9995 ? String(label) : `${label}, ${percent(share)}`;
  return [h("td", { class: "number" }, words), h("td", { class: "bars" }, stacked(shares))];
}

/** Shares as one bar in colours. */
export function stacked(shares) {
  const parts = Array.from(shares, (share, k) => {
    const part = h("span", { class: `series-${(k % 6) + 1}` });
    part.style.setProperty("--share", share);
    return part;
  });
  return h("span", { class: "stacked", "aria-hidden": "true" }, ...parts);
}

/** A part that is an image, a series or several numbers. */
export function partPicture(painter, part, x, title) {
  const { variables, shares } = part;
  const values = shares ? x.filter((_, i) => i % shares === 0).map((_, i) => mostLikely(x, i, shares)) : x;
  const own = painter.ofPart(part);
  const canvas = own.paint(values, 160, 64);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${title}, ${part.name}: ${variables} numbers, ${own.describe(values)}`);
  return canvas;
}

const mostLikely = (x, i, shares) => {
  const own = Array.from(x.subarray(i * shares, (i + 1) * shares));
  return own.indexOf(Math.max(...own));
};

function legend(channels) {
  if (channels < 2 || channels > 6) return "";
  const names = Array.from({ length: channels }, (_, i) =>
    h("span", { class: `channel series-${i + 1}` }, `channel ${i}`),
  );
  return h("p", { class: "legend" }, ...names);
}
