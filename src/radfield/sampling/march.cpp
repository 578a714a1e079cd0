// Marching goes along one ray, W steps at a time. Empty space is skipped by segments: a segment of 8 or 16 steps, all
// of them within 2 cells of its middle, is looked at step by step only where the middle lies in a block that has an
// occupied cell within 2 cells (`near_blocks`, made with the bitfield; a few kilobytes). Skipping so gives exactly
// the samples of testing every step. Branches on what a ray meets cannot be predicted: hence lists, filled without
// branches.
#include "march.h"

#include "../cpu/parallel.h"
#include "../cpu/lanes.h"

using namespace radfield;

namespace {

struct Grid {
  const int32_t *bits, *near_blocks;
  int cascades, resolution, log2_resolution;

  int log2_cells() const { return 3 * log2_resolution; }
  int blocks() const { return resolution / 4; }
  int words_per_row() const { return (blocks() + 31) / 32; }
};

struct Ray {
  float o[3], d[3];
  float start;    // see time_at
  float far;      // steps with their middle at far or beyond are none of the ray
  float jitter;   // in [0, 1)
  int32_t steps;  // at least as many as have their middle before far
};

struct RayBlock {
  float o[3][RAYS], d[3][RAYS], start[RAYS], far[RAYS], jitter[RAYS];
  int32_t steps[RAYS];

  Ray operator[](int64_t i) const {
    return {{o[0][i], o[1][i], o[2][i]}, {d[0][i], d[1][i], d[2][i]}, start[i], far[i], jitter[i], steps[i]};
  }
};

struct Point {
  vf x, y, z;
};

struct Cell {
  vi x, y, z;
};

RADFIELD_SIMD Cell cell_at(const Point& p, vf inverse_side, int n) {
  return {cell_coordinate(p.x, inverse_side, n), cell_coordinate(p.y, inverse_side, n),
          cell_coordinate(p.z, inverse_side, n)};
}
RADFIELD_SIMD Point point_at(const Ray& r, vf t) {
  return {r.o[0] + t * r.d[0], r.o[1] + t * r.d[1], r.o[2] + t * r.d[2]};
}
RADFIELD_SIMD vf from_centre(Point p) { return distance_from_centre(p.x, p.y, p.z); }

// CONE: steps grow with distance.
template <bool CONE>
struct Steps {
  Stepping p;

  // The distance `offset` steps after the start of steps i.
  RADFIELD_SIMD vf time(const Ray& r, vi i, float offset) const {
    return time_at<CONE>(p, vf{} + r.start, to_float(i) + (r.jitter + offset));
  }
  RADFIELD_SIMD vf length(vf t) const {
    return step_length<CONE>(p, t);
  }
};

// Clips W rays to the outermost cascade and finds where their steps start and how many they may be.
template <bool CONE, class Args>
RADFIELD_SIMD void prepare(const Args& a, const Stepping& p, int64_t i, int n, RayBlock& rays, int64_t at) {
  vf o[3], d[3];
  for (int c = 0; c < 3; ++c) o[c] = load_n(a.origins + c * a.N + i, n), d[c] = load_n(a.directions + c * a.N + i, n);
  const vf nearest = a.near ? load_n(a.near + i, n) : vf{};
  const vf farthest = a.far ? load_n(a.far + i, n) : vf{} + __builtin_inff();
  vf start, far;
  vi steps;
  clip_ray<CONE>(p, o, d, a.cascades, nearest, farthest, start, far, steps);
  const vf jitter = a.jitter ? unit_float(random_bits((uint32_t)a.seed, (vu)(lanes() + (int32_t)i))) : vf{};
  for (int c = 0; c < 3; ++c) store(rays.o[c] + at, o[c]), store(rays.d[c] + at, d[c]);
  store(rays.start + at, start), store(rays.far + at, far), store(rays.jitter + at, jitter);
  store(rays.steps + at, steps);
}

template <bool CONE, class Args>
void prepare_block(const Args& a, const Stepping& p, int64_t begin, int64_t end, RayBlock& rays) {
  for (int64_t i = begin; i < end; i += W) prepare<CONE>(a, p, i, (int)(end - i < W ? end - i : W), rays, i - begin);
}

// CASCADES: more than one.
template <bool CONE, bool CASCADES>
struct Marcher : Steps<CONE> {
  using Steps<CONE>::p;
  Grid grid;
  int segment;   // steps per segment, 8 or 16; 0 where steps are too long to skip any
  float growth;  // of a step over half a segment, at most

