// What the hash grid's ops share: the gradient of one level's entries, and the choice of the compiled sizes.
#pragma once
#include "../cpu/lanes.h"
#include "../cpu/parallel.h"
#include "hash_grid.h"

namespace radfield {
namespace {

template <int D>
void load_point(vf (&x)[D], const float* streams, int64_t M, int64_t i, int n) {
  for (int d = 0; d < D; ++d) x[d] = load_n(streams + d * M + i, n);
}

// ---- gradient of the table. Samples of a ray that follow one another often share a cell: such a
// run is summed in registers before its 2^D entries are read and written.

constexpr int FEW_RUNS = 5;  // in a vector; where there are more, each sample is added by itself

template <int F>
RADFIELD_SIMD void add_to_entry(float* grad, uint32_t entry, const float* values) {
  float* p = grad + (int64_t)entry * F;
  float sum[F], add[F];
  memcpy(sum, p, sizeof sum), memcpy(add, values, sizeof add);
  for (int f = 0; f < F; ++f) sum[f] += add[f];
  memcpy(p, sum, sizeof sum);
}

// The run that is not written yet: its sums, lane by lane, and its cell's entries.
template <int C, int F>
struct Run {
  static constexpr int SUMS = C * F < W ? W : C * F;
  vf sums[SUMS];  // [corner][feature]; what a small cell leaves of a vector stays 0
  uint32_t entry[C];
  bool open = false;

  RADFIELD_SIMD void start(const uint32_t (&entries)[C][W], int lane) {
    for (int c = 0; c < C; ++c) entry[c] = entries[c][lane];
    for (int k = 0; k < SUMS; ++k) sums[k] = vf{};
    open = true;
  }
  RADFIELD_SIMD void add(const vf (&w)[C], const vf (&g)[F]) {
    for (int c = 0; c < C; ++c)
      for (int f = 0; f < F; ++f) sums[c * F + f] = fma(w[c], g[f], sums[c * F + f]);
  }
  RADFIELD_SIMD void finish(float* grad) {
    if (!open) return;
    alignas(64) float values[SUMS];
    for (int first = 0; first < SUMS; first += W) {
      vf part[W];
      for (int k = 0; k < W; ++k) part[k] = sums[first + k];
      store(values + first, lane_sums<W>(part));
    }
    for (int c = 0; c < C; ++c) add_to_entry<F>(grad, entry[c], values + c * F);
    open = false;
  }
};

// Adds each of n samples to its entries.
template <int C, int F>
RADFIELD_SIMD void add_samples(float* grad, const uint32_t (&entries)[C][W], const vf (&w)[C], const vf (&g)[F], int n) {
  alignas(64) float values[C][W * F];
  for (int c = 0; c < C; ++c) {
    vi products[F], records[F];
    for (int f = 0; f < F; ++f) products[f] = (vi)(w[c] * g[f]);
    make_records<F>(products, records);
    for (int f = 0; f < F; ++f) store((int32_t*)values[c] + f * W, records[f]);
  }
  for (int j = 0; j < n; ++j)
    for (int c = 0; c < C; ++c) add_to_entry<F>(grad, entries[c][j], values[c] + j * F);
}

// Adds the gradient of level l to `grad` [entries of the level][F].
template <int D, int F, class G>
void add_gradient(const HashGridBackward& a, int64_t l, float* grad) {
  constexpr int C = 1 << D;
  const GridLevel level = grid_level(a.levels, a.scales, l);
  uint32_t factor[D];
  for (int d = 0; d < D; ++d) factor[d] = axis_factor(level, d);
  const G* grad_features = (const G*)a.grad_features + l * F * a.M;
  Run<C, F> run;
  vi last[D] = {};  // cells of the vector before
  for (int64_t i = 0; i < a.M; i += W) {
    const int n = (int)(a.M - i < W ? a.M - i : W);
    vf x[D], tangent[D], g[F], w[C];
    vi nonzero = {};
    for (int f = 0; f < F; ++f) {
      g[f] = load_n(grad_features + f * a.M + i, n);
      nonzero |= (vi)g[f] << 1;  // the sign of a zero does not count
    }
    if (!any(nonzero != 0)) continue;  // samples behind a surface
    load_point(x, a.x, a.M, i, n);
    if (a.tangent) load_point(tangent, a.tangent, a.M, i, n);
    const auto cell = locate<D, vi>(x, level, factor, a.smoothstep);
    vi moved = {};
    for (int d = 0; d < D; ++d) moved |= (vi)(cell.base[d] != moved_up_one(cell.base[d], last[d])), last[d] = cell.base[d];
    for (int c = 0; c < C; ++c) w[c] = a.tangent ? tangent_weight(cell, c, tangent) : corner_weight(cell, c);
    uint32_t starts = (mask_bits(moved) | !run.open) & ((1u << n) - 1);
    alignas(64) uint32_t entries[C][W];
    if (starts != 0)
      for (int c = 0; c < C; ++c) store((int32_t*)entries[c], corner_entry(cell, c, level));
    if (starts == 0) {
      run.add(w, g);
    } else if (__builtin_popcount(starts) > FEW_RUNS) {
      run.finish(grad);
      add_samples<C, F>(grad, entries, w, g, n);
    } else {
      for (int begin = 0; begin < n;) {
        if (starts >> begin & 1) run.finish(grad), run.start(entries, begin);
        starts &= ~1u << begin;
        const int end = starts ? __builtin_ctz(starts) : W;
        vf part[F];
        for (int f = 0; f < F; ++f) part[f] = select((vi)(lanes() >= begin) & (vi)(lanes() < end), g[f], vf{});
        run.add(w, part);
        begin = end;
      }
    }
  }
  run.finish(grad);
}

// Calls body.run<D, F>() for the run-time D in 2..4 and F in 1, 2, 4, 8 (Python checks both).
template <class Body>
void with_sizes(int64_t D, int64_t F, Body body) {
  auto with_features = [&]<int d>() {
    if (F == 1) body.template operator()<d, 1>();
    else if (F == 2) body.template operator()<d, 2>();
    else if (F == 4) body.template operator()<d, 4>();
    else body.template operator()<d, 8>();
  };
  if (D == 2) with_features.template operator()<2>();
  else if (D == 3) with_features.template operator()<3>();
  else with_features.template operator()<4>();
}

}  // namespace
}  // namespace radfield
