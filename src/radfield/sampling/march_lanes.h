// Marching goes along one ray, W steps at a time. Empty space is skipped by segments: a segment of 8 or 16 steps, all
// of them within 2 cells of its middle, is looked at step by step only where the middle lies in a block that has an
// occupied cell within 2 cells (`near_blocks`, made with the bitfield; a few kilobytes). Skipping so gives exactly
// the samples of testing every step. Branches on what a ray meets cannot be predicted: hence lists, filled without
// branches.
#pragma once
#include "../cpu/lanes.h"
#include "march.h"

namespace radfield {
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

// One of rays that stand stream by stream.
template <class Streams>
RADFIELD_SIMD Ray ray_of(const Streams& s, int64_t i) {
  return {{s.o[0][i], s.o[1][i], s.o[2][i]}, {s.d[0][i], s.d[1][i], s.d[2][i]}, s.start[i], s.far[i], s.jitter[i],
          s.steps[i]};
}

struct RayBlock {
  float o[3][RAYS], d[3][RAYS], start[RAYS], far[RAYS], jitter[RAYS];
  int32_t steps[RAYS];

  Ray operator[](int64_t i) const { return ray_of(*this, i); }
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

// Clips n rays from i on to the outermost cascade and finds where their steps start and how many they may be. They
// stand at `at` in `rays` then; W places are written.
template <bool CONE, class Args, class Streams>
RADFIELD_SIMD void prepare(const Args& a, const Stepping& p, int64_t i, int n, Streams& rays, int64_t at) {
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

// Where a ray is that is marched a few samples at a time.
struct Place {
  int32_t first, next;  // of the segments looked at last, the first step; and that behind the last
  uint32_t chunks;      // of these the chunks not tested yet, see near_chunks
  int32_t chunk;        // the chunk tested last, by its first step
  uint32_t bits;        // and its occupied steps that are not taken yet
};

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

  // Bit i: the chunk that starts i segments behind step `first`, the first of W segments, may hold occupied steps.
  RADFIELD_SIMD uint32_t near_chunks(const Ray& r, int32_t first) const {
    const uint32_t chunks = near_occupied(r, first);
    return segment == 8 ? (chunks | chunks >> 1) & 0x5555u : chunks;
  }

  // Lists the chunks (by first step) that may hold occupied steps; returns how many. Writes up to W words beyond.
  RADFIELD_SIMD int64_t list_chunks(const Ray& r, int32_t* list) const {
    int64_t found = 0;
    if (!segment) {
      for (int32_t i = 0; i < r.steps; i += CHUNK) list[found++] = i;
      return found;
    }
    for (int32_t i = 0; i < r.steps; i += W * segment)
      found += append_lanes(list + found, i / segment, near_chunks(r, i));
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

  // Writes the numbers of the ray's next occupied steps to `list`, at most `most`, and moves `at` on; returns how many.
  // Fewer than `most`: there are no more.
  RADFIELD_SIMD int64_t take(const Ray& r, Place& at, int32_t* list, int64_t most) const {
    int64_t found = 0;
    while (found < most && (at.bits || next_chunk(r, at)))
      for (; at.bits && found < most; at.bits &= at.bits - 1) list[found++] = at.chunk + __builtin_ctz(at.bits);
    return found;
  }
  // Moves on to the next chunk with occupied steps; false where there is none.
  bool next_chunk(const Ray& r, Place& at) const {
    const int32_t unit = segment ? segment : CHUNK;
    do {
      while (!at.chunks) {
        if (at.next >= r.steps) return false;
        at.first = at.next, at.next += segment ? W * segment : CHUNK;
        at.chunks = segment ? near_chunks(r, at.first) : 1u;
      }
      at.chunk = at.first + __builtin_ctz(at.chunks) * unit;
      at.chunks &= at.chunks - 1;
      at.bits = occupied_in_chunk(r, at.chunk);
    } while (!at.bits);
    return true;
  }
};

}  // namespace
}  // namespace radfield
