// Loops of the hash grid. Features are read level by level, so that one level's entries (4 MB at 2^19 fp32 pairs) and
// not the whole table compete for the cache; gradients have one owner per level, so there are no atomics and the sums
// have one order.
#include "hash_grid.h"

#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t CHUNK = 1 << 13;  // samples per task

// body(level, begin, end) for every level and chunk of samples, all chunks of a level before the next level, so that
// its entries are in the cache for all threads.
template <class Body>
void level_by_level(int64_t L, int64_t M, Body body) {
  const int64_t chunks = (M + CHUNK - 1) / CHUNK;
  parallel_for(L * chunks, [&](int64_t task) {
    const int64_t begin = task % chunks * CHUNK, end = begin + CHUNK;
    body(task / chunks, begin, end < M ? end : M);
  });
}

template <int D>
void load_point(vf (&x)[D], const float* streams, int64_t M, int64_t i, int n) {
  for (int d = 0; d < D; ++d) x[d] = load_n(streams + d * M + i, n);
}

// Words of a record: F fp32 values, or F / 2 bf16 pairs; a single bf16 is read as the pair that it lies in.
template <int F, class T>
constexpr int WORDS = F * sizeof(T) == 2 ? 1 : F * sizeof(T) / 4;

// The F features of each of W entries.
template <int F, class T>
RADFIELD_SIMD void load_features(vf (&values)[F], const T* table, vi entry) {
  constexpr int R = WORDS<F, T>;
  alignas(64) int32_t at[W];
  vi words[R];
  store(at, F * sizeof(T) == 2 ? entry >> 1 : entry);
  load_each_record<R>((const int32_t*)table, at, words);
  if constexpr (sizeof(T) == 4) {
    for (int f = 0; f < F; ++f) values[f] = (vf)words[f];
  } else if constexpr (F == 1) {
    values[0] = (vf)select((entry & 1) != 0, words[0] & (int32_t)0xffff0000, words[0] << 16);
  } else {
    for (int f = 0; f < F; f += 2)
      values[f] = (vf)(words[f / 2] << 16), values[f + 1] = (vf)(words[f / 2] & (int32_t)0xffff0000);
  }
}

template <int D, int F, class T, class Out>
void forward_level(const HashGridForward& a, int64_t l, int64_t begin, int64_t end) {
  const GridLevel level = grid_level(a.levels, a.scales, l);
  uint32_t factor[D];
  for (int d = 0; d < D; ++d) factor[d] = axis_factor(level, d);
  const T* table = (const T*)a.table + level.offset * F;
  Out* out = (Out*)a.features + l * F * a.M;
  auto run = [&](const GridLevel& level) __attribute__((always_inline)) {
    for (int64_t i = begin; i < end; i += W) {
      const int n = (int)(end - i < W ? end - i : W);
      vf x[D], tangent[D], sum[F] = {}, values[F];
      load_point(x, a.x, a.M, i, n);
      if (a.tangent) load_point(tangent, a.tangent, a.M, i, n);
      const auto cell = locate<D, vi>(x, level, factor, a.smoothstep);
      for (int c = 0; c < 1 << D; ++c) {
        load_features<F>(values, table, corner_entry(cell, c, level));
        const vf w = a.tangent ? tangent_weight(cell, c, tangent) : corner_weight(cell, c);
        for (int f = 0; f < F; ++f) sum[f] = fma(values[f], w, sum[f]);
      }
      for (int f = 0; f < F; ++f) store_n(out + f * a.M + i, sum[f], n);
    }
  };
  GridLevel known = level;  // two copies of the loop, so that the compiler sees whether it hashes
  if (level.hashed) known.hashed = true, run(known);
  else known.hashed = false, run(known);
}

template <int D, int F, class T, class Out>
void forward(const HashGridForward& a) {
  level_by_level(a.L, a.M, [&](int64_t l, int64_t begin, int64_t end) { forward_level<D, F, T, Out>(a, l, begin, end); });
}

// ---- gradient of the table: samples one after another, their 2^D corners in the lanes of one vector.

template <int N> struct Floats;
template <> struct Floats<1> { typedef float type; };
template <> struct Floats<2> { typedef float type __attribute__((vector_size(8))); };
template <> struct Floats<4> { typedef float type __attribute__((vector_size(16))); };
template <> struct Floats<8> { typedef float type __attribute__((vector_size(32))); };
template <> struct Floats<16> { typedef float type __attribute__((vector_size(64))); };
template <int D> using Corners = typename Floats<1 << D>::type;

