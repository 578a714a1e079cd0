// The ops of the hash grid: level_loops.h with the hash grid's Lookup.
#include "hash_grid_loops.h"

using namespace radfield;

RADFIELD_OP(hash_grid_forward, HashGridForward) {
  with_sizes(a.D, a.F, [&]<int D, int F>() { forward_levels<GridLookup<D>, F>(a); });
}

RADFIELD_OP(hash_grid_backward, HashGridBackward) {
  with_sizes(a.D, a.F, [&]<int D, int F>() { add_gradients<GridLookup<D>, F>(a); });
}

RADFIELD_OP(hash_grid_backward_x, HashGridBackwardX) {
  with_sizes(a.D, a.F, [&]<int D, int F>() { backward_x<GridLookup<D>, F>(a); });
}
