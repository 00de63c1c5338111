// The product of two float32 matrices with AVX-512: C (m, n) = A (m, k) B (k, n), C with contiguous rows.
//
// A block of C stays in registers while A and B stream past it, so that each load of B serves up to twelve rows (Goto
// and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008). Long sums are taken in parts, which is
// more exact, and what is read of B stays in the cache. Loops over registers are unrolled, or these would be spilled.
#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#define UNROLL _Pragma("GCC unroll 16")

namespace {

constexpr int64_t LANES = 16, COLUMNS = 2 * LANES;  // of a register; of a panel of B
constexpr int64_t CACHED = 1 << 16;                 // floats of B that stay in the second-level cache
constexpr int64_t DEPTH = 256;                      // products of a part of a sum, at most
constexpr int64_t SHARED = 1 << 20;                 // multiplications that are worth sharing among threads
constexpr int ROWS = 12;                            // of a block: 24 registers of C, of 32 in all

struct Matrix {
  const float* data;
  int64_t down, right;  // strides
};

// A part of the sums of a block of C, R rows by V registers, of which the last has the lanes of `last` alone.
template <int R, int V>
void block(Matrix a, Matrix b, float* c, int64_t width, int64_t k, __mmask16 last, bool first) {
  __m512 sum[R][V];
  UNROLL for (auto& row : sum)
    UNROLL for (auto& lanes : row) lanes = _mm512_setzero_ps();
  for (int64_t p = 0; p < k; ++p) {
    __m512 row[V];
    UNROLL for (int v = 0; v < V; ++v)
      row[v] = _mm512_maskz_loadu_ps(v + 1 < V ? 0xffff : last, b.data + p * b.down + v * LANES);
    UNROLL for (int r = 0; r < R; ++r) {
      const __m512 factor = _mm512_set1_ps(a.data[r * a.down + p * a.right]);
      UNROLL for (int v = 0; v < V; ++v) sum[r][v] = _mm512_fmadd_ps(factor, row[v], sum[r][v]);
    }
  }
  UNROLL for (int r = 0; r < R; ++r)
    UNROLL for (int v = 0; v < V; ++v) {
      float* to = c + r * width + v * LANES;
      const __mmask16 mask = v + 1 < V ? 0xffff : last;
      _mm512_mask_storeu_ps(to, mask, first ? sum[r][v] : _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), sum[r][v]));
    }
}

// The same for a number of rows that is known only at run time.
template <int R, int V>
void block_of(int64_t rows, Matrix a, Matrix b, float* c, int64_t width, int64_t k, __mmask16 last, bool first) {
  if constexpr (R > 0) {
    if (rows == R)
      block<R, V>(a, b, c, width, k, last, first);
    else
      block_of<R - 1, V>(rows, a, b, c, width, k, last, first);
  }
}

__mmask16 lanes(int64_t count) { return count < LANES ? (1u << count) - 1 : 0xffff; }

// A panel of B, whose rows are contiguous but far from each other, as rows of `to`.
void copy(Matrix b, int64_t columns, int64_t k, float* to) {
  for (int64_t j = 0; j < columns; j += LANES)
    for (int64_t p = 0; p < k; ++p)
      _mm512_storeu_ps(to + p * COLUMNS + j, _mm512_maskz_loadu_ps(lanes(columns - j), b.data + p * b.down + j));
}

// Sixteen columns of B, each contiguous, as rows of `to`; fewer are filled up with zeros.
void transpose(Matrix b, int64_t columns, int64_t k, float* to) {
  for (int64_t p = 0; p < k; p += LANES) {
    const __mmask16 mask = lanes(k - p);
    __m512 x[16], y[16];
    UNROLL for (int i = 0; i < 16; ++i)
      x[i] = i < columns ? _mm512_maskz_loadu_ps(mask, b.data + i * b.right + p) : _mm512_setzero_ps();
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
      const __m512 even[] = {_mm512_shuffle_f32x4(x[j], x[4 + j], 0x88), _mm512_shuffle_f32x4(x[8 + j], x[12 + j], 0x88)};
      const __m512 odd[] = {_mm512_shuffle_f32x4(x[j], x[4 + j], 0xdd), _mm512_shuffle_f32x4(x[8 + j], x[12 + j], 0xdd)};
      y[j] = _mm512_shuffle_f32x4(even[0], even[1], 0x88);
      y[j + 4] = _mm512_shuffle_f32x4(odd[0], odd[1], 0x88);
      y[j + 8] = _mm512_shuffle_f32x4(even[0], even[1], 0xdd);
      y[j + 12] = _mm512_shuffle_f32x4(odd[0], odd[1], 0xdd);
    }
    for (int64_t i = 0; i < std::min(LANES, k - p); ++i) _mm512_storeu_ps(to + (p + i) * COLUMNS, y[i]);
  }
}

}  // namespace

// Shared among threads where it is large enough. Programs that Inductor writes call it by this name.
extern "C" void lightning_meta_product(const float* a, const float* b, float* c, int64_t m, int64_t k, int64_t n,
                                       int64_t a_down, int64_t a_right, int64_t b_down, int64_t b_right) {
  const int64_t threads = m * k * n < SHARED ? 1 : omp_get_max_threads();
  const int64_t depth = (k + (k - 1) / DEPTH) / ((k - 1) / DEPTH + 1);  // of all parts of a sum but the last
  const int64_t panels = (n + COLUMNS - 1) / COLUMNS, group = std::clamp<int64_t>(CACHED / (depth * COLUMNS), 1, panels);
  const int64_t groups = (panels + group - 1) / group, parts = std::clamp<int64_t>(threads / groups, 1, m);
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t part = 0; part < groups * parts; ++part) {
    const int64_t start = part / parts * group * COLUMNS, end = std::min(start + group * COLUMNS, n);
    const int64_t top = part % parts * m / parts, bottom = (part % parts + 1) * m / parts;
    const bool packed = b_right != 1 || bottom - top >= 8 * ROWS;  // copied, since it is read so often
    static thread_local std::vector<float> copies;
    if (packed) copies.resize(std::max<size_t>(copies.size(), depth * group * COLUMNS));
    for (int64_t p = 0; p < k; p += depth) {
      const int64_t length = std::min(depth, k - p);
      for (int64_t column = start; packed && column < end; column += COLUMNS) {
        const Matrix from{b + p * b_down + column * b_right, b_down, b_right};
        const int64_t columns = std::min(COLUMNS, end - column);
        float* to = copies.data() + (column - start) * depth;
        if (b_right == 1)
          copy(from, columns, length, to);
        else
          for (int64_t j = 0; j < columns; j += LANES)
            transpose({from.data + j * b_right, b_down, b_right}, columns - j, length, to + j);
      }
      for (int64_t row = top; row < bottom; row += ROWS)
        for (int64_t column = start; column < end; column += COLUMNS) {
          const int64_t rows = std::min<int64_t>(ROWS, bottom - row), columns = end - column;
          const Matrix left{a + row * a_down + p * a_right, a_down, a_right};
          const Matrix right = packed ? Matrix{copies.data() + (column - start) * depth, COLUMNS, 1}
                                      : Matrix{b + p * b_down + column, b_down, 1};
          float* to = c + row * n + column;
          if (columns > LANES)
            block_of<ROWS, 2>(rows, left, right, to, n, length, lanes(columns - LANES), p == 0);
          else
            block_of<ROWS, 1>(rows, left, right, to, n, length, lanes(columns), p == 0);
        }
    }
  }
}

constexpr auto kernel = lightning_meta_product;  // the name under which Inductor gives it to Python