template <int D>
struct CornerSigns {
  Corners<D> sign[D], bias[D];  // s or 1 - s is bias + sign s
  CornerSigns() {
    for (int d = 0; d < D; ++d)
      for (int c = 0; c < 1 << D; ++c) sign[d][c] = c >> d & 1 ? 1.0f : -1.0f, bias[d][c] = c >> d & 1 ? 0.0f : 1.0f;
  }
};

// Adds the sums of one cell, [feature][corner], to the F gradients of each of its corners' entries.
template <int D, int F>
RADFIELD_SIMD void add_to_entries(float* grad, const uint32_t (&entry)[1 << D], const Corners<D> (&sum)[F]) {
  typedef typename Floats<F>::type Entry;
  alignas(64) float rows[1 << D][F];
  for (int f = 0; f < F; ++f)
    for (int c = 0; c < 1 << D; ++c) rows[c][f] = sum[f][c];
  for (int c = 0; c < 1 << D; ++c) {
    float* p = grad + (int64_t)entry[c] * F;
    Entry g, r;
    memcpy(&g, p, sizeof g), memcpy(&r, rows[c], sizeof r);
    g += r;
    memcpy(p, &g, sizeof g);
  }
}

// Weights of the corners of sample j, or their derivatives along the tangent.
template <int D>
RADFIELD_SIMD Corners<D> corner_weights(const CornerSigns<D>& signs, const float (&s)[D][W], int j) {
  Corners<D> w = signs.bias[0] + signs.sign[0] * s[0][j];
  for (int d = 1; d < D; ++d) w *= signs.bias[d] + signs.sign[d] * s[d][j];
  return w;
}
template <int D>
RADFIELD_SIMD Corners<D> corner_tangents(const CornerSigns<D>& signs, const float (&s)[D][W], const float (&ds)[D][W],
                                         const float (&tangent)[D][W], int j) {
  Corners<D> sum = {};
  for (int e = 0; e < D; ++e) {
    Corners<D> w = signs.sign[e] * (ds[e][j] * tangent[e][j]);
    for (int d = 0; d < D; ++d)
      if (d != e) w *= signs.bias[d] + signs.sign[d] * s[d][j];
    sum += w;
  }
  return sum;
}

template <int D, int F, class G>
void backward_level(const HashGridBackward& a, int64_t l) {
  const GridLevel level = grid_level(a.levels, a.scales, l);
  uint32_t factor[D];
  for (int d = 0; d < D; ++d) factor[d] = axis_factor(level, d);
  float* grad = a.grad_table + level.offset * F;
  const G* grad_features = (const G*)a.grad_features + l * F * a.M;
  const CornerSigns<D> signs;
  Corners<D> sum[F] = {};
  alignas(64) uint32_t entry[1 << D] = {};
  alignas(64) int32_t base[D][W + 1];  // [0] is the last sample of the vector before
  bool pending = false;
  for (int d = 0; d < D; ++d) base[d][0] = -1;
  for (int64_t i = 0; i < a.M; i += W) {
    const int n = (int)(a.M - i < W ? a.M - i : W);
    vf x[D], g[F];
    vi nonzero = {};
    for (int f = 0; f < F; ++f) {
      g[f] = load_n(grad_features + f * a.M + i, n);
      nonzero |= (vi)g[f] << 1;  // the sign of a zero does not count
    }
    if (!any(nonzero != 0)) continue;  // samples behind a surface
    load_point(x, a.x, a.M, i, n);
    const auto cell = locate<D, vi>(x, level, factor, a.smoothstep);
    alignas(64) uint32_t entries[1 << D][W];
    alignas(64) float gs[F][W], s[D][W], ds[D][W], tangent[D][W];
    alignas(64) int32_t moved[W];
    vi differs = {};
    for (int c = 0; c < 1 << D; ++c) store((int32_t*)entries[c], corner_entry(cell, c, level));
    for (int f = 0; f < F; ++f) store(gs[f], g[f]);
    for (int d = 0; d < D; ++d) {
      store(s[d], cell.s[d]);
      store(base[d] + 1, cell.base[d]);
      differs |= (vi)(cell.base[d] != load(base[d]));
      base[d][0] = base[d][W];
      if (a.tangent) store(ds[d], cell.ds[d]), store(tangent[d], load_n(a.tangent + d * a.M + i, n));
    }
    store(moved, differs);
    for (int j = 0; j < n; ++j) {
      if (moved[j] || !pending) {  // samples of a ray that share a cell are summed before they go to memory
        if (pending) add_to_entries<D, F>(grad, entry, sum);
        for (int c = 0; c < 1 << D; ++c) entry[c] = entries[c][j];
        for (int f = 0; f < F; ++f) sum[f] = Corners<D>{};
        pending = true;
      }
      const Corners<D> w = a.tangent ? corner_tangents<D>(signs, s, ds, tangent, j) : corner_weights<D>(signs, s, j);
      for (int f = 0; f < F; ++f) sum[f] += w * gs[f][j];
    }
    if (n < W) break;
  }
  if (pending) add_to_entries<D, F>(grad, entry, sum);
}

