// State of the page: a point in latent space, the seed it came from, and the user's data.

import { inUnits } from "./data.js";
import { announce, newest } from "./dom.js";

/** Events: "point" (z or its picture), "seed", "items" (the user's data), "condition", "place". */
export class State extends EventTarget {
  constructor(model, about) {
    super();
    this.model = model;
    this.about = about;
    this.z = new Float32Array(model.space.size);
    this.mean = null; // picture of the point
    this.draw = null; // draw of the seed; null once the point has moved
    this.seed = null; // [seed, row] that the point came from
    this.isMoved = true; // whether the point has left it
    this.draws = 0; // draws asked for: only the newest is shown
    this.items = []; // {name, x, loc}
    this.history = []; // {seed, x}
    this.place = 0; // position of the code that is chosen
    this.problem = () => {};
    this.redraw = newest(() => this.#redraw());
  }

  changed(name) {
    this.dispatchEvent(new Event(name));
  }

  /** Shows the error message of an action, or clears it. */
  async try(work, show = this.problem) {
    try {
      show(null);
      return await work();
    } catch (error) {
      show(error);
      return undefined;
    }
  }

  /** The point of a seed pair. */
  async goToSeed(seed, row) {
    await this.try(async () => {
      if (!(await this.#draw(seed, row))) return;
      this.changed("seed");
      this.changed("point");
      announce(`Seed ${seed}, row ${row} is shown.`);
    });
  }

  /** Draws the point of a seed pair; returns false if a newer request replaced this one. */
  async #draw(seed, row) {
    const order = ++this.draws;
    const { sample, mean, z } = await this.model.sample([[seed, row]]);
    if (order !== this.draws) return false;
    this.z = Float32Array.from(z[0]);
    this.isMoved = false;
    this.mean = inUnits(this.about, mean[0]);
    this.draw = sample[0];
    this.seed = [seed, row];
    const isKnown = this.history.some(({ seed: [s, r] }) => s === seed && r === row);
    if (!isKnown) this.history = [{ seed: [seed, row], x: this.mean }, ...this.history.slice(0, 23)];
    return true;
  }

  /** Sets the point to given latents. */
  goTo(z) {
    this.z = Float32Array.from(z);
    this.isMoved = true;
    return this.redraw();
  }

  /** Sets one latent of the point, which stays where latents may lie. */
  move(latent, value) {
    this.z.set(this.model.space.placed(this.z, [[latent, value]]));
    this.isMoved = true;
    return this.redraw();
  }

  /** Chooses the position whose code is changed. */
  choose(place) {
    this.place = place;
    this.changed("place");
  }

  async #redraw() {
    const { z } = this;
    if (!this.isMoved) return;
    await this.try(async () => {
      const [mean] = await this.means([z]);
      if (this.z !== z) return; // the point has leapt meanwhile
      this.mean = mean;
      this.draw = null;
      this.changed("point");
    });
  }

  /** A mean in the units of the data. */
  inUnits(mean) {
    return inUnits(this.about, mean);
  }

  /** Means of p(x | z), in the units of the data. */
  async means(rows) {
    const means = await this.model.decode(rows);
    return means.map((mean) => inUnits(this.about, mean));
  }

  /** Adds the user's examples, with their positions in latent space if the model can encode. */
  async add(examples) {
    const locs = this.model.lacksPoints
      ? examples.map(() => null)
      : await this.model.encode(examples.map(({ x }) => x));
    this.items = [...this.items, ...examples.map((example, i) => ({ ...example, loc: locs[i] }))];
    this.changed("items");
  }

  remove(index) {
    this.items = this.items.toSpliced(index, 1);
    this.changed("items");
  }

  /** Sets a new condition and computes again everything that depends on it. */
  async setCondition(condition) {
    this.model.condition = condition;
    this.history = [];
    const [items, seed] = [this.items, this.seed];
    this.items = [];
    await this.try(async () => {
      if (items.length) await this.add(items);
      if (this.isMoved) await this.redraw();
      else if (await this.#draw(...seed)) this.changed("point"); // the seed fields may hold a new one by now
      this.changed("condition");
    });
  }
}
