// How a point goes down the wide tree on CUDA: a team of 16 lanes, half of a warp, asks for one point. Its lanes are
// the boxes of a node or the triangles of a block, so that it reads whole rows of the tables, and what waits of a node
// is 16 bits. Only device compilers take this file.
#pragma once
#include "../cuda/device.h"
#include "wide_bvh.h"

namespace radfield {

RADFIELD_FN int team_lane() { return lane_number() % WIDE; }
RADFIELD_FN uint32_t team_mask() { return 0xffffu << (lane_number() / WIDE * WIDE); }

// The lane of the team with the least value, the first of equals; `value` becomes that one, for all of them.
RADFIELD_FN int least_lane(uint32_t team, float& value) {
  int lane = team_lane();
  for (int d = WIDE / 2; d; d >>= 1) {
    const float other = __shfl_xor_sync(team, value, d);
    const int from = __shfl_xor_sync(team, lane, d);
    if (other < value || (other == value && from < lane)) value = other, lane = from;
  }
  return lane;
}

// The team's lanes where `is` holds, as 16 bits.
RADFIELD_FN uint32_t team_ballot(uint32_t team, bool is) {
  return __ballot_sync(team, is) >> (lane_number() / WIDE * WIDE) & 0xffffu;
}

// The nodes that a team has left with children waiting, as bits.
struct NodeStack {
  int32_t node[MOST_LEVELS];
  uint32_t waiting[MOST_LEVELS];
  int top = 0;

  RADFIELD_FN void push(int32_t k, uint32_t children) { node[top] = k, waiting[top++] = children; }
  RADFIELD_FN void pop(int32_t& k, uint32_t& children) { k = node[--top], children = waiting[top]; }
};

}  // namespace radfield
