// W points go together, once per material among them: neighbouring pixels mostly see one or two.
#include "texture.h"

#include "../cpu/lanes.h"
#include "../cpu/parallel.h"

using namespace radfield;

constexpr int64_t BLOCK = 1024;  // points per task

RADFIELD_OP(texture, Texture) {
  parallel_blocks(a.N, BLOCK, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += W) {
      const int n = (int)(end - i < W ? end - i : W);
      const vi index = load_n(a.index + i, n);
      const vf width = load_n(a.width + i, n);
      vf x[3], color[3] = {};
      for (int c = 0; c < 3; ++c) x[c] = load_n(a.x + c * a.N + i, n);
      uint32_t left = mask_bits((lanes() < n) & (index >= 0) & (index < (int32_t)a.Q));
      while (left) {
        const int32_t q = index[__builtin_ctz(left)];
        const vi mine = index == q;
        vf found[3];
        surface_color(a.pattern[q], a.values + 9 * q, a.placement + 12 * q, x, width, found);
        for (int c = 0; c < 3; ++c) color[c] = select(mine, found[c], color[c]);
        left &= ~mask_bits(mine);
      }
      for (int c = 0; c < 3; ++c) store_n(a.color + c * a.N + i, color[c], n);
    }
  });
}
