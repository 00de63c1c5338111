// Layers with their derivatives. Feature maps are kept channels last: {data, rows, height, width, channels}.
//
// Each layer is {parameters: [name, ...], run(weights, x)}; `run` gives {output, backward}, and
// backward(gradient, gradients, wanted) stores the gradients of the layer's own weights by name and gives that of x,
// which the first layer of a network need not compute (`wanted` is false).

import { addToRows, multiplyTransposed, sumOfRows, transpose } from "./matrix.js";

/** A 3x3 convolution with a border of one pixel of zeros; weights (filters, 3, 3, channels). */
export function convolution(name, stride) {
  const weightName = `${name}.weight`, biasName = `${name}.bias`;
  return {
    parameters: [weightName, biasName],
    run(weights, x) {
      const weight = weights[weightName], filters = weights[biasName].length, inner = 9 * x.channels;
      const height = Math.floor((x.height - 1) / stride) + 1, width = Math.floor((x.width - 1) / stride) + 1;
      const places = x.rows * height * width;
      const patches = gatherPatches(x, height, width, stride);
      const data = multiplyTransposed(patches, weight, places, filters, inner);
      addToRows(data, weights[biasName]);
      return {
        output: { data, rows: x.rows, height, width, channels: filters },
        backward(gradient, gradients, wanted) {
          const byFilter = transpose(gradient, places, filters);
          const byInput = transpose(patches, places, inner);
          gradients[weightName] = multiplyTransposed(byFilter, byInput, filters, inner, places);
          gradients[biasName] = sumOfRows(gradient, filters);
          if (!wanted) return null;
          const ofPatches = multiplyTransposed(gradient, transpose(weight, filters, inner), places, inner, filters);
          return scatterPatches(ofPatches, x, height, width, stride);
        },
      };
    },
  };
}

function eachPatchRow(x, height, width, stride, visit) {
  const { channels } = x;
  let patch = 0;
  for (let row = 0; row < x.rows; row++) {
    for (let i = 0; i < height; i++) {
      for (let j = 0; j < width; j++, patch += 9 * channels) {
        for (let dy = 0; dy < 3; dy++) {
          const y = i * stride + dy - 1;
          if (y < 0 || y >= x.height) continue;
          const left = j * stride - 1, first = Math.max(left, 0), last = Math.min(left + 3, x.width);
          const source = ((row * x.height + y) * x.width + first) * channels;
          visit(patch + (dy * 3 + first - left) * channels, source, (last - first) * channels);
        }
      }
    }
  }
}

function gatherPatches(x, height, width, stride) {
  const { data } = x, patches = new Float64Array(x.rows * height * width * 9 * x.channels);
  eachPatchRow(x, height, width, stride, (place, source, count) => {
    for (let k = 0; k < count; k++) patches[place + k] = data[source + k];
  });
  return patches;
}

function scatterPatches(patches, x, height, width, stride) {
  const gradient = new Float64Array(x.data.length);
  eachPatchRow(x, height, width, stride, (place, source, count) => {
    for (let k = 0; k < count; k++) gradient[source + k] += patches[place + k];
  });
  return gradient;
}

const EPSILON = 1e-5; // added to the variance, as in lightning_meta.backbones.BatchNorm

/** Batch normalisation with the statistics of its own batch (Ioffe and Szegedy, arXiv 1502.03167). */
export function batchNorm(name) {
  const weightName = `${name}.weight`, biasName = `${name}.bias`;
  return {
    parameters: [weightName, biasName],
    run(weights, x) {
      const weight = weights[weightName], bias = weights[biasName], { channels } = x;
      const count = x.data.length / channels, { mean, scale } = statistics(x.data, channels);
      const data = new Float64Array(x.data.length), values = x.data;
      const slope = scale.map((value, c) => value * weight[c]);
      const shift = bias.map((value, c) => value - mean[c] * slope[c]);
      for (let place = 0; place < data.length; place += channels) {
        for (let c = 0; c < channels; c++) data[place + c] = values[place + c] * slope[c] + shift[c];
      }
      return {
        output: { ...x, data },
        backward(gradient, gradients) {
          const ofBias = sumOfRows(gradient, channels), ofWeight = new Float64Array(channels);
          for (let place = 0; place < gradient.length; place += channels) {
            for (let c = 0; c < channels; c++) {
              ofWeight[c] += gradient[place + c] * (x.data[place + c] - mean[c]) * scale[c];
            }
          }
          gradients[weightName] = ofWeight;
          gradients[biasName] = ofBias;
          const back = new Float64Array(gradient.length);
          for (let place = 0; place < back.length; place += channels) {
            for (let c = 0; c < channels; c++) {
              const normalised = (x.data[place + c] - mean[c]) * scale[c];
              const projected = gradient[place + c] - (ofBias[c] + normalised * ofWeight[c]) / count;
              back[place + c] = projected * weight[c] * scale[c];
            }
          }
          return back;
        },
      };
    },
  };
}