  explicit Marcher(const MarchCount& a) : Steps<CONE>{make_stepping(a.step, a.cone, a.max_step)} {
    grid = {a.bitfield, a.near_blocks, (int)a.cascades, (int)a.resolution, log2_of(a.resolution)};
    segment = steps_per_segment(a.skip, CONE, CASCADES, p.step, a.resolution);
    growth = growth_over_segment(a.cone, segment);
  }

  RADFIELD_SIMD vi cascade(vf distance, vf length) const {
    return step_cascade(distance, length, grid.resolution, grid.cascades);
  }

  // Bit i: step first + i lies in an occupied cell.
  RADFIELD_SIMD uint32_t occupied(const Ray& r, int32_t first) const {
    const vf t = this->time(r, lanes() + first, 0.5f);
    const Point q = point_at(r, t);
    vi k = {};
    vf inverse = vf{} + 1.0f;
    if constexpr (CASCADES) {
      k = cascade(from_centre(q), this->length(t));
      inverse = inverse_side(k);
    }
    const Cell c = cell_at(q, inverse, grid.resolution);
    vi cell = morton(c.x, c.y, c.z);
    if constexpr (CASCADES) cell = cell | (k << grid.log2_cells());
    const vi word = gather(grid.bits, cell >> 5);
    return mask_bits((word << (~cell & 31)) & (t < r.far));
  }
  RADFIELD_SIMD uint32_t occupied_in_chunk(const Ray& r, int32_t first) const {
    uint32_t bits = 0;
    for (int i = 0; i < CHUNK; i += W) bits |= occupied(r, first + i) << i;
    return bits;
  }

  // Bit i: the segment that starts at step first + i * segment may hold occupied steps.
  RADFIELD_SIMD uint32_t near_occupied(const Ray& r, int32_t first) const {
    const vi i = lanes() * segment + first;
    const vf t = this->time(r, i, 0.5f * (float)segment);
    const Point q = point_at(r, t);
    vi k = {}, too_long = {};
    vf inverse = vf{} + 1.0f;
    if constexpr (CONE || CASCADES) {
      // No step of the segment is longer than this, or farther from the middle than half of their sum (1.01 for
      // rounding); so none has a coarser cascade, and coarser ones contain the finer ones' cells.
      const vf longest = 1.01f * growth * this->length(t), reach = 0.5f * (float)segment * longest;
      k = cascade(from_centre(q) + reach, longest);
      inverse = inverse_side(k);
      too_long = reach * inverse * (float)grid.resolution > NEAR_CELLS;
    }
    const int n = grid.blocks();
    const Cell block = cell_at(q, inverse, n);
    const vi word = gather(grid.near_blocks, ((k * n + block.z) * n + block.y) * grid.words_per_row() + (block.x >> 5));
    return mask_bits((word << (~block.x & 31)) | too_long);
  }

  // Lists the chunks (by first step) that may hold occupied steps; returns how many. Writes up to W words beyond.
  RADFIELD_SIMD int64_t list_chunks(const Ray& r, int32_t* list) const {
    int64_t found = 0;
    if (!segment) {
      for (int32_t i = 0; i < r.steps; i += CHUNK) list[found++] = i;
      return found;
    }
    for (int32_t i = 0; i < r.steps; i += W * segment) {
      uint32_t chunks = near_occupied(r, i);
      if (segment == 8) chunks = (chunks | chunks >> 1) & 0x5555u;
      found += append_lanes(list + found, i / segment, chunks);
    }
    return found;
  }

  // Writes the chunks of a ray that have occupied steps to `out`, moves it on, and returns the number of steps.
  RADFIELD_SIMD int64_t march(const Ray& r, int32_t* list, int32_t*& out, int64_t limit) const {
    const int64_t n = list_chunks(r, list);
    const int32_t unit = segment ? segment : 1;
    int64_t found = 0;
    for (int64_t j = 0; j < n && found < limit; ++j) {
      const int32_t first = list[j] * unit;
      const uint32_t bits = occupied_in_chunk(r, first);
      *out = pack_chunk(first, bits);
      out += bits != 0;
      found += __builtin_popcount(bits);
    }
    return found < limit ? found : limit;
  }
};

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
