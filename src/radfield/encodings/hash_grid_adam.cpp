// Adam on the hash grid's table, straight from the gradients of its features (level_adam.h).
#include "hash_grid_adam.h"

#include "hash_grid_loops.h"
#include "level_adam.h"

using namespace radfield;

RADFIELD_OP(hash_grid_adam, HashGridAdam) {
  HashGridBackward back{};
  back.scales = a.scales, back.smoothstep = a.smoothstep;
  with_sizes(a.D, a.F, [&]<int D, int F>() { *a.bad = step_levels<GridLookup<D>, F>(a, back); });
}
