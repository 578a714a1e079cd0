// The ops of the learned probe: level_loops.h with its Lookup, and a gradient that spreads over a vertex's window.
#include "learned_probe_loops.h"

using namespace radfield;

namespace {

// A level's memory as gradients are added to it. Rows and windows count within the level. The level's entries and their
// gradients are copies, window by window with P values of each feature after one another, so that the P are lanes.
struct ProbedLevel {
  float *grad_values, *grad_logits;
  const float *values, *probabilities;
  Codebook book;
  bool all;
};

// The values of P probes, as a vector.
template <int P>
struct Probes {
  typedef float type __attribute__((vector_size(4 * P), aligned(4)));
};
template <int P>
using vp = typename Probes<P>::type;

template <int P>
RADFIELD_SIMD float sum_by_halves(vp<P> v) {
  if constexpr (P == 2) {
    return v[0] + v[1];
  } else {
    vp<P / 2> half[2];
    memcpy(half, &v, sizeof v);
    return sum_by_halves<P / 2>(half[0] + half[1]);
  }
}

// Adds the gradients g [n][F] of n vertices: window and row of each.
template <int F, int P>
void add_vertices(const ProbedLevel& to, int n, const int32_t* window, const int32_t* row, const float* g) {
  for (int c = 0; c < n; ++c) {
    float own[F];
    memcpy(own, g + c * F, sizeof own);
    auto* const grad = (vp<P>*)(to.grad_values + (int64_t)window[c] * F);
    auto* const grad_row = (vp<P>*)(to.grad_logits + (int64_t)row[c] * P);
    const auto* const value = (const vp<P>*)(to.values + (int64_t)window[c] * F);
    const vp<P> p = *(const vp<P>*)(to.probabilities + (int64_t)row[c] * P);
    vp<P> values[F];
    for (int f = 0; f < F; ++f) values[f] = value[f];
    if (to.all) {
      for (int f = 0; f < F; ++f) grad[f] += p * own[f];
    } else {
      const int32_t chosen = to.book.choices[row[c]];
      for (int f = 0; f < F; ++f) ((float*)(grad + f))[chosen] += own[f];
    }
    const vp<P> along = along_value<F>(values, own);
    *grad_row += logit_gradient(p, along, sum_by_halves<P>(p * along));
  }
}

using AddVertices = void (*)(const ProbedLevel&, int, const int32_t*, const int32_t*, const float*);

template <int F>
AddVertices add_vertices_of(int64_t P) {
  return P == 2 ? add_vertices<F, 2> : P == 4 ? add_vertices<F, 4> : P == 8 ? add_vertices<F, 8> : add_vertices<F, 16>;
}

// Samples that follow one another in one cell: the sums of their corners' gradients are added once.
template <int C, int F>
struct ProbedRun {
  int32_t window[C], row[C];
  float sum[C * F];
  bool open = false;
};

// Adds the gradient of level l, which has a codebook.
template <int D, int F>
void add_probed_gradient(const LearnedProbeBackward& a, int64_t l, const ProbedLevel& to) {
  constexpr int C = 1 << D;
  const ProbeLookup<D> lookup(a, l);
  const AddVertices add = add_vertices_of<F>(a.P);
  ProbedRun<C, F> run;
  typename ProbeLookup<D>::Last last = {};
  for (int64_t i = 0; i < a.M; i += W) {
    const int n = (int)(a.M - i < W ? a.M - i : W);
    vf x[D], tangent[D], g[F];
    vi nonzero = {};
    for (int f = 0; f < F; ++f) {
      g[f] = load_stream(a.grad_features, a.grad_features_type, (l * F + f) * a.M + i, n);
      nonzero |= (vi)g[f] << 1;
    }
    if (!any(nonzero != 0)) continue;  // samples behind a surface
    load_point(x, a.x, a.M, i, n);
    if (a.tangent) load_point(tangent, a.tangent, a.M, i, n);
    const auto cell = lookup.find(x);
    const uint32_t starts = mask_bits(lookup.moved(cell, last));
    alignas(64) int32_t window[C][W], row[C][W];
    alignas(64) float products[C * F][W];
    for (int c = 0; c < C; ++c) {
      store(window[c], corner_window(cell, c, lookup.level, lookup.book)), store(row[c], corner_row(cell, c, lookup.book));
      const vf w = a.tangent ? lookup.weight_along(cell, c, tangent) : lookup.weight(cell, c);
      for (int f = 0; f < F; ++f) store(products[c * F + f], w * g[f]);
    }
    for (int j = 0; j < n; ++j) {
      if (run.open && !(starts >> j & 1)) {
        for (int k = 0; k < C * F; ++k) run.sum[k] += products[k][j];
        continue;
      }
      if (run.open) add(to, C, run.window, run.row, run.sum);
      for (int c = 0; c < C; ++c) run.window[c] = window[c][j], run.row[c] = row[c][j];
      for (int k = 0; k < C * F; ++k) run.sum[k] = products[k][j];
      run.open = true;
    }
  }
  if (run.open) add(to, C, run.window, run.row, run.sum);
}

template <int D, int F>
void add_level(const LearnedProbeBackward& a, int64_t l) {
  const Codebook book = codebook_of(a, l);
  const int64_t first = a.levels[4 * l] * F, size = a.levels[4 * l + 1], row = book.first_row * a.P;
  if (book.log2_probes == 0) return add_gradient<ProbeLookup<D>, F>(a, l, a.grad_table + first);
  float* const grad_values = (float*)scratch(8 * size * F);
  memset(grad_values, 0, 4 * size * F);
  float* const values = grad_values + size * F;
  const auto place = [&](int64_t entry, int f) { return (entry / a.P * F + f) * a.P + entry % a.P; };
  for (int64_t entry = 0; entry < size; ++entry)
    for (int f = 0; f < F; ++f) values[place(entry, f)] = a.table[first + entry * F + f];
  const ProbedLevel to = {grad_values, a.grad_logits + row, values, a.probabilities + row, book, a.all != 0};
  add_probed_gradient<D, F>(a, l, to);
  for (int64_t entry = 0; entry < size; ++entry)
    for (int f = 0; f < F; ++f) a.grad_table[first + entry * F + f] += grad_values[place(entry, f)];
}

}  // namespace

RADFIELD_OP(learned_probe_forward, LearnedProbeForward) {
  with_sizes(a.D, a.F, [&]<int D, int F>() { forward_levels<ProbeLookup<D>, F>(a); });
}

RADFIELD_OP(learned_probe_backward, LearnedProbeBackward) {
  with_sizes(a.D, a.F, [&]<int D, int F>() {
    parallel_for(a.L, [&](int64_t task) { add_level<D, F>(a, a.L - 1 - task); });  // the slowest first
  });
}

RADFIELD_OP(learned_probe_backward_x, LearnedProbeBackwardX) {
  with_sizes(a.D, a.F, [&]<int D, int F>() { backward_x<ProbeLookup<D>, F>(a); });
}
