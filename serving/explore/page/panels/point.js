// One point of latent space: its picture, the seed it came from, and a slider for each latent.

import { announce, download, h, problemBox } from "../dom.js";
import { Pair } from "../figure.js";
import { placeOf } from "../space.js";

const FIRST = 16; // sliders that are shown at once
const FIRST_OF_LEVEL = 6; // of each of several levels

/** Seeds, with a history, and the pictures of the point. */
export function seedPanel(pictures, host, state, painter) {
  const lack = state.model.lack("sample");
  const titles = ["Mean at this point", ...(lack ? [] : ["Draw of the seed"])];
  const pair = new Pair(painter, titles);
  const seed = number("seed", 0, -(2 ** 31), 2 ** 31 - 1);
  const row = number("row", 0, 0, 2 ** 31 - 1);
  const problem = problemBox();
  state.problem = problem.show;
  const python = h("code");
  const history = h("ul", { class: "history", "aria-label": "Seeds shown before" });
  const go = (event) => {
    event?.preventDefault();
    if (form.reportValidity()) state.goToSeed(seed.valueAsNumber, row.valueAsNumber);
  };
  const fresh = () => {
    seed.value = crypto.getRandomValues(new Uint16Array(1))[0];
    row.value = 0;
    go();
  };
  const save = () => download(pair.canvas(0), `${name(state)}-mean`);
  const saveDraw = () => download(pair.canvas(1), `${name(state)}-draw`);
  const form = h(
    "form",
    { class: "controls", onsubmit: go },
    h("label", {}, "Seed ", seed),
    h("label", {}, "Row ", row),
    h("button", { type: "submit" }, "Show"),
    h("button", { type: "button", class: "strong", onclick: fresh }, "New seed"),
  );
  const drawButton = h("button", { type: "button", onclick: saveDraw }, "Draw as PNG");
  pictures.append(pair.element);
  host.append(
    problem.box,
    lack ? h("p", { class: "lack" }, lack) : form,
    lack ? "" : h("p", { class: "note" }, "The same in Python: ", python),
    h(
      "div",
      { class: "controls" },
      h("button", { type: "button", onclick: save }, "Mean as PNG"),
      lack ? "" : drawButton,
    ),
    history,
  );
  state.addEventListener("point", () => {
    const gone = "The point has left the seed, and its draw with it";
    if (lack) pair.show([state.mean]);
    else pair.show([state.mean, state.draw], [titles[0], state.draw ? titles[1] : gone]);
    drawButton.disabled = !state.draw;
  });
  state.addEventListener("seed", () => {
    [seed.value, row.value] = state.seed;
    showCall();
    showHistory();
  });
  state.addEventListener("condition", () => {
    showCall();
    showHistory();
  });

  function showCall() {
    const { condition } = state.model;
    const given = condition ? `, condition=[${condition.join(", ")}]` : "";
    python.textContent = `vae.sample(${state.seed[1] + 1}, seed=${state.seed[0]}${given})[${state.seed[1]}]`;
  }

  function showHistory() {
    const entries = state.history.map(({ seed: [s, r], x }) => {
      const canvas = painter.paint(x, 56, 40);
      canvas.setAttribute("aria-hidden", "true");
      const label = `seed ${s}, row ${r}`;
      const onclick = () => state.goToSeed(s, r);
      return h("li", {}, h("button", { type: "button", "aria-label": label, title: label, onclick }, canvas));
    });
    history.replaceChildren(...entries);
  }
}

