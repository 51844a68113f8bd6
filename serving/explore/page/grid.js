// A grid of examples that works with mouse, keyboard and screen reader.

import { colour } from "./draw.js";
import { h } from "./dom.js";
import { Roving } from "./roving.js";

/** A grid of examples: arrow keys move the focus, Enter or a click selects. */
export class Grid {
  constructor(painter, label, pick) {
    this.painter = painter;
    this.element = h("div", { role: "grid", "aria-label": label, class: `grid ${painter.about.kind}` });
    this.roving = new Roving(this.element, pick);
  }

  /** Shows rows of {x, label, caption, isChosen}, with names of columns and rows if they are given. */
  show(rows, { columns = null, names = null } = {}) {
    const { focused } = this.roving;
    this.rows = rows;
    this.columns = columns;
    this.names = names;
    const width = rows[0].length + (names ? 1 : 0);
    this.element.style.setProperty("--columns", rows[0].length);
    this.element.classList.toggle("named", Boolean(names));
    this.element.setAttribute("aria-colcount", width);
    const lines = [];
    if (columns) {
      const heads = columns.map((name) => h("span", { role: "columnheader" }, name));
      if (names) heads.unshift(h("span", { role: "columnheader", "aria-label": "latent" }));
      lines.push(h("div", { role: "row" }, ...heads));
    }
    const cells = rows.map((row, i) => {
      const line = row.map((entry) => this.#cell(entry));
      const head = names ? [h("span", { role: "rowheader" }, names[i])] : [];
      lines.push(h("div", { role: "row" }, ...head, ...line));
      return line;
    });
    this.element.replaceChildren(...lines);
    this.roving.set(cells, focused);
  }

  #cell({ x, label, caption = "", isChosen = null }) {
    const canvas = this.painter.paint(x, 96, 64);
    canvas.setAttribute("aria-hidden", "true");
    const chosen = isChosen === null ? null : String(isChosen);
    const below = caption ? [h("span", { class: "below", "aria-hidden": "true" }, caption)] : [];
    const name = this.painter.about.kind === "text" ? `${label}: ${this.painter.describe(x)}` : label;
    return h("div", { role: "gridcell", "aria-label": name, "aria-selected": chosen }, canvas, ...below);
  }

  /** The whole grid with its names, as a canvas to be saved. */
  canvas() {
    const isImage = this.painter.about.kind === "image";
    const first = this.painter.paint(this.rows[0][0].x, 96, 64);
    const enlarge = isImage ? Math.max(1, Math.round(72 / first.height)) : 1;
    const [width, height] = isImage ? [first.width * enlarge, first.height * enlarge] : [96, 64];
    const [gap, left, top] = [4, this.names ? 110 : 4, this.columns ? 28 : 4];
    const canvas = h("canvas", {
      width: left + this.rows[0].length * (width + gap),
      height: top + this.rows.length * (height + gap),
    });
    const context = canvas.getContext("2d");
    context.fillStyle = colour("--paper");
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = !isImage;
    context.fillStyle = colour("--ink");
    context.font = "13px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (const [i, row] of this.rows.entries()) {
      const y = top + i * (height + gap);
      if (this.names) context.fillText(this.names[i], 6, y + height / 2, left - 12);
      for (const [j, { x }] of row.entries()) {
        const picture = this.painter.paint(x, 96, 64);
        context.drawImage(picture, left + j * (width + gap), y, width, height);
      }
    }
    context.textAlign = "center";
    for (const [j, name] of (this.columns ?? []).entries()) {
      context.fillText(name, left + j * (width + gap) + width / 2, top / 2, width + gap);
    }
    return canvas;
  }
}
