// Learned hash probing (learned_probe.py has the equations and the letters): the window and the codebook's row of a
// vertex, and what the gradient of a vertex's features is to its window and its row. Cells and weights: hash_grid.h.
#pragma once
#include "hash_grid.h"

namespace radfield {

struct LearnedProbeForward {
  void* features;
  int64_t features_type;
  const float* x;
  const void* table;
  int64_t table_type;
  const uint8_t* choices;
  const int64_t* levels;
  const float* scales;
  const float* tangent;
  int64_t smoothstep;
  int64_t log2_codebook;
  int64_t log2_probes;
  int64_t C, M, D, E, F, Q, L;
};
struct LearnedProbeBackward {
  float* grad_table;
  float* grad_logits;
  const void* grad_features;
  int64_t grad_features_type;
  const float* x;
  const float* table;
  const float* probabilities;
  const uint8_t* choices;
  const int64_t* levels;
  const float* scales;
  const float* tangent;
  int64_t smoothstep;
  int64_t log2_codebook;
  int64_t log2_probes;
  int64_t all;
  int64_t E, F, K, P, C, M, D, Q, L;
};
struct LearnedProbeBackwardX {
  float* grad_x;
  const void* grad_features;
  int64_t grad_features_type;
  const float* x;
  const void* table;
  int64_t table_type;
  const uint8_t* choices;
  const int64_t* levels;
  const float* scales;
  const float* tangent;
  int64_t smoothstep;
  int64_t log2_codebook;
  int64_t log2_probes;
  int64_t D, M, C, E, F, Q, L;
};

constexpr int REPEATED = 8;  // choices of a level's first rows, which stand again behind its last

// The codebook of a level.
struct Codebook {
  const uint8_t* choices;
  int64_t first_row;    // of the level, among the rows of all levels
  int32_t shift, mask;  // of the hash that gives the row
  int32_t log2_probes;
};

// Of level l. Dense levels, the coarsest ones, have none: the hashed ones are the last of the L levels.
template <class Args>
RADFIELD_FN Codebook codebook_of(const Args& a, int64_t l) {
  const int64_t rows = (int64_t)1 << a.log2_codebook, dense = a.L - a.Q / (rows + REPEATED);
  if (a.log2_probes == 0 || l < dense) return {nullptr, 0, 0, 0, 0};
  const uint8_t* const choices = a.choices + (l - dense) * (rows + REPEATED);
  return {choices, (l - dense) * rows, (int32_t)(32 - a.log2_codebook), (int32_t)(rows - 1), (int32_t)a.log2_probes};
}

RADFIELD_FN uint32_t row_factor(int d) { return d == 1 ? 3266489917u : d == 2 ? 668265263u : 374761393u; }

// The choices of a row and of the next one, in the lowest two bytes.
RADFIELD_FN int32_t two_choices(const uint8_t* choices, int32_t row) { return choices[row] | choices[row + 1] << 8; }
#ifdef RADFIELD_CPU
RADFIELD_FN vi two_choices(const uint8_t* choices, vi row) { return gather_words(choices, row); }
#endif

// A hash grid's cell, with the rows of its corners: one for both corners along the first axis, whose rows follow one
// another, so that both choices are read at once.
template <int D, class F, class I>
struct ProbeCell : GridCell<D, F, I> {
  I row[1 << (D - 1)];
  I choices[1 << (D - 1)];
};

template <int D, class I, class F>
RADFIELD_FN ProbeCell<D, F, I> locate_probe(const F (&x)[D], const GridLevel& level, const uint32_t (&factor)[D], int kind,
                                            const Codebook& book) {
  ProbeCell<D, F, I> cell;
  (GridCell<D, F, I>&)cell = locate<D, I>(x, level, factor, kind);
  if (book.log2_probes == 0) return cell;
  I part[D][2];
  for (int d = 1; d < D; ++d) {
    part[d][0] = cell.base[d] * (int32_t)row_factor(d);
    part[d][1] = part[d][0] + (int32_t)row_factor(d);
  }
  for (int k = 0; k < 1 << (D - 1); ++k) {
    I hash = I{};
    for (int d = 1; d < D; ++d) hash = hash ^ part[d][k >> (d - 1) & 1];
    cell.row[k] = (cell.base[0] + (hash >> book.shift)) & book.mask;
    cell.choices[k] = two_choices(book.choices, cell.row[k]);
  }
  return cell;
}

// First entry of corner c's window within the level; its row within the level's codebook; its chosen entry.
template <int D, class F, class I>
RADFIELD_FN I corner_window(const ProbeCell<D, F, I>& cell, int c, const GridLevel& level, const Codebook& book) {
  const I entry = corner_entry(cell, c, level);
  return level.hashed ? (entry << book.log2_probes) & level.mask : entry;
}
template <int D, class F, class I>
RADFIELD_FN I corner_row(const ProbeCell<D, F, I>& cell, int c, const Codebook& book) {
  return c & 1 ? (cell.row[c >> 1] + 1) & book.mask : cell.row[c >> 1];
}
template <int D, class F, class I>
RADFIELD_FN I probed_entry(const ProbeCell<D, F, I>& cell, int c, const GridLevel& level, const Codebook& book) {
  const I window = corner_window(cell, c, level, book);
  return book.log2_probes ? window + ((cell.choices[c >> 1] >> (c & 1 ? 8 : 0)) & 15) : window;
}

// The gradient of a row's logits where g [F] is that of the vertex's features: p_j (a_j - sum_k p_k a_k), with
// a_j = <g, value j>. V is the number type of one or all of the P probes; the sum over k is by halves.
template <int F, class V>
RADFIELD_FN V along_value(const V (&value)[F], const float (&g)[F]) {
  V along = value[0] * g[0];
  for (int f = 1; f < F; ++f) along = along + value[f] * g[f];
  return along;
}
template <class V>
RADFIELD_FN V logit_gradient(V p, V along, float mean) {
  return p * (along - mean);
}

}  // namespace radfield
