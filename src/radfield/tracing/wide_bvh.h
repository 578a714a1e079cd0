// A tree whose nodes have 16 children, for one point against many boxes: wide_bvh.py has the layout. Letters: K nodes of
// the binary tree, T triangles, B nodes of this one, L blocks of triangles. F: float or SIMD vector, one box per lane.
#pragma once
#include "bvh.h"

namespace radfield {

struct WideBvhBuild {
  float* box;
  int32_t* child;
  int32_t* span;
  float* block;
  int32_t* triangle;
  int64_t* used;
  const float* tree_box;
  const int32_t* node;
  const int32_t* order;
  const float* corners;
  int64_t B, L, K, T;
};

constexpr int WIDE = 16;                     // children of a node, triangles of a block
constexpr int DEEPEST = MOST_LEVELS * WIDE;  // entries of a traversal's stack: at most 15 siblings wait per level
constexpr float AWAY = 1e15f;                // where unused boxes and triangles lie

// The square of the distance from p to a box; `box` has a stream of WIDE numbers per bound.
template <class F>
RADFIELD_FN F box_square(const F* low, const F* high, const F* p) {
  F square = F{};
  for (int i = 0; i < 3; ++i) {
    const F off = max(max(low[i] - p[i], p[i] - high[i]), F{});
    square = fma(off, off, square);
  }
  return square;
}

}  // namespace radfield
