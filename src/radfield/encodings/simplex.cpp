// The ops of the simplex encoding: level_loops.h with its Lookup.
#include "simplex_loops.h"

using namespace radfield;

RADFIELD_OP(simplex_forward, SimplexForward) {
  with_simplex_sizes(a.D, a.F, [&]<int D, int F>() { forward_levels<SimplexLookup<D>, F>(a); });
}

RADFIELD_OP(simplex_backward_x, SimplexBackwardX) {
  with_simplex_sizes(a.D, a.F, [&]<int D, int F>() { backward_x<SimplexLookup<D>, F>(a); });
}
