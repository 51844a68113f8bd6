// Scores of an example: the bound, its terms, the rate of each level, and the p-value.

import { h } from "./dom.js";

/** A table of scores by name, each {mean, words}. */
export function scoreTable(scores, space) {
  const rows = [["elbo", "ELBO"], ["distortion", "distortion"], ["rate", "rate"]];
  if (space.isDeep) rows.push(...space.levels.map(({ rate, name }) => [rate, `rate of ${name}`]));
  rows.push(["p_value", "p-value"]);
  const lines = rows.filter(([name]) => name in scores).map(([name, label]) => {
    const { mean, words } = scores[name];
    const cell = h("td", { class: "number", "data-value": mean }, name === "p_value" ? String(Number(mean.toPrecision(2))) : `${words} nats`);
    return h("tr", {}, h("th", { scope: "row" }, label), cell);
  });
  return h("table", { class: "scores" }, h("caption", { class: "hidden" }, "Scores in nats"), ...lines);
}

/** A number of nats in words. */
export const nats = (value) => value.toFixed(3).replace("-", "−");
