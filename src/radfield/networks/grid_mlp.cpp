// A chunk of samples goes through the grid and then through the network, so that its features stay in the second- or
// third-level cache and memory holds none of them. Chunks are large, because the levels' entries, too, want to be in
// the cache for as many samples as possible.
#include "grid_mlp.h"

#include <string.h>

#include "grid_field.h"

using namespace radfield;

constexpr int64_t CHUNK = 1 << 15;  // samples per task

RADFIELD_OP(grid_mlp_forward, GridMlpForward) {
  const int64_t y_bytes = a.y_type == BF16 ? 2 : 4;
  const GridField field(a, a.D, 0, a.y_type);
  field.pack();
  parallel_blocks(a.M, CHUNK, [&](int64_t begin, int64_t end) {
    StageClock clock(nullptr);
    const int64_t n = end - begin;
    char* memory = (char*)scratch(CHUNK * (4 * a.D + y_bytes * a.O) + field.feature_bytes(CHUNK), 1);
    float* x = (float*)memory;
    char* features = memory + 4 * CHUNK * a.D;
    char* y = features + field.feature_bytes(CHUNK);
    for (int64_t d = 0; d < a.D; ++d) memcpy(x + d * n, a.x + d * a.M + begin, (size_t)(4 * n));
    field.ask(y, x, nullptr, n, features, clock);
    for (int64_t o = 0; o < a.O; ++o)
      memcpy((char*)a.y + (o * a.M + begin) * y_bytes, y + o * n * y_bytes, (size_t)(n * y_bytes));
  });
}
