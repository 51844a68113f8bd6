// Traversals: one latent varies over its range while the others keep their values at the point.

import { download, h, inView, isNarrow, newest, problemBox } from "../dom.js";
import { Grid } from "../grid.js";
import { evenly, short } from "./values.js";

/** Says what the bars of a picture are; empty of other pictures. */
function barsOf({ kind, entries }) {
  if (kind !== "row" || entries.some(({ about }) => about.kind === "image")) return "";
  const names = entries.map(({ name, variables }) => (variables > 1 ? `${name} (${variables})` : name));
  return `Bars from left to right: ${names.join(", ")}. Numbers by height, categories by the share of each.`;
}

export function traversalPanel(host, state, painter, { space, levels, limit }) {
  const grid = new Grid(painter, "Traversals", (i, j) => state.goTo(points[i][j]));
  const problem = problemBox();
  let points = [];
  const level = h("select", {}, ...levels.map(({ name }, i) => h("option", { value: i }, name)));
  const most = Math.max(...levels.map(({ order }) => order.length));
  const counts = [4, 8, 16, 32].filter((count, i) => i === 0 || count / 2 < most);
  const count = h("select", {}, ...counts.map((n) => h("option", { value: n }, String(Math.min(n, most)))));
  count.value = counts.includes(8) ? 8 : counts[0];
  const { name, version } = state.model.site;
  host.append(
    h(
      "div",
      { class: "controls" },
      space.isDeep ? h("label", {}, "Level ", level) : "",
      h("label", {}, "Latents ", count),
      h("button", { type: "button", onclick: () => download(grid.canvas(), `${name}-${version}-traversals`) }, "Save as PNG"),
    ),
    problem.box,
    grid.element,
    h("p", { class: "note" }, barsOf(state.about)),
  );
  const show = newest(() =>
    state.try(async () => {
      const latents = levels[level.value].order.slice(0, Number(count.value));
      const values = evenly(limit[latents[0]], isNarrow() ? 5 : 9);
      const asked = latents.map((latent) =>
        values.map((value) => space.placed(state.z, [[latent, value]])),
      );
      const means = await state.means(asked.flat());
      points = asked;
      const rows = latents.map((latent, i) =>
        values.map((value, j) => ({
          x: means[i * values.length + j],
          label: `${space.label(latent)} = ${short(value)}`,
        })),
      );
      grid.show(rows, { columns: values.map(short), names: latents.map((latent) => space.shortLabel(latent)) });
    }, problem.show),
  );
  const update = inView(host, show);
  for (const event of ["point", "condition"]) state.addEventListener(event, update);
  for (const select of [level, count]) select.addEventListener("change", update);
}
