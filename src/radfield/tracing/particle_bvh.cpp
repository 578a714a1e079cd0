// The tree is made from the top: a node's range of particles is divided until it has 16 parts, nodes of one level on all
// threads. A part never depends on which thread makes it.
#include "particle_bvh.h"

#include <algorithm>

#include "particle_lanes.h"

using namespace radfield;

namespace {

constexpr int BINS = 16, AXES = 4;          // the fourth: the logarithm of a particle's size, so that large ones part from small
constexpr int64_t UNIT = 16 * PARTICLE_WIDE;  // larger ranges are divided at its multiples: the nodes above leaves are full
constexpr int HEURISTIC_LEVELS = 6;           // below ranges are halved, which bounds the depth
typedef float v4 __attribute__((vector_size(16)));

struct Item {
  float low[3];
  int32_t id;
  float high[3], size;

  float key(int axis) const { return axis < 3 ? low[axis] + high[axis] : size; }
};

v4 load4(const float* p) {
  v4 v;
  memcpy(&v, p, 16);
  return v;
}

struct Box {
  v4 low = {NOWHERE, NOWHERE, NOWHERE, 0}, high = {-NOWHERE, -NOWHERE, -NOWHERE, 0};

  void add(v4 l, v4 h) { low = l < low ? l : low, high = h > high ? h : high; }
  float area() const {
    const v4 d = high - low;
    return d[0] < 0 ? 0 : d[0] * d[1] + d[1] * d[2] + d[2] * d[0];
  }
};

struct Division {
  int axis = -1;
  int64_t count = 0;  // in the first part
};

float leaves_of(int64_t count) { return (float)((count + PARTICLE_WIDE - 1) / PARTICLE_WIDE); }

// The cheapest plane between bins (surface area times leaves), over all axes.
Division cheapest(const Item* items, int64_t n) {
  v4 low = load4(items->low), high = low;  // of the keys
  auto keys = [](const Item& i) { return v4{i.key(0), i.key(1), i.key(2), i.size}; };
  low = high = keys(*items);
  for (int64_t i = 1; i < n; ++i) {
    const v4 k = keys(items[i]);
    low = k < low ? k : low, high = k > high ? k : high;
  }
  Box boxes[AXES][BINS];
  int32_t counts[AXES][BINS] = {};
  v4 scale;
  for (int axis = 0; axis < AXES; ++axis) scale[axis] = high[axis] > low[axis] ? (BINS - 1e-3f) / (high[axis] - low[axis]) : 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    const v4 at = (keys(items[i]) - low) * scale, l = load4(items[i].low), h = load4(items[i].high);
    for (int axis = 0; axis < AXES; ++axis) {
      const int bin = std::min((int)at[axis], BINS - 1);
      boxes[axis][bin].add(l, h), ++counts[axis][bin];
    }
  }
  Division best;
  float cost = 3e38f;
  for (int axis = 0; axis < AXES; ++axis) {
    if (scale[axis] == 0) continue;
    float after[BINS];
    Box right, left;
    int64_t many = 0;
    for (int bin = BINS - 1; bin > 0; --bin) {
      right.add(boxes[axis][bin].low, boxes[axis][bin].high), many += counts[axis][bin];
      after[bin] = right.area() * leaves_of(many);
    }
    many = 0;
    for (int bin = 1; bin < BINS; ++bin) {
      left.add(boxes[axis][bin - 1].low, boxes[axis][bin - 1].high), many += counts[axis][bin - 1];
      const float found = left.area() * leaves_of(many) + after[bin];
      if (many > 0 && many < n && found < cost) cost = found, best = {axis, many};
    }
  }
  return best;
}

// Divides items in two, the first of which has a multiple of `unit`; returns how many.
int64_t divide(Item* items, int64_t n, int64_t unit, bool halve) {
  Division d = cheapest(items, n);
  if (d.axis < 0 || halve) d.count = n / 2;
  const int64_t first = std::clamp((d.count + unit / 2) / unit * unit, unit, (n - 1) / unit * unit);
  if (d.axis >= 0)
    std::nth_element(items, items + first, items + n, [axis = d.axis](const Item& a, const Item& b) {
      const float x = a.key(axis), y = b.key(axis);
      return x < y || (x == y && a.id < b.id);  // a total order, so that the parts are the same everywhere
    });
  return first;
}

float weight_of(const Item* items, int64_t begin, int64_t end, bool by_area) {
  if (!by_area) return (float)(end - begin);
  Box box;
  for (int64_t i = begin; i < end; ++i) box.add(load4(items[i].low), load4(items[i].high));
  return box.area() * leaves_of(end - begin);
}

// The first particle of each part of the node [begin, end), into 16 words; -1 behind the last.
void open_node(Item* items, int64_t begin, int64_t end, int level, int32_t* parts) {
  const int64_t unit = end - begin > UNIT ? UNIT : PARTICLE_WIDE;
  const bool halve = level >= HEURISTIC_LEVELS;
  int64_t start[PARTICLE_WIDE + 1] = {begin, end};
  float weight[PARTICLE_WIDE] = {1};
  int n = 1;
  while (n < PARTICLE_WIDE) {
    int widest = -1;
    for (int i = 0; i < n; ++i)
      if (start[i + 1] - start[i] > unit && (widest < 0 || weight[i] > weight[widest])) widest = i;
    if (widest < 0) break;
    const int64_t middle = start[widest] + divide(items + start[widest], start[widest + 1] - start[widest], unit, halve);
    for (int i = n; i > widest; --i) start[i + 1] = start[i], weight[i] = weight[i - 1];
    start[widest + 1] = middle, ++n;
    for (int i = widest; i < widest + 2; ++i) weight[i] = weight_of(items, start[i], start[i + 1], !halve);
  }
  for (int i = 0; i < PARTICLE_WIDE; ++i) parts[i] = i < n ? (int32_t)start[i] : -1;
}

