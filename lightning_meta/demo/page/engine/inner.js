// The inner loop: which support rows a step sees, what it descends, and how.

import { className } from "./network.js";

const TINY = 1.1754943508222875e-38; // the smallest normal float32, as lightning_meta.inner.Adam adds it

const RULES = { SGD: sgd, Adam: adam };

/**
 * The inner optimizer that a checkpoint names: {init, update(weights, gradients, state) -> [weights, state]}.
 *
 * @param {{class_path: string, init_args: object}} described
 */
export function innerOptimizer(described) {
  const kind = className(described.class_path);
  if (!(kind in RULES)) throw new Error(`The page cannot run the inner rule ${kind}: it knows SGD and Adam.`);
  return RULES[kind](described.init_args);
}

function mapWeights(weights, change) {
  return Object.fromEntries(Object.entries(weights).map(([name, weight]) => [name, change(weight, name)]));
}

function sgd({ lr }) {
  const descend = (weight, gradient) => {
    const moved = new Float64Array(weight.length);
    for (let k = 0; k < moved.length; k++) moved[k] = weight[k] - lr * gradient[k];
    return moved;
  };
  const update = (weights, gradients) => mapWeights(weights, (weight, name) => descend(weight, gradients[name]));
  return { init: () => null, update: (weights, gradients) => [update(weights, gradients), null] };
}

function adam({ lr, beta1, beta2, epsilon }) {
  const zeros = (weights) => mapWeights(weights, (weight) => new Float64Array(weight.length));
  const update = (weights, gradients, state) => {
    const steps = state.steps + 1;
    const rate = lr / (1 - beta1 ** steps), correction = 1 / Math.sqrt(1 - beta2 ** steps);
    const mu = {}, nu = {};
    const moved = mapWeights(weights, (weight, name) => {
      mu[name] = beta1 ? decayedMean(state.mu[name], gradients[name], beta1, false) : gradients[name];
      nu[name] = decayedMean(state.nu[name], gradients[name], beta2, true);
      return adamStep(weight, mu[name], nu[name], rate, correction, epsilon);
    });
    return [moved, { steps, mu, nu }];
  };
  return { init: (weights) => ({ steps: 0, mu: zeros(weights), nu: zeros(weights) }), update };
}

function decayedMean(old, next, decay, squared) {
  const mean = new Float64Array(old.length);
  for (let k = 0; k < mean.length; k++) {
    mean[k] = decay * old[k] + (1 - decay) * (squared ? next[k] * next[k] : next[k]);
  }
  return mean;
}

function adamStep(weight, mu, nu, rate, correction, epsilon) {
  const moved = new Float64Array(weight.length);
  for (let k = 0; k < moved.length; k++) {
    moved[k] = weight[k] - (rate * mu[k]) / (Math.sqrt(nu[k] + TINY) * correction + epsilon);
  }
  return moved;
}

/**
 * Adam's moments that a run of Reptile carried on, from the buffers of its checkpoint; null where it has none.
 *
 * They are the leaves of lightning_meta.inner.AdamState: the count, the means (unless beta1 is 0), the squares.
 */
export function carriedMoments(network, tensors) {
  if (!("carry.leaf_0" in tensors)) return null;
  const count = network.parameters.length, leaves = Object.keys(tensors).filter((name) => name.startsWith("carry."));
  const momentsFrom = (first) => network.weights(tensors, (_, place) => `carry.leaf_${first + place}`);
  const mu = leaves.length > 1 + count ? momentsFrom(1) : {};
  return { steps: tensors["carry.leaf_0"].data[0], mu, nu: momentsFrom(leaves.length - count) };
}

/**
 * The support rows of every inner step. Where a step sees only some, the rows are dealt out in turn, one of each class,
 * then the next of each.
 *
 * @param {number[]} labels of the support rows
 * @param {number | null} size rows of a step; null for all
 * @returns {number[][]} (steps, size)
 */
export function innerOrder(labels, steps, size) {
  const seen = new Map();
  const shots = labels.map((label) => {
    seen.set(label, (seen.get(label) ?? -1) + 1);
    return seen.get(label);
  });
  const rows = [...labels.keys()];
  if (size === null || size >= rows.length) return Array(steps).fill(rows);
  rows.sort((one, other) => shots[one] - shots[other] || labels[one] - labels[other]);
  return Array.from({ length: steps }, (_, step) =>
    Array.from({ length: size }, (_, place) => rows[(step * size + place) % rows.length]));
}

/** The gradient of cross entropy with respect to outputs (rows, channels), for the labels of the rows. */
export function crossEntropyGradient({ data, rows, channels }, labels, reduction) {
  const gradient = new Float64Array(data.length);
  for (let row = 0; row < rows; row++) {
    const place = row * channels;
    gradient.set(softmax(data.subarray(place, place + channels)), place);
    gradient[place + labels[row]] -= 1;
  }
  return reduction === "sum" ? gradient : gradient.map((value) => value / rows);
}

/** The gradient of the squared error with respect to outputs (rows, channels), for targets of that shape. */
export function squaredErrorGradient({ data }, targets, reduction) {
  const scale = reduction === "sum" ? 2 : 2 / data.length;
  return data.map((value, place) => scale * (value - targets[place]));
}

/** Probabilities of the classes, from their outputs. */
export function softmax(outputs) {
  const most = outputs.reduce((one, other) => Math.max(one, other), -Infinity);
  const parts = outputs.map((value) => Math.exp(value - most));
  const sum = parts.reduce((one, other) => one + other, 0);
  return parts.map((part) => part / sum);
}
