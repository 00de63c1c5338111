// Products of float32 matrices with AVX-512.
//
// A block of C stays in registers while A and B stream past it, so that each load of B serves up to twelve rows (Goto
// and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008). Long sums are taken in parts, which is
// more exact, and what is read of B stays in the cache. Loops over registers are unrolled, or these would be spilled.
// Rows of A and B may lie in pieces anywhere, or nowhere, which are zeros: `patch_product.cpp` has need of it.
#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#define UNROLL _Pragma("GCC unroll 16")

namespace {

constexpr int64_t LANES = 16, COLUMNS = 4 * LANES;  // of a register; of a panel of B
constexpr int64_t DEPTH = 96;                       // products of a part of a sum
constexpr int64_t SHARED = 1 << 20;                 // multiplications that are worth sharing among threads
constexpr int64_t COPIED = 48;                      // rows that read a panel of B so often that it is copied
constexpr int64_t NOWHERE = -1;                     // the place of zeros
constexpr int ROWS[] = {0, 12, 12, 8, 6};           // of a block, by the registers of a row, of 32 in all

using Places = std::vector<int64_t>;

// (rows, pieces * length): a row has its pieces at `places[piece * rows + row] * unit`.
struct Left {
  const float* data;
  const int64_t* places;
  int64_t unit, rows, pieces, length, step;
};

// (pieces * length, columns): `length` rows from each place on. Rows are contiguous, or the columns of a single piece.
struct Right {
  const float* data;
  const int64_t* places;
  int64_t length, columns, down, across;
};

struct Part {
  int64_t piece, pieces, start, length;  // of every row of A
};

// Part of the sums of a block of C, R rows by V registers, of which the last has the lanes of `last` alone.
template <int R, int V>
void block(const Left& a, const float* zeros, int64_t row, const Part& part, const float* b, int64_t down, float* c,
           const int64_t* c_down, __mmask16 last, bool add) {
  __m512 sum[R][V];
  UNROLL for (auto& lanes : sum)
    UNROLL for (auto& lane : lanes) lane = _mm512_setzero_ps();
  for (int64_t piece = part.piece; piece < part.piece + part.pieces; ++piece) {
    const float* rows[R];
    UNROLL for (int r = 0; r < R; ++r) {
      const int64_t place = a.places[piece * a.rows + row + r];
      rows[r] = place == NOWHERE ? zeros : a.data + place * a.unit + part.start * a.step;
    }
    for (int64_t p = 0; p < part.length; ++p, b += down) {
      __m512 lane[V];
      UNROLL for (int v = 0; v < V; ++v) lane[v] = _mm512_maskz_loadu_ps(v + 1 < V ? 0xffff : last, b + v * LANES);
      UNROLL for (int r = 0; r < R; ++r) {
        const __m512 factor = _mm512_set1_ps(rows[r][p * a.step]);
        UNROLL for (int v = 0; v < V; ++v) sum[r][v] = _mm512_fmadd_ps(factor, lane[v], sum[r][v]);
      }
    }
  }
  UNROLL for (int r = 0; r < R; ++r)
    UNROLL for (int v = 0; v < V; ++v) {
      float* to = c + c_down[r] + v * LANES;
      const __mmask16 mask = v + 1 < V ? 0xffff : last;
      _mm512_mask_storeu_ps(to, mask, add ? _mm512_add_ps(sum[r][v], _mm512_maskz_loadu_ps(mask, to)) : sum[r][v]);
    }
}

// The same for a number of rows that is known only at run time.
template <int R, int V, class... Arguments>
void block_of(int64_t rows, const Arguments&... arguments) {
  if constexpr (R > 0) {
    if (rows == R)
      block<R, V>(arguments...);
    else
      block_of<R - 1, V>(rows, arguments...);
  }
}

__mmask16 lanes(int64_t count) { return count < LANES ? (1u << count) - 1 : 0xffff; }

// Sixteen columns, each contiguous, as rows of `to`; fewer are filled up with zeros.
void transpose(const float* data, int64_t across, int64_t columns, int64_t k, float* to) {
  for (int64_t p = 0; p < k; p += LANES) {
    const __mmask16 mask = lanes(k - p);
    __m512 x[16], y[16];
    UNROLL for (int i = 0; i < 16; ++i)
      x[i] = i < columns ? _mm512_maskz_loadu_ps(mask, data + i * across + p) : _mm512_setzero_ps();
    UNROLL for (int i = 0; i < 16; i += 2) {
      y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
      y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4)
      UNROLL for (int j = 0; j < 2; ++j) {
        const __m512d low = _mm512_castps_pd(y[i + j]), high = _mm512_castps_pd(y[i + j + 2]);
        x[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
        x[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
      }
    UNROLL for (int j = 0; j < 4; ++j) {  // x[4 i + j] holds rows j, j + 4, j + 8 and j + 12 of columns 4 i to 4 i + 3
      const __m512 even = _mm512_shuffle_f32x4(x[j], x[4 + j], 0x88), odd = _mm512_shuffle_f32x4(x[j], x[4 + j], 0xdd);
      const __m512 next_even = _mm512_shuffle_f32x4(x[8 + j], x[12 + j], 0x88);
      const __m512 next_odd = _mm512_shuffle_f32x4(x[8 + j], x[12 + j], 0xdd);
      y[j] = _mm512_shuffle_f32x4(even, next_even, 0x88);
      y[j + 4] = _mm512_shuffle_f32x4(odd, next_odd, 0x88);
      y[j + 8] = _mm512_shuffle_f32x4(even, next_even, 0xdd);
      y[j + 12] = _mm512_shuffle_f32x4(odd, next_odd, 0xdd);
    }
    for (int64_t i = 0; i < std::min(LANES, k - p); ++i) _mm512_storeu_ps(to + (p + i) * COLUMNS, y[i]);
  }
}

// Rows `first` to `first + count` of a panel of B, one behind the other.
void copy(const Right& b, int64_t column, int64_t columns, int64_t first, int64_t count, float* to) {
  if (b.across != 1 && b.columns > 1) {
    for (int64_t j = 0; j < columns; j += LANES)
      transpose(b.data + b.places[0] + first + (column + j) * b.across, b.across, columns - j, count, to + j);
    return;
  }
  for (int64_t p = first; p < first + count; ++p, to += COLUMNS) {
    const int64_t place = b.places[p / b.length];
    const float* from = b.data + place + p % b.length * b.down + column;
    for (int64_t j = 0; j < columns; j += LANES)
      _mm512_storeu_ps(to + j, _mm512_maskz_loadu_ps(place == NOWHERE ? 0 : lanes(columns - j), from + j));
  }
}

// Rows `top` to `bottom` of A B, in the columns of a panel, whose rows lie at `c_down`.
void multiply(const Left& a, const Right& b, float* c, const int64_t* c_down, int64_t top, int64_t bottom,
              int64_t column) {
  static thread_local std::vector<float> copies, zeros;
  const int64_t columns = std::min(COLUMNS, b.columns - column), registers = (columns + LANES - 1) / LANES;
  const bool whole = b.length == a.pieces * a.length && b.places[0] != NOWHERE;
  const bool copied = !whole || (b.across != 1 && b.columns > 1) || bottom - top >= COPIED;
  // Long pieces are taken in slices, the longest in as many as there are terms in a slice; of short ones several at once.
  const int64_t longest = std::max<int64_t>(DEPTH, std::sqrt(a.length));
  const int64_t slices = std::max<int64_t>((a.length + longest - 1) / longest, 1);
  const int64_t depth = (a.length + slices - 1) / slices;
  const int64_t group = std::max<int64_t>(DEPTH / std::max<int64_t>(a.length, 1), 1);
  copies.resize(std::max<size_t>(copies.size(), std::min(group, a.pieces) * depth * COLUMNS));
  zeros.resize(std::max<size_t>(zeros.size(), a.step == 1 ? a.length : 1));
  for (int64_t piece = 0; piece == 0 || piece < a.pieces; piece += group)
    for (int64_t start = 0; start == 0 || start < a.length; start += depth) {
      const Part part{piece, std::min(group, a.pieces - piece), start, std::min(depth, a.length - start)};
      const int64_t first = piece * a.length + start, down = copied ? COLUMNS : b.down;
      if (copied) copy(b, column, columns, first, part.pieces * part.length, copies.data());
      const float* right = copied ? copies.data() : b.data + b.places[0] + first * b.down + column;
      for (int64_t row = top; row < bottom; row += ROWS[registers]) {
        const auto of = [&](auto function) {
          function(std::min<int64_t>(ROWS[registers], bottom - row), a, zeros.data(), row, part, right, down,
                   c + column, c_down + row, lanes(columns - (registers - 1) * LANES), first > 0);
        };
        if (registers == 1) of([](const auto&... all) { block_of<ROWS[1], 1>(all...); });
        if (registers == 2) of([](const auto&... all) { block_of<ROWS[2], 2>(all...); });
        if (registers == 3) of([](const auto&... all) { block_of<ROWS[3], 3>(all...); });
        if (registers == 4) of([](const auto&... all) { block_of<ROWS[4], 4>(all...); });
      }
    }
}

int64_t threads_for(int64_t multiplications) { return multiplications < SHARED ? 1 : omp_get_max_threads(); }

// C = A B, shared among threads where it is large enough.
void product(const Left& a, const Right& b, float* c, const Places& c_down) {
  const int64_t threads = threads_for(a.rows * b.columns * a.pieces * a.length);
  const int64_t panels = (b.columns + COLUMNS - 1) / COLUMNS;
  const int64_t parts = std::clamp<int64_t>(threads / panels, 1, std::max<int64_t>(a.rows, 1));
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t part = 0; part < panels * parts; ++part) {
    const int64_t top = part % parts * a.rows / parts, bottom = (part % parts + 1) * a.rows / parts;
    multiply(a, b, c, c_down.data(), top, bottom, part / parts * COLUMNS);
  }
}

Places steps(int64_t count, int64_t step = 1) {
  Places places(count);
  for (int64_t i = 0; i < count; ++i) places[i] = i * step;
  return places;
}

// As `matrix_product_shim.h` has it.
struct Tensor {
  float* data;
  const int64_t *sizes, *strides;

  Left left(const Places& places) const { return {data, places.data(), strides[0], sizes[0], 1, sizes[1], strides[1]}; }
  Right right(const Places& places) const { return {data, places.data(), sizes[0], sizes[1], strides[0], strides[1]}; }
};

}  // namespace

// Programs that Inductor writes call it by its name. C is contiguous, of B rows or columns are.
extern "C" void lightning_meta_product(const Tensor& a, const Tensor& b, const Tensor& c, const void*) {
  const int64_t m = a.sizes[0], n = b.sizes[1];
  const Places whole{0};
  if (n > LANES || m <= LANES || a.strides[0] != 1) {
    const Places rows = steps(m);
    return product(a.left(rows), b.right(whole), c.data, steps(m, n));
  }
  // The transposed product fills more lanes of a register.
  static thread_local std::vector<float> transposed;
  transposed.resize(std::max<size_t>(transposed.size(), m * n));
  const int64_t k = a.sizes[1];
  const Places rows = steps(n);
  product({b.data, rows.data(), b.strides[1], n, 1, k, b.strides[0]}, {a.data, whole.data(), k, m, a.strides[1], 1},
          transposed.data(), steps(n, m));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) c.data[i * n + j] = transposed[j * m + i];
}
