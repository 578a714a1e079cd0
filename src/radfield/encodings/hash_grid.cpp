// Loops of the hash grid. Features are read level by level, so that one level's entries (4 MB at 2^19 fp32 pairs) and
// not the whole table compete for the cache; gradients have one owner per level, so there are no atomics and the sums
// have one order.
#include "hash_grid_loops.h"

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

// ---- gradient of the table: one owner per level

template <int D, int F, class G>
void backward(const HashGridBackward& a) {
  parallel_for(a.L, [&](int64_t task) {
    const int64_t l = a.L - 1 - task;  // the slowest first
    add_gradient<D, F, G>(a, l, a.grad_table + a.levels[4 * l] * F);
  });
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
