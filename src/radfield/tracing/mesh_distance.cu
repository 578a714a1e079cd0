// A team of 16 lanes goes down the tree for a point, the nearest child first (wide_bvh_device.h). Points are asked in
// the order in which they are given.
#include "mesh_distance.h"

#include "wide_bvh_device.h"

namespace radfield {

constexpr float FARTHEST = 3e38f;

// What a team knows of its point.
struct TeamQuery {
  float p[3], best;
  int32_t found;  // the nearest triangle so far, -1 for none
};

// The children of a node, one per lane: what they are, and the square of the distance to their boxes.
struct Children {
  int32_t child;
  float square;
};
RADFIELD_FN Children children_of(const MeshDistance& a, int32_t node, const TeamQuery& q) {
  const float* const box = a.box + 6 * WIDE * (int64_t)node + team_lane();
  float low[3], high[3];
  for (int k = 0; k < 3; ++k) low[k] = box[k * WIDE], high[k] = box[(3 + k) * WIDE];
  const int32_t child = a.child[WIDE * (int64_t)node + team_lane()];
  return {child, child ? box_square(low, high, q.p) * NEARER_BOX : FARTHEST};
}

RADFIELD_FN void meet_block(const MeshDistance& a, int64_t block, uint32_t team, TeamQuery& q) {
  const float* const data = a.block + 9 * WIDE * block + team_lane();
  const int32_t triangle = a.triangle[WIDE * block + team_lane()];
  float p[3], b[3], c[3];
  for (int k = 0; k < 3; ++k) {
    p[k] = q.p[k] - data[k * WIDE];
    b[k] = data[(3 + k) * WIDE], c[k] = data[(6 + k) * WIDE];
  }
  float square = triangle < 0 ? FARTHEST : triangle_square(p, b, c);
  const int32_t nearest = __shfl_sync(team, triangle, least_lane(team, square), WIDE);
  if (square < q.best) q.best = square, q.found = nearest;
}

RADFIELD_FN void find_nearest(const MeshDistance& a, uint32_t team, TeamQuery& q) {
  NodeStack left;
  int32_t node = 0;
  uint32_t waiting = 0xffffu;
  Children mine = children_of(a, node, q);
  for (;;) {
    float square = waiting >> team_lane() & 1 ? mine.square : FARTHEST;
    const int next = least_lane(team, square);
    if (square < q.best) {
      waiting &= ~(1u << next);
      const int32_t child = __shfl_sync(team, mine.child, next, WIDE);
      if (child < 0) {
        meet_block(a, -1 - (int64_t)child, team, q);
        continue;
      }
      if (waiting) left.push(node, waiting);
      node = child, waiting = 0xffffu;
    } else {
      if (!left.top) return;
      left.pop(node, waiting);
    }
    mine = children_of(a, node, q);
  }
}

__global__ void mesh_distance(const MeshDistance a) {
  const int64_t i = thread_number() / WIDE;
  if (i >= a.N) return;  // whole teams
  const QueryPoint at = query_point(a, i);
  TeamQuery q = {{(float)at.p[0], (float)at.p[1], (float)at.p[2]}, FARTHEST, -1};
  if (at.valid) find_nearest(a, team_mask(), q);
  if (team_lane() == 0) write_distance(a, i, at, q.found);
}

}  // namespace radfield