template <int D, int F, class G>
void backward(const HashGridBackward& a) {
  parallel_for(a.L, [&](int64_t task) { backward_level<D, F, G>(a, a.L - 1 - task); });  // the slowest first
}

// ---- gradient of the positions

template <int D, int F, class T, class G>
void backward_x_chunk(const HashGridBackwardX& a, int64_t begin, int64_t end) {
  for (int64_t l = 0; l < a.L; ++l) {
    const GridLevel level = grid_level(a.levels, a.scales, l);
    uint32_t factor[D];
    for (int d = 0; d < D; ++d) factor[d] = axis_factor(level, d);
    const T* table = (const T*)a.table + level.offset * F;
    const G* grad_features = (const G*)a.grad_features + l * F * a.M;
    for (int64_t i = begin; i < end; i += W) {
      const int n = (int)(end - i < W ? end - i : W);
      vf x[D], tangent[D], g[F], values[F], sum[D] = {};
      load_point(x, a.x, a.M, i, n);
      if (a.tangent) load_point(tangent, a.tangent, a.M, i, n);
      for (int f = 0; f < F; ++f) g[f] = load_n(grad_features + f * a.M + i, n);
      const auto cell = locate<D, vi>(x, level, factor, a.smoothstep);
      for (int c = 0; c < 1 << D; ++c) {
        load_features<F>(values, table, corner_entry(cell, c, level));
        vf dot = values[0] * g[0];
        for (int f = 1; f < F; ++f) dot = fma(values[f], g[f], dot);
        for (int e = 0; e < D; ++e) {
          const vf w = a.tangent ? tangent_weight_derivative(cell, c, e, tangent) : corner_weight_derivative(cell, c, e);
          sum[e] = fma(dot, w, sum[e]);
        }
      }
      for (int e = 0; e < D; ++e) {
        const vf inside = (vf)((vi)(x[e] >= 0.0f) & (vi)(x[e] <= 1.0f) & (vi)sum[e]);  // clamped points do not move
        float* out = a.grad_x + e * a.M + i;
        store_n(out, l == 0 ? inside : load_n(out, n) + inside, n);
      }
    }
  }
}

template <int D, int F, class T, class G>
void backward_x(const HashGridBackwardX& a) {
  parallel_blocks(a.M, CHUNK, [&](int64_t begin, int64_t end) { backward_x_chunk<D, F, T, G>(a, begin, end); });
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

RADFIELD_OP(hash_grid_forward, HashGridForward) {
  with_sizes(a.D, a.F, [&]<int D, int F>() {
    if (a.table_type == F32) a.features_type == F32 ? forward<D, F, float, float>(a) : forward<D, F, float, bf16>(a);
    else a.features_type == F32 ? forward<D, F, bf16, float>(a) : forward<D, F, bf16, bf16>(a);
  });
}

RADFIELD_OP(hash_grid_backward, HashGridBackward) {
  with_sizes(a.D, a.F, [&]<int D, int F>() {
    a.grad_features_type == F32 ? backward<D, F, float>(a) : backward<D, F, bf16>(a);
  });
}

RADFIELD_OP(hash_grid_backward_x, HashGridBackwardX) {
  with_sizes(a.D, a.F, [&]<int D, int F>() {
    if (a.table_type == F32) a.grad_features_type == F32 ? backward_x<D, F, float, float>(a) : backward_x<D, F, float, bf16>(a);
    else a.grad_features_type == F32 ? backward_x<D, F, bf16, float>(a) : backward_x<D, F, bf16, bf16>(a);
  });
}
