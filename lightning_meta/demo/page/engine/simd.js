// The product of matrix.js in WebAssembly, which multiplies four float32 numbers at once. Its few bytes are put
// together here, so that the page needs neither a compiler nor a binary file.

const ROWS = 3, COLUMNS = 4, LANES = 4; // of a tile, whose twelve sums and four factors fill the sixteen registers
const PAGE = 65536; // bytes

const LOCAL_GET = 0x20, LOCAL_SET = 0x21, CONST = 0x41, ADD = 0x6a, LESS = 0x49, LOOP = [0x03, 0x40], END = 0x0b;
const REPEAT_IF = [0x0d, 0], F32_ADD = 0x92, F32_STORE = 0x38, SIMD = 0xfd;
const LOAD_VECTOR = [SIMD, 0, 4, 0], ZERO_VECTOR = [SIMD, 12, ...Array(16).fill(0)], EXTRACT = [SIMD, 31];
const ADD_VECTORS = [SIMD, 0xe4, 1], MULTIPLY_VECTORS = [SIMD, 0xe6, 1];
const I32 = 0x7f, V128 = 0x7b;

// Arguments: addresses of three rows of the left factor, of all rows of the right one and of their end, the bytes of
// such a row, the address of the product and the bytes of its row. Then the locals.
const [LEFT, RIGHT, RIGHT_END, STRIDE, PRODUCT, PRODUCT_STRIDE] = Array(6).keys();
const AT_LEFT = [6, 7, 8], AT_RIGHT = [9, 10, 11, 12];
const sum = (row, column) => 13 + row * COLUMNS + column;
const FACTORS = [25, 26, 27], FACTOR = 28;

const get = (local) => [LOCAL_GET, local];
const set = (local, ...value) => [...value.flat(), LOCAL_SET, local];
const plus = (local, other) => [...get(local), ...get(other), ADD];
const range = (count) => [...Array(count).keys()];

/** Instructions that put the addresses of successive rows into locals. */
const addresses = (locals, first, stride) =>
  locals.flatMap((local, row) => set(local, row ? plus(locals[row - 1], stride) : get(first)));

function instructions() {
  const tiles = range(ROWS).flatMap((row) => range(COLUMNS).map((column) => [row, column]));
  const multiply = range(COLUMNS).flatMap((column) => [
    set(FACTOR, get(AT_RIGHT[column]), LOAD_VECTOR),
    ...range(ROWS).map((row) =>
      set(sum(row, column), get(sum(row, column)), get(FACTORS[row]), get(FACTOR), MULTIPLY_VECTORS, ADD_VECTORS)),
  ]);
  const store = tiles.map(([row, column]) => [
    get(AT_LEFT[row]),
    range(LANES).map((lane) => [get(sum(row, column)), EXTRACT, lane, lane ? F32_ADD : []]),
    F32_STORE, 2, 4 * column,
  ]);
  return [
    LOOP,
    addresses(AT_LEFT, LEFT, STRIDE),
    addresses(AT_RIGHT, RIGHT, STRIDE),
    tiles.map(([row, column]) => set(sum(row, column), ZERO_VECTOR)),
    LOOP,
    FACTORS.map((local, row) => set(local, get(AT_LEFT[row]), LOAD_VECTOR)),
    multiply,
    [...AT_LEFT, ...AT_RIGHT].map((local) => set(local, get(local), CONST, 4 * LANES, ADD)),
    get(AT_LEFT[0]), plus(LEFT, STRIDE), LESS, REPEAT_IF, END,
    addresses(AT_LEFT, PRODUCT, PRODUCT_STRIDE),
    store,
    set(PRODUCT, get(PRODUCT), CONST, 4 * COLUMNS, ADD),
    set(RIGHT, get(AT_RIGHT.at(-1))), // which stands behind its row, where the next one begins
    get(RIGHT), get(RIGHT_END), LESS, REPEAT_IF, END, END,
  ].flat(Infinity);
}

/** A number in LEB128. */
const number = (value) => (value < 128 ? [value] : [(value % 128) + 128, ...number(Math.floor(value / 128))]);
const section = (kind, ...content) => [kind, ...number(content.length), ...content];
const text = (word) => [word.length, ...new TextEncoder().encode(word)];

function compile() {
  const locals = [2, 7, I32, 16, V128], code = [...locals, ...instructions()];
  const binary = Uint8Array.from([
    0, 97, 115, 109, 1, 0, 0, 0, // "\0asm", version 1
    ...section(1, 1, 0x60, 6, ...Array(6).fill(I32), 0),
    ...section(2, 1, ...text("page"), ...text("memory"), 2, 0, 1),
    ...section(3, 1, 0),
    ...section(7, 1, ...text("multiply"), 0, 0),
    ...section(10, 1, ...number(code.length), ...code),
  ]);
  const memory = new WebAssembly.Memory({ initial: 1 });
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(binary), { page: { memory } });
  return { memory, multiply: exports.multiply };
}

let compiled = null; // not yet tried

/** Whether this browser has it, and the page's host allows it. */
export function available() {
  try {
    compiled ??= compile();
  } catch {
    compiled = false;
  }
  return compiled !== false;
}

/** left · rightᵀ in float32, of matrices (rows, inner) and (columns, inner); only where `available`. */
export function multiplyTransposedInSimd(left, right, rows, columns, inner) {
  const up = (size, multiple) => Math.ceil(size / multiple) * multiple;
  const stride = up(inner, LANES), height = up(rows, ROWS), width = up(columns, COLUMNS);
  const atRight = height * stride, atProduct = atRight + width * stride, size = atProduct + height * width;
  const { memory, multiply } = compiled;
  const missing = 4 * size - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE));
  const values = new Float32Array(memory.buffer, 0, size);
  copyRows(values, 0, left, stride, inner);
  copyRows(values, atRight, right, stride, inner);
  for (let row = 0; row < height; row += ROWS) {
    multiply(4 * row * stride, 4 * atRight, 4 * atProduct, 4 * stride, 4 * (atProduct + row * width), 4 * width);
  }
  const product = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const from = atProduct + row * width;
    for (let column = 0; column < columns; column++) product[row * columns + column] = values[from + column];
  }
  return product;
}

/** Rows one after another, each with zeros up to the stride. */
function copyRows(values, start, matrix, stride, inner) {
  for (let from = 0, to = start; from < matrix.length; from += inner, to += stride) {
    for (let k = 0; k < inner; k++) values[to + k] = matrix[from + k];
    for (let k = inner; k < stride; k++) values[to + k] = 0;
  }
}
