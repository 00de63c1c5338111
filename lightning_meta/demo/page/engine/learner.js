// A trained learner: adapts to a support set and predicts, as lightning_meta.learner.MetaLearner.predictions does.

import {
  carriedMoments, crossEntropyGradient, innerOptimizer, innerOrder, squaredErrorGradient,
} from "./inner.js";
import { className, Network } from "./network.js";

const METHODS_WITH_STEPS = ["MAML", "FOMAML", "Reptile", "GradientCombination"];
const LOSSES = ["cross_entropy", "mse_loss"];

export class Learner {
  /** @param {{description: object, tensors: object}} checkpoint as `readSafetensors` gives it */
  constructor({ description, tensors }) {
    const settings = description.hyper_parameters;
    this.description = description;
    this.method = className(description.method);
    this.comparesFeatures = this.method === "PrototypicalNetworks";
    if (!this.comparesFeatures && !METHODS_WITH_STEPS.includes(this.method)) {
      const known = [...METHODS_WITH_STEPS, "PrototypicalNetworks"].join(", ");
      throw new Error(`The page cannot adapt a learner of ${this.method}: it knows ${known}.`);
    }
    this.loss = className(settings.loss ?? "cross_entropy"); // the default of the Python classes
    if (!LOSSES.includes(this.loss)) {
      throw new Error(`The page cannot descend the loss ${this.loss}: it knows ${LOSSES.join(" and ")}.`);
    }
    this.network = new Network(settings.backbone);
    this.weights = this.network.weights(tensors, (name) => `backbone.${name}`);
    this.outputs = this.weights[this.network.head[1]].length;
    if (this.comparesFeatures) return;
    this.inner = settings.inner;
    this.optimizer = innerOptimizer(this.inner.optimizer);
    this.moments = carriedMoments(this.network, tensors);
  }

  /** Inner steps that an adaptation takes, when the checkpoint's own head is adapted. */
  get steps() {
    return this.comparesFeatures ? 0 : this.inner.evaluation_steps;
  }

  /**
   * Adapt to pictures of classes.
   *
   * @param {Batch} support
   * @param {number[]} labels 0, 1, ... of the support rows
   * @param {number} classes how many there are
   */
  adaptToClasses(support, labels, classes) {
    if (this.comparesFeatures) return new PrototypeClassifier(this, support, labels, classes);
    if (classes > this.outputs) {
      return new Adapted(this, support, [headOfPrototypes(this, support, labels, classes)], classes);
    }
    const loss = (outputs, rows) => crossEntropyGradient(outputs, rows.map((row) => labels[row]), this.inner.reduction);
    return new Adapted(this, support, this.#unroll(support, labels, loss), classes);
  }

  /**
   * Adapt to points of a curve.
   *
   * @param {Batch} support
   * @param {number[]} targets one for each row
   */
  adaptToValues(support, targets) {
    const loss = (outputs, rows) =>
      squaredErrorGradient(outputs, rows.map((row) => targets[row]), this.inner.reduction);
    return new Adapted(this, support, this.#unroll(support, targets.map(() => 0), loss), 1);
  }

  /** Weights before the first inner step and after each. */
  #unroll(support, labels, lossGradient) {
    const size = this.inner.evaluation_batch_size ?? null, scale = this.#lossScale(support.rows, size);
    let weights = this.weights, state = this.moments ?? this.optimizer.init(weights);
    const all = [weights];
    for (const rows of innerOrder(labels, this.steps, size)) {
      const gradientOf = (outputs) => lossGradient(outputs, rows).map((value) => scale * value);
      const gradients = this.network.gradient(weights, rowsOf(support, rows), gradientOf);
      [weights, state] = this.optimizer.update(weights, gradients, state);
      all.push(weights);
    }
    if (!Object.values(weights).every((weight) => weight.every(Number.isFinite))) {
      throw new Error(`The adaptation by ${this.steps} inner steps diverged on these examples: change them.`);
    }
    return all;
  }

  /** What keeps an inner loss that is a sum over rows as large as it was in training, with more rows or fewer. */
  #lossScale(rows, size) {
    const trained = (this.description.ways ?? 0) * (this.description.shots ?? 0);
    if (this.inner.reduction === "mean" || !trained) return 1;
    return Math.min(trained, size ?? trained) / Math.min(rows, size ?? rows);
  }
}

