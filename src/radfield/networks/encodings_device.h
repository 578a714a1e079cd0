// Encodings besides grids, asked at a tile of points from within a CUDA kernel: what `load_features` of
// grid_field_device.h takes. Only device compilers take this file.
#pragma once
#include "../encodings/factored_device.h"
#include "../encodings/learned_probe_device.h"
#include "../encodings/simplex_device.h"
#include "grid_field_device.h"

namespace radfield {

// Arguments have `maps` in the place of `scales`.
template <int FEATURES>
struct SimplexEncoding {
  static constexpr int F = FEATURES;

  template <class Args>
  RADFIELD_FN static int groups(const Args& a) { return (int)a.L; }

  template <class T, class Args, int D>
  RADFIELD_FN static void find(const Args& a, const float (&point)[D], int l, float (&values)[F]) {
    const float none[D] = {};
    add_vertices<false>(values, DeviceSimplex<D>(a, l, point), (const T*)a.table, none);
  }
};

// Arguments have the codebooks' U bytes of choices beside the grid's.
template <int FEATURES>
struct ProbeEncoding {
  static constexpr int F = FEATURES;

  template <class Args>
  RADFIELD_FN static int groups(const Args& a) { return (int)a.L; }

  template <class T, class Args, int D>
  RADFIELD_FN static void find(const Args& a, const float (&point)[D], int l, float (&values)[F]) {
    const struct {
      const uint8_t* choices;
      int64_t log2_codebook, log2_probes, L, Q;
    } books = {a.choices, a.log2_codebook, a.log2_probes, a.L, a.U};
    const GridLevel level = grid_level(a.levels, a.scales, l);
    const Codebook book = codebook_of(books, l);
    const auto cell = probe_cell(point, level, (int)a.smoothstep, book);
    add_probed<D, F>(values, cell, level, book, (const T*)a.table + level.offset * F,
                     [&](int c) { return corner_weight(cell, c); });
  }
};

// Kind: of factored.h. A group is a product of a level; `levels` has a row for each factor of it.
template <class Kind, int FEATURES>
struct FactoredEncoding {
  static constexpr int F = FEATURES;

  template <class Args>
  RADFIELD_FN static int groups(const Args& a) { return (int)a.L / Kind::K; }

  template <class T, class Args>
  RADFIELD_FN static void find(const Args& a, const float (&point)[3], int group, float (&values)[F]) {
    const int L = groups(a) / Kind::P;
    float factors[F][Kind::K];
    auto x = [&](int axis) { return axis == 0 ? point[0] : axis == 1 ? point[1] : point[2]; };  // none in local memory
    factor_values<Kind, F, T>(factors, a, x, group / L, group % L, L);
    for (int f = 0; f < F; ++f) values[f] = product(factors[f]);
  }
};

}  // namespace radfield
