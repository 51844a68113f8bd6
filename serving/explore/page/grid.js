// A grid of examples that works with mouse, keyboard and screen reader.

import { colour } from "./draw.js";
import { h } from "./dom.js";

/** A grid of examples: arrow keys move the focus, Enter or a click selects. */
export class Grid {
  constructor(painter, label, pick) {
    this.painter = painter;
    this.pick = pick;
    this.element = h("div", { role: "grid", "aria-label": label, class: `grid ${painter.about.kind}` });
    this.element.addEventListener("keydown", (event) => this.#move(event));
    this.cells = [];
  }

  /** Shows rows of {x, label}, with the names of columns and rows if they are given. */
  show(rows, { columns = null, names = null } = {}) {
    const focused = this.cells.flat().indexOf(document.activeElement);
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
    this.cells = rows.map((row, i) => {
      const cells = row.map(({ x, label }, j) => this.#cell(x, label, i, j));
      const head = names ? [h("span", { role: "rowheader" }, names[i])] : [];
      lines.push(h("div", { role: "row" }, ...head, ...cells));
      return cells;
    });
    this.element.replaceChildren(...lines);
    const all = this.cells.flat();
    const chosen = all[focused] ?? all[0];
    chosen.tabIndex = 0;
    if (focused >= 0) chosen.focus();
  }

  #cell(x, label, i, j) {
    const canvas = this.painter.paint(x, 96, 64);
    canvas.setAttribute("aria-hidden", "true");
    const choose = () => {
      this.#focus(i, j);
      this.pick(i, j);
    };
    const attributes = { role: "gridcell", tabindex: "-1", "aria-label": label, onclick: choose };
    return h("div", attributes, canvas);
  }

  #focus(i, j) {
    for (const cell of this.cells.flat()) cell.tabIndex = -1;
    this.cells[i][j].tabIndex = 0;
    this.cells[i][j].focus();
  }

  #move(event) {
    const i = this.cells.findIndex((row) => row.includes(event.target));
    if (i < 0) return;
    const j = this.cells[i].indexOf(event.target);
    const [height, width] = [this.cells.length, this.cells[i].length];
    const moves = {
      ArrowUp: [i - 1, j],
      ArrowDown: [i + 1, j],
      ArrowLeft: [i, j - 1],
      ArrowRight: [i, j + 1],
      Home: [i, 0],
      End: [i, width - 1],
    };
    if (event.key === "Enter" || event.key === " ") this.pick(i, j);
    else if (!(event.key in moves)) return;
    else {
      const [row, column] = moves[event.key];
      if (row in this.cells && column >= 0 && column < width && row < height) {
        this.#focus(row, column);
      }
    }
    event.preventDefault();
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
