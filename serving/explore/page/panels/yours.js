// The user's own data: encoded, reconstructed and scored.

import { ended, parseRows, readFile } from "../data.js";
import { announce, download, h, newest, problemBox } from "../dom.js";
import { calibrated } from "../calibration.js";
import { Pair } from "../figure.js";
import { nats, scoreTable } from "../scores.js";

const SENTENCES = {
  tokens: ({ shape, tokens }) =>
    `A .csv or .json file; each line or array holds ${shape[0]} steps of ${tokens} numbers, a 1 at the token and zeros elsewhere.`,
  image: (about) =>
    `Images are cut to the model's proportions, scaled to ${about.width} × ${about.height} pixels and ` +
    `from black and white to ${about.low} and ${about.high}. A .csv or .json file holds the numbers themselves.`,
  series: (about) =>
    `A .csv or .json file; each line or array holds one series of ${about.steps} steps` +
    (about.channels > 1 ? ` with ${about.channels} channels each, step by step.` : ".") +
    absence(about),
  text: ({ size, vocabulary: { unit, unknown } }) =>
    `A .txt file with one text a line, or a .jsonl file, of at most ${size - 1} ${unit} each` +
    (unknown ? "; others than those of the vocabulary are unknown tokens." : " of the model's vocabulary."),
  table: (about) =>
    `A .csv or .json file; each line or array holds the ${about.size} numbers of one row` +
    (about.names ? ", and the first line of a .csv may name its columns, in any order." : ".") +
    absence(about),
};

const absence = ({ mayBeAbsent }) => (mayBeAbsent ? " An empty cell, NaN or null is absent." : "");

