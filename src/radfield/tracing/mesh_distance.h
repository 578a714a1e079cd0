// The point of a triangle that is nearest to a point: mesh_distance.py has the rules. Letters: N points, T triangles, B
// nodes, L blocks. F: float or SIMD vector, one triangle per lane.
#pragma once
#include "wide_bvh.h"

namespace radfield {

struct MeshDistance {
  float* distance;
  int32_t* index;
  int32_t* places;
  const float* x;
  const float* box;
  const int32_t* child;
  const float* block;
  const int32_t* triangle;
  const int32_t* order;
  const float* corners;
  const float* normals;
  double centre_x;
  double centre_y;
  double centre_z;
  double scale;
  int64_t N, B, L, T;
};

constexpr float NEARER_BOX = 1 - 4e-7f;  // a box counts as nearer than it is by what rounding may take

template <class F>
RADFIELD_FN F dot3(const F* a, const F* b) {
  return fma(a[0], b[0], fma(a[1], b[1], a[2] * b[2]));
}

// The square of the distance from p to the edge from 0 to e.
template <class F>
RADFIELD_FN F edge_square(const F* p, const F* e) {
  const F least = F{} + 1e-30f;  // an edge without length is its corner
  const F t = min(max(dot3(e, p) / max(dot3(e, e), least), F{}), F{} + 1.0f);
  const F r[3] = {p[0] - t * e[0], p[1] - t * e[1], p[2] - t * e[2]};
  return dot3(r, r);
}

// The square of the distance from p to the triangle 0, b, c: the least over its edges and, where the foot of the
// perpendicular is inside, its plane. Each candidate is the distance of a point of the triangle, so that rounding can
// choose a farther one by little, but never a nearer one than there is.
template <class F>
RADFIELD_FN F triangle_square(const F* p, const F* b, const F* c) {
  const F bp[3] = {p[0] - b[0], p[1] - b[1], p[2] - b[2]}, bc[3] = {c[0] - b[0], c[1] - b[1], c[2] - b[2]};
  const F edges = min(edge_square(p, b), min(edge_square(p, c), edge_square(bp, bc)));
  const F d1 = dot3(b, p), d2 = dot3(c, p), bb = dot3(b, b), cross = dot3(b, c), cc = dot3(c, c);
  const F v = cc * d1 - cross * d2, w = bb * d2 - cross * d1, area = bb * cc - cross * cross;
  const F scale = 1.0f / max(area, F{} + 1e-30f);
  const F r[3] = {p[0] - scale * (v * b[0] + w * c[0]), p[1] - scale * (v * b[1] + w * c[1]),
                  p[2] - scale * (v * b[2] + w * c[2])};
  const F plane = dot3(r, r);
  F found = select(v < 0.0f, edges, plane);
  found = select(w < 0.0f, edges, found);
  found = select(v + w > area, edges, found);
  return select(area < 1e-30f, edges, min(found, edges));
}

// What of a triangle is nearest: 0 the face, 1 to 3 the edges ab, bc, ca, 4 to 6 the corners a, b, c.
struct Nearest {
  double square;
  double off[3];  // from the nearest point to p
  int feature;
};

RADFIELD_FN void try_edge(const double* p, const double* from, const double* to, int edge, int start, int end,
                          Nearest& found) {
  double e[3], q[3], along = 0, length = 0;
  for (int i = 0; i < 3; ++i) e[i] = to[i] - from[i], q[i] = p[i] - from[i], along += e[i] * q[i], length += e[i] * e[i];
  const double t = along <= 0 || length <= 0 ? 0 : along >= length ? 1 : along / length;
  double square = 0;
  for (int i = 0; i < 3; ++i) q[i] -= t * e[i], square += q[i] * q[i];
  if (square >= found.square) return;
  found.square = square, found.feature = t <= 0 ? start : t >= 1 ? end : edge;
  for (int i = 0; i < 3; ++i) found.off[i] = q[i];
}

// The same in double, for the one triangle that was found.
RADFIELD_FN Nearest nearest_feature(const float* corners, const double* p) {
  double a[3], b[3], c[3], ab[3], ac[3], ap[3];
  double d1 = 0, d2 = 0, bb = 0, cross = 0, cc = 0;
  for (int i = 0; i < 3; ++i) {
    a[i] = corners[i], b[i] = corners[3 + i], c[i] = corners[6 + i];
    ab[i] = b[i] - a[i], ac[i] = c[i] - a[i], ap[i] = p[i] - a[i];
    d1 += ab[i] * ap[i], d2 += ac[i] * ap[i], bb += ab[i] * ab[i], cross += ab[i] * ac[i], cc += ac[i] * ac[i];
  }
  Nearest found = {1e300, {0, 0, 0}, 0};
  const double v = cc * d1 - cross * d2, w = bb * d2 - cross * d1, area = bb * cc - cross * cross;
  if (area > 0 && v > 0 && w > 0 && v + w < area) {
    found.square = 0;
    for (int i = 0; i < 3; ++i) {
      found.off[i] = ap[i] - (v * ab[i] + w * ac[i]) / area;
      found.square += found.off[i] * found.off[i];
    }
    return found;
  }
  try_edge(p, a, b, 1, 4, 5, found), try_edge(p, b, c, 2, 5, 6, found), try_edge(p, c, a, 3, 6, 4, found);
  return found;
}

// Point i in the tree's coordinates.
struct QueryPoint {
  double p[3];
  bool valid;
};
RADFIELD_FN QueryPoint query_point(const MeshDistance& a, int64_t i) {
  const double centre[3] = {a.centre_x, a.centre_y, a.centre_z}, inverse = 1 / a.scale;
  QueryPoint at;
  double square = 0;
  for (int k = 0; k < 3; ++k) at.p[k] = (a.x[k * a.N + i] - centre[k]) * inverse, square += at.p[k] * at.p[k];
  at.valid = square < 1e36;  // what is no number is not, nor what float32 cannot square
  return at;
}

// What is known of point i once the tree's triangle `found` is its nearest one.
RADFIELD_FN void write_distance(const MeshDistance& a, int64_t i, const QueryPoint& at, int32_t found) {
  if (!at.valid || found < 0) {
    a.distance[i] = as_float(0x7fc00000), a.index[i] = -1;  // no number
    return;
  }
  const Nearest near = nearest_feature(a.corners + 9 * (int64_t)found, at.p);
  double side = 1;
  if (a.normals) {
    const float* normal = a.normals + 3 * (7 * (int64_t)a.order[found] + near.feature);
    side = near.off[0] * normal[0] + near.off[1] * normal[1] + near.off[2] * normal[2];
  }
  const double distance = square_root(near.square) * a.scale;
  a.distance[i] = (float)(side < 0 ? -distance : distance);
  a.index[i] = a.order[found];
}

}  // namespace radfield
