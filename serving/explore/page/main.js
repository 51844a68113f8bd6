// Start of the page: reads the artifact, measures its latents, and fills the panels.

import { describe } from "./data.js";
import { announce, h } from "./dom.js";
import { Painter } from "./draw.js";
import { survey } from "./latents.js";
import { Model } from "./model.js";
import { mapPanel } from "./panels/map.js";
import { pathPanel } from "./panels/path.js";
import { formPanel } from "./panels/form.js";
import { conditionPanel, latentPanel, oneHot, seedPanel } from "./panels/point.js";
import { traversalPanel } from "./panels/traversal.js";
import { dataPanel } from "./panels/yours.js";
import { State } from "./state.js";

const at = (id) => document.getElementById(id);

async function start() {
  const model = await Model.open();
  const { manifest, site } = model;
  if (site.parts) {
    await startForm(model);
    return;
  }
  const about = describe(manifest, site);
  introduce(site, manifest);
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
  latentPanel(at("latents"), state, latents);
  traversalPanel(at("traversals"), state, painter, latents);
  mapPanel(at("map"), state, painter, latents);
  pathPanel(at("path"), state, painter);
  dataPanel(at("yours"), state, painter);
  at("loading").remove();
  at("panels").hidden = false;
  follow(state);
  if (model.lack("sample")) await state.goTo(state.z);
  else await state.goToSeed(...seedOfAddress());
  document.body.dataset.ready = "";
}

/** The page of a model with named parts. */
async function startForm(model) {
  const { manifest, site } = model;
  document.title = `${site.name} · explorer`;
  at("name").replaceChildren(site.name, " ", h("small", {}, `version ${site.version}`));
  at("about").textContent =
    `A variational autoencoder of ${site.parts.length} named parts with ${manifest.latent_size} latents: prior ` +
    `${manifest.prior.family}, posterior ${manifest.posterior.family}.`;
  at("runtime").textContent = site.runtime;
  for (const name of ["sample", "score"]) {
    const lack = model.lack(name);
    if (lack) throw new Error(`${lack} The page shows what ${name} computes.`);
  }
  if (manifest.condition_shape) {
    const size = manifest.condition_shape.reduce((a, b) => a * b, 1);
    model.condition = Float32Array.from(oneHot(size));
  }
  await formPanel(at("row"), model, site.parts);
  at("loading").remove();
  at("row").hidden = false;
  document.body.dataset.ready = "";
}

function introduce({ name, version, runtime }, { data, likelihood, prior, latent_size: latents, training }) {
  document.title = `${name} · latent explorer`;
  at("name").replaceChildren(name, " ", h("small", {}, `version ${version}`));
  const [low, high] = data.range;
  let range = "unbounded";
  if (low !== null) range = high === null ? `from ${low} up` : `from ${low} to ${high}`;
  at("about").textContent =
    `A variational autoencoder with ${latents} latents: prior ${prior.family}, likelihood ` +
    `${likelihood.family}, data of shape ${data.shape.join(" × ")}, ${range}.`;
  const elbo = training?.evaluation?.elbo;
  if (Number.isFinite(elbo?.mean)) {
    const digits = (value) => value.toFixed(2).replace("-", "−");
    const error = !Number.isFinite(elbo.standard_error) ? "" : ` ± ${digits(elbo.standard_error)}`;
    at("about").textContent +=
      ` ELBO ${digits(elbo.mean)}${error} nats on ${training.evaluation.test_examples} test examples.`;
  }
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
