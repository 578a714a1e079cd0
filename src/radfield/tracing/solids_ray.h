// The way of rays through solids: solids.py has the rules. F: float or SIMD vector, whose lanes are rays that go
// together; I: its integers, which are its masks too. A solid is looked at only where one of the rays meets the sphere
// around it; what a lane computes never depends on its neighbours.
#pragma once
#include "solids.h"

namespace radfield {

RADFIELD_FN bool any(int32_t mask) { return mask != 0; }  // of one lane

template <class F>
struct Packet {
  F o[3], d[3];

  RADFIELD_FN void at(F t, F* x) const {
    for (int c = 0; c < 3; ++c) x[c] = o[c] + t * d[c];
  }
};

// Distance of x to a solid, which of its shapes decides, and the gradient where it is asked for.
template <bool GRADIENT, class F, class I>
RADFIELD_FN F solid_distance(const SolidsTrace& a, int64_t solid, const F* x, I* index, F* gradient) {
  F distance = {};
  for (int32_t q = a.first[solid]; q < a.first[solid + 1]; ++q) {
    const float *s = a.sizes + 5 * q, *m = a.placement + 12 * q;
    F p[3], weight_old, weight_new = F{} + 1.0f;
    to_shape(m, x, p);
    const F d = primitive_distance(a.kind[q], s, p);
    const bool is_first = q == a.first[solid];
    distance = is_first ? d : join(a.operation[q], s[4], distance, d, weight_old, weight_new);
    if constexpr (GRADIENT) {
      F local[3], g[3];
      primitive_gradient(a.kind[q], s, p, local);
      to_world(m, local, g);
      for (int c = 0; c < 3; ++c) gradient[c] = is_first ? g[c] : gradient[c] * weight_old + g[c] * weight_new;
      *index = is_first ? I{} + q : select(abs(weight_new) > abs(weight_old), I{} + q, *index);
    }
  }
  return distance;
}

// The interval in which rays are inside the solid's bound, cut at 0 and `best`; false where no ray is.
template <class F, class I>
RADFIELD_FN bool find_interval(const float* bound, const Packet<F>& rays, F best, I lanes_on, F& near, F& far) {
  near = F{}, far = best;
  if (bound[3] < 0) return any(lanes_on);
  F o[3];
  for (int c = 0; c < 3; ++c) o[c] = rays.o[c] - bound[c];
  const F b = o[0] * rays.d[0] + o[1] * rays.d[1] + o[2] * rays.d[2];
  const F closest = length(o[0] - b * rays.d[0], o[1] - b * rays.d[1], o[2] - b * rays.d[2]);
  const F inside = (bound[3] - closest) * (bound[3] + closest);
  const F half = sqrt(max(inside, F{}));
  near = max(F{} - b - half, F{}), far = min(half - b, best);
  const I meets = lanes_on & (inside > 0.0f) & (near < far);
  far = select(meets, far, F{} - 1.0f);
  return any(meets);
}

// FAR where a ray leaves [near, far] without meeting the solid. sign: -1 from inside.
template <class F, class I>
RADFIELD_FN F march_solid(const SolidsTrace& a, int64_t solid, const Packet<F>& rays, F near, F far, float sign) {
  F t = near, x[3], g[3];
  I on = near < far, met = {}, unused;
  for (int step = 0; step < MOST_STEPS && any(on); ++step) {
    rays.at(t, x);
    const F d = solid_distance<false>(a, solid, x, &unused, g) * sign;
    met = met | (on & (d < TOUCH));
    on = on & (d >= TOUCH);
    t = select(on, t + d, t);
    on = on & (t < far);
  }
  if (!any(met)) return F{} + FAR;
  for (int step = 0; step < NEWTON_STEPS; ++step) {
    rays.at(t, x);
    const F d = solid_distance<true>(a, solid, x, &unused, g);
    const F slope = g[0] * rays.d[0] + g[1] * rays.d[1] + g[2] * rays.d[2];
    const I steep = slope * sign < -GRAZING;
    t = select(met & steep, t - d / select(steep, slope, F{} + 1.0f), t);
  }
  return select(met, max(t, F{}), F{} + FAR);
}

template <class F, class I>
RADFIELD_FN F solid_depth(const SolidsTrace& a, int64_t solid, const Packet<F>& rays, F near, F far) {
  const int32_t q = a.first[solid];
  const bool alone = a.first[solid + 1] - q == 1, rounded = a.kind[q] == BOX && a.sizes[5 * q + 3] != 0;
  if (a.inside || !alone || a.kind[q] > BOX || rounded)
    return march_solid<F, I>(a, solid, rays, near, far, a.inside ? -1.0f : 1.0f);
  float turn[12];
  for (int i = 0; i < 12; ++i) turn[i] = a.placement[12 * q + i];
  F o[3], d[3];
  to_shape(turn, rays.o, o);
  turn[9] = turn[10] = turn[11] = 0;
  to_shape(turn, rays.d, d);
  if (a.kind[q] == PLANE) return plane_depth(o, d);
  return a.kind[q] == SPHERE ? sphere_depth(a.sizes[5 * q], o, d) : box_depth(a.sizes + 5 * q, o, d);
}

template <class F, class I>
struct SolidHit {
  F depth, normal[3];
  I index;  // of the shape, -1 for none
};

// The first surface along each ray before `best`.
template <class F, class I>
RADFIELD_FN SolidHit<F, I> meet_solids(const SolidsTrace& a, const Packet<F>& rays, F best, I lanes_on) {
  I solid = I{} - 1;
  for (int64_t s = 0; s < a.S; ++s) {
    F near, far;
    if (!find_interval(a.bound + 4 * s, rays, best, lanes_on, near, far)) continue;
    const F t = solid_depth<F, I>(a, s, rays, near, far);
    const I nearer = lanes_on & (t < best);
    best = select(nearer, t, best), solid = select(nearer, I{} + (int32_t)s, solid);
  }
  SolidHit<F, I> hit = {best, {}, I{} - 1};
  F x[3];
  rays.at(best, x);
  for (int64_t s = 0; s < a.S; ++s) {
    const I mine = solid == (int32_t)s;
    if (!any(mine)) continue;
    F g[3];
    I found;
    solid_distance<true>(a, s, x, &found, g);
    const F scale = 1.0f / max(length(g[0], g[1], g[2]), F{} + TINY);
    for (int c = 0; c < 3; ++c) hit.normal[c] = select(mine, g[c] * scale, hit.normal[c]);
    hit.index = select(mine, found, hit.index);
  }
  hit.depth = select(hit.index < 0, F{} + FAR, best);
  return hit;
}

}  // namespace radfield
