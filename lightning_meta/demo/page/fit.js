// The tab "Fit": a few points of a wave, and two networks that adapt to them by the same gradient steps.

import { announce, byId, element, focusNear, iconButton, Latest, showProblem } from "./dom.js";
import { connectCheckpoints } from "./checkpoints.js";
import { LIMIT, Plot } from "./plot.js";
import { Steps } from "./steps.js";

const MAX_POINTS = 50;
const number = (value) => value.toFixed(2).replace("-", "−");

/** The mean squared distance of a curve from points, read off between its two nearest x. */
export function meanSquaredError(points, x, y) {
  const errors = points.map(([at, value]) => {
    const right = Math.min(x.length - 1, Math.max(1, x.findIndex((each) => each >= at)));
    const share = (at - x[right - 1]) / (x[right] - x[right - 1]);
    return (y[right - 1] + share * (y[right] - y[right - 1]) - value) ** 2;
  });
  return errors.reduce((sum, error) => sum + error, 0) / errors.length;
}

/** Points of a random wave of the family that the networks were trained on, and the wave itself. */
function surprise() {
  const [amplitude, phase] = [1 + 4 * Math.random(), Math.PI * Math.random()];
  const wave = (x) => amplitude * Math.sin(x - phase);
  const grid = [...Array(201).keys()].map((index) => -LIMIT + (index * LIMIT) / 100);
  const points = [-4, -2, 0, 2, 4].map((x) => {
    const at = Math.round(100 * (x + 1.8 * (Math.random() - 0.5))) / 100;
    return [at, Math.round(100 * wave(at)) / 100];
  });
  return { points, wave: { kind: "truth", x: grid, y: grid.map(wave) } };
}

export class FitTab {
  #latest = new Latest();
  #answer = null;
  #playNext = false;

  constructor(panel, engine) {
    this.panel = panel;
    this.engine = engine;
    this.points = [];
    this.wave = null; // the curve behind a surprise
    const on = {
      added: (x, y) => this.#add(x, y),
      moved: (index, x, y) => this.#change(this.points.map((point, each) => (each === index ? [x, y] : point))),
    };
    this.plots = { steps: new Plot(byId("fit-meta"), on), joint: new Plot(byId("fit-joint"), on) };
    this.steps = new Steps(byId("fit-steps"), () => this.#showStep());
    byId("fit-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#add(byId("fit-x").valueAsNumber, byId("fit-y").valueAsNumber);
      byId("fit-x").focus();
    });
    byId("fit-undo").addEventListener("click", () => this.#change(this.points.slice(0, -1)));
    byId("fit-clear").addEventListener("click", () => this.#change([]));
    byId("fit-surprise").addEventListener("click", () => {
      const { points, wave } = surprise();
      this.#playNext = true;
      this.#change(points, wave);
    });
    this.#showStep();
  }

  /** Takes up the networks that can be asked. */
  start(checkpoints, preferred) {
    connectCheckpoints(byId("fit-checkpoint"), byId("fit-checkpoint-note"), checkpoints, preferred, (checkpoint) => {
      this.checkpoint = checkpoint;
      this.fit();
    });
  }

  #add(x, y) {
    if (this.points.length < MAX_POINTS) this.#change([...this.points, [x, y]], this.wave);
    else announce(`${MAX_POINTS} points are the most.`);
  }

  #change(points, wave = null) {
    this.points = points;
    this.wave = wave;
    this.#listPoints();
    this.#showStep();
    this.fit();
  }

  #listPoints() {
    const items = this.points.map(([x, y], index) => {
      const remove = () => {
        this.#change(this.points.filter((_, each) => each !== index), this.wave);
        focusNear(byId("fit-points"), index, byId("fit-x"));
      };
      const name = `(${number(x)}, ${number(y)})`;
      return element("li", { "data-testid": "fit-point" }, name, iconButton("remove", `Remove ${name}`, { onclick: remove }));
    });
    byId("fit-points").replaceChildren(...items);
  }

  /** Asks both networks about the points as they are now. */
  async fit() {
    if (!this.checkpoint || this.points.length === 0) {
      this.#latest.cancel();
      this.#show(null);
      return;
    }
    const request = { checkpoint: this.checkpoint.name, points: this.points };
    this.panel.setAttribute("aria-busy", "true");
    try {
      const answer = await this.#latest.run((signal) => this.engine.fit(request, { signal }));
      if (answer) this.#show(answer);
    } catch (error) {
      this.#show(null);
      showProblem(this.panel, error, () => this.fit());
    }
  }

  #show(answer) {
    this.panel.removeAttribute("aria-busy");
    showProblem(this.panel, null);
    this.#answer = answer;
    this.steps.setCount(answer ? answer.steps.length - 1 : 0);
    const errors = this.#showStep();
    if (!answer) return;
    announce(`${this.points.length} points. ${this.#spoken(errors)}`);
    if (this.#playNext) this.steps.play();
    this.#playNext = false;
  }

  #showStep() {
    const errors = {};
    for (const [key, plot] of Object.entries(this.plots)) {
      const curves = this.wave ? [this.wave] : [];
      const output = byId(`fit-error-${key}`);
      if (this.#answer?.[key]) {
        const { x, [key]: all } = this.#answer;
        const y = all[Math.min(this.steps.step, all.length - 1)];
        curves.push({ kind: "before", x, y: all[0] }, { kind: key, x, y });
        errors[key] = this.points.length ? number(meanSquaredError(this.points, x, y)) : "";
        output.textContent = `Mean squared error at your points: ${errors[key]}`;
      } else {
        output.textContent = this.#answer ? "There is no such network here." : "Mean squared error at your points: –";
      }
      plot.update(this.points, curves);
    }
    byId("fit-hint").hidden = this.points.length > 0;
    byId("fit-undo").disabled = byId("fit-clear").disabled = this.points.length === 0;
    if (this.#answer) this.steps.describe(this.#spoken(errors));
    return errors;
  }

  #spoken({ steps, joint }) {
    const beside = joint === undefined ? "" : `, trained jointly ${joint}`;
    return `Mean squared error: meta-learned ${steps}${beside}.`;
  }
}
