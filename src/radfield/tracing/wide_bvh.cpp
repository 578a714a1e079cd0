// Collapses the binary tree level by level: a node's children are opened, the largest box first, until there are 16.
#include "wide_bvh.h"

#include "../cpu/lanes.h"
#include "../cpu/parallel.h"

using namespace radfield;

namespace {

struct Binary {
  const WideBvhBuild& a;
  int32_t *first, *count;  // triangles of each node

  bool opens(int32_t k) const { return count[k] > WIDE && a.node[2 * k + 1] == 0; }
  float area(int32_t k) const {
    const float* b = a.tree_box + 6 * (int64_t)k;
    const float x = b[3] - b[0], y = b[4] - b[1], z = b[5] - b[2];
    return x * y + y * z + z * x;
  }
};

int children_of(const Binary& tree, int32_t root, int32_t* child) {
  int n = 1;
  child[0] = root;
  while (n < WIDE) {
    int widest = -1;
    for (int i = 0; i < n; ++i)
      if (tree.opens(child[i]) && (widest < 0 || tree.area(child[i]) > tree.area(child[widest]))) widest = i;
    if (widest < 0) break;
    const int32_t left = tree.a.node[2 * (int64_t)child[widest]];
    child[widest] = left, child[n++] = left + 1;
  }
  return n;
}

void write_block(const WideBvhBuild& a, int64_t block, int32_t first, int32_t count) {
  for (int i = 0; i < WIDE; ++i) {
    const float* corner = a.corners + 9 * (int64_t)(first + (i < count ? i : 0));
    float* out = a.block + 9 * WIDE * block + i;
    for (int c = 0; c < 3; ++c) {
      out[c * WIDE] = i < count ? corner[c] : AWAY;
      out[(3 + c) * WIDE] = i < count ? corner[3 + c] - corner[c] : 0.0f;
      out[(6 + c) * WIDE] = i < count ? corner[6 + c] - corner[c] : 0.0f;
    }
    a.triangle[WIDE * block + i] = i < count ? first + i : -1;
  }
}

void write_child(const WideBvhBuild& a, const Binary& tree, int64_t node, int i, int32_t k, int32_t child) {
  for (int c = 0; c < 6; ++c)
    a.box[(6 * node + c) * WIDE + i] = k < 0 ? (c < 3 ? AWAY : -AWAY) : a.tree_box[6 * (int64_t)k + c];
  a.child[WIDE * node + i] = child;
  a.span[(WIDE * node + i) * 2] = k < 0 ? 0 : tree.first[k];
  a.span[(WIDE * node + i) * 2 + 1] = k < 0 ? 0 : tree.count[k];
}

}  // namespace

RADFIELD_OP(wide_bvh_build, WideBvhBuild) {
  int32_t* memory = (int32_t*)scratch(12 * a.K);
  const Binary tree = {a, memory, memory + a.K};
  int32_t* root = memory + 2 * a.K;  // of each wide node, in the binary tree
  for (int64_t k = a.K - 1; k >= 0; --k) {  // children stand behind their parents
    const int32_t first = a.node[2 * k], count = a.node[2 * k + 1];
    tree.first[k] = count ? first : tree.first[first];
    tree.count[k] = count ? count : tree.count[first] + tree.count[first + 1];
  }
  int64_t nodes = 1, blocks = 0;
  root[0] = 0;
  for (int64_t n = 0; n < nodes; ++n) {
    int32_t child[WIDE];
    const int found = children_of(tree, root[n], child);
    for (int i = 0; i < WIDE; ++i) {
      const bool there = i < found, inner = there && tree.opens(child[i]);
      const int64_t id = inner ? nodes : -1 - blocks;
      if (inner) root[nodes++] = child[i];
      if (there && !inner) {
        if (a.block) write_block(a, blocks, tree.first[child[i]], tree.count[child[i]]);
        ++blocks;
      }
      if (a.box) write_child(a, tree, n, i, there ? child[i] : -1, there ? (int32_t)id : 0);
    }
  }
  a.used[0] = nodes, a.used[1] = blocks;
}
