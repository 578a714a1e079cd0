#include "traversal.h"

#include "../../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t RAYS = 32;  // per task

void count_ray(const GridTraverseCount& a, int64_t i) {
  int64_t edges = 0, samples = 0, runs = 0;
  double* kept = a.runs + i * 2 * MOST_RUNS;
  a.reached[i] = (float)traverse_ray(a, i, [&](Steps& steps, double end, bool fresh) {
    if (runs < MOST_RUNS) kept[2 * runs] = a.cone > 0 ? steps.t : steps.k, kept[2 * runs + 1] = end;
    ++runs;
    const int64_t before = samples;
    const bool more = steps.each_until(end, [&](double, double) { return ++samples != a.limit; });
    edges += samples - before + (fresh && samples > before);
    return more;
  });
  a.edges[i] = edges, a.samples[i] = samples, a.run_count[i] = runs;
}

// Where the next sample and the next edge of a ray go.
struct Writer {
  const GridTraverseFill& a;
  int64_t ray, sample, edge, last;

  void add_edge(double t, bool left, bool right) {
    a.edge[edge] = (float)t, a.edge_ray[edge] = ray, a.is_left[edge] = left, a.is_right[edge] = right;
    ++edge;
  }
  bool add(double t_start, double t_end, bool joined) {
    a.t_start[sample] = (float)t_start, a.t_end[sample] = (float)t_end, a.ray_index[sample] = ray;
    if (a.edge) {
      if (joined) a.is_left[edge - 1] = true;
      else add_edge(t_start, true, false);
      add_edge(t_end, false, true);
    }
    return ++sample != last;
  }
  bool take_run(Steps& steps, double end, bool fresh) {
    bool joined = !fresh;
    return steps.each_until(end, [&](double from, double to) {
      const bool more = add(from, to, joined);
      joined = true;
      return more;
    });
  }
};

void fill_ray(const GridTraverseFill& a, int64_t i) {
  Writer writer{a, i, a.sample_start[i], a.edge_start[i], a.sample_start[i + 1]};
  if (writer.sample == writer.last) return;
  if (!(a.step > 0) || a.run_count[i] > MOST_RUNS) {
    traverse_ray(a, i, [&](Steps& steps, double end, bool fresh) { return writer.take_run(steps, end, fresh); });
    return;
  }
  const double* kept = a.runs + i * 2 * MOST_RUNS;
  Steps steps = {a.near[i], a.step, a.cone, a.near[i], 0};
  for (int64_t n = 0; n < a.run_count[i]; ++n, kept += 2) {
    if (a.cone > 0) steps.t = kept[0];
    else steps.go_to(kept[0]);
    if (!writer.take_run(steps, kept[1], true)) return;
  }
}

}  // namespace

RADFIELD_OP(grid_traverse_count, GridTraverseCount) {
  parallel_blocks(a.N, RAYS, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) count_ray(a, i);
  });
}

RADFIELD_OP(grid_traverse_fill, GridTraverseFill) {
  parallel_blocks(a.N, RAYS, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) fill_ray(a, i);
  });
}
