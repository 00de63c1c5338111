// How a picture becomes the input of a network: lightning_meta.data.files.pictures.Preprocessing, pixel for pixel.
//
// A picture is {width, height, channels, data}: bytes, channels last, 1 channel for grey and 3 for colours.

import { resize } from "./resize.js";

const CONTRAST = 0.25; // a border darker than this is dark, one brighter than 1 - this is light

export class Preprocessing {
  /** @param {object} settings as the checkpoint holds them */
  constructor(settings) {
    Object.assign(this, settings);
  }

  /** Whether a picture is light on dark where those trained on were dark on light, or the other way round. */
  isReversed(picture) {
    if (this.background === null) return false;
    const border = borderBrightness(picture);
    return this.background > 0.5 ? border < CONTRAST : border > 1 - CONTRAST;
  }

  /** The picture as input of the network: {data, height, width, channels} with floats, channels last. */
  inputs(picture) {
    const turned = this.isReversed(picture);
    let changed = this.channels === 1 ? asGrey(picture) : asColours(picture);
    if (turned) changed = { ...changed, data: changed.data.map((value) => 255 - value) };
    if (changed.width !== changed.height) changed = this.background === null ? cropped(changed) : padded(changed);
    const { data: pixels } = resize(changed, this.side, this.resample);
    const data = Float64Array.from(pixels, (value, place) => this.#input(value, place % this.channels));
    return { data, height: this.side, width: this.side, channels: this.channels };
  }

  #input(value, channel) {
    if (this.threshold !== null && this.background !== null) {
      const paper = this.background > 0.5 ? 255 : 0;
      value = Math.abs(value - paper) > this.threshold * 255 ? 255 - paper : paper;
    }
    const brightness = Math.fround((this.invert ? 255 - value : value) / 255);
    if (this.mean === null || this.deviation === null) return brightness;
    return (brightness - this.mean[channel]) / this.deviation[channel];
  }
}

/** PIL's conversion to grey, the luma of ITU-R 601-2. */
function asGrey(picture) {
  if (picture.channels === 1) return picture;
  const data = new Uint8ClampedArray(picture.width * picture.height);
  for (let place = 0; place < data.length; place++) {
    const red = picture.data[3 * place], green = picture.data[3 * place + 1], blue = picture.data[3 * place + 2];
    data[place] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
  }
  return { ...picture, channels: 1, data };
}

function asColours(picture) {
  if (picture.channels === 3) return picture;
  const data = new Uint8ClampedArray(3 * picture.data.length);
  picture.data.forEach((value, place) => data.fill(value, 3 * place, 3 * place + 3));
  return { ...picture, channels: 3, data };
}

/** Median brightness along the edges, 0 (black) to 1 (white). */
function borderBrightness(picture) {
  const { width, height, data } = asGrey(picture), edges = [];
  for (let x = 0; x < width; x++) edges.push(data[x], data[(height - 1) * width + x]);
  for (let y = 0; y < height; y++) edges.push(data[y * width], data[y * width + width - 1]);
  edges.sort((one, other) => one - other);
  const middle = edges.length / 2; // of an even number of pixels
  return (edges[middle - 1] + edges[middle]) / 2 / 255;
}

/** The middle square. */
function cropped(picture) {
  const { width, height, channels } = picture, side = Math.min(width, height);
  const left = Math.floor((width - side) / 2), top = Math.floor((height - side) / 2);
  const data = new Uint8ClampedArray(side * side * channels);
  for (let y = 0; y < side; y++) {
    const start = ((top + y) * width + left) * channels;
    data.set(picture.data.subarray(start, start + side * channels), y * side * channels);
  }
  return { width: side, height: side, channels, data };
}

/** The picture in the middle of a square of its border's brightness. */
function padded(picture) {
  const { width, height, channels } = picture, side = Math.max(width, height);
  const left = roundHalfToEven((side - width) / 2), top = roundHalfToEven((side - height) / 2);
  const data = new Uint8ClampedArray(side * side * channels).fill(roundHalfToEven(borderBrightness(picture) * 255));
  for (let y = 0; y < height; y++) {
    const row = picture.data.subarray(y * width * channels, (y + 1) * width * channels);
    data.set(row, ((top + y) * side + left) * channels);
  }
  return { width: side, height: side, channels, data };
}

/** Python's `round`. */
function roundHalfToEven(value) {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
