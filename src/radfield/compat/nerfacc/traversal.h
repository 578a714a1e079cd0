// Rays through nested grids of occupied cells: the walk of one ray. traversal.py has the rules and the letters.
#pragma once
#include "../../maths.h"

namespace radfield {

struct GridTraverseCount {
  int64_t* edges;
  int64_t* samples;
  float* reached;
  double* runs;
  int64_t* run_count;
  const float* origins;
  const float* directions;
  const float* near;
  const float* far;
  const uint8_t* mask;
  const float* t_sorted;
  const int64_t* t_indices;
  const uint8_t* hits;
  const uint8_t* occupied;
  const float* aabbs;
  double step;
  double cone;
  int64_t limit;
  int64_t N, E, K, X, Y, Z;
};
struct GridTraverseFill {
  float* t_start;
  float* t_end;
  int64_t* ray_index;
  float* edge;
  int64_t* edge_ray;
  uint8_t* is_left;
  uint8_t* is_right;
  const int64_t* edge_start;
  const int64_t* sample_start;
  const double* runs;
  const int64_t* run_count;
  const float* origins;
  const float* directions;
  const float* near;
  const float* far;
  const uint8_t* mask;
  const float* t_sorted;
  const int64_t* t_indices;
  const uint8_t* hits;
  const uint8_t* occupied;
  const float* aabbs;
  double step;
  double cone;
  int64_t limit;
  int64_t M, A, N, E, K, X, Y, Z;
};

RADFIELD_FN int64_t floor_of(double x) {
  const int64_t whole = (int64_t)x;
  return whole - ((double)whole > x);
}
RADFIELD_FN int64_t ceil_of(double x) { return -floor_of(-x); }

// The steps of a ray. Without a cone step k goes from near + k step to near + (k + 1) step. With one a step's length
// is max(t cone, step) where it begins. step 0: as long as the ray is in a cell.
struct Steps {
  double near, step, cone;
  double t;  // where the next step begins
  double k;  // its number, without a cone

  RADFIELD_FN double length() const { return t * cone > step ? t * cone : step; }
  // The number of the first step whose middle is not before `target`, without a cone.
  RADFIELD_FN double first_from(double target) const { return (double)ceil_of((target - near) / step - 0.5); }
  RADFIELD_FN void go_to(double number) {
    k = number;
    t = near + k * step;
  }
  // To the first step whose middle is not before `target`; with a cone by steps of the length that they have here.
  RADFIELD_FN void skip_to(double target) {
    if (!(step > 0)) {
      t = target;
    } else if (cone > 0) {
      const double steps = (target - t) / length() - 0.5;
      if (steps > 0) t += (double)ceil_of(steps) * length();
    } else {
      const double first = first_from(target);
      if (first > k) go_to(first);
    }
  }
  // take(t_start, t_end) for each step whose middle is before `end`, until it answers false; whether it never did.
  template <class Take>
  RADFIELD_FN bool each_until(double end, Take take) {
    if (!(step > 0)) {
      const double from = t;
      t = end;
      return from >= end || take(from, end);
    }
    if (cone > 0) {
      while (t + 0.5 * length() < end) {
        const double from = t;
        t += length();
        if (!take(from, t)) return false;
      }
      return true;
    }
    for (const double stop = first_from(end); k < stop;) {
      const double from = t;
      go_to(k + 1);
      if (!take(from, t)) return false;
    }
    return true;
  }
};

// Where a ray is in a grid: its cell, and per axis the distance at which it leaves the cell.
struct GridWalk {
  double lo[3], size[3], o[3], d[3], inverse[3], exit[3];
  int64_t cell[3], cells[3];

