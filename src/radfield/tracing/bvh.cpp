// Building goes level by level, so that it needs no stack. W rays descend together: a node is visited where one of them
// enters its box before what it has met, the child nearer to the first such ray first.
#include "bvh.h"

#include "../cpu/lanes.h"
#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t RAYS = 256;  // per task

struct Box {
  float low[3] = {FAR, FAR, FAR}, high[3] = {-FAR, -FAR, -FAR};

  void add(const float* bounds) {
    for (int i = 0; i < 3; ++i) low[i] = min(low[i], bounds[i]), high[i] = max(high[i], bounds[3 + i]);
  }
  void add(const Box& other) {
    for (int i = 0; i < 3; ++i) low[i] = min(low[i], other.low[i]), high[i] = max(high[i], other.high[i]);
  }
  float area() const {  // half of it; 0 where nothing was added
    const float x = high[0] - low[0], y = high[1] - low[1], z = high[2] - low[2];
    return x < 0 ? 0 : x * y + y * z + z * x;
  }
};

struct Split {
  int axis = -1, bin = 0;
  float low = 0, scale = 0;
};

float twice_centre(const float* bounds, int axis) { return bounds[axis] + bounds[3 + axis]; }

int bin_of(const Split& s, const float* bounds) {
  const int bin = (int)((twice_centre(bounds, s.axis) - s.low) * s.scale);
  return bin < 0 ? 0 : bin >= BINS ? BINS - 1 : bin;
}

// The cheapest plane between bins along one axis; `cost` is the best so far.
void try_axis(const BvhBuild& a, int32_t first, int32_t count, Split s, float& cost, Split& best) {
  Box boxes[BINS], left;
  int32_t counts[BINS] = {};
  for (int32_t i = first; i < first + count; ++i) {
    const float* bounds = a.bounds + 6 * (int64_t)a.order[i];
    const int bin = bin_of(s, bounds);
    boxes[bin].add(bounds), ++counts[bin];
  }
  float right_cost[BINS];
  Box right;
  int32_t right_count = 0, left_count = 0;
  for (int bin = BINS - 1; bin > 0; --bin) {
    right.add(boxes[bin]), right_count += counts[bin];
    right_cost[bin] = right.area() * (float)right_count;
  }
  for (int bin = 1; bin < BINS; ++bin) {
    left.add(boxes[bin - 1]), left_count += counts[bin - 1];
    const float found = left.area() * (float)left_count + right_cost[bin];
    if (left_count > 0 && left_count < count && found < cost) cost = found, best = s, best.bin = bin;
  }
}

// Divides order[first : first + count] in two; returns how many come first, 0 where a leaf is as good.
int32_t divide(const BvhBuild& a, int32_t first, int32_t count, const Box& box, bool halve) {
  if (count == 1) return 0;
  Split best;
  float cost = count <= LEAF ? box.area() * ((float)count - 1.0f) : 3.0e38f;  // two boxes more must pay
  for (int axis = 0; axis < 3 && !halve; ++axis) {
    float low = FAR, high = -FAR;
    for (int32_t i = first; i < first + count; ++i) {
      const float c = twice_centre(a.bounds + 6 * (int64_t)a.order[i], axis);
      low = min(low, c), high = max(high, c);
    }
    if (!(high > low)) continue;
    Split s;
    s.axis = axis, s.low = low, s.scale = (float)BINS / (high - low);
    try_axis(a, first, count, s, cost, best);
  }
  if (best.axis < 0) return count <= LEAF ? 0 : count / 2;  // all centres in one place, or too deep
  int32_t end = first;
  for (int32_t i = first; i < first + count; ++i) {
    if (bin_of(best, a.bounds + 6 * (int64_t)a.order[i]) >= best.bin) continue;
    const int32_t moved = a.order[i];
    a.order[i] = a.order[end], a.order[end++] = moved;
  }
  return end - first;
}

}  // namespace

RADFIELD_OP(bvh_build, BvhBuild) {
  int64_t used = 1, level_end = 1;
  int level = 0;
  a.node[0] = 0, a.node[1] = (int32_t)a.T;
  for (int64_t k = 0; k < used; ++k) {
    if (k == level_end) ++level, level_end = used;
    const int32_t first = a.node[2 * k], count = a.node[2 * k + 1];
    Box box;
    for (int32_t i = first; i < first + count; ++i) box.add(a.bounds + 6 * (int64_t)a.order[i]);
    for (int i = 0; i < 3; ++i) a.box[6 * k + i] = box.low[i], a.box[6 * k + 3 + i] = box.high[i];
    const int32_t left = divide(a, first, count, box, level >= HEURISTIC_LEVELS);
    if (left == 0) continue;
    int32_t* children = a.node + 2 * used;
    children[0] = first, children[1] = left, children[2] = first + left, children[3] = count - left;
    a.node[2 * k] = (int32_t)used, a.node[2 * k + 1] = 0;
    used += 2;
  }
  *a.used = used;
}

namespace {

typedef TriangleHit<vf, vi> Found;

struct Packet {
  vf o[3], d[3], inverse[3];
};

RADFIELD_SIMD void meet_leaf(const BvhTrace& a, int32_t first, int32_t count, const Packet& rays, Found& found) {
  for (int32_t i = first; i < first + count; ++i)
    meet_triangle(a.corners + 9 * (int64_t)i, vi{} + a.order[i], rays.o, rays.d, found);
}

RADFIELD_SIMD void descend(const BvhTrace& a, const Packet& rays, Found& found) {
  int32_t stack[MOST_LEVELS + 1], top = 0;
  stack[top++] = 0;
  while (top) {
    const int32_t k = stack[--top];
    if (!any(enter_box(a.box + 6 * (int64_t)k, rays.o, rays.inverse, found.depth) < FAR)) continue;
    const int32_t first = a.node[2 * k], count = a.node[2 * k + 1];
    if (count) {
      meet_leaf(a, first, count, rays, found);
      continue;
    }
    const vf left = enter_box(a.box + 6 * (int64_t)first, rays.o, rays.inverse, found.depth);
    const vf right = enter_box(a.box + 6 * (int64_t)first + 6, rays.o, rays.inverse, found.depth);
    const uint32_t on = mask_bits((left < FAR) | (right < FAR));
    if (!on) continue;
    const int lane = __builtin_ctz(on);
    const int32_t nearer = left[lane] <= right[lane] ? first : first + 1;
    stack[top++] = 2 * first + 1 - nearer;
    stack[top++] = nearer;
  }
}

void trace_packet(const BvhTrace& a, int64_t i, int n) {
  Packet rays;
  for (int c = 0; c < 3; ++c) {
    rays.o[c] = load_n(a.origins + c * a.N + i, n), rays.d[c] = load_n(a.directions + c * a.N + i, n);
    rays.inverse[c] = inverse_direction(rays.d[c]);
  }
  Found found = {a.limit ? load_n(a.limit + i, n) : vf{} + FAR, vf{}, vf{}, vi{} - 1};
  found.depth = select(lanes() < n, found.depth, vf{} - 1.0f);  // lanes without a ray enter nothing
  descend(a, rays, found);
  store_n(a.depth + i, select(found.index < 0, vf{} + FAR, found.depth), n);
  store_n((float*)a.index + i, as_float(found.index), n);
  store_n(a.weights + i, found.u, n), store_n(a.weights + a.N + i, found.v, n);
}

}  // namespace

RADFIELD_OP(bvh_trace, BvhTrace) {
  parallel_blocks(a.N, RAYS, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += W) trace_packet(a, i, (int)(end - i < W ? end - i : W));
  });
}
