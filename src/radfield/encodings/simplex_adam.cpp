// Gradients of the simplex encoding's table, and Adam straight from them (level_adam.h).
#include "level_adam.h"
#include "simplex_loops.h"

using namespace radfield;

RADFIELD_OP(simplex_backward, SimplexBackward) {
  with_simplex_sizes(a.D, a.F, [&]<int D, int F>() { add_gradients<SimplexLookup<D>, F>(a); });
}

RADFIELD_OP(simplex_adam, SimplexAdam) {
  SimplexBackward back{};
  back.maps = a.maps;
  with_simplex_sizes(a.D, a.F, [&]<int D, int F>() { *a.bad = step_levels<SimplexLookup<D>, F>(a, back); });
}
