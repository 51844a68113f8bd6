// Codes of a point: a grid of positions, and every code that one position can have.

import { announce, download, h, inView, isNarrow, newest, problemBox } from "../dom.js";
import { Grid } from "../grid.js";
import { Roving } from "../roving.js";

const ACROSS = 8; // codes in a row, where they have no rows of their own
const WIDE = 16; // columns up to which the cells show their codes as numbers
const PAGE = 32; // codes whose pictures are shown at once

/** The codes of the point. A position is picked in the grid, its code by number or by picture. */
export function codePanel(host, state) {
  const { space } = state.model;
  const { shape, count } = space.codes;
  const columns = shape.length > 1 ? shape[1] : Math.min(shape[0], ACROSS);
  const perStage = shape.slice(2).reduce((a, b) => a * b, 1);
  const stages = shape.length > 1 ? perStage : 1;
  const stage = h("select", {}, ...Array.from({ length: stages }, (_, i) => h("option", { value: i }, String(i + 1))));
  const grid = h("div", { class: "codes", role: "grid", "aria-label": "Codes of the point" });
  grid.style.setProperty("--columns", columns);
  grid.classList.toggle("dense", columns > WIDE);
  const places = Array.from({ length: space.size / stages }, (_, i) => i);
  const cells = places.map(() => h("div", { role: "gridcell" }));
  const lines = Array.from({ length: Math.ceil(cells.length / columns) }, (_, i) => cells.slice(i * columns, (i + 1) * columns));
  grid.append(...lines.map((line) => h("div", { role: "row" }, ...line)));
  const position = (i) => i * stages + Number(stage.value);
  const roving = new Roving(grid, (i, j) => state.choose(position(i * columns + j)));
  roving.set(lines, -1);
  const code = h("input", { type: "number", min: 0, max: count - 1, step: 1, required: true });
  code.addEventListener("change", () => {
    if (code.reportValidity()) state.move(state.place, code.valueAsNumber);
  });
  const name = h("span");
  const back = () => state.seed && state.goToSeed(...state.seed);
  host.append(
    h("p", { class: "note" }, `Each cell is a position and holds one of ${count} codes, from 0 to ${count - 1}. Pick a position, then its code here or by its picture below.`),
    stages > 1 ? h("div", { class: "controls" }, h("label", {}, "Stage ", stage)) : "",
    grid,
    h(
      "div",
      { class: "controls" },
      h("label", {}, name, " ", code),
      state.model.lack("sample") ? "" : h("button", { type: "button", onclick: back }, "Back to the seed"),
    ),
  );
  stage.addEventListener("change", () => state.choose(state.place - (state.place % stages) + Number(stage.value)));
  for (const event of ["point", "place"]) state.addEventListener(event, show);

  function show() {
    for (const [i, cell] of cells.entries()) {
      const [place, value] = [position(i), state.z[position(i)]];
      cell.textContent = value;
      cell.style.setProperty("--hue", hue(value));
      cell.setAttribute("aria-label", `${space.label(place)}, code ${value}`);
      cell.setAttribute("aria-selected", String(place === state.place));
    }
    name.textContent = `Code at ${space.label(state.place)}`;
    if (code.valueAsNumber !== state.z[state.place]) code.value = state.z[state.place];
  }
}

/** Pictures of every code at the chosen position, the other positions as they are. */
export function entriesPanel(host, state, painter) {
  const { space, site } = state.model;
  const { count } = space.codes;
  const grid = new Grid(painter, "Every code at the chosen position", (i, j) => {
    const value = first() + i * across() + j;
    state.move(state.place, value);
    announce(`${space.label(state.place)} has code ${value}.`);
  });
  const problem = problemBox();
  const pages = Array.from({ length: Math.ceil(count / PAGE) }, (_, i) => {
    const last = Math.min(count, (i + 1) * PAGE) - 1;
    return h("option", { value: i * PAGE }, `${i * PAGE} to ${last}`);
  });
  const page = h("select", {}, ...pages);
  const lead = h("span");
  host.querySelector("h2").textContent = "Every code";
  host.querySelector(".lead").replaceChildren(lead);
  host.append(
    h(
      "div",
      { class: "controls" },
      pages.length > 1 ? h("label", {}, "Codes ", page) : "",
      h("button", { type: "button", onclick: () => download(grid.canvas(), `${site.name}-${site.version}-codes`) }, "Save as PNG"),
    ),
    problem.box,
    grid.element,
  );
  const first = () => Number(page.value);
  const across = () => Math.min(count, isNarrow() ? 4 : ACROSS);
  const show = newest(() =>
    state.try(async () => {
      const { place } = state;
      const values = Array.from({ length: Math.min(PAGE, count - first()) }, (_, i) => first() + i);
      const means = await state.means(
        values.map((value) => {
          const point = Float32Array.from(state.z);
          point[place] = value;
          return point;
        }),
      );
      const entries = values.map((value, i) => ({
        x: means[i],
        label: `code ${value} at ${space.label(place)}`,
        caption: String(value),
        isChosen: state.z[place] === value,
      }));
      lead.textContent = `Means with each code at ${space.label(place)}, the other positions as above. Pick a picture to take its code.`;
      const rows = Array.from({ length: Math.ceil(entries.length / across()) }, (_, i) => entries.slice(i * across(), (i + 1) * across()));
      grid.show(rows);
    }, problem.show),
  );
  const update = inView(host, show);
  for (const event of ["point", "place", "condition"]) state.addEventListener(event, update);
  page.addEventListener("change", update);
}

/** An angle for each code: neighbours in number differ most. */
const hue = (code) => Math.round((code * 137.508) % 360);
