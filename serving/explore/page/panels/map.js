// Map: a grid over two latents, with the user's data; other latents keep their values at the point.

import { download, h, inView, isNarrow, newest, problemBox } from "../dom.js";
import { Grid } from "../grid.js";
import { evenly, short } from "./values.js";

const MOST = 64; // latents of a level to choose from

export function mapPanel(host, state, painter, { space, levels, worth, limit }) {
  if (space.size < 2) {
    host.append(h("p", { class: "lack" }, "A map needs two latents, and this model has one."));
    return;
  }
  const grid = new Grid(painter, "Map over two latents", (i, j) => state.goTo(points[i][j]));
  const problem = problemBox();
  const isText = painter.about.kind === "text"; // which needs more room than a picture
  let points = [];
  const [across, up] = [0, 1].map((place) => {
    const option = (latent) => h("option", { value: latent }, [space.label(latent), worth[latent]].filter(Boolean).join(", "));
    const groups = levels.map(({ name, order }) => {
      const options = order.slice(0, MOST).map(option);
      return space.isDeep ? [h("optgroup", { label: `level ${name}` }, ...options)] : options;
    });
    const select = h("select", {}, ...groups.flat());
    select.value = levels.flatMap(({ order }) => order.slice(0, 2))[place];
    return select;
  });
  const dots = h("div", { class: "dots", "aria-hidden": "true" });
  const words = h("p", { class: "note" });
  const { name, version } = state.model.site;
  host.append(
    h(
      "div",
      { class: "controls" },
      h("label", {}, "Across ", across),
      h("label", {}, "Up ", up),
      h("button", { type: "button", onclick: () => download(grid.canvas(), `${name}-${version}-map`) }, "Save as PNG"),
    ),
    problem.box,
    h("div", { class: "map" }, grid.element, dots),
    words,
  );
  const show = newest(() =>
    state.try(async () => {
      const [a, b] = [Number(across.value), Number(up.value)];
      const [values, heights] = [a, b].map((latent) => evenly(limit[latent], isText ? (isNarrow() ? 3 : 5) : isNarrow() ? 7 : 11));
      const asked = heights.toReversed().map((high) =>
        values.map((value) => space.placed(state.z, [[a, value], [b, high]])),
      );
      const means = await state.means(asked.flat());
      points = asked;
      const rows = asked.map((row, i) =>
        row.map((z, j) => ({
          x: means[i * values.length + j],
          label: `${space.label(a)} = ${short(z[a])}, ${space.label(b)} = ${short(z[b])}`,
        })),
      );
      grid.show(rows);
      showDots();
    }, problem.show),
  );
  const update = inView(host, show);
  for (const event of ["point", "condition"]) state.addEventListener(event, update);
  for (const select of [across, up]) select.addEventListener("change", update);
  state.addEventListener("items", showDots);

  function showDots() {
    const [a, b] = [Number(across.value), Number(up.value)];
    const cells = points.length || 1;
    // Centres of the outer cells lie at the limit.
    const place = (value, latent) => 50 + (50 * (value / limit[latent]) * (cells - 1)) / cells;
    const known = state.items.map(({ loc }, i) => ({ loc, i })).filter(({ loc }) => loc);
    const marks = known.filter(({ loc }) => Math.abs(loc[a]) <= limit[a] && Math.abs(loc[b]) <= limit[b]);
    dots.replaceChildren(
      ...marks.map(({ loc, i }) => {
        const dot = h("span", { class: "dot" }, String(i + 1));
        dot.style.left = `${place(loc[a], a)}%`;
        dot.style.top = `${100 - place(loc[b], b)}%`;
        return dot;
      }),
    );
    const places = known.map(({ loc, i }) => `${i + 1} at (${short(loc[a])}, ${short(loc[b])})`);
    words.textContent = places.length
      ? `Your data by posterior mean: ${places.join("; ")}.`
      : (state.model.lacksPoints ?? "The posterior means of your data, once you have added some, are marked here.");
  }
}
