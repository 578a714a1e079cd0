#include "shading.h"

#include "../cpu/parallel.h"

using namespace radfield;

constexpr int64_t BLOCK = 1024;  // points per task

RADFIELD_OP(shade, Shade) {
  parallel_blocks(a.N, BLOCK, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += W) {
      const int n = (int)(end - i < W ? end - i : W);
      const vi row = load_n(a.index + i, n) * 3;
      vf albedo[3], normal[3], d[3], color[3];
      for (int c = 0; c < 3; ++c) {
        albedo[c] = load_n(a.albedo + c * a.N + i, n), normal[c] = load_n(a.normal + c * a.N + i, n);
        d[c] = load_n(a.directions + c * a.N + i, n);
      }
      shade_point(a.light, albedo, normal, d, load_n(a.visible + i, n), gather(a.gloss, row), gather(a.gloss, row + 1),
                  gather(a.gloss, row + 2), color);
      for (int c = 0; c < 3; ++c) store_n(a.color + c * a.N + i, color[c], n);
    }
  });
}

RADFIELD_OP(sky, Sky) {
  parallel_blocks(a.N, BLOCK, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += W) {
      const int n = (int)(end - i < W ? end - i : W);
      const vf z = load_n(a.directions + 2 * a.N + i, n);
      for (int c = 0; c < 3; ++c) store_n(a.color + c * a.N + i, encode_srgb(sky_light(a.light, c, z)), n);
    }
  });
}
