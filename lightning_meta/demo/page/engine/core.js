// Answers the questions of the page: loads checkpoints, adapts, predicts. Knows neither page nor worker.

import { softmax } from "./inner.js";
import { Learner } from "./learner.js";
import { pictureOf } from "./picture.js";
import { Preprocessing } from "./preprocessing.js";
import { readSafetensors } from "./safetensors.js";

const JOINT = "sinusoid_joint"; // the checkpoint that was trained on all curves at once
const GRID = Float64Array.from({ length: 101 }, (_, place) => (place - 50) / 10); // -5 to 5

export class Core {
  #base;
  #learners = new Map();
  #inputs = new Map(); // of the last request's pictures, by checkpoint and content
  #last = null; // adaptation

  /** @param {string} base address of the folder of checkpoints, with a slash at its end */
  constructor(base) {
    this.#base = base;
  }

  /** See `LocalEngine.classify`. */
  async classify({ checkpoint, classes, queries }) {
    const learner = await this.#learner(checkpoint);
    if (!learner.description.preprocessing || learner.loss !== "cross_entropy") {
      throw new Error(`${checkpoint} adapts to curves: choose a checkpoint of pictures.`);
    }
    if (!classes.length) throw new Error("There is no class: add one, and draw or drop a picture for it.");
    const empty = classes.find(({ pictures }) => !pictures.length);
    if (empty) throw new Error(`${empty.name} has no picture: draw or drop one, or remove the class.`);
    const given = [...classes.flatMap(({ pictures }) => pictures), ...queries];
    const prepared = await this.#prepare(checkpoint, learner, given);
    const labels = classes.flatMap(({ pictures }, label) => pictures.map(() => label));
    const adaptation = this.#adapt(learner, prepared.slice(0, labels.length), labels, classes.length);
    const answers = prepared.slice(labels.length).map((query) => adaptation.answer(query));
    const steps = adaptation.supportAccuracy.map((accuracy, step) => (
      { probabilities: answers.map((answer) => answer[step]), support_accuracy: accuracy }
    ));
    return { steps, notes: notes(prepared, adaptation.head) };
  }

  /** See `LocalEngine.fit`. */
  async fit({ checkpoint, points }) {
    const learner = await this.#learner(checkpoint);
    const joint = await this.#learner(JOINT).catch(() => null); // a folder need not hold it
    if (learner.loss !== "mse_loss") {
      throw new Error(`${checkpoint} adapts to pictures: choose a checkpoint of curves.`);
    }
    if (!points.length) throw new Error("There is no point yet: click some points of the curve.");
    if (!points.flat().every(Number.isFinite)) throw new Error("A point of the curve has no place.");
    const support = vectors(points.map(([x]) => x)), targets = points.map(([, y]) => y), grid = vectors(GRID);
    const curves = (network) => network.adaptToValues(support, targets).stepsTogether(grid)
      .map((rows) => rows.map(([y]) => y));
    return { x: [...GRID], steps: curves(learner), ...(joint && { joint: curves(joint) }) };
  }

  #learner(name) {
    if (!this.#learners.has(name)) {
      const learner = this.#load(name);
      learner.catch(() => this.#learners.delete(name)); // so that a later request tries again
      this.#learners.set(name, learner);
    }
    return this.#learners.get(name);
  }

  async #load(name) {
    const response = await fetch(`${this.#base}${encodeURIComponent(name)}.safetensors`);
    if (!response.ok) throw new Error(`The checkpoint ${name} cannot be read (status ${response.status}).`);
    return new Learner(readSafetensors(await response.arrayBuffer()));
  }

  /** What `prepare` makes of each picture: the same objects as in the last request where a picture did not change. */
  async #prepare(checkpoint, learner, pictures) {
    const preprocessing = new Preprocessing(learner.description.preprocessing), inputs = new Map();
    const keys = pictures.map(({ file, strokes }) => `${checkpoint} ${file ?? JSON.stringify(strokes)}`);
    for (const [place, key] of keys.entries()) {
      inputs.set(key, inputs.get(key) ?? this.#inputs.get(key) ?? (await prepare(preprocessing, pictures[place])));
    }
    this.#inputs = inputs;
    return keys.map((key) => inputs.get(key));
  }

  #adapt(learner, support, labels, classes) {
    const last = this.#last;
    const same = (some, others) => some.length === others.length && some.every((item, place) => item === others[place]);
    if (last?.learner === learner && same(last.support, support) && same(last.labels, labels)) return last.adaptation;
    const adaptation = new Adaptation(learner, support, labels, classes);
    this.#last = { learner, support, labels, adaptation };
    return adaptation;
  }
}

/** A learner adapted to classes, with the answers that it gave. */
class Adaptation {
  #adapted;
  #answers = new WeakMap();

  constructor(learner, support, labels, classes) {
    this.#adapted = learner.adaptToClasses(images(support), labels, classes);
    this.head = this.#adapted.head;
    this.supportAccuracy = this.#adapted.supportSteps().map((rows) => {
      const right = rows.filter((outputs, row) => outputs.indexOf(Math.max(...outputs)) === labels[row]);
      return right.length / rows.length;
    });
  }

  /** Probabilities of the classes after every step. */
  answer(query) {
    if (!this.#answers.has(query)) {
      this.#answers.set(query, this.#adapted.querySteps(images([query])).map(([outputs]) => [...softmax(outputs)]));
    }
    return this.#answers.get(query);
  }
}

/** The input {data, height, width, channels} of a picture, and whether its brightness was turned round. */
async function prepare(preprocessing, given) {
  const picture = await pictureOf(given);
  return { ...preprocessing.inputs(picture), turned: preprocessing.isReversed(picture) };
}

/** Inputs of pictures as one batch. */
function images(prepared) {
  const [{ height, width, channels }] = prepared, size = height * width * channels;
  const data = new Float64Array(prepared.length * size);
  prepared.forEach((input, row) => data.set(input.data, row * size));
  return { data, rows: prepared.length, height, width, channels };
}

/** Numbers as one batch of inputs of one entry. */
function vectors(values) {
  return { data: Float64Array.from(values), rows: values.length, height: 1, width: 1, channels: 1 };
}

/** What a person should know of an answer, in the server's words. */
function notes(prepared, head) {
  const turned = prepared.filter((input) => input.turned).length;
  return [
    turned && `${turned} of ${prepared.length} pictures have the brightness of ink and paper swapped: turned round`,
    head === "prototypes" &&
      "more classes than the checkpoint was trained for: compared with the mean features of each",
  ].filter(Boolean);
}
