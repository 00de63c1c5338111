// PIL's Image.resize for bytes: one pass along the rows and one along the columns, with its fixed-point weights.

const PRECISION = 2 ** 22; // of a weight

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

const FILTERS = {
  box: { support: 0.5, at: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bilinear: { support: 1, at: (x) => Math.max(1 - Math.abs(x), 0) },
  hamming: { support: 1, at: (x) => (Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) : 0) },
  bicubic: { support: 2, at: cubic },
  lanczos: { support: 3, at: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

function cubic(x) {
  const a = -0.5, size = Math.abs(x);
  if (size < 1) return ((a + 2) * size - (a + 3)) * size * size + 1;
  return size < 2 ? (((size - 5) * size + 8) * size - 4) * a : 0;
}

/**
 * A square picture in another size.
 *
 * @param {{width: number, height: number, channels: number, data: Uint8ClampedArray}} picture
 * @param {number} side
 * @param {string} filter PIL's name in lower case
 */
export function resize(picture, side, filter) {
  if (picture.width === side && picture.height === side) return picture;
  if (filter === "nearest") return nearest(picture, side);
  const once = resizedRows(picture, side, FILTERS[filter]);
  return turned(resizedRows(turned(once), side, FILTERS[filter]));
}

/** Every row in another length. */
function resizedRows({ width, height, channels, data }, length, filter) {
  const windows = Array.from({ length }, (_, place) => weightsAt(place, width / length, width, filter));
  const result = new Uint8ClampedArray(length * height * channels);
  for (let y = 0; y < height; y++) {
    windows.forEach(({ first, weights }, place) => {
      for (let c = 0; c < channels; c++) {
        let sum = PRECISION / 2;
        for (let k = 0; k < weights.length; k++) sum += weights[k] * data[(y * width + first + k) * channels + c];
        result[(y * length + place) * channels + c] = Math.floor(sum / PRECISION); // the array clamps to 0..255
      }
    });
  }
  return { width: length, height, channels, data: result };
}

/** The first pixel that counts for a place of the result, and the weights of it and those after it. */
function weightsAt(place, scale, size, filter) {
  const stretch = Math.max(scale, 1), support = filter.support * stretch, centre = (place + 0.5) * scale;
  const first = Math.max(Math.trunc(centre - support + 0.5), 0);
  const end = Math.min(Math.trunc(centre + support + 0.5), size);
  const raw = Array.from({ length: end - first }, (_, k) => filter.at((k + first - centre + 0.5) / stretch));
  const sum = raw.reduce((one, other) => one + other, 0);
  const weights = raw.map((weight) => {
    const scaled = (weight / sum) * PRECISION;
    return Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5));
  });
  return { first, weights };
}

/** Rows as columns. */
function turned({ width, height, channels, data }) {
  const result = new Uint8ClampedArray(data.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < channels; c++) result[(x * height + y) * channels + c] = data[(y * width + x) * channels + c];
    }
  }
  return { width: height, height: width, channels, data: result };
}

function nearest({ width, height, channels, data }, side) {
  const columns = nearestPlaces(width, side), rows = nearestPlaces(height, side);
  const result = new Uint8ClampedArray(side * side * channels);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const source = (rows[y] * width + columns[x]) * channels;
      result.set(data.subarray(source, source + channels), (y * side + x) * channels);
    }
  }
  return { width: side, height: side, channels, data: result };
}

/** The pixels that are taken, added up as PIL does, whose rounding decides where a place falls between two pixels. */
function nearestPlaces(size, side) {
  const scale = size / side, places = [];
  for (let at = scale / 2; places.length < side; at += scale) places.push(Math.floor(at));
  return places;
}