  RADFIELD_FN double leaves(int axis) const {
    if (d[axis] == 0) return 1e300;
    return (lo[axis] + (double)(cell[axis] + (d[axis] > 0)) * size[axis] - o[axis]) * inverse[axis];
  }
  // Into the next cell along an axis; false where there is none.
  RADFIELD_FN bool next(int axis) {
    const int64_t to = cell[axis] + (d[axis] > 0 ? 1 : -1);
    if (d[axis] == 0 || to < 0 || to >= cells[axis]) return false;
    cell[axis] = to;
    exit[axis] = leaves(axis);
    return true;
  }
  RADFIELD_FN void enter(const float* origin, const float* direction, const float* aabb, double t) {
    for (int axis = 0; axis < 3; ++axis) {
      o[axis] = origin[axis], d[axis] = direction[axis], lo[axis] = aabb[axis], inverse[axis] = 1.0 / d[axis];
      size[axis] = ((double)aabb[axis + 3] - lo[axis]) / (double)cells[axis];
      const double at = (o[axis] + t * d[axis] - lo[axis]) / size[axis], last = (double)(cells[axis] - 1);
      cell[axis] = floor_of(at > 0 ? at < last ? at : last : 0);
      exit[axis] = leaves(axis);
      while (exit[axis] <= t && next(axis)) {  // rounding put it into the cell before
      }
    }
  }
  RADFIELD_FN int first_axis() const {
    const int low = exit[0] <= exit[1] ? 0 : 1;
    return exit[low] <= exit[2] ? low : 2;
  }
  RADFIELD_FN int64_t index() const { return (cell[0] * cells[1] + cell[1]) * cells[2] + cell[2]; }
};

// The grid that is in force from event e of a ray to the next one; -1 for none.
RADFIELD_FN int64_t grid_after(const int64_t* t_indices, const uint8_t* hits, int64_t e, int64_t K) {
  int64_t grid = t_indices[e];
  if (grid >= K) {  // a grid ends here: is the ray in another one, which ends next?
    if (!hits[grid - K] || t_indices[e + 1] < K) return -1;
    grid = t_indices[e + 1] - K;
  }
  return hits[grid] ? grid : -1;
}

// A run is what a ray has of occupied cells one after another; its samples are those steps whose middles are in it.
// The first MOST_RUNS runs of a ray are kept as (where the steps are, where the run ends), so that filling need not walk.
constexpr int MOST_RUNS = 8;

// run(steps, end, fresh) for each run of ray i, or for its cells where steps are as long as these: it takes the steps
// until `end` and answers whether to go on; fresh: it does not go on where the last one ended. Returns where the ray's
// next step would begin.
template <class Args, class Run>
RADFIELD_FN double traverse_ray(const Args& a, int64_t i, Run run) {
  Steps steps = {a.near[i], a.step, a.cone, a.near[i], 0};
  if (a.mask && !a.mask[i]) return steps.t;
  const float* o = a.origins + 3 * i;
  const float* d = a.directions + 3 * i;
  const float all = (o[0] + o[1] + o[2]) + (d[0] + d[1] + d[2]) + a.near[i];
  if (all - all != 0.0f) return steps.t;
  const bool by_cell = !(a.step > 0);
  bool open = false;      // whether a run goes on
  double last = steps.t;  // up to where cells were looked at
  GridWalk walk;
  walk.cells[0] = a.X, walk.cells[1] = a.Y, walk.cells[2] = a.Z;
  for (int64_t e = i * a.E; e + 1 < (i + 1) * a.E; ++e) {
    const int64_t grid = grid_after(a.t_indices, a.hits + i * a.K, e, a.K);
    const double begin = a.t_sorted[e] > a.near[i] ? a.t_sorted[e] : a.near[i];
    const double end = a.t_sorted[e + 1] < a.far[i] ? a.t_sorted[e + 1] : a.far[i];
    if (grid < 0 || !(begin < end) || !(end < 1e30)) continue;
    if (open && begin > last) {
      if (!by_cell && !run(steps, last, true)) return steps.t;
      open = false;
    }
    if (!open) steps.skip_to(begin);
    walk.enter(o, d, a.aabbs + 6 * grid, begin);
    const uint8_t* occupied = a.occupied + grid * a.X * a.Y * a.Z;
    for (double entry = begin;; entry = last) {
      const int axis = walk.first_axis();
      last = walk.exit[axis] < end ? walk.exit[axis] : end;
      if (occupied[walk.index()]) {
        if (!open) steps.skip_to(entry);
        if (by_cell && !run(steps, last, !open)) return steps.t;
        open = true;
      } else {
        if (open && !by_cell && !run(steps, entry, true)) return steps.t;
        open = false;
        if (a.cone > 0) steps.skip_to(last);  // whose length depends on where they are skipped
      }
      if (last >= end || !walk.next(axis)) break;
    }
  }
  if (open && !by_cell && !run(steps, last, true)) return steps.t;
  if (!open) steps.skip_to(last);
  return steps.t;
}

RADFIELD_FN void count_ray(const GridTraverseCount& a, int64_t i) {
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
struct TraversalWriter {
  const GridTraverseFill& a;
  int64_t ray, sample, edge, last;

  RADFIELD_FN void add_edge(double t, bool left, bool right) {
    a.edge[edge] = (float)t, a.edge_ray[edge] = ray, a.is_left[edge] = left, a.is_right[edge] = right;
    ++edge;
  }
  RADFIELD_FN bool add(double t_start, double t_end, bool joined) {
    a.t_start[sample] = (float)t_start, a.t_end[sample] = (float)t_end, a.ray_index[sample] = ray;
    if (a.edge) {
      if (joined) a.is_left[edge - 1] = true;
      else add_edge(t_start, true, false);
      add_edge(t_end, false, true);
    }
    return ++sample != last;
  }
  RADFIELD_FN bool take_run(Steps& steps, double end, bool fresh) {
    bool joined = !fresh;
    return steps.each_until(end, [&](double from, double to) {
      const bool more = add(from, to, joined);
      joined = true;
      return more;
    });
  }
};

RADFIELD_FN void fill_ray(const GridTraverseFill& a, int64_t i) {
  TraversalWriter writer{a, i, a.sample_start[i], a.edge_start[i], a.sample_start[i + 1]};
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

}  // namespace radfield
