// Boxes and triangles met by rays: bvh.py has the tree and the rules. Letters: N rays, T triangles, K nodes. F: float or
// SIMD vector.
#pragma once
#include "../maths.h"

namespace radfield {

struct BvhBuild {
  float* box;
  int32_t* node;
  int64_t* used;
  int32_t* order;
  const float* bounds;
  int64_t K, T;
};
struct BvhTrace {
  float* depth;
  int32_t* index;
  float* weights;
  const float* origins;
  const float* directions;
  const float* limit;
  const float* box;
  const int32_t* node;
  const int32_t* order;
  const float* corners;
  int64_t N, K, T;
};

constexpr float FAR = 1e30f;
// A tree is no deeper, so that a traversal's stack has a fixed size: beyond HEURISTIC_LEVELS ranges are halved.
constexpr int HEURISTIC_LEVELS = 32, MOST_LEVELS = 64;
constexpr int BINS = 16, LEAF = 4;

// 1 / d with a stand-in for 0, whose slab is then met extremely far away.
template <class F>
RADFIELD_FN F inverse_direction(F d) {
  const F least = F{} + 1e-18f;
  return 1.0f / select(abs(d) < least, select(d < 0.0f, F{} - least, least), d);
}

// Where a ray enters a box; FAR or more where it misses it or enters beyond `limit`.
template <class F>
RADFIELD_FN F enter_box(const float* box, const F* o, const F* inverse, F limit) {
  F near = F{}, far = limit;
  for (int i = 0; i < 3; ++i) {
    const F a = (box[i] - o[i]) * inverse[i], b = (box[3 + i] - o[i]) * inverse[i];
    near = max(min(a, b), near);
    far = min(max(a, b) * 1.0000004f, far);  // never smaller for rounding (Ize 2013, "Robust BVH ray traversal")
  }
  return select(near <= far, near, F{} + FAR);
}

// The signed volume of an edge from p to q, as seen from the ray's origin, and the direction d.
template <class F>
RADFIELD_FN F edge_volume(const F* p, const F* q, const F* d) {
  const F s[3] = {p[0] + q[0], p[1] + q[1], p[2] + q[2]}, e[3] = {q[0] - p[0], q[1] - p[1], q[2] - p[2]};
  return (s[1] * e[2] - s[2] * e[1]) * d[0] + (s[2] * e[0] - s[0] * e[2]) * d[1] + (s[0] * e[1] - s[1] * e[0]) * d[2];
}

// Distance to a triangle of 9 numbers, FAR for a miss; u, v: weights of its second and third corner.
template <class F>
RADFIELD_FN F triangle_depth(const float* corners, const F* o, const F* d, F& u, F& v) {
  F a[3], b[3], c[3];
  for (int i = 0; i < 3; ++i) a[i] = corners[i] - o[i], b[i] = corners[3 + i] - o[i], c[i] = corners[6 + i] - o[i];
  u = edge_volume(c, a, d), v = edge_volume(a, b, d);
  const F w = edge_volume(b, c, d), total = u + v + w;
  const F low = min(u, min(v, w)), high = max(u, max(v, w));
  const F ab[3] = {b[0] - a[0], b[1] - a[1], b[2] - a[2]}, ac[3] = {c[0] - a[0], c[1] - a[1], c[2] - a[2]};
  const F n[3] = {ab[1] * ac[2] - ab[2] * ac[1], ab[2] * ac[0] - ab[0] * ac[2], ab[0] * ac[1] - ab[1] * ac[0]};
  const F across = n[0] * d[0] + n[1] * d[1] + n[2] * d[2], up = n[0] * a[0] + n[1] * a[1] + n[2] * a[2];
  const F far = F{} + FAR;
  F t = up / select(across == 0.0f, far, across);
  t = select(across == 0.0f, far, select(t > 0.0f, t, far));
  t = select(low >= 0.0f, t, select(high <= 0.0f, t, far));
  const F scale = 1.0f / select(total == 0.0f, far, total);
  u = u * scale, v = v * scale;
  return select(total == 0.0f, far, t);
}

// The nearest triangle so far; index: -1 for none. I: the integers of F.
template <class F, class I>
struct TriangleHit {
  F depth, u, v;
  I index;
};
// Triangle `number` of 9 numbers; of equally near ones the first of the mesh, whatever the tree.
template <class F, class I>
RADFIELD_FN void meet_triangle(const float* corners, I number, const F* o, const F* d, TriangleHit<F, I>& found) {
  F u, v;
  const F t = triangle_depth(corners, o, d, u, v);
  const auto nearer = (t < found.depth) | ((t == found.depth) & (found.index > number));
  found.depth = select(nearer, t, found.depth);
  found.u = select(nearer, u, found.u), found.v = select(nearer, v, found.v);
  found.index = select(nearer, number, found.index);
}

}  // namespace radfield
