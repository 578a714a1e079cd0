// A grid and the network behind it, asked at a block of points from within a task: what ops in one pass are built of
// (grid_mlp, and the frames of renderers/). Arguments have the tensors and letters of grid_mlp.py: FIELD.
#pragma once
#include <time.h>

#include "../cpu/parallel.h"
#include "../encodings/hash_grid.h"
#include "mlp.h"

extern "C" void hash_grid_forward(const radfield::HashGridForward* args);

namespace radfield {
namespace {

// Nanoseconds of its thread that a task spends in encoding and network, and altogether; they are added to `sums` [3]
// where these are wanted.
struct StageClock {
  int64_t* sums;
  int64_t spent[2] = {}, began, mark = 0;

  explicit StageClock(int64_t* sums) : sums(sums), began(now()) {}
  ~StageClock() {
    if (!sums) return;
    for (int k = 0; k < 2; ++k) __atomic_fetch_add(sums + k, spent[k], __ATOMIC_RELAXED);
    __atomic_fetch_add(sums + 2, now() - began, __ATOMIC_RELAXED);
  }
  void start() { mark = now(); }
  void stop(int stage) {
    const int64_t at = now();
    spent[stage] += at - mark, mark = at;
  }
  int64_t now() const {
    if (!sums) return 0;
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
  }
};

// The call of a network on streams [A] of type x0_type, and beside them [B] of x1_type; `a` has the arguments of FIELD
// by their names, N layers among them.
template <class Args>
MlpForward network_call(const Args& a, int64_t A, int64_t x0_type, int64_t B, int64_t x1_type, int64_t y_type) {
  MlpForward call{};
  call.y_type = y_type, call.x0_type = x0_type, call.x1_type = x1_type;
  call.parameters = a.parameters, call.layers = a.layers, call.packed = a.packed;
  call.activation = a.activation, call.output_activation = a.output_activation;
  call.bias = a.bias, call.kernel = a.kernel;
  call.O = a.layers[4 * (a.N - 1) + 1], call.A = A, call.B = B;
  call.P = a.P, call.L = a.N, call.Q = a.Q;
  return call;
}
// Runs it on n points: y [O][n] of x0 [A][n] and x1 [B][n].
inline void run_network(MlpForward call, void* y, const void* x0, const void* x1, int64_t n, StageClock& clock) {
  clock.start();
  call.y = y, call.x0 = x0, call.x1 = x1, call.M = n;
  run_mlp(call, false);
  clock.stop(1);
}

struct GridField {
  HashGridForward grid{};
  MlpForward network{};

  // dimensions: of the points; beside: inputs of the network besides the features; y_type: of its outputs.
  template <class Args>
  GridField(const Args& a, int64_t dimensions, int64_t beside, int64_t y_type)
      : GridField(a, a, dimensions, beside, y_type) {}
  // The network's arguments apart.
  template <class Args, class NetworkArgs>
  GridField(const Args& a, const NetworkArgs& network_args, int64_t dimensions, int64_t beside, int64_t y_type) {
    grid.features_type = grid.table_type = a.table_type, grid.table = a.table;
    grid.levels = a.levels, grid.scales = a.scales, grid.smoothstep = a.smoothstep;
    grid.C = a.L * a.F, grid.D = dimensions, grid.E = a.E, grid.F = a.F, grid.L = a.L;
    network = network_call(network_args, grid.C, a.table_type, beside, F32, y_type);
  }
  // Packs the weights, once for all blocks: before the tasks.
  void pack() const { run_mlp(network, true); }

  int64_t outputs() const { return network.O; }
  // Memory for the features of so many points.
  int64_t feature_bytes(int64_t points) const { return grid.C * points * (grid.table_type == F32 ? 4 : 2); }

  // y [O][n] at x [D][n]; beside [B][n] or null; features: memory; head: the first output once more, in 32 bits.
  void ask(void* y, const float* x, const float* beside, int64_t n, void* features, StageClock& clock,
           float* head = nullptr) const {
    clock.start();
    HashGridForward g = grid;
    g.features = features, g.x = x, g.M = n;
    hash_grid_forward(&g);
    clock.stop(0);
    ask_network(y, features, beside, n, clock, head);
  }
  // y [O][n] of features [C][n].
  void ask_network(void* y, const void* features, const float* beside, int64_t n, StageClock& clock,
                   float* head = nullptr) const {
    MlpForward call = network;
    call.head = head, call.H = head ? 1 : 0;
    run_network(call, y, features, beside, n, clock);
  }
};

}  // namespace
}  // namespace radfield
