// Rays of a tile go down the tree together, nearest node first, and meet particles W rays at a time (a packet). A particle
// that some ray of a packet meets becomes a row of the packet's table, and an entry of those rays' lists, which are kept
// in order; what lies before the next node is blended. So nobody's order is but his own, and the tree is walked once.
// A packet whose table is full hands its rays over to gaussian_trace_ray.h, where they left off.
#pragma once
#include "gaussian_trace_frustum.h"
#include "gaussian_trace_ray.h"

namespace radfield {

constexpr int ROWS = 1024, HEAP = 4096, PACKETS = TRACE_TILE / W, FLUSH = 4;
constexpr int HARMONIC_VECTORS = MOST_HARMONICS * W;

// A row's numbers.
struct Row {
  int32_t place, number;
  float color[4];  // where it does not depend on the ray
  int32_t used;    // whether a ray blended it
};
// The table of a packet; [ROWS][W] each, and [ROWS][W][4] the colours where they depend on the ray.
struct Table {
  Row row[ROWS];
  alignas(64) float alpha[ROWS * W], slope[ROWS * W], weight[ROWS * W];
  uint64_t list[W][ROWS];
  alignas(64) float color[ROWS * W * 4], normal[ROWS * W * 4];
};

struct Packet {
  vf o[3], d[3], near, far;
  vf harmonics[MOST_HARMONICS];
  Frustum frustum;
  Table* table;
  RayState* state;        // of W rays
  RayGradient* gradient;  // and what is left of their gradients; null: forward
  uint32_t active;        // rays that go on
  int first, rows;
  bool full;
  float limit_scale[W], limit_begin[W];
  int32_t head[W], tail[W];
};

struct Heap {
  uint64_t entry[HEAP];
  int n = 0;

  bool push(float depth, int32_t child) {
    if (n == HEAP) return false;
    const uint64_t e = (uint64_t)(uint32_t)as_int(depth) << 32 | (uint32_t)child;
    int at = n++;
    for (; at > 0 && entry[(at - 1) / 2] > e; at = (at - 1) / 2) entry[at] = entry[(at - 1) / 2];
    entry[at] = e;
    return true;
  }
  uint64_t pop() {
    const uint64_t top = entry[0], e = entry[--n];
    int at = 0;
    for (int down = 1; down < n; down = 2 * at + 1) {
      down += down + 1 < n && entry[down + 1] < entry[down];
      if (entry[down] >= e) break;
      entry[at] = entry[down], at = down;
    }
    entry[at] = e;
    return top;
  }
};

template <class Struct>
struct Tile {
  explicit Tile(const Struct& arguments) : a(arguments) {}

