// The tab "Draw": examples of a few classes, one drawing to classify, and the network's answer after every inner step.

import { announce, byId, element, Latest, percent, showProblem } from "./dom.js";
import { Bars, winnerOf } from "./bars.js";
import { Pad } from "./canvas.js";
import { StepChart } from "./chart.js";
import { connectCheckpoints } from "./checkpoints.js";
import { ClassCard } from "./class_card.js";
import { ClassList } from "./class_list.js";
import { editAll } from "./edit_all.js";
import { SAMPLES, variant } from "./samples.js";
import { Steps } from "./steps.js";

const FIRST_CLASSES = 3;

/** "Looks like", or something more careful for a network that is not sure. */
export const opinion = (probability) =>
  probability >= 0.8 ? "Looks like " : probability >= 0.5 ? "Probably " : "Perhaps ";

export class DrawTab {
  #latest = new Latest();
  #answer = null; // {steps, notes, cards}: the latest answer and the cards that it is about
  #hand = Math.floor(1e6 * Math.random()); // which variant of a sample comes next

  constructor(panel, engine) {
    this.panel = panel;
    this.engine = engine;
    const changed = () => this.classify();
    this.bars = new Bars(byId("draw-bars"));
    this.chart = new StepChart(byId("draw-chart"));
    this.steps = new Steps(byId("draw-steps"), () => this.#showStep());
    this.query = new Pad(byId("query-canvas"), "Drawing to classify", changed);
    byId("query-undo").addEventListener("click", () => this.query.undo());
    byId("query-clear").addEventListener("click", () => this.query.clear());
    byId("query-sample").addEventListener("click", () => this.#drawQuery());
    byId("clear-all").addEventListener("click", () => this.#clearAll());
    byId("edit-all").addEventListener("click", () => editAll(byId("edit-dialog"), this.cards, changed));
    for (const sample of SAMPLES) {
      const attributes = { type: "button", "data-testid": "sample-set", onclick: () => this.#startFrom(sample) };
      byId("sample-sets").append(element("button", attributes, sample.name));
    }
    const list = new ClassList("add-class", ClassCard, { changed }, FIRST_CLASSES, changed);
    this.cards = list.cards;
    byId("add-class").addEventListener("click", () => this.#showStep());
    this.#showStep();
  }

  /** Takes up the networks that can be asked. */
  start(checkpoints, preferred) {
    connectCheckpoints(byId("draw-checkpoint"), byId("draw-checkpoint-note"), checkpoints, preferred, (checkpoint) => {
      this.checkpoint = checkpoint;
      this.classify();
    });
  }

  #clearAll() {
    for (const card of this.cards) card.replaceDrawings([[]]);
    this.query.clear();
  }

  #startFrom(sample) {
    const characters = Object.entries(sample.characters);
    this.cards.forEach((card, index) => {
      const [name, character] = characters[index % characters.length];
      card.rename(index < characters.length ? name : `${name} ${1 + Math.floor(index / characters.length)}`);
      card.replaceDrawings([variant(character, this.#hand++)]);
      card.character = character;
    });
    this.query.drawing.clear();
    this.#drawQuery();
  }

  #drawQuery() {
    const candidates = this.cards.filter((card) => card.character && card.drawn.length);
    const card = candidates[Math.floor(candidates.length * Math.random())];
    this.query.play(variant(card.character, this.#hand++));
  }

  /** Asks the network about the drawings as they are now. */
  async classify() {
    byId("query-sample").hidden = !this.cards.some((card) => card.character && card.drawn.length);
    const cards = this.cards.filter((card) => card.drawn.length);
    if (!this.checkpoint || cards.length < 2 || this.query.drawing.empty) {
      this.#latest.cancel();
      this.#show(null);
      return;
    }
    const pictures = (drawings) => drawings.map(({ strokes }) => ({ strokes }));
    const classes = cards.map((card) => ({ name: card.name, pictures: pictures(card.drawn) }));
    const request = { checkpoint: this.checkpoint.name, classes, queries: pictures([this.query.drawing]) };
    const began = performance.now();
    this.panel.setAttribute("aria-busy", "true");
    if (!this.#answer) this.#showStep();
    try {
      const answer = await this.#latest.run((signal) => this.engine.classify(request, { signal }));
      if (answer) this.#show({ ...answer, cards, time: performance.now() - began });
    } catch (error) {
      this.#show(null);
      showProblem(this.panel, error, () => this.classify());
    }
  }

  #show(answer) {
    this.panel.removeAttribute("aria-busy");
    showProblem(this.panel, null);
    this.#answer = answer;
    this.steps.setCount(answer ? answer.steps.length - 1 : 0);
    byId("draw-notes").replaceChildren(...(answer?.notes ?? []).map((note) => element("li", {}, note)));
    byId("draw-time").textContent = answer ? `Answered in ${Math.max(1, Math.round(answer.time))} ms.` : "";
    const verdict = this.#showStep();
    if (answer) announce(verdict);
  }

  #showStep() {
    const { steps, cards } = this.#answer ?? { steps: null, cards: [] };
    const now = steps?.[Math.min(this.steps.step, steps.length - 1)];
    const rows = this.cards.map((card) => {
      const index = cards.indexOf(card);
      const note = card.drawn.length ? "–" : "no drawing yet";
      return { name: card.name, hue: card.hue, probability: now && index >= 0 ? now.probabilities[0][index] : null, note };
    });
    this.bars.update(rows);
    if (!now) {
      byId("draw-verdict").textContent = this.#advice();
      byId("draw-support").textContent = "Here you will see how its opinion changes with every gradient step.";
      return "";
    }
    const probabilities = now.probabilities[0];
    const winner = winnerOf(probabilities);
    const name = cards[winner].name;
    byId("draw-verdict").replaceChildren(opinion(probabilities[winner]), element("strong", {}, name));
    const result = `${name}, ${percent(probabilities[winner])}`;
    this.steps.describe(result);
    byId("draw-support").textContent = `It gets ${percent(now.support_accuracy)} of your examples right.`;
    const values = (index) => steps.map((step) => step.probabilities[0][index]);
    this.chart.update(cards.map((card, index) => ({ hue: card.hue, values: values(index) })), this.steps.step);
    return `Most like ${result}`;
  }

  #advice() {
    if (this.cards.filter((card) => card.drawn.length).length < 2) return "First draw an example in at least two boxes.";
    if (this.query.drawing.empty) return "Now draw one of them again, in your own way.";
    return this.panel.hasAttribute("aria-busy") ? "Thinking …" : "No answer yet.";
  }
}
