// Start of the page: reads the artifact, measures its latents, and fills the panels.

import { announce, h } from "./dom.js";
import { Painter } from "./draw.js";
import { survey } from "./latents.js";
import { Model } from "./model.js";
import { codePanel, entriesPanel } from "./panels/codes.js";
import { mapPanel } from "./panels/map.js";
import { pathPanel } from "./panels/path.js";
import { formPanel } from "./panels/form.js";
import { classOf, conditionPanel, latentPanel, oneHot, seedPanel } from "./panels/point.js";
import { traversalPanel } from "./panels/traversal.js";
import { dataPanel } from "./panels/yours.js";
import { State } from "./state.js";

const at = (id) => document.getElementById(id);

async function start() {
  const model = await Model.open();
  const { about, manifest, site } = model;
  introduce(model);
  const lack = model.lack("decode");
  if (lack) throw new Error(`${lack} The page shows what decode computes.`);
  if (manifest.condition_shape) {
    const size = manifest.condition_shape.reduce((a, b) => a * b, 1);
    model.condition = Float32Array.from(oneHot(size));
  }
  const latents = await survey(model, about);
  const painter = new Painter(about, latents);
  const state = new State(model, about);
  if (manifest.condition_shape) conditionPanel(at("condition"), state);
  seedPanel(at("pictures"), at("seed"), state, painter);
  if (model.space.codes) {
    codePanel(at("latents"), state);
    entriesPanel(at("traversals"), state, painter);
    at("map").remove();
  } else {
    latentPanel(at("latents"), state, latents);
    const numbers = { ...latents, levels: latents.levels.filter(({ name }) => !classOf(about, name)) };
    traversalPanel(at("traversals"), state, painter, numbers);
    mapPanel(at("map"), state, painter, numbers);
  }
  pathPanel(at("path"), state, painter);
  if (site.parts) {
    formPanel(at("row"), state, painter);
    at("row").hidden = false;
    at("yours").remove();
  } else {
    dataPanel(at("yours"), state, painter);
  }
  at("loading").remove();
  at("panels").hidden = false;
  follow(state);
  if (model.lack("sample")) await state.goTo(state.z);
  else await state.goToSeed(...seedOfAddress());
  document.body.dataset.ready = "";
}

function introduce({ site, manifest, space }) {
  const { name, version, runtime, parts } = site;
  const { data, likelihood, prior, posterior, structure, training, condition_shape: condition } = manifest;
  document.title = `${name} · explorer`;
  at("name").replaceChildren(name, " ", h("small", {}, `version ${version}`));
  const kind = structure ? `A ${structure}` : `A ${condition ? "conditional " : ""}variational autoencoder`;
  const evaluation = training?.evaluation ?? {};
  const words = [];
  if (parts) {
    words.push(`${kind} of ${parts.length} named parts with ${space.describe()}: prior ${prior.family}, posterior ${posterior.family}.`);
  } else {
    const [low, high] = data.range;
    let range = "unbounded";
    if (low !== null) range = high === null ? `from ${low} up` : `from ${low} to ${high}`;
    const shape = data.shape.join(" × ");
    const { vocabulary } = manifest.observations?.x ?? {};
    const what = vocabulary
      ? `texts of at most ${data.shape[0] - 1} ${vocabulary.unit}, of ${vocabulary.tokens.length - 2} different ones`
      : `data of shape ${shape}, ${range}`;
    words.push(`${kind} with ${space.describe()}: prior ${prior.family}, likelihood ${likelihood.family}, ${what}.`);
  }
  const { elbo, codes } = evaluation;
  if (Number.isFinite(elbo?.mean)) {
    const digits = (value) => value.toFixed(2).replace("-", "−");
    const error = !Number.isFinite(elbo.standard_error) ? "" : ` ± ${digits(elbo.standard_error)}`;
    words.push(`ELBO ${digits(elbo.mean)}${error} nats on ${evaluation.test_examples} test examples.`);
  }
  if (codes) words.push(`${codes.used} of ${codes.num_codes} codes occur on them, with a perplexity of ${codes.perplexity.toFixed(1)}.`);
  at("about").textContent = words.join(" ");
  at("runtime").textContent = runtime;
}

/** Keeps the seed in the address, so that links reproduce the page, and redraws when colours change. */
function follow(state) {
  state.addEventListener("seed", () => {
    const [seed, row] = state.seed;
    history.replaceState(null, "", `#seed=${seed}&row=${row}`);
  });
  window.addEventListener("hashchange", () => state.goToSeed(...seedOfAddress()));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const event of ["point", "condition", "items"]) state.changed(event);
  });
}

function seedOfAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  return ["seed", "row"].map((name) => {
    const value = Number(words.get(name) ?? 0);
    return Number.isInteger(value) && Math.abs(value) < 2 ** 31 ? value : 0;
  });
}

start().catch((error) => {
  const sentence = String(error?.message ?? error);
  at("loading")?.remove();
  at("panels").hidden = true;
  at("failure").textContent = sentence;
  at("failure").hidden = false;
  announce(sentence);
  document.body.dataset.failed = "";
});
