// W rays go together: a solid is looked at only where one of them meets the sphere around it. What a lane computes
// never depends on its neighbours.
#include "solids.h"

#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t BLOCK = 256;  // rays per task

struct Packet {
  vf o[3], d[3];

  RADFIELD_SIMD void at(vf t, vf* x) const {
    for (int c = 0; c < 3; ++c) x[c] = o[c] + t * d[c];
  }
};

// Distance of x to a solid, which of its shapes decides, and the gradient where it is asked for.
template <bool GRADIENT>
RADFIELD_SIMD vf solid_distance(const SolidsTrace& a, int64_t solid, const vf* x, vi* index, vf* gradient) {
  vf distance = {};
  for (int32_t q = a.first[solid]; q < a.first[solid + 1]; ++q) {
    const float *s = a.sizes + 5 * q, *m = a.placement + 12 * q;
    vf p[3], weight_old, weight_new = vf{} + 1.0f;
    to_shape(m, x, p);
    const vf d = primitive_distance(a.kind[q], s, p);
    const bool is_first = q == a.first[solid];
    distance = is_first ? d : join(a.operation[q], s[4], distance, d, weight_old, weight_new);
    if constexpr (GRADIENT) {
      vf local[3], g[3];
      primitive_gradient(a.kind[q], s, p, local);
      to_world(m, local, g);
      for (int c = 0; c < 3; ++c) gradient[c] = is_first ? g[c] : gradient[c] * weight_old + g[c] * weight_new;
      *index = is_first ? vi{} + q : select(abs(weight_new) > abs(weight_old), vi{} + q, *index);
    }
  }
  return distance;
}

// The interval in which rays are inside the solid's bound, cut at 0 and `best`; false where no ray is.
RADFIELD_SIMD bool find_interval(const float* bound, const Packet& rays, vf best, vi lanes_on, vf& near, vf& far) {
  near = vf{}, far = best;
  if (bound[3] < 0) return any(lanes_on);
  vf o[3];
  for (int c = 0; c < 3; ++c) o[c] = rays.o[c] - bound[c];
  const vf b = o[0] * rays.d[0] + o[1] * rays.d[1] + o[2] * rays.d[2];
  const vf closest = length(o[0] - b * rays.d[0], o[1] - b * rays.d[1], o[2] - b * rays.d[2]);
  const vf inside = (bound[3] - closest) * (bound[3] + closest);
  const vf half = sqrt(max(inside, vf{}));
  near = max(vf{} - b - half, vf{}), far = min(half - b, best);
  const vi meets = lanes_on & (inside > 0.0f) & (near < far);
  far = select(meets, far, vf{} - 1.0f);
  return any(meets);
}

// FAR where a ray leaves [near, far] without meeting the solid. sign: -1 from inside.
RADFIELD_SIMD vf march_solid(const SolidsTrace& a, int64_t solid, const Packet& rays, vf near, vf far, float sign) {
  vf t = near, x[3], g[3];
  vi on = near < far, met = {};
  for (int step = 0; step < MOST_STEPS && any(on); ++step) {
    rays.at(t, x);
    const vf d = solid_distance<false>(a, solid, x, nullptr, nullptr) * sign;
    met = met | (on & (d < TOUCH));
    on = on & (d >= TOUCH);
    t = select(on, t + d, t);
    on = on & (t < far);
  }
  if (!any(met)) return vf{} + FAR;
  vi unused;
  for (int step = 0; step < NEWTON_STEPS; ++step) {
    rays.at(t, x);
    const vf d = solid_distance<true>(a, solid, x, &unused, g);
    const vf slope = g[0] * rays.d[0] + g[1] * rays.d[1] + g[2] * rays.d[2];
    const vi steep = slope * sign < -GRAZING;
    t = select(met & steep, t - d / select(steep, slope, vf{} + 1.0f), t);
  }
  return select(met, max(t, vf{}), vf{} + FAR);
}

RADFIELD_SIMD vf solid_depth(const SolidsTrace& a, int64_t solid, const Packet& rays, vf near, vf far) {
  const int32_t q = a.first[solid];
  const bool alone = a.first[solid + 1] - q == 1, rounded = a.kind[q] == BOX && a.sizes[5 * q + 3] != 0;
  if (a.inside || !alone || a.kind[q] > BOX || rounded)
    return march_solid(a, solid, rays, near, far, a.inside ? -1.0f : 1.0f);
  float turn[12];
  memcpy(turn, a.placement + 12 * q, sizeof turn);
  vf o[3], d[3];
  to_shape(turn, rays.o, o);
  turn[9] = turn[10] = turn[11] = 0;
  to_shape(turn, rays.d, d);
  if (a.kind[q] == PLANE) return plane_depth(o, d);
  return a.kind[q] == SPHERE ? sphere_depth(a.sizes[5 * q], o, d) : box_depth(a.sizes + 5 * q, o, d);
}

void trace_packet(const SolidsTrace& a, int64_t i, int n) {
  Packet rays;
  for (int c = 0; c < 3; ++c)
    rays.o[c] = load_n(a.origins + c * a.N + i, n), rays.d[c] = load_n(a.directions + c * a.N + i, n);
  const vi lanes_on = lanes() < n;
  vf best = a.limit ? load_n(a.limit + i, n) : vf{} + FAR;
  vi solid = vi{} - 1;
  for (int64_t s = 0; s < a.S; ++s) {
    vf near, far;
    if (!find_interval(a.bound + 4 * s, rays, best, lanes_on, near, far)) continue;
    const vf t = solid_depth(a, s, rays, near, far);
    const vi nearer = lanes_on & (t < best);
    best = select(nearer, t, best), solid = select(nearer, vi{} + (int32_t)s, solid);
  }
  vf x[3], normal[3] = {};
  vi index = vi{} - 1;
  rays.at(best, x);
  for (int64_t s = 0; s < a.S; ++s) {
    const vi mine = solid == (int32_t)s;
    if (!any(mine)) continue;
    vf g[3];
    vi found;
    solid_distance<true>(a, s, x, &found, g);
    const vf scale = 1.0f / max(length(g[0], g[1], g[2]), vf{} + TINY);
    for (int c = 0; c < 3; ++c) normal[c] = select(mine, g[c] * scale, normal[c]);
    index = select(mine, found, index);
  }
  store_n(a.depth + i, select(index < 0, vf{} + FAR, best), n);
  store_n((float*)a.index + i, as_float(index), n);
  if (a.normal)
    for (int c = 0; c < 3; ++c) store_n(a.normal + c * a.N + i, normal[c], n);
}

}  // namespace

RADFIELD_OP(solids_trace, SolidsTrace) {
  parallel_blocks(a.N, BLOCK, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += W) trace_packet(a, i, (int)(end - i < W ? end - i : W));
  });
}
