// A chunk of samples goes through the grid and then through the network, so that its features stay in the second- or
// third-level cache and memory holds none of them. Chunks are large, because the levels' entries, too, want to be in
// the cache for as many samples as possible.
#include "grid_mlp.h"

#include <string.h>

#include "../cpu/parallel.h"
#include "../encodings/hash_grid.h"
#include "mlp.h"

using namespace radfield;

extern "C" void hash_grid_forward(const HashGridForward* args);

constexpr int64_t CHUNK = 1 << 15;  // samples per task

RADFIELD_OP(grid_mlp_forward, GridMlpForward) {
  const int64_t channels = a.L * a.F, feature_bytes = a.table_type == BF16 ? 2 : 4, y_bytes = a.y_type == BF16 ? 2 : 4;
  MlpForward network{};
  network.y_type = a.y_type, network.x0_type = a.table_type;
  network.parameters = a.parameters, network.layers = a.layers, network.packed = a.packed;
  network.activation = a.activation, network.output_activation = a.output_activation;
  network.bias = a.bias, network.kernel = a.kernel;
  network.O = a.O, network.A = channels, network.P = a.P, network.L = a.N, network.Q = a.Q;
  run_mlp(network, true);  // no samples: packs the weights, once for all chunks
  parallel_blocks(a.M, CHUNK, [&](int64_t begin, int64_t end) {
    const int64_t n = end - begin;
    char* memory = (char*)scratch(CHUNK * (4 * a.D + feature_bytes * channels + y_bytes * a.O), 1);
    float* x = (float*)memory;
    char* features = memory + 4 * CHUNK * a.D;
    char* y = features + feature_bytes * CHUNK * channels;
    for (int64_t d = 0; d < a.D; ++d) memcpy(x + d * n, a.x + d * a.M + begin, (size_t)(4 * n));
    HashGridForward grid{};
    grid.features = features, grid.features_type = a.table_type, grid.x = x;
    grid.table = a.table, grid.table_type = a.table_type, grid.levels = a.levels, grid.scales = a.scales;
    grid.smoothstep = a.smoothstep;
    grid.C = channels, grid.M = n, grid.D = a.D, grid.E = a.E, grid.F = a.F, grid.L = a.L;
    hash_grid_forward(&grid);
    MlpForward chunk = network;
    chunk.y = y, chunk.x0 = features, chunk.M = n;
    run_mlp(chunk, false);
    for (int64_t o = 0; o < a.O; ++o)
      memcpy((char*)a.y + (o * a.M + begin) * y_bytes, y + o * n * y_bytes, (size_t)(n * y_bytes));
  });
}