// Gives the parts of a node their names; inner ones are appended to `ranges`.
void name_parts(const ParticleBvhBuild& a, int64_t node, int32_t* ranges, int64_t& used) {
  int32_t* parts = a.child + node * PARTICLE_WIDE;
  for (int i = 0; i < PARTICLE_WIDE; ++i) {
    if (parts[i] < 0) {
      parts[i] = 0;
      continue;
    }
    const int32_t begin = parts[i], end = i + 1 < PARTICLE_WIDE && parts[i + 1] >= 0 ? parts[i + 1] : ranges[2 * node + 1];
    const int32_t place = (int32_t)(node * PARTICLE_WIDE + i);
    if (end - begin <= PARTICLE_WIDE) {
      parts[i] = -1 - begin / PARTICLE_WIDE, a.leaf_slot[begin / PARTICLE_WIDE] = place;
    } else {
      ranges[2 * used] = begin, ranges[2 * used + 1] = end, a.slot[used] = place;
      parts[i] = (int32_t)used++;
    }
  }
}

}  // namespace

RADFIELD_OP(particle_bounds, ParticleBounds) {
  const float scale = kernel_scale(a.degree), least = (float)a.min_response;
  parallel_blocks(a.G, 1024, [&](int64_t begin, int64_t end) {
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
      const Gaussian<vf> g = load_gaussians(a, i, n);
      const TracedParticle<vf> p = traced_particle(g, is_met(g, least));
      vf half[3];
      particle_half(p, least, a.degree, scale, half);
      const vf size = log(max(half[0], max(half[1], half[2])));
      for (int lane = 0; lane < n; ++lane) {
        float* item = a.item + 8 * (i + lane);
        for (int k = 0; k < 3; ++k) item[k] = p.mean[k][lane] - half[k][lane], item[4 + k] = p.mean[k][lane] + half[k][lane];
        item[3] = as_float((int32_t)(i + lane)), item[7] = size[lane];
      }
    });
  });
}

RADFIELD_OP(particle_bvh_build, ParticleBvhBuild) {
  Item* items = (Item*)a.item;
  int32_t* ranges = (int32_t*)scratch(8 * (a.I + 1));
  ranges[0] = 0, ranges[1] = (int32_t)a.G, a.slot[0] = -1;
  int64_t used = 1;
  int level = 0;
  for (int64_t done = 0; done < used; ++level) {
    const int64_t first = done;
    done = used;
    parallel_for(done - first, [&](int64_t i) {
      const int64_t node = first + i;
      open_node(items, ranges[2 * node], ranges[2 * node + 1], level, a.child + node * PARTICLE_WIDE);
    });
    for (int64_t node = first; node < done; ++node) name_parts(a, node, ranges, used);
  }
  for (int64_t i = 0; i < a.G; ++i) a.order[i] = items[i].id;
  *a.used = used;
}

namespace {

// Puts the union of 16 boxes into its place in the parent's.
void hand_up(const ParticleBvhRefit& a, const float* boxes, int32_t place) {
  float* out = a.box + (int64_t)(place / PARTICLE_WIDE) * 6 * PARTICLE_WIDE + place % PARTICLE_WIDE;
  for (int c = 0; c < 6; ++c) {
    float bound = boxes[c * PARTICLE_WIDE];
    for (int i = 1; i < PARTICLE_WIDE; ++i)
      bound = c < 3 ? min(bound, boxes[c * PARTICLE_WIDE + i]) : max(bound, boxes[c * PARTICLE_WIDE + i]);
    out[c * PARTICLE_WIDE] = bound;
  }
}

void refit_leaf(const ParticleBvhRefit& a, int64_t leaf, float scale) {
  float* boxes = a.leaf_box + leaf * 6 * PARTICLE_WIDE;
  const float least = (float)a.min_response;
  for (int i = 0; i < PARTICLE_WIDE; i += W) {
    const int64_t at = leaf * PARTICLE_WIDE + i, left = a.G - at;
    const int n = left < 0 ? 0 : left < W ? (int)left : W;
    const Gaussian<vf> g = gather_particles(a, load_n(a.order + (n ? at : 0), n));
    const vi met = is_met(g, least) & (lanes() < n);
    const TracedParticle<vf> p = traced_particle(g, met);
    vf half[3];
    particle_half(p, least, a.degree, scale, half);
    for (int k = 0; k < 3; ++k) {
      store(boxes + k * PARTICLE_WIDE + i, select(met, p.mean[k] - half[k], vf{} + NOWHERE));
      store(boxes + (3 + k) * PARTICLE_WIDE + i, select(met, p.mean[k] + half[k], vf{} - NOWHERE));
    }
  }
  hand_up(a, boxes, a.leaf_slot[leaf]);
}

}  // namespace

RADFIELD_OP(particle_bvh_refit, ParticleBvhRefit) {
  const float scale = kernel_scale(a.degree);
  for (int64_t i = 0; i < a.I * 6 * PARTICLE_WIDE; ++i) a.box[i] = i / PARTICLE_WIDE % 6 < 3 ? NOWHERE : -NOWHERE;
  parallel_blocks(a.L, 64, [&](int64_t begin, int64_t end) {
    for (int64_t leaf = begin; leaf < end; ++leaf) refit_leaf(a, leaf, scale);
  });
  for (int64_t node = a.I - 1; node > 0; --node)  // children stand behind their parents
    hand_up(a, a.box + node * 6 * PARTICLE_WIDE, a.slot[node]);
}
