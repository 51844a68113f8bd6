// Interpolation between two seeds or two of the user's examples.

import { download, h, inView, isNarrow, newest, problemBox } from "../dom.js";
import { Grid } from "../grid.js";
import { short } from "./values.js";

const SWITCHING = { switching: "whose codes become those of the other end one after another, in reading order" };
const KINDS = {
  spherical: "on the sphere: the direction turns evenly and the length changes evenly",
  linear: "on the straight line",
};
const ON_A_SPHERE = {
  spherical: "on the sphere of unit vectors: the direction turns evenly",
  linear: "on the straight line, brought back to length 1",
};
const UNDER_A_STANDARD_NORMAL = {
  spherical: ", so that a standard normal prior finds every point as likely as the ends",
  linear: ", whose middle lies nearer to the origin than draws from the prior do",
};

export function pathPanel(host, state, painter) {
  const grid = new Grid(painter, "Interpolation", (_, j) => state.goTo(points[j]));
  const problem = problemBox();
  let points = [];
  const ends = ["From", "To"].map((label, i) => new End(state, label, i + 1, () => update()));
  const { space } = state.model;
  const kinds = space.codes ? SWITCHING : KINDS;
  const kind = h("select", {}, ...Object.keys(kinds).map((name) => h("option", {}, name)));
  const words = h("p", { class: "note" });
  const { name, version } = state.model.site;
  host.append(
    h(
      "div",
      { class: "controls" },
      ...ends.map(({ element }) => element),
      space.codes ? "" : h("label", {}, "Path ", kind),
      h("button", { type: "button", onclick: () => points.length && download(grid.canvas(), `${name}-${version}-path`) }, "Save as PNG"),
    ),
    problem.box,
    grid.element,
    words,
  );
  const show = newest(() =>
    state.try(async () => {
      const [a, b] = await Promise.all(ends.map((end) => end.z()));
      if (!a || !b) {
        words.textContent = "Without sample in ONNX there are no seeds: add two examples of your own first.";
        return;
      }
      const count = isNarrow() || painter.about.kind === "text" ? 5 : 9;
      const shares = Array.from({ length: count }, (_, i) => i / (count - 1));
      points = shares.map((share) => onPath(space, a, b, share, kind.value));
      const means = await state.means(points);
      const row = means.map((x, i) => ({ x, label: `${Math.round(100 * shares[i])} % of the way` }));
      grid.show([row], { columns: shares.map((share) => short(share)) });
      const isStandard = state.model.site.standard;
      const way = (space.hasSphere ? ON_A_SPHERE : kinds)[kind.value];
      const why = isStandard ? UNDER_A_STANDARD_NORMAL[kind.value] : "";
      words.textContent = `Means of p(x | ${space.codes ? "codes" : "z"}) ${way}${why}${space.isDeep ? ", in each level" : ""}.`;
    }, problem.show),
  );
  const update = inView(host, show);
  kind.addEventListener("change", update);
  state.addEventListener("condition", update);
  state.addEventListener("items", () => {
    for (const end of ends) end.offer();
    update();
  });
  update();
}

/** One end of the path: a seed, or one of the user's examples. */
class End {
  constructor(state, label, seed, changed) {
    this.state = state;
    this.select = h("select", { "aria-label": `${label}: what`, onchange: () => this.#chosen(changed) });
    this.seed = h("input", {
      type: "number",
      value: seed,
      min: -(2 ** 31),
      max: 2 ** 31 - 1,
      step: 1,
      required: true,
      "aria-label": `${label}: seed`,
      onchange: () => this.seed.reportValidity() && changed(),
    });
    this.element = h("span", { class: "end" }, `${label} `, this.select, this.seed);
    this.offer();
  }

  offer() {
    const before = this.select.value;
    const options = this.state.model.lack("sample") ? [] : [h("option", { value: "seed" }, "seed")];
    for (const [i, { name, loc }] of this.state.items.entries()) {
      if (loc) options.push(h("option", { value: i }, `${i + 1}: ${name}`));
    }
    this.select.replaceChildren(...options);
    if (options.some(({ value }) => value === before)) this.select.value = before;
    this.seed.hidden = this.select.value !== "seed";
  }

  async z() {
    if (this.select.value === "") return null;
    if (this.select.value !== "seed") return this.state.items[Number(this.select.value)].loc;
    return (await this.state.model.sample([[this.seed.valueAsNumber, 0]])).z[0];
  }

  #chosen(changed) {
    this.seed.hidden = this.select.value !== "seed";
    changed();
  }
}

/** The point at a share of the way from a to b: each level by itself, or codes one after another. */
function onPath({ codes, levels }, a, b, share, kind) {
  if (codes) return Float32Array.from(a, (code, i) => (i < Math.round(share * a.length) ? b[i] : code));
  const point = new Float32Array(a.length);
  for (const { start, size, isSphere } of levels) {
    const [from, to] = [a, b].map((z) => z.subarray(start, start + size));
    const found = between(from, to, share, kind);
    const length = isSphere ? Math.hypot(...found) || 1 : 1;
    point.set(found.map((value) => value / length), start);
  }
  return point;
}

/** The point at a share of the way from a to b. */
export function between(a, b, share, kind) {
  const length = (z) => Math.hypot(...z);
  const [la, lb] = [length(a), length(b)];
  const cosine = a.reduce((sum, value, i) => sum + value * b[i], 0) / (la * lb);
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  // If the ends are parallel or opposite, no unique arc exists, so a straight line is used.
  if (kind === "linear" || !(Math.sin(angle) > 1e-4)) {
    return Float32Array.from(a, (value, i) => (1 - share) * value + share * b[i]);
  }
  const reach = (1 - share) * la + share * lb;
  const [wa, wb] = [(1 - share) * angle, share * angle].map((part) => Math.sin(part) / Math.sin(angle));
  return Float32Array.from(a, (value, i) => reach * ((wa * value) / la + (wb * b[i]) / lb));
}
