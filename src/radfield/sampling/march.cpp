// The ops of marching: all samples of all rays, packed. How one ray is marched is in march_lanes.h.
#include "march_lanes.h"

#include "../cpu/parallel.h"

using namespace radfield;

namespace {

template <bool CONE, bool CASCADES>
void count(const MarchCount& a) {
  const Marcher<CONE, CASCADES> marcher(a);
  const int64_t chunks_per_ray = a.most_steps / CHUNK + 2;
  parallel_blocks(a.N, RAYS, [&](int64_t begin, int64_t end) {
    RayBlock rays;
    prepare_block<CONE>(a, marcher.p, begin, end, rays);
    int32_t* list = (int32_t*)scratch((a.most_steps / 8 + 3 * W) * 4);
    int32_t* out = a.chunks + begin * chunks_per_ray;
    const Marcher<CONE, CASCADES> own = marcher;  // which no store can change, so that it stays in registers
    for (int64_t i = begin; i < end; ++i) {
      Ray r = rays[i - begin];
      if (r.steps > a.most_steps) r.steps = (int32_t)a.most_steps;
      a.ray_start[i + 1] = (int32_t)own.march(r, list, out, a.max_per_ray);
    }
  });
}

// Counts to starts. Rays from the first that no longer fits on have no samples.
void sum_up(const MarchCount& a) {
  int64_t total = 0, kept = 0;
  a.ray_start[0] = 0;
  for (; kept < a.N && total + a.ray_start[kept + 1] <= a.max_samples; ++kept) {
    total += a.ray_start[kept + 1];
    a.ray_start[kept + 1] = (int32_t)total;
  }
  for (int64_t i = kept; i < a.N; ++i) a.ray_start[i + 1] = (int32_t)total;
  a.totals[0] = kept, a.totals[1] = total;
}

// Writes whole vectors as long as they stay below `end`: what they write beyond the ray belongs to the task's next
// rays.
struct Writer {
  int64_t end;
  template <class T, class V>
  RADFIELD_SIMD void operator()(T* to, int64_t at, V v) const {
    if (at + W <= end) return store(to + at, v);
    T lanes[W];
    store(lanes, v);
    for (int64_t i = at; i < end; ++i) to[i] = lanes[i - at];
  }
};

// The samples of ray i, whose step numbers are given.
template <bool CONE>
RADFIELD_SIMD void write_samples(const MarchFill& a, const Steps<CONE>& steps, const Ray& r, int64_t i,
                                 const int32_t* step, Writer write) {
  for (int64_t at = a.ray_start[i]; at < a.ray_start[i + 1]; at += W, step += W) {
    const vi s = load(step);
    write(a.t_start, at, steps.time(r, s, 0)), write(a.t_end, at, steps.time(r, s + 1, 0));
    const Point q = point_at(r, steps.time(r, s, 0.5f));
    write(a.x, at, q.x), write(a.x + a.M, at, q.y), write(a.x + 2 * a.M, at, q.z);
    if (a.directions_out)
      for (int c = 0; c < 3; ++c) write(a.directions_out + c * a.M, at, vf{} + r.d[c]);
    if (a.ray_index) write(a.ray_index, at, vi{} + (int32_t)i);
  }
}

template <bool CONE>
void fill(const MarchFill& a) {
  const Steps<CONE> steps{make_stepping(a.step, a.cone, a.max_step)};
  const int64_t chunks_per_ray = a.N ? a.P / a.N : 0;
  parallel_blocks(a.N, RAYS, [&](int64_t begin, int64_t end) {
    if (a.ray_start[begin] == a.ray_start[end]) return;
    RayBlock rays;
    prepare_block<CONE>(a, steps.p, begin, end, rays);
    int32_t* list = (int32_t*)scratch((a.ray_start[end] - a.ray_start[begin] + 3 * CHUNK) * 4);
    const int32_t* chunk = a.chunks + begin * chunks_per_ray;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t wanted = a.ray_start[i + 1] - a.ray_start[i];
      for (int64_t found = 0; found < wanted; ++chunk)
        for (int part = 0; part < CHUNK; part += W) {
          const uint32_t bits = (uint32_t)*chunk >> part & ((1u << W) - 1);
          found += append_lanes(list + found, first_step(*chunk) + part, bits);
        }
      if (wanted) write_samples(a, steps, rays[i - begin], i, list, Writer{a.ray_start[end]});
    }
  });
}

}  // namespace

RADFIELD_OP(march_count, MarchCount) {
  if (a.cone > 0)
    a.cascades > 1 ? count<true, true>(a) : count<true, false>(a);
  else
    a.cascades > 1 ? count<false, true>(a) : count<false, false>(a);
  sum_up(a);
}

RADFIELD_OP(march_fill, MarchFill) { a.cone > 0 ? fill<true>(a) : fill<false>(a); }
