#include "slope_gradients.h"

#include "hash_grid_loops.h"
#include "level_adam.h"

using namespace radfield;

namespace {

// The arguments of the backward pass, with slopes: level_loops.h looks for them.
struct SlopeBackward : HashGridBackward {
  const void* slopes;
  int64_t slopes_type;
};

}  // namespace

RADFIELD_OP(slope_adam, SlopeAdam) {
  SlopeBackward back{};
  back.scales = a.scales, back.smoothstep = a.smoothstep;
  back.slopes = a.slopes, back.slopes_type = a.slopes_type, back.tangent = a.tangent;
  with_features(a.F, [&]<int F>() { *a.bad = step_levels<GridLookup<3>, F>(a, back); });
}
