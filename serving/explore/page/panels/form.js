// One row of a model with named parts: a form whose blank fields the model fills, and its scores.

import { calibrated } from "../calibration.js";
import { announce, h, newest, problemBox } from "../dom.js";
import { nats, scoreTable } from "../scores.js";
import { Field } from "./field.js";

const DRAWS = 64; // of an interval, fewer where one takes many draws of the latents
const LATENTS = 2 ** 15; // draws of the latents for an interval

/** Builds the panel with one field for each part; a blank field is absent. */
export function formPanel(host, state, painter) {
  const { model } = state;
  const { manifest } = model;
  const fields = state.about.entries.map((part) => new Field(part, painter));
  const canImpute = !model.lack("impute") && fields.some(({ part }) => part.missing);
  const classified = canImpute || model.lack("classify") ? [] : fields.filter(({ part }) => probabilities(part) in manifest.signatures.classify.outputs);
  const canFill = canImpute || classified.length > 0;
  const problem = problemBox();
  const summary = h("div");
  const columns = ["part", "value", ...(canFill ? ["expected"] : []), ...(canImpute ? ["one draw"] : []), "−log p, nats"];
  const body = h("tbody", {}, ...fields.map((field) => field.row(columns)));
  const seedOf = () => state.seed ?? [0, 0];

  const compute = newest(() =>
    state.try(async () => {
      const inputs = {};
      for (const field of fields) inputs[field.part.tensors.x] = field.read();
      summary.replaceChildren(h("p", { class: "note" }, "Computing…"));
      const found = canImpute ? await impute(inputs) : await classify(inputs);
      const scores = model.lack("score") ? null : await score(inputs);
      for (const field of fields) field.show(found, scores?.[field.part.tensors.distortion]?.[0][0]);
      report(scores, found.ess?.[0][0]);
      announce("The blanks are filled and the row is scored.");
    }, problem.show),
  );

  async function impute(inputs) {
    const { num_samples: each } = manifest.imputation;
    const count = Math.min(DRAWS, Math.max(8, Math.floor(LATENTS / each)));
    const kinds = ["mean", "sample", "value"];
    const names = fields.filter(({ part }) => part.missing).flatMap(({ part }) => kinds.map((kind) => tensor(kind, part)));
    return model.run("impute", repeated(inputs, count), [...names, "ess"]);
  }

  async function classify(inputs) {
    if (!classified.length) return {};
    const names = classified.map(({ part }) => probabilities(part));
    const found = await model.run("classify", repeated(inputs, 1), names);
    return Object.fromEntries(classified.map(({ part }, i) => [tensor("mean", part), found[names[i]]]));
  }

  const score = (inputs) => model.run("score", repeated(inputs, 1), Object.keys(manifest.signatures.score.outputs));

  /** The row with as many seed pairs, from that of the page on. */
  function repeated(inputs, count) {
    const [seed, row] = seedOf();
    const rows = Object.entries(inputs).map(([name, x]) => [name, Array.from({ length: count }, () => x)]);
    return { ...Object.fromEntries(rows), seed: Array.from({ length: count }, (_, i) => [seed, row + i]) };
  }

  function report(scores, ess) {
    summary.replaceChildren();
    if (scores) {
      const values = Object.fromEntries(Object.entries(scores).map(([name, [[value]]]) => [name, { mean: value, words: nats(value) }]));
      summary.append(scoreTable(values, model.space));
    }
    const isBlank = fields.some((field) => field.isBlank());
    if (canImpute && isBlank) {
      const words = `Effective draws of the latents: ${nats(ess)} of ${manifest.imputation.num_samples}.`;
      summary.append(h("p", { class: "note", id: "ess" }, words));
    }
    if (scores?.p_value) summary.append(h("p", { class: "note" }, calibrated(manifest).trim()));
  }

  function forget() {
    for (const field of fields) field.forget();
    summary.replaceChildren();
    problem.show(null);
  }

  const blank = () => {
    for (const field of fields) if (field.part.missing) field.clear();
    forget();
    announce("Every field that may be blank is blank.");
  };
  const keep = () => {
    for (const field of fields) field.keep();
    forget();
    announce("The blanks hold the expected values.");
  };
  const fresh = () => state.goToSeed(crypto.getRandomValues(new Uint16Array(1))[0], 0);
  const button = (id, text, onclick, isStrong = false) => h("button", { type: "button", id, onclick, class: isStrong ? "strong" : null }, text);
  host.append(
    h(
      "div",
      { class: "controls" },
      button("impute", canFill ? "Fill the blanks and score" : "Score", compute, true),
      model.lack("sample") ? "" : button("draw-row", "Draw a row", fresh),
      fields.some(({ part }) => part.missing) ? button("blank-row", "Blank all", blank) : "",
      canImpute ? button("keep-row", "Keep what was filled in", keep) : "",
    ),
    problem.box,
    h(
      "table",
      { class: "values form" },
      h("caption", { class: "hidden" }, "One row, part by part"),
      h("thead", {}, h("tr", {}, ...columns.map((word) => h("th", { scope: "col" }, word)))),
      body,
    ),
    summary,
    h("p", { class: "note" }, notes(canImpute)),
  );
  for (const field of fields) field.onchange = forget;
  state.addEventListener("seed", () => {
    for (const field of fields) field.fill(state.draw);
    forget();
  });
  state.addEventListener("condition", forget);
}

function notes(canImpute) {
  const scores = "Scores are of what is present, from one draw of the latents. Draws and scores are those of the seed in every runtime.";
  if (!canImpute) return scores;
  return (
    "Expected is E[x | what is present] of numbers, with the interval of 90 % of the draws, and the probabilities of " +
    `categories. The draw is one from p(absent | present). ${scores}`
  );
}

const tensor = (kind, part) => part.tensors[kind] ?? `${kind}${part.tensors.x.slice(1)}`;

const probabilities = (part) => tensor("probabilities", part);
