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
  // Whether they are W rows one after another: of rising ones it is enough to ask the first and the last.
  RADFIELD_SIMD bool adjacent() const { return n == W && (!at || at[i + W - 1] - at[i] == W - 1); }
};

// W records of D words, one after another, to D vectors of one word of each record (transpose_records has powers of two).
template <int K, int... i>
RADFIELD_SIMD vi word_of_three(vi a, vi b, vi c, std::integer_sequence<int, i...>) {
  const vi early = __builtin_shufflevector(a, b, (3 * i + K < 2 * W ? 3 * i + K : 0)...);
  return __builtin_shufflevector(early, c, (3 * i + K < 2 * W ? i : 3 * i + K - W)...);
}
RADFIELD_SIMD void words_of_records(const vi (&records)[3], vi (&words)[3]) {
  constexpr std::make_integer_sequence<int, W> all;
  words[0] = word_of_three<0>(records[0], records[1], records[2], all);
  words[1] = word_of_three<1>(records[0], records[1], records[2], all);
  words[2] = word_of_three<2>(records[0], records[1], records[2], all);
}
template <int D>
RADFIELD_SIMD void words_of_records(const vi (&records)[D], vi (&words)[D]) { transpose_records<D>(records, words); }

// The inverse: number f = W K + i of the records is word f % 3 of record f / 3.
template <int K, int... i>
RADFIELD_SIMD vi part_of_three(vi a, vi b, vi c, std::integer_sequence<int, i...>) {
  const vi early = __builtin_shufflevector(a, b, ((W * K + i) / 3 + ((W * K + i) % 3 == 1 ? W : 0))...);
  return __builtin_shufflevector(early, c, ((W * K + i) % 3 == 2 ? W + (W * K + i) / 3 : i)...);
}
RADFIELD_SIMD void records_of_words(const vi (&words)[3], vi (&records)[3]) {
  constexpr std::make_integer_sequence<int, W> all;
  records[0] = part_of_three<0>(words[0], words[1], words[2], all);
  records[1] = part_of_three<1>(words[0], words[1], words[2], all);
  records[2] = part_of_three<2>(words[0], words[1], words[2], all);
}
template <int D>
RADFIELD_SIMD void records_of_words(const vi (&words)[D], vi (&records)[D]) { make_records<D>(words, records); }

// A few columns: in registers where the rows are adjacent, else number by number.
template <int D>
RADFIELD_SIMD void load_columns(const float* rows, const RowsOf& row, vf (&out)[D]) {
  if (row.adjacent()) {
    vi records[D], words[D];
    for (int k = 0; k < D; ++k) records[k] = (vi)load(rows + row[0] * D + k * W);
    words_of_records(records, words);
    for (int k = 0; k < D; ++k) out[k] = (vf)words[k];
    return;
  }
  alignas(64) float copy[D][W];
  for (int lane = 0; lane < W; ++lane) {
    const float* from = rows + row[lane] * D;
    for (int k = 0; k < D; ++k) copy[k][lane] = from[k];
  }
  for (int k = 0; k < D; ++k) out[k] = load(copy[k]);
}
template <int D>
RADFIELD_SIMD void store_columns(float* rows, const RowsOf& row, vi kept, const vf (&values)[D]) {
  if (row.adjacent()) {
    vi records[D], words[D];
    for (int k = 0; k < D; ++k) words[k] = (vi)select(kept, values[k], vf{});
    records_of_words(words, records);
    for (int k = 0; k < D; ++k) store(rows + row[0] * D + k * W, (vf)records[k]);
    return;
  }
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
