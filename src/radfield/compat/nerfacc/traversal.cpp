#include "traversal.h"

#include "../../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t RAYS = 32;  // per task

}  // namespace

RADFIELD_OP(grid_traverse_count, GridTraverseCount) {
  parallel_blocks(a.N, RAYS, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      int64_t edges = 0, samples = 0;
      a.reached[i] = (float)traverse_ray(a, i, [&](double, double, bool joined) {
        edges += joined ? 1 : 2;
        ++samples;
      });
      a.edges[i] = edges, a.samples[i] = samples;
    }
  });
}

RADFIELD_OP(grid_traverse_fill, GridTraverseFill) {
  parallel_blocks(a.N, RAYS, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      if (a.sample_start[i] == a.sample_start[i + 1]) continue;
      int64_t sample = a.sample_start[i], at = a.edge_start[i];
      const auto add_edge = [&](double t, bool left, bool right) {
        a.edge[at] = (float)t, a.edge_ray[at] = i, a.is_left[at] = left, a.is_right[at] = right;
        ++at;
      };
      traverse_ray(a, i, [&](double t_start, double t_end, bool joined) {
        a.t_start[sample] = (float)t_start, a.t_end[sample] = (float)t_end, a.ray_index[sample] = i;
        ++sample;
        if (!a.edge) return;
        if (joined) a.is_left[at - 1] = true;
        else add_edge(t_start, true, false);
        add_edge(t_end, false, true);
      });
    }
  });
}