  const Struct& a;
  float scale, extent;  // of the kernel; the largest coordinate
  bool normals;
  TileRays rays;
  RayState state[TRACE_TILE];
  RayGradient gradient[TRACE_TILE];
  Packet packet[PACKETS];
  Heap heap;
  int32_t visits[3];  // inner nodes, leaves, particles met by a packet
};

template <int BANDS = 1, class Body>
void with_trace_bands(int64_t bands, Body body) {
  if (bands == BANDS) body.template operator()<BANDS>();
  else if constexpr (BANDS < 5) with_trace_bands<BANDS + 1>(bands, body);
}

// The harmonics of directions, all of them: with_trace_bands keeps what is not asked for.
template <class F>
inline void trace_harmonics(int64_t bands, const F (&d)[3], F* out) {
  with_trace_bands(bands, [&]<int BANDS>() {
    sh_values<BANDS>(d[0], d[1], d[2], F{} + 1.0f, F{}, [&](int c, F value) { out[c] = value; });
  });
}

// The colours of a particle for the rays of a packet.
template <class Struct>
RADFIELD_SIMD void color_of(const Struct& a, const vf* harmonics, const float* data, int64_t place, vf (&color)[3]) {
  for (int c = 0; c < 3; ++c) color[c] = splat(data[(BLOCK_COLOR + c) * PARTICLE_WIDE]);
  const float* coefficient = a.coefficients + place * a.R;
  for (int k = 1; 3 * k <= a.R; ++k, coefficient += 3)
    for (int c = 0; c < 3; ++c) color[c] = fma(harmonics[k], splat(coefficient[c]), color[c]);
  for (int c = 0; c < 3; ++c) color[c] = max(color[c], vf{});
}

RADFIELD_SIMD void store_records(float* out, const vf (&words)[4]) {
  vi in[4], records[4];
  for (int k = 0; k < 4; ++k) in[k] = as_int(words[k]);
  make_records<4>(in, records);
  for (int k = 0; k < 4; ++k) store(out + k * W, as_float(records[k]));
}

struct Data {
  vf mean[3], whiten[9], opacity;
};
RADFIELD_SIMD Data particle_data(const float* data) {
  Data p;
  for (int k = 0; k < 3; ++k) p.mean[k] = splat(data[(BLOCK_MEAN + k) * PARTICLE_WIDE]);
  for (int k = 0; k < 9; ++k) p.whiten[k] = splat(data[(BLOCK_WHITEN + k) * PARTICLE_WIDE]);
  p.opacity = splat(data[BLOCK_OPACITY * PARTICLE_WIDE]);
  return p;
}

// Puts a row into the list of ray `lane`, which stays in order: bits of tau, then the particle's number.
RADFIELD_SIMD void insert_row(Packet& p, int lane, float tau, int row) {
  uint64_t* list = p.table->list[lane];
  const uint64_t key = make_key(tau, row);
  int at = p.tail[lane]++;
  for (; at > p.head[lane]; --at) {
    const uint64_t before = list[at - 1];
    const bool same = (before ^ key) >> 32 == 0;
    if (same ? p.table->row[(uint32_t)before].number < p.table->row[row].number : before < key) break;
    list[at] = before;
  }
  list[at] = key;
}

// A particle against a packet.
template <class Struct>
inline void meet_packet(Tile<Struct>& t, Packet& p, int64_t leaf, int lane) {
  const Struct& a = t.a;
  const int64_t place = leaf * PARTICLE_WIDE + lane;
  const float* data = a.block + leaf * BLOCK_ROWS * PARTICLE_WIDE + lane;
  const Data g = particle_data(data);
  const Meeting<vf> hit = meet(g.mean, g.whiten, p.o, p.d);
  const vf alpha = g.opacity * kernel_response(hit.square, a.degree, t.scale);
  const vi on = (alpha >= (float)a.min_response) & (hit.tau > p.near) & (hit.tau < p.far);
  ++t.visits[2];
  uint32_t bits = mask_bits(on) & p.active;
  if (!bits) return;
  const int r = p.rows++;
  Table& table = *p.table;
  Row& row = table.row[r];
  row.place = (int32_t)place, row.number = a.order[place], row.used = 0;
  store(table.alpha + r * W, min(alpha, vf{} + (float)a.max_alpha));
  if (a.R) {
    vf color[4] = {};
    color_of(a, p.harmonics, data, place, (vf(&)[3])color);
    store_records(table.color + r * W * 4, color);
  } else {
    for (int c = 0; c < 3; ++c) row.color[c] = max(data[(BLOCK_COLOR + c) * PARTICLE_WIDE], 0.0f);
  }
  if (t.normals) {
    vf normal[4] = {};
    entry_normal(hit, g.whiten, kernel_radius(g.opacity, (float)a.min_response, a.degree, t.scale), (vf(&)[3])normal);
    store_records(table.normal + r * W * 4, normal);
  }
  if (p.gradient) store(table.slope + r * W, vf{}), store(table.weight + r * W, vf{});
  alignas(64) float tau[W];
  store(tau, hit.tau);
  for (; bits; bits &= bits - 1) insert_row(p, __builtin_ctz(bits), tau[__builtin_ctz(bits)], r);
}

// Blends what ray `lane` meets before `end`.
template <class Struct>
inline void flush_ray(Tile<Struct>& t, Packet& p, int lane, float end) {
  Table& table = *p.table;
  RayState& s = p.state[lane];
  const float least = (float)t.a.min_transmittance;
  const uint64_t* list = table.list[lane];
  int at = p.head[lane];
  bool goes_on = true;
  for (; at < p.tail[lane] && goes_on; ++at) {
    const float tau = key_depth(list[at]);
    if (!(tau < end)) break;
    const uint32_t r = (uint32_t)list[at];
    Row& row = table.row[r];
    const float* color = t.a.R ? table.color + (r * W + lane) * 4 : row.color;
    row.used = 1, s.last = make_key(tau, row.number);
    if (p.gradient)
      goes_on = blend_gradient(s, p.gradient[lane], table.alpha[r * W + lane], tau, color, least,
                               table.slope[r * W + lane], table.weight[r * W + lane]);
    else
      goes_on = blend(s, table.alpha[r * W + lane], tau, color, t.normals ? table.normal + (r * W + lane) * 4 : nullptr, least);
  }
  p.head[lane] = at;
  if (!goes_on) p.active &= ~(1u << lane);
}

// Blends what lies before `depth`, which is along w from the base.
template <class Struct>
inline void flush_packet(Tile<Struct>& t, Packet& p, float depth) {
  for (uint32_t bits = p.active; bits; bits &= bits - 1) {
    const int lane = __builtin_ctz(bits);
    if (p.head[lane] == p.tail[lane]) continue;
    const float end = depth < 3e38f ? (depth - p.limit_begin[lane]) * p.limit_scale[lane] : depth;
    flush_ray(t, p, lane, end - 1e-6f * min(abs(end) + t.extent, 1e30f));
  }
}

template <class Struct>
inline bool open_tile_node(Tile<Struct>& t, const Frustum& frustum, int32_t node) {
  alignas(64) float depth[PARTICLE_WIDE];
  ++t.visits[0];
  for (uint32_t bits = meet_boxes(frustum, t.a.box + (int64_t)node * 6 * PARTICLE_WIDE, depth); bits; bits &= bits - 1) {
    const int lane = __builtin_ctz(bits);
    if (!t.heap.push(depth[lane], t.a.child[(int64_t)node * PARTICLE_WIDE + lane])) return false;
  }
  return true;
}

template <class Struct>
inline bool open_tile_leaf(Tile<Struct>& t, int64_t leaf) {
  alignas(64) float depth[PARTICLE_WIDE];
  bool going = false;
  ++t.visits[1];
  for (Packet& p : t.packet) {
    if (!p.active || p.full) continue;
    uint32_t bits = meet_boxes(p.frustum, t.a.leaf_box + leaf * 6 * PARTICLE_WIDE, depth);
    if (p.rows + __builtin_popcount(bits) > ROWS) {
      p.full = true;
      continue;
    }
    for (; bits; bits &= bits - 1) meet_packet(t, p, leaf, __builtin_ctz(bits));
    going = true;
  }
  return going;
}

// Goes down the tree with all packets. A full packet or heap leaves rays active.
template <class Struct>
inline void walk_tile(Tile<Struct>& t, const Frustum& frustum) {
  t.heap.n = 0;
  t.heap.push(0.0f, 0);
  bool whole = true;
  for (int leaves = 0; t.heap.n;) {
    const uint64_t next = t.heap.pop();
    const int32_t child = (int32_t)(uint32_t)next;
    if (child >= 0) {
      whole = open_tile_node(t, frustum, child);
      if (!whole) break;
      continue;
    }
    whole = open_tile_leaf(t, -1 - (int64_t)child);
    if (!whole) break;
    if (++leaves % FLUSH || !t.heap.n) continue;
    for (Packet& p : t.packet)
      if (!p.full) flush_packet(t, p, key_depth(t.heap.entry[0]));
  }
  if (!whole) return;
  for (Packet& p : t.packet) {
    if (p.full) continue;
    flush_packet(t, p, 3.4e38f);
    p.active = 0;
  }
}

}  // namespace radfield
