// Solid angles of triangles: winding.py has the rules. Letters: N points, B nodes, L blocks. F: float or SIMD vector.
#pragma once
#include "wide_bvh.h"

namespace radfield {

struct MeshWinding {
  float* winding;
  const float* x;
  const int32_t* child;
  const float* moments;
  const float* block;
  double centre_x;
  double centre_y;
  double centre_z;
  double scale;
  double accuracy;
  int64_t N, B, L;
};

constexpr float PER_TURN = 0.0795774715f;  // 1 / (4 pi)

// arctan of z in [0, 1], to 2e-8 (Abramowitz and Stegun, 4.4.49).
template <class F>
RADFIELD_FN F arctan_unit(F z) {
  const F z2 = z * z;
  F p = F{} + 0.0028662257f;
  p = fma(p, z2, F{} - 0.0161657367f);
  p = fma(p, z2, F{} + 0.0429096138f);
  p = fma(p, z2, F{} - 0.0752896400f);
  p = fma(p, z2, F{} + 0.1065626393f);
  p = fma(p, z2, F{} - 0.1420889944f);
  p = fma(p, z2, F{} + 0.1999355085f);
  p = fma(p, z2, F{} - 0.3333314528f);
  return fma(p * z2, z, z);
}

template <class F>
RADFIELD_FN F arctan2(F y, F x) {
  const F ax = abs(x), ay = abs(y);
  F angle = arctan_unit(min(ax, ay) / max(max(ax, ay), F{} + 1e-37f));
  angle = select(ay > ax, 1.57079633f - angle, angle);
  angle = select(x < 0.0f, 3.14159265f - angle, angle);
  return select(y < 0.0f, F{} - angle, angle);
}

template <class F>
RADFIELD_FN F inner(const F* a, const F* b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

// That of triangles far away, at r from here, as one dipole: the sum of their areas' vectors.
template <class F>
RADFIELD_FN F dipole_angle(const F* r, const F* area, F square) {
  return inner(area, r) / max(square * sqrt(square), F{} + 1e-37f);
}

// Point i in the tree's coordinates; false beyond what float32 cubes, or where it is no number.
RADFIELD_FN bool winding_point(const MeshWinding& a, int64_t i, float (&p)[3]) {
  const double centre[3] = {a.centre_x, a.centre_y, a.centre_z};
  double square = 0;
  for (int k = 0; k < 3; ++k) {
    const double x = ((double)a.x[k * a.N + i] - centre[k]) / a.scale;
    p[k] = (float)x, square += x * x;
  }
  return square < 1e24;
}

// The solid angle of a triangle as seen from the origin, positive from behind (van Oosterom and Strackee 1983).
template <class F>
RADFIELD_FN F solid_angle(const F* a, const F* b, const F* c) {
  const F la = sqrt(inner(a, a)), lb = sqrt(inner(b, b)), lc = sqrt(inner(c, c));
  const F volume = a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) +
                   a[2] * (b[0] * c[1] - b[1] * c[0]);
  return 2.0f * arctan2(volume, la * lb * lc + inner(a, b) * lc + inner(b, c) * la + inner(c, a) * lb);
}

}  // namespace radfield
