// Products of matrices in row-major typed arrays, where almost all of the engine's time goes.

import { available, multiplyTransposedInSimd } from "./simd.js";

const WORTH_COPYING = 2 ** 18; // multiplications: smaller products stay here, in double precision
const TILE = 3; // nine sums and six factors still fit into the registers

/**
 * left · rightᵀ, so that both factors are read along their rows.
 *
 * @param {Float64Array} left (rows, inner)
 * @param {Float64Array} right (columns, inner)
 * @returns {Float64Array} (rows, columns)
 */
export function multiplyTransposed(left, right, rows, columns, inner) {
  if (rows * columns * inner >= WORTH_COPYING && available()) {
    return multiplyTransposedInSimd(left, right, rows, columns, inner);
  }
  const product = new Float64Array(rows * columns);
  if (rows < TILE || columns < TILE) {
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        let sum = 0;
        for (let k = 0; k < inner; k++) sum += left[row * inner + k] * right[column * inner + k];
        product[row * columns + column] = sum;
      }
    }
    return product;
  }
  for (let start = 0; start < rows; start += TILE) {
    const row = Math.min(start, rows - TILE); // the last tile may overlap the one before it
    for (let first = 0; first < columns; first += TILE) {
      multiplyTile(left, right, product, row, Math.min(first, columns - TILE), columns, inner);
    }
  }
  return product;
}

function multiplyTile(left, right, product, row, column, columns, inner) {
  const left0 = row * inner, left1 = left0 + inner, left2 = left1 + inner;
  const right0 = column * inner, right1 = right0 + inner, right2 = right1 + inner;
  let s00 = 0, s01 = 0, s02 = 0, s10 = 0, s11 = 0, s12 = 0, s20 = 0, s21 = 0, s22 = 0;
  for (let k = 0; k < inner; k++) {
    const x0 = left[left0 + k], x1 = left[left1 + k], x2 = left[left2 + k];
    const y0 = right[right0 + k], y1 = right[right1 + k], y2 = right[right2 + k];
    s00 += x0 * y0;
    s01 += x0 * y1;
    s02 += x0 * y2;
    s10 += x1 * y0;
    s11 += x1 * y1;
    s12 += x1 * y2;
    s20 += x2 * y0;
    s21 += x2 * y1;
    s22 += x2 * y2;
  }
  let place = row * columns + column;
  product[place] = s00;
  product[place + 1] = s01;
  product[place + 2] = s02;
  place += columns;
  product[place] = s10;
  product[place + 1] = s11;
  product[place + 2] = s12;
  place += columns;
  product[place] = s20;
  product[place + 1] = s21;
  product[place + 2] = s22;
}

/** The transpose (columns, rows) of a matrix (rows, columns). */
export function transpose(matrix, rows, columns) {
  const transposed = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      transposed[column * rows + row] = matrix[row * columns + column];
    }
  }
  return transposed;
}

/** Add a vector (columns,) to every row of a matrix, in place. */
export function addToRows(matrix, vector) {
  const columns = vector.length;
  for (let place = 0; place < matrix.length; place += columns) {
    for (let column = 0; column < columns; column++) matrix[place + column] += vector[column];
  }
}

/** Sums over the rows of a matrix, (columns,). */
export function sumOfRows(matrix, columns) {
  const sums = new Float64Array(columns);
  for (let place = 0; place < matrix.length; place += columns) {
    for (let column = 0; column < columns; column++) sums[column] += matrix[place + column];
  }
  return sums;
}
