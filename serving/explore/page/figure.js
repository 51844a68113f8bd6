// Large pictures of examples: canvases, or for tables an HTML table with a bar beside each number.

import { label as labelOf, position, text } from "./data.js";
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
    if (kind === "table") {
      this.element.replaceChildren(table(this.painter, examples, captions, this.titles));
      return;
    }
    const figures = examples.map((x, i) =>
      h("figure", {}, this.#picture(x, this.titles[i]), h("figcaption", {}, captions[i])),
    );
    this.element.replaceChildren(...figures);
    if (kind === "series") this.element.append(legend(this.painter.about.channels));
  }

  #picture(x, title) {
    const { painter } = this;
    if (!x) return h("p", { class: "empty" }, "–");
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
  const { low, high, zero } = painter.scale;
  const shown = examples.map((x, i) => ({ x, caption: captions[i] })).filter(({ x }) => x);
  const label = titles.join(" and ");
  const heads = shown.map(({ caption }) => h("th", { scope: "col", colspan: 2 }, caption));
  const rows = Array.from({ length: painter.about.size }, (_, i) => {
    const cells = shown.flatMap(({ x }) => {
      const end = position(x[i], low[i], high[i]);
      const bar = h("span", { class: "bar", "aria-hidden": "true" });
      bar.style.setProperty("--from", Math.min(end, zero));
      bar.style.setProperty("--share", Math.abs(end - zero));
      return [h("td", { class: "number" }, text(x[i])), h("td", { class: "bars" }, bar)];
    });
    return h("tr", {}, h("th", { scope: "row" }, labelOf(painter.about, i)), ...cells);
  });
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

function legend(channels) {
  if (channels < 2 || channels > 6) return "";
  const names = Array.from({ length: channels }, (_, i) =>
    h("span", { class: `channel series-${i + 1}` }, `channel ${i}`),
  );
  return h("p", { class: "legend" }, ...names);
}