/** Sliders of each level, the most important latent first. */
export function latentPanel(host, state, { space, levels, worth, share, how, limit }) {
  const inputs = new Map();
  const first = space.isDeep ? FIRST_OF_LEVEL : FIRST;
  const slider = (latent, isHidden) => {
    const label = worth[latent] ? `${space.label(latent)}, ${worth[latent]}` : space.label(latent);
    const input = h("input", { type: "range", min: -limit[latent], max: limit[latent], step: 0.01, "aria-label": label });
    const output = h("output", { "aria-hidden": "true" });
    inputs.set(latent, { input, output });
    input.addEventListener("input", () => {
      write(latent, input.valueAsNumber);
      state.move(latent, input.valueAsNumber);
    });
    const bar = h("span", { class: "bar", "aria-hidden": "true" });
    bar.style.setProperty("--share", share[latent]);
    return h(
      "li",
      { hidden: isHidden },
      h("span", { class: "latent", "aria-hidden": "true" }, ...symbol(space, latent)),
      input,
      output,
      h("span", { class: "worth", "aria-hidden": "true" }, ...(worth[latent] ? [bar, worth[latent]] : [])),
    );
  };
  const lists = levels.map(({ name, label, order }) => {
    const part = classOf(state.about, name);
    if (part) return { list: [classPicker(state, space.levelOf(order[0]), part, label)], more: [] };
    const rows = order.map((latent, place) => slider(latent, place >= first));
    const list = h("ol", { class: "sliders", "aria-label": space.isDeep ? `Level ${name}` : null }, ...rows);
    const all = h("button", { type: "button" }, `All ${order.length} latents${space.isDeep ? ` of ${name}` : ""}`);
    all.addEventListener("click", () => {
      for (const row of rows) row.hidden = false;
      all.remove();
      inputs.get(order[first]).input.focus();
    });
    const more = order.length > first ? [all] : [];
    if (!space.isDeep) return { list: [list], more };
    const title = h("h3", { class: "level" }, name, h("span", {}, `${order.length} latents${label ? `, ${label}` : ""}`));
    return { list: [h("section", { class: "level", "aria-label": `Level ${name}` }, title, list, ...more)], more: [] };
  });
  const centre = () => {
    state.goTo(state.z.map((value, latent) => (inputs.has(latent) ? 0 : value)));
    announce("All latents with a slider are 0.");
  };
  const back = () => state.seed && state.goToSeed(...state.seed);
  host.append(
    h("p", { class: "note" }, space.hasSphere ? `${how} Points have length 1: the other latents move with a slider.` : how),
    ...lists.flatMap(({ list }) => list),
    h(
      "div",
      { class: "controls" },
      ...lists.flatMap(({ more }) => more),
      space.hasSphere ? "" : h("button", { type: "button", onclick: centre }, "All to 0"),
      state.model.lack("sample") ? "" : h("button", { type: "button", onclick: back }, "Back to the seed"),
    ),
  );
  state.addEventListener("point", () => {
    for (const latent of inputs.keys()) write(latent, state.z[latent]);
  });

  function write(latent, value) {
    const { input, output } = inputs.get(latent);
    const reach = Math.max(limit[latent], Math.ceil(Math.abs(value)));
    [input.min, input.max] = [-reach, reach];
    if (input.valueAsNumber !== value) input.value = value;
    const words = value.toFixed(2).replace("-", "−");
    if (output.value !== words) output.value = words;
  }
}

/** The part of the data that a latent is, if it is one class of several. */
export function classOf({ entries }, name) {
  return entries?.find((entry) => entry.name === name && entry.oneHot) ?? null;
}

/** A choice of a class, of a latent that is a one-hot vector, for it is a part of the data too. */
function classPicker(state, { name, start, size }, { labels }, nats) {
  const select = h("select", {}, ...labels.map((label, k) => h("option", { value: k }, String(label))));
  select.addEventListener("change", () => {
    const z = Float32Array.from(state.z);
    for (let k = 0; k < size; k++) z[start + k] = Number(k === Number(select.value));
    state.goTo(z);
  });
  state.addEventListener("point", () => {
    const own = Array.from(state.z.subarray(start, start + size));
    select.value = own.indexOf(Math.max(...own));
  });
  const title = h("h3", { class: "level" }, name, h("span", {}, [`${size} classes`, nats].filter(Boolean).join(", ")));
  return h("section", { class: "level", "aria-label": `Level ${name}` }, title, h("div", { class: "controls" }, h("label", {}, `${name} `, select)));
}

/** The name of a latent with its index below the line; below the name of its level the index alone. */
function symbol(space, latent) {
  const { name, start, shape } = space.levelOf(latent);
  const place = placeOf(latent - start, shape).join(",");
  return space.isDeep ? [h("span", {}, place)] : [name, h("sub", {}, place)];
}

/** The condition of a conditional model. */
export function conditionPanel(host, state) {
  const shape = state.model.manifest.condition_shape;
  const size = shape.reduce((a, b) => a * b, 1);
  const problem = problemBox();
  const numbers = h("input", { type: "text", value: state.model.condition.join(", "), inputmode: "decimal" });
  const classes = h("select");
  const names = state.model.manifest.training?.config?.classes ?? [];
  for (let i = 0; i < size; i++) classes.append(h("option", { value: i }, names[i] ?? `class ${i}`));
  classes.append(h("option", { value: "own" }, "own numbers"));
  classes.addEventListener("change", () => {
    if (classes.value === "own") return;
    numbers.value = oneHot(size, Number(classes.value)).join(", ");
    read();
  });
  numbers.addEventListener("change", () => {
    classes.value = "own";
    read();
  });
  host.append(
    h(
      "div",
      { class: "controls" },
      shape.length === 1 && size > 1 ? h("label", {}, "Condition, one-hot ", classes) : "",
      h("label", { class: "wide" }, `Condition, ${size} numbers `, numbers),
    ),
    problem.box,
  );

  function read() {
    const words = numbers.value.split(/[\s,;]+/).filter(Boolean);
    const values = words.map(Number);
    const isGood = values.length === size && values.every(Number.isFinite);
    numbers.setAttribute("aria-invalid", String(!isGood));
    problem.show(isGood ? null : `Expected ${size} numbers between commas; got ${numbers.value || "none"}.`);
    if (isGood) state.setCondition(Float32Array.from(values));
  }
}

/** A condition to start from: the first class. */
export function oneHot(size, index = 0) {
  return Array.from({ length: size }, (_, i) => (i === index ? 1 : 0));
}

const number = (label, value, min, max) =>
  h("input", { type: "number", name: label, value, min, max, step: 1, required: true });

function name(state) {
  const { name, version } = state.model.site;
  return [name, version, ...(state.draw ? ["seed", ...state.seed] : ["point"])].join("-");
}
