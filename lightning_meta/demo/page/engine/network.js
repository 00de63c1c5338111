// The networks of lightning_meta.backbones that the page can run and differentiate: Conv4 and MLP.

import { batchNorm, convolution, flatten, linear, maxPool, relu, spatialMean, tanh } from "./layers.js";

const CONV4 = { downsample: "stride", ceil_mode: false, head: "mean" }; // defaults of the Python classes
const MLP = { hidden: [40, 40], activation: "ReLU", batch_norm: false };
const ACTIVATIONS = { ReLU: relu, Tanh: tanh };

/** The last part of an import path such as `torch.nn.Tanh`. */
export const className = (path) => path.split(".").at(-1);

export class Network {
  /** @param {{class_path: string, init_args: object}} backbone as the checkpoint describes it */
  constructor(backbone) {
    const builders = { Conv4: conv4Layers, MLP: mlpLayers };
    const kind = className(backbone.class_path);
    if (!(kind in builders)) throw new Error(`The page cannot run the network ${kind}: it knows Conv4 and MLP.`);
    this.layers = builders[kind](backbone.init_args);
    /** Names of the weights in PyTorch's order. */
    this.parameters = this.layers.flatMap((layer) => layer.parameters);
    this.head = this.layers.at(-1).parameters; // weight and bias of the last layer
    /** Whether the output of a row depends on the rows beside it. */
    this.mixesRows = kind === "Conv4" || Boolean(backbone.init_args.batch_norm);
  }

  /**
   * Tensors of a state_dict in the form that the layers use, by the names of this network.
   *
   * @param {Object<string, {shape: number[], data: Float64Array}>} tensors
   * @param {(name: string, place: number) => string} nameOf in `tensors`, from a weight's name and place in the order
   */
  weights(tensors, nameOf) {
    return Object.fromEntries(this.parameters.map((name, place) => {
      const tensor = tensors[nameOf(name, place)];
      if (!tensor) throw new Error(`The checkpoint lacks ${nameOf(name, place)}.`);
      return [name, tensor.shape.length === 4 ? channelsLast(tensor) : tensor.data];
    }));
  }

  /** Outputs of a batch, as a feature map of height and width 1. */
  run(weights, x) {
    return this.layers.reduce((map, layer) => layer.run(weights, map).output, x);
  }

  /** What the last layer is given for a batch, as a feature map of height and width 1. */
  features(weights, x) {
    return this.layers.slice(0, -1).reduce((map, layer) => layer.run(weights, map).output, x);
  }

  /**
   * Gradients of a loss by the names of the weights.
   *
   * @param {(outputs: object) => Float64Array} lossGradient of the outputs
   */
  gradient(weights, x, lossGradient) {
    const backwards = [];
    let map = x;
    for (const layer of this.layers) {
      const { output, backward } = layer.run(weights, map);
      backwards.push(backward);
      map = output;
    }
    const gradients = {};
    let gradient = lossGradient(map);
    const first = this.layers.findIndex((layer) => layer.parameters.length); // what comes before it learns nothing
    for (let place = backwards.length - 1; place >= first; place--) {
      gradient = backwards[place](gradient, gradients, place > first);
    }
    return gradients;
  }
}

function conv4Layers(settings) {
  const { downsample, ceil_mode: ceil, head } = { ...CONV4, ...settings };
  const pooled = downsample === "max_pool", layers = [];
  for (let block = 0; block < 4; block++) {
    const name = layers.length;
    layers.push(convolution(name, pooled ? 1 : 2), batchNorm(name + 1), relu());
    if (pooled) layers.push(maxPool(ceil));
  }
  layers.push(head === "mean" ? spatialMean() : flatten());
  return [...layers, linear(layers.length)];
}

function mlpLayers(settings) {
  const { hidden, activation, batch_norm: norm } = { ...MLP, ...settings };
  const make = ACTIVATIONS[className(activation)];
  if (!make) throw new Error(`The page cannot run the activation ${activation}: it knows ReLU and Tanh.`);
  const layers = [flatten()];
  for (let block = 0; block < hidden.length; block++) {
    layers.push(linear(layers.length));
    if (norm) layers.push(batchNorm(layers.length));
    layers.push(make());
  }
  return [...layers, linear(layers.length)];
}

/** Weights (filters, channels, 3, 3) as (filters, 3, 3, channels). */
function channelsLast({ shape: [filters, channels, height, width], data }) {
  const places = height * width, moved = new Float64Array(data.length);
  for (let filter = 0; filter < filters; filter++) {
    for (let c = 0; c < channels; c++) {
      for (let place = 0; place < places; place++) {
        moved[(filter * places + place) * channels + c] = data[(filter * channels + c) * places + place];
      }
    }
  }
  return moved;
}