export function dataPanel(host, state, painter) {
  const { about, model } = state;
  const isText = about.kind === "text";
  const canImpute = about.mayBeAbsent && !isText && !model.lack("impute"); // a text has no blanks
  const problem = problemBox();
  const isImage = about.kind === "image" && !about.tokens;
  const accept = isText ? ".txt,.jsonl" : `.csv,.tsv,.txt,.json${isImage ? ",image/*" : ""}`;
  const files = h("input", { type: "file", multiple: true, accept });
  const inverted = h("input", { type: "checkbox" });
  const seed = h("input", { type: "number", value: 0, min: -(2 ** 31), max: 2 ** 31 - 1, step: 1, required: true });
  const draws = h("select", {}, ...[1, 16, 128].map((n) => h("option", { value: n }, String(n))));
  const pasted = h("textarea", { rows: 2, spellcheck: "false", "aria-label": isText ? "Texts, one a line" : `Numbers of one example, ${about.size}` });
  const list = h("div", { class: "items" });
  const words = h("p", { class: "note" });

  const take = (work) =>
    state.try(async () => {
      await state.add(await work());
      announce(`${state.items.length} examples of yours.`);
    }, problem.show);
  const takeFiles = (chosen) =>
    take(async () => {
      const read = [];
      for (const file of chosen) read.push(...(await readFile(about, file, inverted.checked)));
      if (read.length + state.items.length > 200) {
        throw new Error(`The page takes at most 200 examples; got ${read.length + state.items.length}.`);
      }
      return read;
    });
  files.addEventListener("change", async () => {
    await takeFiles([...files.files]);
    files.value = "";
  });
  const paste = () =>
    take(async () => parseRows(about, pasted.value, "The text").map((x) => ({ name: "pasted", x })));
  const takeDraw = () =>
    take(async () => {
      if (!state.draw) throw new Error("The point has left its seed: go back to the seed, or show one.");
      return [{ name: `draw of seed ${state.seed.join(", row ")}`, x: isText ? ended(state.draw) : state.draw }];
    });
  const drop = h(
    "div",
    { class: "drop" },
    h("label", { class: "file" }, "Files ", files),
    isImage ? h("label", {}, inverted, " dark on light: invert") : "",
    model.lack("sample") ? "" : h("button", { type: "button", onclick: takeDraw }, "Take the draw of the seed"),
    h("p", { class: "note" }, SENTENCES[about.tokens ? "tokens" : about.kind](about), " Files stay in this page."),
  );
  drop.addEventListener("dragover", (event) => event.preventDefault());
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    takeFiles([...event.dataTransfer.files]);
  });
  const lack = model.lack("score");
  host.append(
    drop,
    h(
      "details",
      {},
      h("summary", {}, isText ? "Type or paste texts" : "Type or paste numbers"),
      pasted,
      h("div", { class: "controls" }, h("button", { type: "button", onclick: paste }, "Add")),
    ),
    problem.box,
    lack
      ? h("p", { class: "lack" }, lack)
      : h(
          "div",
          { class: "controls" },
          h("label", {}, "Seed of the scores ", seed),
          h("label", {}, "Draws of z ", draws),
        ),
    ...["encode", "reconstruct"].map((name) => model.lack(name)).filter(Boolean).map((why) => h("p", { class: "lack" }, why)),
    list,
    words,
  );

  const show = newest(() =>
    state.try(async () => {
      const items = state.items;
      if (!items.length) {
        list.replaceChildren();
        words.textContent = "";
        return;
      }
      const rows = items.map(({ x }) => x);
      const count = Number(draws.value);
      const start = seed.valueAsNumber;
      const means = model.lack("reconstruct") ? null : await model.reconstruct(rows);
      const scores = lack ? null : await score(rows, start, count);
      const filled = canImpute ? await impute(rows, start) : null;
      list.replaceChildren(...items.map((item, i) => entry(item, i, means?.[i], scores?.[i], filled?.[i])));
      if (scores) {
        words.textContent =
          `ELBO = −(distortion + rate) ≤ log p(x), in nats, ` +
          (count === 1
            ? `from the one draw of z of the seed pair [${start}, 0].`
            : `means over the seed pairs [${start}, 0] to [${start}, ${count - 1}] ± their standard error.`) +
          calibrated(model.manifest);
        announce(`${items.length} scored. ${items[0].name}: ELBO ${scores[0].elbo.words}.`);
      }
    }, problem.show),
  );
  state.addEventListener("items", show);
  draws.addEventListener("change", show);
  seed.addEventListener("change", () => seed.reportValidity() && show());

  /** Expected values of what is absent, of the examples where something is. */
  async function impute(rows, start) {
    if (!rows.some((x) => x.some(Number.isNaN))) return null;
    const { mean } = await model.run("impute", { x: rows, seed: rows.map(() => [start, 0]) }, ["mean"]);
    return mean.map((x, i) => (rows[i].some(Number.isNaN) ? x : null));
  }

  async function score(rows, start, count) {
    const seeds = Array.from({ length: count }, (_, k) => [start, k]);
    const all = await model.score(
      rows.flatMap((x) => seeds.map(() => x)),
      rows.flatMap(() => seeds),
    );
    return rows.map((_, i) =>
      Object.fromEntries(
        Object.entries(all).map(([name, values]) => {
          const own = values.slice(i * count, (i + 1) * count).map(([value]) => value);
          // The p-value is valid for one draw of z, which is that of the first seed pair.
          return [name, summary(name === "p_value" ? own.slice(0, 1) : own)];
        }),
      ),
    );
  }

  function entry(item, i, mean, scores, filled) {
    const others = [["Reconstruction", mean], ["Blanks filled", filled]].filter(([, x]) => x);
    const pair = new Pair(painter, ["Yours", ...others.map(([title]) => title)]);
    pair.show([item.x, ...others.map(([, x]) => state.inUnits(x))]);
    const title = `${i + 1}: ${item.name}`;
    const save = () => download(pair.canvas(0), `${model.site.name}-${i + 1}`);
    const goes = () => {
      state.goTo(item.loc);
      announce(`The point is now the posterior mean of ${title}.`);
      document.getElementById("point").scrollIntoView();
    };
    return h(
      "section",
      { class: "item", "aria-label": title },
      h("h3", {}, title),
      pair.element,
      scores ? scoreTable(scores, model.space) : "",
      h(
        "div",
        { class: "controls" },
        item.loc ? h("button", { type: "button", onclick: goes }, "Go there") : "",
        h("button", { type: "button", onclick: save }, "Save as PNG"),
        h("button", { type: "button", onclick: () => state.remove(i), "aria-label": `Remove ${title}` }, "Remove"),
      ),
    );
  }
}

function summary(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  if (values.length === 1) return { mean, words: nats(mean) };
  const square = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1);
  return { mean, words: `${nats(mean)} ± ${Math.sqrt(square / values.length).toFixed(3)}` };
}
