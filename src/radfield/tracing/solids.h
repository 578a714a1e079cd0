// Signed distances of the primitives and their joins: solids.py has the equations. Letters: N rays, Q shapes, S solids.
// F: float or SIMD vector. Which primitive it is, is the same for all lanes.
#pragma once
#include "../maths.h"

namespace radfield {

struct SolidsTrace {
  float* depth;
  float* normal;
  int32_t* index;
  const float* origins;
  const float* directions;
  const float* limit;
  const int32_t* kind;
  const int32_t* operation;
  const float* sizes;
  const float* placement;
  const int32_t* first;
  const float* bound;
  int64_t inside;
  int64_t N, Q, S;
};

enum Kind { PLANE, SPHERE, BOX, TORUS, CYLINDER, CAPSULE, GYROID };
enum Operation { UNION, INTERSECT, SUBTRACT };

constexpr float FAR = 1e30f;
constexpr float TINY = 1e-20f;  // keeps quotients finite where the numerator is 0 too
// A ray this close to a surface has met it; Newton takes the rest.
constexpr float TOUCH = 5e-6f;
constexpr int MOST_STEPS = 256;
constexpr int NEWTON_STEPS = 2;
// Newton would leap along rays that graze: they stay where sphere tracing ended, within TOUCH of the surface.
constexpr float GRAZING = 0.02f;

template <class F>
RADFIELD_FN F length(F x, F y, F z = F{}) {
  return sqrt(x * x + y * y + z * z);
}

// sign(x) with sign(0) = 1
template <class F>
RADFIELD_FN F sign(F x) {
  return select(x < 0.0f, F{} - 1.0f, F{} + 1.0f);
}

// World to the shape's axes; `placement` is 12 numbers: rotation by rows, centre.
template <class F>
RADFIELD_FN void to_shape(const float* m, const F* x, F* p) {
  const F a = x[0] - m[9], b = x[1] - m[10], c = x[2] - m[11];
  for (int i = 0; i < 3; ++i) p[i] = a * m[3 * i] + b * m[3 * i + 1] + c * m[3 * i + 2];
}
template <class F>
RADFIELD_FN void to_world(const float* m, const F* p, F* x) {
  for (int i = 0; i < 3; ++i) x[i] = p[0] * m[i] + p[1] * m[3 + i] + p[2] * m[6 + i];
}

template <class F>
RADFIELD_FN F gyroid_wave(float f, const F* p, F* s, F* c) {
  for (int i = 0; i < 3; ++i) s[i] = sin_turns(p[i] * f), c[i] = sin_turns(p[i] * f + 0.25f);
  return s[0] * c[1] + s[1] * c[2] + s[2] * c[0];
}
constexpr float TWO_PI = 6.28318530718f;
constexpr float SQRT_3 = 1.73205080757f;

// Distance of p to a primitive with sizes s.
template <class F>
RADFIELD_FN F primitive_distance(int kind, const float* s, const F* p) {
  const F zero = F{};
  switch (kind) {
    case SPHERE: return length(p[0], p[1], p[2]) - s[0];
    case BOX: {
      const F x = abs(p[0]) - (s[0] - s[3]), y = abs(p[1]) - (s[1] - s[3]), z = abs(p[2]) - (s[2] - s[3]);
      return length(max(x, zero), max(y, zero), max(z, zero)) + min(max(x, max(y, z)), zero) - s[3];
    }
    case TORUS: return length(length(p[0], p[1]) - s[0], p[2]) - s[1];
    case CYLINDER: {
      const F x = length(p[0], p[1]) - (s[0] - s[2]), z = abs(p[2]) - (s[1] - s[2]);
      return length(max(x, zero), max(z, zero)) + min(max(x, z), zero) - s[2];
    }
    case CAPSULE: return length(p[0], p[1], p[2] - max(zero - s[1], min(zero + s[1], p[2]))) - s[0];
    case GYROID: {
      F sine[3], cosine[3];
      return abs(gyroid_wave(s[0], p, sine, cosine)) / (TWO_PI * SQRT_3 * s[0]) - s[1];
    }
    default: return p[2];
  }
}

// Gradient g [3] of primitive_distance.
template <class F>
RADFIELD_FN void primitive_gradient(int kind, const float* s, const F* p, F* g) {
  const F zero = F{}, one = F{} + 1.0f;
  g[0] = g[1] = g[2] = zero;
  if (kind == PLANE) {
    g[2] = one;
  } else if (kind == SPHERE || kind == CAPSULE) {
    const F z = kind == SPHERE ? p[2] : p[2] - max(zero - s[1], min(zero + s[1], p[2]));
    const F scale = 1.0f / max(length(p[0], p[1], z), zero + TINY);
    g[0] = p[0] * scale, g[1] = p[1] * scale, g[2] = z * scale;
  } else if (kind == BOX) {
    F q[3];
    for (int i = 0; i < 3; ++i) q[i] = abs(p[i]) - (s[i] - s[3]);
    const F deepest = max(q[0], max(q[1], q[2]));
    const F outside = length(max(q[0], zero), max(q[1], zero), max(q[2], zero));
    for (int i = 0; i < 3; ++i) {
      const F face = select(q[i] == deepest, one, zero);
      g[i] = sign(p[i]) * select(deepest > 0.0f, max(q[i], zero) / max(outside, zero + TINY), face);
    }
  } else if (kind == TORUS) {
    const F a = length(p[0], p[1]), b = a - s[0];
    const F scale = 1.0f / max(length(b, p[2]), zero + TINY), along = b * scale / max(a, zero + TINY);
    g[0] = p[0] * along, g[1] = p[1] * along, g[2] = p[2] * scale;
  } else if (kind == CYLINDER) {
    const F a = length(p[0], p[1]), x = a - (s[0] - s[2]), z = abs(p[2]) - (s[1] - s[2]);
    const F outside = max(length(max(x, zero), max(z, zero)), zero + TINY);
    const auto is_out = max(x, z) > 0.0f;
    const F side = select(is_out, max(x, zero) / outside, select(x >= z, one, zero)) / max(a, zero + TINY);
    const F cap = select(is_out, max(z, zero) / outside, select(x >= z, zero, one));
    g[0] = p[0] * side, g[1] = p[1] * side, g[2] = sign(p[2]) * cap;
  } else {
    F sine[3], cosine[3];
    const F scale = sign(gyroid_wave(s[0], p, sine, cosine)) * (1.0f / SQRT_3);
    for (int i = 0; i < 3; ++i) {
      const int next = (i + 1) % 3, last = (i + 2) % 3;
      g[i] = scale * (cosine[i] * cosine[next] - sine[last] * sine[i]);
    }
  }
}

// How a shape at distance b joins what is at distance a: the joined distance, and the weights of both gradients.
template <class F>
RADFIELD_FN F join(int operation, float blend, F a, F b, F& weight_a, F& weight_b) {
  const F zero = F{}, one = F{} + 1.0f;
  if (operation == UNION) {
    const F h = blend > 0 ? max(blend - abs(a - b), zero) / blend : zero;
    const auto first = a <= b;
    weight_a = select(first, one - 0.5f * h, 0.5f * h), weight_b = one - weight_a;
    return min(a, b) - 0.25f * blend * h * h;
  }
  const F other = operation == SUBTRACT ? zero - b : b;
  const auto first = a >= other;
  weight_a = select(first, one, zero);
  weight_b = select(first, zero, operation == SUBTRACT ? zero - one : one);
  return max(a, other);
}

// Distance along a ray to a lone plane, sphere or box from outside, in the shape's axes; FAR for a miss.
template <class F>
RADFIELD_FN F plane_depth(const F* o, const F* d) {
  const F t = (F{} - o[2]) / select(d[2] == 0.0f, F{} + TINY, d[2]);
  return select(d[2] < 0.0f, select(o[2] >= 0.0f, t, F{} + FAR), F{} + FAR);
}
template <class F>
RADFIELD_FN F sphere_depth(float radius, const F* o, const F* d) {
  const F b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2];
  // from the point of closest approach, not from |o|^2 - r^2: that difference of large numbers loses digits
  const F closest = length(o[0] - b * d[0], o[1] - b * d[1], o[2] - b * d[2]);
  const F inside = (radius - closest) * (radius + closest);
  const F t = F{} - b - sqrt(max(inside, F{}));
  return select(inside > 0.0f, select(t > 0.0f, t, F{} + FAR), F{} + FAR);
}
template <class F>
RADFIELD_FN F box_depth(const float* s, const F* o, const F* d) {
  F near = F{} - FAR, far = F{} + FAR;
  for (int i = 0; i < 3; ++i) {
    // parallel to a face: a slab met extremely far away
    const F inverse = 1.0f / select(abs(d[i]) < 1e-12f, F{} + 1e-12f, d[i]);
    const F middle = (F{} - o[i]) * inverse, reach = abs(inverse) * s[i];
    near = max(near, middle - reach), far = min(far, middle + reach);
  }
  return select(near <= far, select(near > 0.0f, near, F{} + FAR), F{} + FAR);
}

}  // namespace radfield
