// A team of 16 lanes goes down the tree for a point (wide_bvh_device.h). Each lane sums the angles of its children and
// triangles, and at the end the lanes are added: the sums of winding.cpp where its vectors have 16 lanes.
#include "winding.h"

#include "wide_bvh_device.h"

namespace radfield {

// Adds what this lane's triangle of a block subtends.
RADFIELD_FN void add_triangle(const MeshWinding& a, int64_t block, const float (&p)[3], float& total) {
  const float* const data = a.block + 9 * WIDE * block + team_lane();
  float first[3], second[3], third[3];
  for (int k = 0; k < 3; ++k) {
    first[k] = data[k * WIDE] - p[k];
    second[k] = first[k] + data[(3 + k) * WIDE], third[k] = first[k] + data[(6 + k) * WIDE];
  }
  total = total + select(data[0] < 0.5f * AWAY, solid_angle(first, second, third), 0.0f);
}

// Adds what this lane's child of a node subtends if that is far away; returns the other children as bits.
RADFIELD_FN uint32_t far_children(const MeshWinding& a, int32_t node, uint32_t team, const float (&p)[3],
                                  float& total) {
  const float* const data = a.moments + 7 * WIDE * (int64_t)node + team_lane();
  float r[3], area[3];
  for (int k = 0; k < 3; ++k) r[k] = data[k * WIDE] - p[k], area[k] = data[(3 + k) * WIDE];
  const float square = inner(r, r), radius = data[6 * WIDE] * (float)a.accuracy;
  const bool far = square > radius * radius;
  total = total + select(far, dipole_angle(r, area, square), 0.0f);
  return team_ballot(team, !far);
}

RADFIELD_FN float winding_of(const MeshWinding& a, uint32_t team, const float (&p)[3]) {
  NodeStack left;
  int32_t node = 0;
  float total = 0.0f;
  uint32_t near = far_children(a, node, team, p, total);
  for (;;) {
    if (!near) {
      if (!left.top) break;
      left.pop(node, near);
      continue;
    }
    const int32_t child = a.child[WIDE * (int64_t)node + lowest_bit(near)];
    near &= near - 1;
    if (child < 0) add_triangle(a, -1 - (int64_t)child, p, total);
    if (child <= 0) continue;
    if (near) left.push(node, near);
    node = child, near = far_children(a, node, team, p, total);
  }
  for (int d = WIDE / 2; d; d >>= 1) total = total + __shfl_xor_sync(team, total, d);
  return total * PER_TURN;
}

__global__ void mesh_winding(const MeshWinding a) {
  const int64_t i = thread_number() / WIDE;
  if (i >= a.N) return;  // whole teams
  float p[3];
  const bool valid = winding_point(a, i, p);
  const float found = valid ? winding_of(a, team_mask(), p) : as_float(0x7fc00000);
  if (team_lane() == 0) a.winding[i] = found;
}

}  // namespace radfield
