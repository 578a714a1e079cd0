// A thread is a sample along x and a level along y, as in hash_grid.cu. Gradients are added by atomics: sums are in no
// fixed order.
#include "learned_probe.h"

#include "learned_probe_device.h"

namespace radfield {

// The cell of sample i in a level.
template <int D>
RADFIELD_FN ProbeCell<D, float, int32_t> probe_cell_of(const float* x, int64_t M, int64_t i, const GridLevel& level,
                                                       int interpolation, const Codebook& book) {
  float point[D];
  read_point(point, x, M, i);
  return probe_cell(point, level, interpolation, book);
}

// TANGENT: the derivative of the features along a.tangent.
template <int D, int F, class T, class Out, bool TANGENT>
__global__ void learned_probe_forward(const LearnedProbeForward a) {
  const int64_t i = thread_number(), l = blockIdx.y;
  if (i >= a.M) return;
  const GridLevel level = grid_level(a.levels, a.scales, l);
  const Codebook book = codebook_of(a, l);
  const T* const table = (const T*)a.table + level.offset * F;
  const auto cell = probe_cell_of<D>(a.x, a.M, i, level, a.smoothstep, book);
  float tangent[D], sum[F] = {};
  if (TANGENT) read_point(tangent, a.tangent, a.M, i);
  add_probed<D, F>(sum, cell, level, book, table,
                   [&](int c) { return TANGENT ? tangent_weight(cell, c, tangent) : corner_weight(cell, c); });
  Out* const out = (Out*)a.features + l * F * a.M;
  for (int f = 0; f < F; ++f) write(out + f * a.M + i, sum[f]);
}

// Adds the gradient g [F] of a vertex to its window and its row.
template <int F, int P>
RADFIELD_FN void add_vertex(const LearnedProbeBackward& a, int64_t entry, const Codebook& book, int32_t row,
                            const float (&g)[F]) {
  const int64_t logits = (book.first_row + row) * P;
  const float* const p = a.probabilities + logits;
  const int32_t chosen = book.choices[row];
  float along[P], sum[P], added[F], value[F];
#pragma unroll
  for (int j = 0; j < P; ++j) {
    read_vector(value, a.table + (entry + j) * F);
    along[j] = along_value<F>(value, g), sum[j] = p[j] * along[j];
    if (!a.all && j != chosen) continue;
    for (int f = 0; f < F; ++f) added[f] = a.all ? p[j] * g[f] : g[f];
    add_vector(a.grad_table + (entry + j) * F, added);
  }
#pragma unroll
  for (int half = P / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) sum[j] = sum[j] + sum[j + half];
#pragma unroll
  for (int j = 0; j < P; ++j) atomicAdd(a.grad_logits + logits + j, logit_gradient(p[j], along[j], sum[0]));
}

template <int D, int F, int P, class G, bool TANGENT>
__global__ void learned_probe_backward(const LearnedProbeBackward a) {
  const int64_t i = thread_number(), l = blockIdx.y;
  if (i >= a.M) return;
  const G* const grad = (const G*)a.grad_features + l * F * a.M;
  float g[F], tangent[D], added[F];
  if (!read_gradient(g, grad + i, a.M)) return;
  const GridLevel level = grid_level(a.levels, a.scales, l);
  const Codebook book = codebook_of(a, l);
  const auto cell = probe_cell_of<D>(a.x, a.M, i, level, a.smoothstep, book);
  if (TANGENT) read_point(tangent, a.tangent, a.M, i);
#pragma unroll
  for (int c = 0; c < 1 << D; ++c) {
    const float w = TANGENT ? tangent_weight(cell, c, tangent) : corner_weight(cell, c);
    for (int f = 0; f < F; ++f) added[f] = g[f] * w;
    const int64_t entry = level.offset + corner_window(cell, c, level, book);
    if (book.log2_probes) add_vertex<F, P>(a, entry, book, corner_row(cell, c, book), added);
    else add_vector(a.grad_table + entry * F, added);
  }
}

// A thread is a sample and goes through all levels: no atomics, sums in one order.
template <int D, int F, class T, class G, bool TANGENT>
__global__ void learned_probe_backward_x(const LearnedProbeBackwardX a) {
  const int64_t i = thread_number();
  if (i >= a.M) return;
  float sum[D] = {}, tangent[D], values[F];
  if (TANGENT) read_point(tangent, a.tangent, a.M, i);
  for (int64_t l = 0; l < a.L; ++l) {
    const GridLevel level = grid_level(a.levels, a.scales, l);
    const Codebook book = codebook_of(a, l);
    const T* const table = (const T*)a.table + level.offset * F;
    const G* const grad = (const G*)a.grad_features + l * F * a.M;
    const auto cell = probe_cell_of<D>(a.x, a.M, i, level, a.smoothstep, book);
#pragma unroll
    for (int c = 0; c < 1 << D; ++c) {
      read_vector(values, table + (int64_t)probed_entry(cell, c, level, book) * F);
      float along = values[0] * read(grad + i);
      for (int f = 1; f < F; ++f) along = fma(values[f], read(grad + f * a.M + i), along);
      for (int d = 0; d < D; ++d) {
        const float w = TANGENT ? tangent_weight_derivative(cell, c, d, tangent) : corner_weight_derivative(cell, c, d);
        sum[d] = fma(along, w, sum[d]);
      }
    }
  }
  for (int d = 0; d < D; ++d) {
    const float x = a.x[d * a.M + i];
    a.grad_x[d * a.M + i] = x >= 0.0f && x <= 1.0f ? sum[d] : 0.0f;  // clamped points do not move
  }
}

}  // namespace radfield