/** Means of the channels, and the inverse of their standard deviations. */
function statistics(data, channels) {
  const count = data.length / channels, mean = sumOfRows(data, channels), scale = new Float64Array(channels);
  for (let c = 0; c < channels; c++) mean[c] /= count;
  for (let place = 0; place < data.length; place += channels) {
    for (let c = 0; c < channels; c++) scale[c] += (data[place + c] - mean[c]) ** 2;
  }
  for (let c = 0; c < channels; c++) scale[c] = 1 / Math.sqrt(scale[c] / count + EPSILON);
  return { mean, scale };
}

export function relu() {
  return {
    parameters: [],
    run(weights, x) {
      const data = new Float64Array(x.data.length);
      for (let k = 0; k < data.length; k++) data[k] = x.data[k] > 0 ? x.data[k] : 0;
      return {
        output: { ...x, data },
        backward(gradient) {
          const back = new Float64Array(gradient.length);
          for (let k = 0; k < back.length; k++) back[k] = data[k] > 0 ? gradient[k] : 0;
          return back;
        },
      };
    },
  };
}

export function tanh() {
  return {
    parameters: [],
    run(weights, x) {
      const data = x.data.map(Math.tanh);
      const backward = (gradient) => gradient.map((entry, k) => entry * (1 - data[k] * data[k]));
      return { output: { ...x, data }, backward };
    },
  };
}

/** The maximum of every 2x2 square; `ceil` keeps the odd border. */
export function maxPool(ceil) {
  const half = ceil ? (size) => Math.ceil(size / 2) : (size) => Math.floor(size / 2);
  return {
    parameters: [],
    run(weights, x) {
      const height = half(x.height), width = half(x.width), { channels } = x;
      const data = new Float64Array(x.rows * height * width * channels).fill(-Infinity);
      const chosen = new Int32Array(data.length);
      let place = 0;
      for (let row = 0; row < x.rows; row++) {
        for (let i = 0; i < height; i++) {
          for (let j = 0; j < width; j++, place += channels) {
            for (let y = 2 * i; y < Math.min(2 * i + 2, x.height); y++) {
              for (let column = 2 * j; column < Math.min(2 * j + 2, x.width); column++) {
                const source = ((row * x.height + y) * x.width + column) * channels;
                for (let c = 0; c < channels; c++) {
                  if (x.data[source + c] <= data[place + c]) continue;
                  data[place + c] = x.data[source + c];
                  chosen[place + c] = source + c;
                }
              }
            }
          }
        }
      }
      return {
        output: { data, rows: x.rows, height, width, channels },
        backward(gradient) {
          const back = new Float64Array(x.data.length);
          for (let k = 0; k < gradient.length; k++) back[chosen[k]] += gradient[k];
          return back;
        },
      };
    },
  };
}

/** The mean over all places of a feature map. */
export function spatialMean() {
  return {
    parameters: [],
    run(weights, x) {
      const { rows, channels } = x, places = x.height * x.width;
      const data = new Float64Array(rows * channels);
      for (let k = 0; k < x.data.length; k++) {
        data[Math.floor(k / (places * channels)) * channels + (k % channels)] += x.data[k] / places;
      }
      return {
        output: { data, rows, height: 1, width: 1, channels },
        backward: (gradient) =>
          x.data.map((_, k) => gradient[Math.floor(k / (places * channels)) * channels + (k % channels)] / places),
      };
    },
  };
}

/** All entries of a feature map in PyTorch's order, channels first. */
export function flatten() {
  return {
    parameters: [],
    run(weights, x) {
      const { rows, channels } = x, places = x.height * x.width;
      const data = new Float64Array(x.data.length);
      reorder(rows, places, channels, (last, first) => (data[first] = x.data[last]));
      return {
        output: { data, rows, height: 1, width: 1, channels: places * channels },
        backward(gradient) {
          const back = new Float64Array(gradient.length);
          reorder(rows, places, channels, (last, first) => (back[last] = gradient[first]));
          return back;
        },
      };
    },
  };
}

function reorder(rows, places, channels, move) {
  for (let row = 0; row < rows; row++) {
    for (let place = 0; place < places; place++) {
      for (let c = 0; c < channels; c++) {
        move((row * places + place) * channels + c, (row * channels + c) * places + place);
      }
    }
  }
}

/** A linear layer; weights (outputs, inputs). */
export function linear(name) {
  const weightName = `${name}.weight`, biasName = `${name}.bias`;
  return {
    parameters: [weightName, biasName],
    run(weights, x) {
      const weight = weights[weightName], outputs = weights[biasName].length, { rows, channels } = x;
      const data = multiplyTransposed(x.data, weight, rows, outputs, channels);
      addToRows(data, weights[biasName]);
      return {
        output: { data, rows, height: 1, width: 1, channels: outputs },
        backward(gradient, gradients, wanted) {
          const byOutput = transpose(gradient, rows, outputs), byInput = transpose(x.data, rows, channels);
          gradients[weightName] = multiplyTransposed(byOutput, byInput, outputs, channels, rows);
          gradients[biasName] = sumOfRows(gradient, outputs);
          if (!wanted) return null;
          return multiplyTransposed(gradient, transpose(weight, outputs, channels), rows, channels, outputs);
        },
      };
    },
  };
}
