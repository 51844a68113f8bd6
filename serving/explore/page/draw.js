// Pictures of examples: images as pixels, series as lines, tables as bars, texts in words, named
// parts side by side.

import { byte, position, text, textOf } from "./data.js";
import { h } from "./dom.js";

const SMALL = 100; // pixels
const MOST = 16; // numbers of one of several parts that have a bar

/** Draws examples of one model. */
export class Painter {
  /** `scale` is for draws and `fine` for means; small series and tables use `fine`. */
  constructor(about, { scale, fine }) {
    this.about = about;
    this.scale = scale;
    this.fine = fine;
  }

  /** Returns a canvas of an example, of the given size in CSS pixels; images keep their own pixels. */
  paint(x, width, height) {
    const { kind, entries } = this.about;
    if (kind === "image") return this.#image(x);
    const picture = kind === "row" && entries.find(({ about }) => about.kind === "image");
    if (picture) return this.ofPart(picture).paint(x.subarray(picture.start, picture.start + picture.size));
    const ratio = window.devicePixelRatio || 1;
    const canvas = h("canvas", { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const scale = width > SMALL ? this.scale : this.fine;
    if (kind === "series") this.#lines(context, x, width, height, scale);
    else if (kind === "row") this.#parts(context, x, width, height, scale);
    else if (kind === "text") this.#text(context, x, width, height);
    else this.#bars(context, x, width, height, scale);
    return canvas;
  }

  /** A painter of one of several named parts that is an image, a series or several numbers. */
  ofPart({ about, start, size }) {
    const own = ({ low, high, zero }) =>
      about.kind === "table"
        ? { low: low.subarray(start, start + size), high: high.subarray(start, start + size), zero }
        : { low: low[start], high: high[start] };
    return new Painter(about, { scale: own(this.scale), fine: own(this.fine) });
  }

  /** Describes an example in words. */
  describe(x) {
    const { kind, shape } = this.about;
    if (kind === "text") return textOf(this.about, x);
    const present = x.filter((value) => !Number.isNaN(value));
    const absent = x.length - present.length;
    const numbers = present.length ? `values from ${text(Math.min(...present))} to ${text(Math.max(...present))}` : "nothing present";
    const name = { image: "image", series: "series", table: "row of a table", row: "row" }[kind];
    return `${name}, ${shape.join(" by ")}, ${numbers}${absent ? `, ${absent} absent` : ""}`;
  }

  #image(x) {
    const { width, height, channels, tokens } = this.about;
    const isColour = channels === 3;
    const parts = isColour || channels === 1 ? 1 : channels; // other channels lie side by side
    const image = new ImageData(width * parts, height);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        // Steps run to the right, and the first token is at the bottom.
        const from = tokens ? column * tokens + tokens - 1 - row : (row * width + column) * channels;
        for (let part = 0; part < parts; part++) {
          const to = 4 * (row * width * parts + part * width + column);
          for (let c = 0; c < 3; c++) {
            image.data[to + c] = byte(x[from + (isColour ? c : part)], this.scale);
          }
          image.data[to + 3] = Number.isNaN(x[from]) ? 0 : 255; // what is absent shows the paper
        }
      }
    }
    const canvas = h("canvas", { class: "image", width: width * parts, height });
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  #lines(context, x, width, height, { low, high }) {
    const { steps, channels } = this.about;
    const colours = palette();
    const y = (value) => 3 + (height - 6) * (1 - position(value, low, high));
    if (low < 0 && high > 0) rule(context, 0, y(0), width, y(0));
    context.lineWidth = width > SMALL ? 2 : 1.25;
    context.lineJoin = "round";
    for (let channel = 0; channel < channels; channel++) {
      context.strokeStyle = colours[channel % colours.length];
      context.beginPath();
      let isDown = false;
      for (let step = 0; step < steps; step++) {
        const across = 2 + ((width - 4) * step) / Math.max(1, steps - 1);
        const value = x[step * channels + channel];
        if (isDown) context.lineTo(across, y(value));
        else context.moveTo(across, y(value));
        isDown = !Number.isNaN(value); // absent steps leave a gap
      }
      context.stroke();
    }
  }

  /** The text in lines, as much of it as there is room for. */
  #text(context, x, width, height) {
    const pitch = width > SMALL ? 20 : 12;
    context.font = `${pitch - 3}px system-ui, sans-serif`;
    context.fillStyle = colour("--ink");
    context.textBaseline = "top";
    const isOfWords = this.about.vocabulary.unit === "words";
    const parts = isOfWords ? textOf(this.about, x).split(" ") : Array.from(textOf(this.about, x));
    let [line, y] = ["", 2];
    for (const part of parts) {
      const longer = line + (line && isOfWords ? " " : "") + part;
      if (!line || context.measureText(longer).width <= width - 4) {
        line = longer;
        continue;
      }
      context.fillText(line, 2, y, width - 4);
      [line, y] = [part, y + pitch];
      if (y + pitch > height) return;
    }
    context.fillText(line, 2, y, width - 4);
  }

  #bars(context, x, width, height, { low, high, zero }) {
    const pitch = width / x.length;
    const thick = Math.max(0.5, pitch - (pitch > 3 ? 1 : 0));
    context.fillStyle = palette()[0];
    for (let i = 0; i < x.length; i++) {
      if (Number.isNaN(x[i])) continue;
      const end = position(x[i], low[i], high[i]);
      const top = height * (1 - Math.max(end, zero));
      context.fillRect(i * pitch, top, thick, Math.max(1, height * Math.abs(end - zero)));
    }
    const floor = Math.min(height - 0.5, height * (1 - zero));
    rule(context, 0, floor, width, floor);
  }

  /** A bar for each part: numbers by its height, categories as shares one above another. */
  #parts(context, x, width, height, { low, high }) {
    const colours = palette();
    const { entries } = this.about;
    const bars = entries.flatMap(({ start, variables, shares }) =>
      Array.from({ length: Math.min(variables, MOST) }, (_, i) => ({ first: start + i * Math.max(1, shares), shares })),
    );
    const pitch = width / bars.length;
    const thick = Math.max(0.5, pitch - (pitch > 3 ? 1.5 : 0));
    for (const [i, { first, shares }] of bars.entries()) {
      let floor = height;
      const bar = (share, colour) => {
        if (Number.isNaN(share)) return;
        context.fillStyle = colour;
        context.fillRect(i * pitch, floor - height * share, thick, height * share);
        floor -= height * share;
      };
      if (!shares) bar(Math.max(0.02, position(x[first], low[first], high[first])), colours[0]);
      for (let k = 0; k < shares; k++) bar(x[first + k], colours[k % colours.length]);
    }
    rule(context, 0, height - 0.5, width, height - 0.5);
  }
}

/** A canvas of pixels, enlarged by a whole number to at least a size. */
export function enlarged(canvas, least) {
  const factor = Math.max(1, Math.ceil(least / Math.max(canvas.width, canvas.height)));
  const large = h("canvas", { width: canvas.width * factor, height: canvas.height * factor });
  const context = large.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(canvas, 0, 0, large.width, large.height);
  return large;
}

/** A canvas with the page's background behind it. */
export function onPaper(canvas) {
  const paper = h("canvas", { width: canvas.width, height: canvas.height });
  const context = paper.getContext("2d");
  context.fillStyle = colour("--paper");
  context.fillRect(0, 0, paper.width, paper.height);
  context.drawImage(canvas, 0, 0);
  return paper;
}

function rule(context, left, top, right, bottom) {
  context.strokeStyle = colour("--line");
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(left, top);
  context.lineTo(right, bottom);
  context.stroke();
}

/** The value of a colour of the style sheet. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const palette = () => [1, 2, 3, 4, 5, 6].map((i) => colour(`--series-${i}`));
