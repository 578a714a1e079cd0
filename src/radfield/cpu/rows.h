// Arrays that lie row by row, as vectors of one number of W rows each, and back.
#pragma once
#include "lanes.h"

namespace radfield {

// Row i + lane of `rows` [N, D], or the one that `at` names: its address. Lanes from n on repeat the last row.
struct RowsOf {
  const int64_t* at;  // null: rows i, i + 1, ...
  int64_t i;
  int n;

  RADFIELD_SIMD int64_t operator[](int lane) const {
    const int64_t item = i + (lane < n ? lane : n - 1);
    return at ? at[item] : item;
  }
};

// A few columns, number by number.
template <int D>
RADFIELD_SIMD void load_columns(const float* rows, const RowsOf& row, vf (&out)[D]) {
  alignas(64) float copy[D][W];
  for (int lane = 0; lane < W; ++lane) {
    const float* from = rows + row[lane] * D;
    for (int k = 0; k < D; ++k) copy[k][lane] = from[k];
  }
  for (int k = 0; k < D; ++k) out[k] = load(copy[k]);
}
template <int D>
RADFIELD_SIMD void store_columns(float* rows, const RowsOf& row, vi kept, const vf (&values)[D]) {
  alignas(64) float copy[D][W];
  for (int k = 0; k < D; ++k) store(copy[k], select(kept, values[k], vf{}));
  for (int lane = 0; lane < row.n; ++lane) {
    float* to = rows + row[lane] * D;
    for (int k = 0; k < D; ++k) to[k] = copy[k][lane];
  }
}

// The first `count` columns of rows of `width` numbers as streams of W, W x W numbers at a time: `streams` has room for
// `count` rounded up to W.
RADFIELD_SIMD void load_streams(const float* rows, int64_t width, const RowsOf& row, int64_t count, float* streams) {
  for (int64_t c = 0; c < count; c += W) {
    const int left = (int)(count - c < W ? count - c : W);
    vi block[W];
    for (int lane = 0; lane < W; ++lane) block[lane] = (vi)load_n(rows + row[lane] * width + c, left);
    transpose(block);
    for (int k = 0; k < W; ++k) store(streams + (c + k) * W, (vf)block[k]);
  }
}
// The way back: the rest of each row becomes 0.
RADFIELD_SIMD void store_streams(float* rows, int64_t width, const RowsOf& row, int64_t count, const float* streams) {
  for (int64_t c = 0; c < count; c += W) {
    const int left = (int)(count - c < W ? count - c : W);
    vi block[W];
    for (int k = 0; k < W; ++k) block[k] = (vi)load(streams + (c + k) * W);
    transpose(block);
    for (int lane = 0; lane < row.n; ++lane) store_n(rows + row[lane] * width + c, (vf)block[lane], left);
  }
  for (int lane = 0; lane < row.n && count < width; ++lane)
    memset(rows + row[lane] * width + count, 0, 4 * (size_t)(width - count));
}

// clear(first, end) for the ranges of the N rows that `row` names none of: those before each of its rows, after its last
// one where that is the last of all `items`.
template <class Clear>
RADFIELD_SIMD void clear_between(const RowsOf& row, int64_t items, int64_t N, Clear clear) {
  if (!row.at) return;
  int64_t next = row.i ? row.at[row.i - 1] + 1 : 0;
  for (int lane = 0; lane < row.n; ++lane) {
    if (next < row[lane]) clear(next, row[lane]);
    next = row[lane] + 1;
  }
  if (row.i + row.n == items && next < N) clear(next, N);
}

}  // namespace radfield
