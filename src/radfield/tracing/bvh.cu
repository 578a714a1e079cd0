// Triangles met by rays: a thread is a ray, with a stack of its own. The tree is built on the CPU.
#include "bvh.h"

#include "../cuda/device.h"

namespace radfield {

__global__ void bvh_trace(const BvhTrace a) {
  const int64_t i = thread_number();
  if (i >= a.N) return;
  float o[3], d[3], inverse[3];
  for (int c = 0; c < 3; ++c) {
    o[c] = a.origins[c * a.N + i], d[c] = a.directions[c * a.N + i];
    inverse[c] = inverse_direction(d[c]);
  }
  TriangleHit<float, int32_t> found = {a.limit ? a.limit[i] : FAR, 0.0f, 0.0f, -1};
  int32_t stack[MOST_LEVELS + 1];
  int top = 0;
  stack[top++] = 0;
  while (top) {
    const int32_t k = stack[--top];
    if (!(enter_box(a.box + 6 * (int64_t)k, o, inverse, found.depth) < FAR)) continue;
    const int32_t first = a.node[2 * k], count = a.node[2 * k + 1];
    for (int32_t t = first; t < first + count; ++t) meet_triangle(a.corners + 9 * (int64_t)t, a.order[t], o, d, found);
    if (count) continue;
    const float left = enter_box(a.box + 6 * (int64_t)first, o, inverse, found.depth);
    const float right = enter_box(a.box + 6 * (int64_t)first + 6, o, inverse, found.depth);
    const int32_t nearer = left <= right ? first : first + 1;
    if (max(left, right) < FAR) stack[top++] = 2 * first + 1 - nearer;
    if (min(left, right) < FAR) stack[top++] = nearer;
  }
  a.depth[i] = found.index < 0 ? FAR : found.depth, a.index[i] = found.index;
  a.weights[i] = found.u, a.weights[a.N + i] = found.v;
}

}  // namespace radfield
