// Traversals: one latent varies over its range while the others keep their values at the point.

import { download, h, inView, isNarrow, newest, problemBox } from "../dom.js";
import { Grid } from "../grid.js";
import { evenly, short } from "./values.js";

export function traversalPanel(host, state, painter, { order, limit }) {
  const grid = new Grid(painter, "Traversals", (i, j) => state.goTo(points[i][j]));
  const problem = problemBox();
  let points = [];
  const counts = [4, 8, 16, 32].filter((count, i) => i === 0 || count / 2 < order.length);
  const count = h("select", {}, ...counts.map((n) => h("option", { value: n }, String(Math.min(n, order.length)))));
  count.value = counts.includes(8) ? 8 : counts[0];
  const { name, version } = state.model.site;
  host.append(
    h(
      "div",
      { class: "controls" },
      h("label", {}, "Latents ", count),
      h("button", { type: "button", onclick: () => download(grid.canvas(), `${name}-${version}-traversals`) }, "Save as PNG"),
    ),
    problem.box,
    grid.element,
  );
  const show = newest(() =>
    state.try(async () => {
      const values = evenly(limit, isNarrow() ? 5 : 9);
      const latents = order.slice(0, Number(count.value));
      const asked = latents.map((latent) =>
        values.map((value) => {
          const z = Float32Array.from(state.z);
          z[latent] = value;
          return z;
        }),
      );
      const means = await state.means(asked.flat());
      points = asked;
      const rows = latents.map((latent, i) =>
        values.map((value, j) => ({
          x: means[i * values.length + j],
          label: `z${latent} = ${short(value)}`,
        })),
      );
      grid.show(rows, { columns: values.map(short), names: latents.map((latent) => `z${latent}`) });
    }, problem.show),
  );
  const update = inView(host, show);
  for (const event of ["point", "condition"]) state.addEventListener(event, update);
  count.addEventListener("change", update);
}
