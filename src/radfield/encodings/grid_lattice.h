// Features of a two-dimensional hash grid on a lattice of points, columns x rows. All points of a row lie between the
// same two rows of vertices: these are interpolated once, vertex by vertex, and then across for every point,
//
//   values_k = (1 - s_y) entry(k, y) + s_y entry(k, y + 1),     feature = (1 - s_x) values_k + s_x values_k+1
//
// so that a point reads no table but a few numbers next to each other. Where points lie sparser than vertices each reads
// its own four entries, in the same order of sums: a point's bits do not depend on the others.
#pragma once
#include "hash_grid.h"
#include "level_loops.h"

namespace radfield {
namespace {

constexpr int MOST_COLUMNS = 64, MOST_VERTICES = 128;

// Where the columns of a lattice lie in a level: the vertex left of each, and the factor of the one to its right.
struct Columns {
  int32_t base[MOST_COLUMNS];
  float s[MOST_COLUMNS];
  int32_t lowest[MOST_COLUMNS];  // of each vector's `base`, at its first column
  int first, vertices;           // from vertex `first` on so many are touched
  bool near;                     // the columns of a vector lie within 2 W vertices

  Columns(const float* across, int columns, const GridLevel& level, int kind) {
    const uint32_t factor[1] = {1};
    int last = 0;
    first = INT32_MAX, near = true;
    for (int i = 0; i < columns; i += W) {
      const int n = columns - i < W ? columns - i : W;
      const vf x[1] = {load_n(across + i, n)};
      const auto cell = locate<1, vi>(x, level, factor, kind);
      store(base + i, cell.base[0]), store(s + i, cell.s[0]);
      int low = base[i], high = base[i];
      for (int k = 1; k < n; ++k) low = base[i + k] < low ? base[i + k] : low, high = base[i + k] > high ? base[i + k] : high;
      for (int k = n; k < W; ++k) base[i + k] = low;  // lanes beyond the last column stay within
      lowest[i] = low;
      near &= high - low < 2 * W;
      first = low < first ? low : first, last = high > last ? high : last;
    }
    vertices = last - first + 2;
  }
};

// Entry of each vertex x of row y.
RADFIELD_SIMD vi vertex_entry(vi x, int32_t y, const GridLevel& level, uint32_t factor) {
  GridCell<2, vf, vi> cell;
  cell.part[0][0] = x, cell.part[1][0] = vi{} + (int32_t)((uint32_t)y * factor);
  return corner_entry(cell, 0, level);
}

RADFIELD_SIMD vf blend(vf a, vf b, vf s) { return fma(b, s, a * (1.0f - s)); }

// W of the 2 W numbers at `values`.
RADFIELD_SIMD vf pick(const float* values, vi index) {
#if defined(__AVX512F__)
  return (vf)_mm512_permutex2var_ps((__m512)load(values), (__m512i)index, (__m512)load(values + W));
#else
  return gather(values, index);
#endif
}

// One level on a lattice.
template <int F, class T>
struct LatticeLevel {
  const GridLevel level;
  const T* table;
  const Columns columns;
  const int kind;
  const uint32_t factor;
  float rows[2][F][MOST_VERTICES];                // entries of the two rows of vertices
  int32_t row_of[2] = {INT32_MIN, INT32_MIN};     // which these are
  float values[F][MOST_VERTICES + 2 * W + 1];     // between them

  LatticeLevel(const HashGridForward& a, int64_t l, const float* across, int count)
      : level(grid_level(a.levels, a.scales, l)), table((const T*)a.table + a.levels[4 * l] * F),
        columns(across, count, level, (int)a.smoothstep), kind((int)a.smoothstep), factor(axis_factor(level, 1)) {}

  bool sparse() const { return columns.vertices > MOST_VERTICES - W; }

  void load_row(int slot, int32_t y) {
    if (row_of[slot] == y) return;
    row_of[slot] = y;
    for (int k = 0; k < columns.vertices; k += W) {
      vf loaded[F];
      const vi x = min(lanes() + (columns.first + k), vi{} + (columns.first + columns.vertices - 1));
      load_features<F>(loaded, table, vertex_entry(x, y, level, factor));
      for (int f = 0; f < F; ++f) store(rows[slot][f] + k, loaded[f]);
    }
  }
  // The two rows of vertices around, interpolated. A row that the one before had stays in its slot.
  void load_values(int32_t y, float s) {
    const int lower = row_of[1] == y || row_of[0] == y + 1 ? 1 : 0;
    load_row(lower, y), load_row(1 - lower, y + 1);
    for (int f = 0; f < F; ++f)
      for (int k = 0; k < columns.vertices; k += W)
        store(values[f] + k, blend(load(rows[lower][f] + k), load(rows[1 - lower][f] + k), splat(s)));
  }
  RADFIELD_SIMD void between(vf (&found)[F], int i) const {
    const vf s = load(columns.s + i);
    const int from = columns.near ? columns.lowest[i] : columns.first;
    const vi index = load(columns.base + i) - from;
    for (int f = 0; f < F; ++f) {
      const float* at = values[f] + (from - columns.first);
      found[f] = columns.near ? blend(pick(at, index), pick(at + 1, index), s)
                              : blend(gather(at, index), gather(at + 1, index), s);
    }
  }
  RADFIELD_SIMD void from_table(vf (&found)[F], int i, int32_t y, float s_y) const {
    const vi x = load(columns.base + i);
    vf corner[2][2][F];
    for (int c = 0; c < 4; ++c)
      load_features<F>(corner[c / 2][c % 2], table, vertex_entry(x + c % 2, y + c / 2, level, factor));
    for (int f = 0; f < F; ++f) {
      const vf left = blend(corner[0][0][f], corner[1][0][f], splat(s_y));
      found[f] = blend(left, blend(corner[0][1][f], corner[1][1][f], splat(s_y)), load(columns.s + i));
    }
  }
};

template <int F, class T>
void lattice_level(const HashGridForward& a, int64_t l, const float* across, int columns, const float* down, int rows) {
  LatticeLevel<F, T> level(a, l, across, columns);
  const uint32_t factor[1] = {1};
  for (int j = 0; j < rows; ++j) {
    const float y[1] = {down[j]};
    const auto cell = locate<1, int32_t>(y, level.level, factor, level.kind);
    if (!level.sparse()) level.load_values(cell.base[0], cell.s[0]);
    for (int i = 0; i < columns; i += W) {
      const int n = columns - i < W ? columns - i : W;
      vf found[F];
      if (level.sparse()) level.from_table(found, i, cell.base[0], cell.s[0]);
      else level.between(found, i);
      for (int f = 0; f < F; ++f)
        store_stream(a.features, a.features_type, (l * F + f) * a.M + (int64_t)j * columns + i, found[f], n);
    }
  }
}

// The features [C][rows columns] of `a` (whose x is not read), of MOST_COLUMNS columns at most.
inline void lattice_forward(const HashGridForward& a, const float* across, int columns, const float* down, int rows) {
  with_features(a.F, [&]<int F>() {
    for (int64_t l = 0; l < a.L; ++l)
      a.table_type == F32 ? lattice_level<F, float>(a, l, across, columns, down, rows)
                          : lattice_level<F, bf16>(a, l, across, columns, down, rows);
  });
}

}  // namespace
}  // namespace radfield
