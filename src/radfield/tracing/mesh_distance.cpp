// A point at a time goes down the tree, nearest box first; 16 boxes or triangles are W lanes each. float32 finds the
// triangle, double says how far it is and on which side. Points are asked in the order of a space-filling curve, so that
// what one reads is still in the cache for the next, whose search begins with the distance to its predecessor's triangle.
// That changes no answer: what is at that distance is met again on the way.
#include "mesh_distance.h"

#include "../cpu/lanes.h"
#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t POINTS = 256;          // per task
constexpr double SAFE_BOUND = 1 + 1e-5;  // what was met for another point counts as farther
constexpr int CELL_BITS = 6, CELLS = 1 << CELL_BITS;

struct Waiting {
  float square;
  int32_t child;
};

struct Query {
  vf p[3];
  float best;
  int32_t found;
};

RADFIELD_SIMD void meet_block(const MeshDistance& a, int64_t block, Query& q) {
  const float* data = a.block + 9 * WIDE * block;
  for (int i = 0; i < WIDE; i += W) {
    vf p[3], b[3], c[3];
    for (int k = 0; k < 3; ++k) {
      p[k] = q.p[k] - load(data + k * WIDE + i);
      b[k] = load(data + (3 + k) * WIDE + i), c[k] = load(data + (6 + k) * WIDE + i);
    }
    const vf square = triangle_square(p, b, c);
    for (uint32_t bits = mask_bits(square < q.best); bits; bits &= bits - 1) {
      const int lane = __builtin_ctz(bits);
      const int32_t triangle = a.triangle[WIDE * block + i + lane];
      if (!(square[lane] < q.best) || triangle < 0) continue;  // from far enough away, an unused lane may be nearer
      q.best = square[lane], q.found = triangle;
    }
  }
}

// Puts the children that are near enough on the stack, the nearest on top.
RADFIELD_SIMD int open_node(const MeshDistance& a, int32_t node, const Query& q, Waiting* stack, int top) {
  const float* box = a.box + 6 * WIDE * (int64_t)node;
  const int bottom = top;
  for (int i = 0; i < WIDE; i += W) {
    vf low[3], high[3];
    for (int k = 0; k < 3; ++k) low[k] = load(box + k * WIDE + i), high[k] = load(box + (3 + k) * WIDE + i);
    const vf square = box_square(low, high, q.p) * NEARER_BOX;
    alignas(64) float squares[W];
    store(squares, square);
    for (uint32_t bits = mask_bits(square < q.best); bits; bits &= bits - 1) {
      const int lane = __builtin_ctz(bits);
      const Waiting next = {squares[lane], a.child[WIDE * (int64_t)node + i + lane]};
      if (next.child == 0) continue;
      int at = top++;
      for (; at > bottom && stack[at - 1].square < next.square; --at) stack[at] = stack[at - 1];
      stack[at] = next;
    }
  }
  return top;
}

void find_nearest(const MeshDistance& a, Query& q) {
  Waiting stack[DEEPEST];
  int top = open_node(a, 0, q, stack, 0);
  while (top) {
    const Waiting next = stack[--top];
    if (next.square >= q.best) continue;
    if (next.child < 0) {
      meet_block(a, -1 - (int64_t)next.child, q);
    } else {
      top = open_node(a, next.child, q, stack, top);
    }
  }
}

// Returns the triangle's place in the tree; `before`: that of another point, or -1.
int32_t answer(const MeshDistance& a, int64_t i, int32_t before) {
  const QueryPoint at = query_point(a, i);
  if (!at.valid) {
    write_distance(a, i, at, -1);
    return before;
  }
  Query q = {{}, 3e38f, -1};
  for (int k = 0; k < 3; ++k) q.p[k] = splat((float)at.p[k]);
  if (before >= 0) {
    const double square = nearest_feature(a.corners + 9 * (int64_t)before, at.p).square;
    q.best = (float)(square * SAFE_BOUND + 1e-12);
  }
  find_nearest(a, q);
  const int32_t found = q.found < 0 ? before : q.found;
  write_distance(a, i, at, found);
  return found;
}

// The cell of a point on the curve of Morton (1966): the bits of its coordinates in turns.
int32_t cell_of(const MeshDistance& a, int64_t i) {
  const QueryPoint at = query_point(a, i);
  int32_t cell = 0;
  for (int k = 0; k < 3 && at.valid; ++k) {
    const double side = (at.p[k] + 0.55) * (CELLS / 1.1);
    const int32_t c = side < 0 ? 0 : side >= CELLS ? CELLS - 1 : (int32_t)side;
    for (int bit = 0; bit < CELL_BITS; ++bit) cell |= ((c >> bit) & 1) << (3 * bit + k);
  }
  return cell;
}

// places[0 : N] = the points in the order of their cells.
void sort_points(const MeshDistance& a) {
  int32_t* cell = a.places + a.N;
  parallel_blocks(a.N, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) cell[i] = cell_of(a, i);
  });
  int32_t* start = (int32_t*)scratch(4 * (1 << (3 * CELL_BITS)));
  for (int i = 0; i < 1 << (3 * CELL_BITS); ++i) start[i] = 0;
  for (int64_t i = 0; i < a.N; ++i) ++start[cell[i]];
  int32_t total = 0;
  for (int i = 0; i < 1 << (3 * CELL_BITS); ++i) {
    const int32_t count = start[i];
    start[i] = total, total += count;
  }
  for (int64_t i = 0; i < a.N; ++i) a.places[start[cell[i]]++] = (int32_t)i;
}

}  // namespace

RADFIELD_OP(mesh_distance, MeshDistance) {
  if (a.N == 0) return;
  sort_points(a);
  parallel_blocks(a.N, POINTS, [&](int64_t begin, int64_t end) {
    int32_t found = -1;
    for (int64_t i = begin; i < end; ++i) found = answer(a, a.places[i], found);
  });
}
