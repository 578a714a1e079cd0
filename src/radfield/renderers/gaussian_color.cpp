// Loops over Gaussians, W at a time.
#include "gaussian_color_lanes.h"

using namespace radfield;

RADFIELD_OP(gaussian_color_forward, GaussianColorForward) {
  with_bands(a.degree, [&]<int BANDS>() {
    parallel_blocks(a.G, COLOR_CHUNK, [&](int64_t begin, int64_t end) {
      for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES { color_forward<BANDS>(a, i, n); });
    });
  });
}

RADFIELD_OP(gaussian_color_backward, GaussianColorBackward) {
  with_bands(a.degree, [&]<int BANDS>() {
    parallel_blocks(a.G, COLOR_CHUNK, [&](int64_t begin, int64_t end) {
      for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES { color_backward<BANDS>(a, i, n); });
    });
  });
}
