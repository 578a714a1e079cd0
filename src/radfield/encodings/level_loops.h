// Loops over the levels of any encoding that interpolates the entries of a table. Features are read level by level, so
// that one level's entries (4 MB at 2^19 fp32 pairs) and not the whole table compete for the cache; gradients have one
// owner per level, so there are no atomics and the sums have one order.
//
// A Lookup, made from an op's arguments and the number of a level, says where points lie in that level:
//   D, C                               dimensions; entries that a sample reads
//   specialised(body)                  calls body(lookup) with what the compiler should know in the loop
//   find(x) -> cell                    where W points lie
//   moved(cell, last) -> vi            0 where a lane's cell is that of the lane before; `last` (Last) is the vector before
//   entry(cell, c), weight(cell, c)    the c-th entry within the level, and its weight
//   weight_along(cell, c, tangent)     the weight's derivative along `tangent` [D]
//   pull(cell, dots, tangent, sum)     sum[e] += sum_c dots[c] d weight_c / d x_e; with a tangent, of weight_along
#pragma once
#include "../cpu/lanes.h"
#include "../cpu/parallel.h"
#include "../maths.h"

namespace radfield {
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

// W values of a stream whose type is known only when the program runs: a branch that always goes the same way costs less
// than a copy of every loop.
RADFIELD_SIMD vf load_stream(const void* values, int64_t type, int64_t i, int n) {
  return type == F32 ? load_n((const float*)values + i, n) : load_n((const bf16*)values + i, n);
}
RADFIELD_SIMD void store_stream(void* values, int64_t type, int64_t i, vf v, int n) {
  type == F32 ? store_n((float*)values + i, v, n) : store_n((bf16*)values + i, v, n);
}

// ---- features

template <int D>
void load_point(vf (&x)[D], const float* streams, int64_t M, int64_t i, int n) {
  for (int d = 0; d < D; ++d) x[d] = load_n(streams + d * M + i, n);
}

// Whether there is a tangent is known to the compiler: without it, what only derivatives need is not computed.
template <class Lookup, int F, class T, bool TANGENT, class Args>
void forward_level(const Args& a, int64_t l, int64_t begin, int64_t end) {
  const T* table = (const T*)a.table + a.levels[4 * l] * F;
  Lookup(a, l).specialised([&](const Lookup& lookup) __attribute__((always_inline)) {
    for (int64_t i = begin; i < end; i += W) {
      const int n = (int)(end - i < W ? end - i : W);
      vf x[Lookup::D], tangent[Lookup::D], sum[F] = {}, values[F];
      load_point(x, a.x, a.M, i, n);
      if (TANGENT) load_point(tangent, a.tangent, a.M, i, n);
      const auto cell = lookup.find(x);
      for (int c = 0; c < Lookup::C; ++c) {
        load_features<F>(values, table, lookup.entry(cell, c));
        const vf w = TANGENT ? lookup.weight_along(cell, c, tangent) : lookup.weight(cell, c);
        for (int f = 0; f < F; ++f) sum[f] = fma(values[f], w, sum[f]);
      }
      for (int f = 0; f < F; ++f) store_stream(a.features, a.features_type, (l * F + f) * a.M + i, sum[f], n);
    }
  });
}

template <class Lookup, int F, class T, class Args>
void forward_typed(const Args& a) {
  level_by_level(a.L, a.M, [&](int64_t l, int64_t begin, int64_t end) {
    a.tangent ? forward_level<Lookup, F, T, true>(a, l, begin, end) : forward_level<Lookup, F, T, false>(a, l, begin, end);
  });
}

template <class Lookup, int F, class Args>
void forward_levels(const Args& a) {
  a.table_type == F32 ? forward_typed<Lookup, F, float>(a) : forward_typed<Lookup, F, bf16>(a);
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
  static constexpr int SUMS = (C * F + W - 1) / W * W;
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

// Whether the arguments have `slopes` [C, M], whose gradients of the table along `tangent` are added to the others'.
template <class Args>
constexpr bool HAS_SLOPES = requires(const Args& a) { a.slopes; };

// Adds each of n samples to its entries; with SLOPES, those along a tangent too.
template <bool SLOPES, int C, int F>
RADFIELD_SIMD void add_samples(float* grad, const uint32_t (&entries)[C][W], const vf (&w)[C], const vf (&g)[F],
                               const vf (&along)[C], const vf (&slopes)[F], int n) {
  alignas(64) float values[C][W * F];
  for (int c = 0; c < C; ++c) {
    vi products[F], records[F];
    for (int f = 0; f < F; ++f) {
      if constexpr (SLOPES) products[f] = (vi)fma(along[c], slopes[f], w[c] * g[f]);
      else products[f] = (vi)(w[c] * g[f]);
    }
    make_records<F>(products, records);
    for (int f = 0; f < F; ++f) store((int32_t*)values[c] + f * W, records[f]);
  }
  for (int j = 0; j < n; ++j)
    for (int c = 0; c < C; ++c) add_to_entry<F>(grad, entries[c][j], values[c] + j * F);
}

// Adds the gradient of level l to `grad` [entries of the level][F].
template <class Lookup, int F, class Args>
void add_gradient(const Args& a, int64_t l, float* grad) {
  constexpr int D = Lookup::D, C = Lookup::C;
  constexpr bool SLOPES = HAS_SLOPES<Args>;
  const Lookup lookup(a, l);
  Run<C, F> run;
  typename Lookup::Last last = {};  // cells of the vector before
  for (int64_t i = 0; i < a.M; i += W) {
    const int n = (int)(a.M - i < W ? a.M - i : W);
    vf x[D], tangent[D], g[F], w[C], along[C], slopes[F];
    vi nonzero = {};
    for (int f = 0; f < F; ++f) {
      const int64_t at = (l * F + f) * a.M + i;
      g[f] = load_stream(a.grad_features, a.grad_features_type, at, n);
      nonzero |= (vi)g[f] << 1;  // the sign of a zero does not count
      if constexpr (SLOPES) slopes[f] = load_stream(a.slopes, a.slopes_type, at, n), nonzero |= (vi)slopes[f] << 1;
    }
    if (!any(nonzero != 0)) continue;  // samples behind a surface
    load_point(x, a.x, a.M, i, n);
    if (a.tangent) load_point(tangent, a.tangent, a.M, i, n);
    const auto cell = lookup.find(x);
    const vi moved = lookup.moved(cell, last);
    for (int c = 0; c < C; ++c) {
      w[c] = a.tangent && !SLOPES ? lookup.weight_along(cell, c, tangent) : lookup.weight(cell, c);
      if constexpr (SLOPES) along[c] = lookup.weight_along(cell, c, tangent);
    }
    uint32_t starts = (mask_bits(moved) | !run.open) & ((1u << n) - 1);
    alignas(64) uint32_t entries[C][W];
    if (starts != 0)
      for (int c = 0; c < C; ++c) store((int32_t*)entries[c], lookup.entry(cell, c));
    if (starts == 0) {
      run.add(w, g);
      if constexpr (SLOPES) run.add(along, slopes);
    } else if (__builtin_popcount(starts) > FEW_RUNS) {
      run.finish(grad);
      add_samples<SLOPES>(grad, entries, w, g, along, slopes, n);
    } else {
      for (int begin = 0; begin < n;) {
        if (starts >> begin & 1) run.finish(grad), run.start(entries, begin);
        starts &= ~1u << begin;
        const int end = starts ? __builtin_ctz(starts) : W;
        vf part[F];
        const vi mine = (vi)(lanes() >= begin) & (vi)(lanes() < end);
        for (int f = 0; f < F; ++f) part[f] = select(mine, g[f], vf{});
        run.add(w, part);
        if constexpr (SLOPES) {
          for (int f = 0; f < F; ++f) part[f] = select(mine, slopes[f], vf{});
          run.add(along, part);
        }
        begin = end;
      }
    }
  }
  run.finish(grad);
}

template <class Lookup, int F, class Args>
void add_gradients(const Args& a) {
  parallel_for(a.L, [&](int64_t task) {
    const int64_t l = a.L - 1 - task;  // the slowest first
    add_gradient<Lookup, F>(a, l, (float*)a.grad_table + a.levels[4 * l] * F);
  });
}

// ---- gradient of the positions

template <class Lookup, int F, class T, class Args>
void backward_x_chunk(const Args& a, int64_t begin, int64_t end) {
  constexpr int D = Lookup::D, C = Lookup::C;
  for (int64_t l = 0; l < a.L; ++l) {
    const Lookup lookup(a, l);
    const T* table = (const T*)a.table + a.levels[4 * l] * F;
    for (int64_t i = begin; i < end; i += W) {
      const int n = (int)(end - i < W ? end - i : W);
      vf x[D], tangent[D], g[F], values[F], dots[C], sum[D] = {};
      load_point(x, a.x, a.M, i, n);
      if (a.tangent) load_point(tangent, a.tangent, a.M, i, n);
      for (int f = 0; f < F; ++f) g[f] = load_stream(a.grad_features, a.grad_features_type, (l * F + f) * a.M + i, n);
      const auto cell = lookup.find(x);
      for (int c = 0; c < C; ++c) {
        load_features<F>(values, table, lookup.entry(cell, c));
        dots[c] = values[0] * g[0];
        for (int f = 1; f < F; ++f) dots[c] = fma(values[f], g[f], dots[c]);
      }
      lookup.pull(cell, dots, a.tangent ? &tangent : nullptr, sum);
      for (int e = 0; e < D; ++e) {
        const vf inside = (vf)((vi)(x[e] >= 0.0f) & (vi)(x[e] <= 1.0f) & (vi)sum[e]);  // clamped points do not move
        float* out = a.grad_x + e * a.M + i;
        store_n(out, l == 0 ? inside : load_n(out, n) + inside, n);
      }
    }
  }
}

template <class Lookup, int F, class Args>
void backward_x(const Args& a) {
  parallel_blocks(a.M, CHUNK, [&](int64_t begin, int64_t end) {
    a.table_type == F32 ? backward_x_chunk<Lookup, F, float>(a, begin, end) : backward_x_chunk<Lookup, F, bf16>(a, begin, end);
  });
}

// Calls body.operator()<F>() for the run-time F in 1, 2, 4, 8 (Python checks it).
template <class Body>
void with_features(int64_t F, Body body) {
  if (F == 1) body.template operator()<1>();
  else if (F == 2) body.template operator()<2>();
  else if (F == 4) body.template operator()<4>();
  else body.template operator()<8>();
}

}  // namespace
}  // namespace radfield
