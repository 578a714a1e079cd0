// Loops of the hash grid. Features are read level by level, so that one level's entries (4 MB at 2^19 fp32 pairs) and
// not the whole table compete for the cache; gradients have one owner per level, so there are no atomics and the sums
// have one order.
#include "hash_grid.h"

#include "../cpu/lanes.h"
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

// ---- gradient of the table: one owner per level. Samples of a ray that follow one another often share a cell: such a
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

// Asks for the gradients of a level that comes later, piece by piece and in the order of memory, while another level is
// added to: meeting a fresh level at random costs a fifth of the whole pass.
class Ahead {
 public:
  Ahead(const HashGridBackward& a, int64_t l) {
    if (l < 0 || a.M == 0) return;
    const GridLevel level = grid_level(a.levels, a.scales, l);
    at_ = (const char*)(a.grad_table + level.offset * a.F);
    piece_ = (level.size * a.F * 4 * W / a.M + 63) / 64 * 64;
  }
  RADFIELD_SIMD void next_piece() {
    if (!at_) return;
    for (int64_t b = 0; b < piece_; b += 64) __builtin_prefetch(at_ + b, 0, 1);
    at_ += piece_;
  }

 private:
  const char* at_ = nullptr;
  int64_t piece_ = 0;
};

template <int D, int F, class G>
void backward_level(const HashGridBackward& a, int64_t l) {
  constexpr int C = 1 << D;
  const GridLevel level = grid_level(a.levels, a.scales, l);
  uint32_t factor[D];
  for (int d = 0; d < D; ++d) factor[d] = axis_factor(level, d);
  float* grad = a.grad_table + level.offset * F;
  const G* grad_features = (const G*)a.grad_features + l * F * a.M;
  Run<C, F> run;
  Ahead ahead(a, l - num_threads());
  vi last[D] = {};  // cells of the vector before
  for (int64_t i = 0; i < a.M; i += W) {
    const int n = (int)(a.M - i < W ? a.M - i : W);
    ahead.next_piece();
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
