// A point at a time goes down the tree; 16 children or triangles are W lanes each.
#include "winding.h"

#include "../cpu/lanes.h"
#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t POINTS = 64;  // per task

RADFIELD_SIMD vf block_angles(const MeshWinding& a, int64_t block, const vf* p) {
  const float* data = a.block + 9 * WIDE * block;
  vf total = {};
  for (int i = 0; i < WIDE; i += W) {
    vf first[3], second[3], third[3];
    for (int k = 0; k < 3; ++k) {
      const vf at = load(data + k * WIDE + i);
      first[k] = at - p[k], second[k] = first[k] + load(data + (3 + k) * WIDE + i);
      third[k] = first[k] + load(data + (6 + k) * WIDE + i);
    }
    total = total + select(load(data + i) < 0.5f * AWAY, solid_angle(first, second, third), vf{});
  }
  return total;
}

// Adds what far children subtend, by their moments; returns the others as bits.
RADFIELD_SIMD uint32_t far_children(const MeshWinding& a, int32_t node, const vf* p, vf& total) {
  const float* data = a.moments + 7 * WIDE * (int64_t)node;
  uint32_t near = 0;
  for (int i = 0; i < WIDE; i += W) {
    vf r[3], area[3];
    for (int k = 0; k < 3; ++k) r[k] = load(data + k * WIDE + i) - p[k], area[k] = load(data + (3 + k) * WIDE + i);
    const vf square = inner(r, r), radius = load(data + 6 * WIDE + i) * (float)a.accuracy;
    const vi far = square > radius * radius;
    total = total + select(far, dipole_angle(r, area, square), vf{});
    near |= mask_bits(~far) << i;
  }
  return near;
}

float winding_of(const MeshWinding& a, const vf* p) {
  int32_t stack[DEEPEST], top = 0;
  stack[top++] = 0;
  vf total = {};
  while (top) {
    const int32_t node = stack[--top];
    for (uint32_t near = far_children(a, node, p, total); near; near &= near - 1) {
      const int32_t child = a.child[WIDE * (int64_t)node + __builtin_ctz(near)];
      if (child > 0) stack[top++] = child;
      if (child < 0) total = total + block_angles(a, -1 - (int64_t)child, p);
    }
  }
  return sum(total) * PER_TURN;
}

}  // namespace

RADFIELD_OP(mesh_winding, MeshWinding) {
  parallel_blocks(a.N, POINTS, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float at[3];
      if (!winding_point(a, i, at)) {
        a.winding[i] = as_float(0x7fc00000);  // no number
        continue;
      }
      const vf p[3] = {splat(at[0]), splat(at[1]), splat(at[2])};
      a.winding[i] = winding_of(a, p);
    }
  });
}