/**
 * Weights for more classes than the checkpoint has outputs: a last layer that compares with the classes' mean features.
 *
 * w_c = 2 mu_c and b_c = -|mu_c|^2 make the outputs the negative squared distances to mu_c, up to a constant
 * (Snell et al., arXiv 1703.05175, section 2.4; as the start of inner steps: Proto-MAML, Triantafillou et al., arXiv
 * 1903.03096). No inner step follows, since none was learned for such a layer.
 */
function headOfPrototypes(learner, support, labels, classes) {
  const { network, weights } = learner, [weightName, biasName] = network.head;
  const { means, width } = classMeans(network.features(weights, support), labels, classes);
  const bias = new Float64Array(classes);
  for (let place = 0; place < means.length; place++) bias[Math.floor(place / width)] -= means[place] ** 2;
  return { ...weights, [weightName]: means.map((value) => 2 * value), [biasName]: bias };
}

/** Means of features over the rows of each class, (classes, width). */
function classMeans({ data, channels: width }, labels, classes) {
  const means = new Float64Array(classes * width), counts = new Array(classes).fill(0);
  labels.forEach((label) => counts[label]++);
  labels.forEach((label, row) => {
    for (let k = 0; k < width; k++) means[label * width + k] += data[row * width + k] / counts[label];
  });
  return { means, width };
}

/** A network after every inner step. */
class Adapted {
  constructor(learner, support, steps, outputs) {
    this.network = learner.network;
    this.support = support;
    this.steps = steps; // weights
    this.outputs = outputs; // of the network, the first that count
    this.head = outputs > learner.outputs ? "prototypes" : "own";
  }

  /** Outputs for rows that are all seen in one batch, arrays (steps + 1)(rows)(outputs). */
  stepsTogether(x) {
    return this.steps.map((weights) => this.#cut(split(this.network.run(weights, x))));
  }

  /** Outputs for the support rows. */
  supportSteps() {
    return this.stepsTogether(this.support);
  }

  /** Outputs for each row alone beside the support set. */
  querySteps(x) {
    return this.steps.map((weights) =>
      this.#cut(besideSupport(this.network, (batch) => this.network.run(weights, batch), this.support, x)));
  }

  #cut(rows) {
    return rows.map((row) => row.subarray(0, this.outputs));
  }
}

/** Minus the squared distances to the means of the classes' features: Snell et al., arXiv 1703.05175. */
class PrototypeClassifier {
  constructor(learner, support, labels, classes) {
    this.head = "own";
    this.network = learner.network;
    this.features = (batch) => this.network.features(learner.weights, batch);
    this.support = support;
    this.classes = classes;
    this.ofSupport = this.features(support);
    this.prototypes = classMeans(this.ofSupport, labels, classes);
  }

  supportSteps() {
    return [split(this.ofSupport).map((row) => this.#compare(row))];
  }

  querySteps(x) {
    return [besideSupport(this.network, this.features, this.support, x).map((row) => this.#compare(row))];
  }

  #compare(row) {
    const { means, width } = this.prototypes, outputs = new Float64Array(this.classes);
    for (let place = 0; place < means.length; place++) {
      outputs[Math.floor(place / width)] -= (row[place % width] - means[place]) ** 2;
    }
    return outputs;
  }
}

/** What `run` makes of every row of `x` when it stands alone beside the support set: arrays (width,). */
function besideSupport(network, run, support, x) {
  if (!network.mixesRows) return split(run(x));
  return Array.from({ length: x.rows }, (_, row) => split(run(joined(support, rowsOf(x, [row])))).at(-1));
}

/** A batch {data, rows, height, width, channels} of these rows of another. */
function rowsOf(x, rows) {
  const size = x.data.length / x.rows, data = new Float64Array(rows.length * size);
  rows.forEach((row, place) => data.set(x.data.subarray(row * size, (row + 1) * size), place * size));
  return { ...x, data, rows: rows.length };
}

/** Two batches as one. */
function joined(first, second) {
  const data = new Float64Array(first.data.length + second.data.length);
  data.set(first.data);
  data.set(second.data, first.data.length);
  return { ...first, data, rows: first.rows + second.rows };
}

/** The rows of a matrix. */
function split({ data, rows, channels }) {
  return Array.from({ length: rows }, (_, row) => data.subarray(row * channels, (row + 1) * channels));
}
