// A task is a tile of rays. Each is marched a few samples at a time; a batch of these goes through grid and density
// network, is composited, and what its ray reaches goes through the colour network. Where rays have ended, waiting
// ones take their places, so that batches stay full until the tile's last rays. A ray's bits depend neither on the
// others nor on how many of its samples are asked for at a time.
//
// Measured on a trained lego, 200 x 200 pixels (8 levels of 2 MB): batches of 544, 2176, 4352, 16384 and 65536 samples
// took 1.05, 1.05, 1.1, 1.25 and 1.2 times as long, 8 samples of a ray at a time 1.02, tiles of 16 x 16 rays 1.05.
#include "fused.h"

#include "../encodings/spherical_harmonics.h"
#include "../networks/grid_field.h"
#include "../sampling/march_lanes.h"
#include "composite.h"
#include "ray_tiles.h"

extern "C" void spherical_harmonics_forward(const radfield::SphericalHarmonicsForward* args);

using namespace radfield;

namespace {

constexpr int64_t SIDE = 32, TILE = SIDE * SIDE;  // rays of a task
constexpr int64_t BATCH = 1088;  // samples asked at a time: no power of two, see picture_frame.cpp
// Samples of a ray that are asked for at a time: while others wait, and at most.
constexpr int64_t FEW = 4, MANY = 64;

// A network's part of the arguments, by the names that grid_field.h asks for.
struct FusedNetwork {
  const float* parameters;
  const int64_t* layers;
  float* packed;
  int64_t activation, output_activation, bias, kernel, P, N, Q;
};
FusedNetwork density_network(const RenderFused& a) {
  return {a.density_parameters, a.density_layers, a.density_packed, a.activation, NONE, a.bias, a.kernel,
          a.P, a.A, a.Q};
}
FusedNetwork color_network(const RenderFused& a) {
  return {a.color_parameters, a.color_layers, a.color_packed, a.activation, NONE, a.bias, a.kernel,
          a.I, a.K, a.J};
}

// What the tasks share.
struct FusedField {
  GridField density;
  MlpForward color;

  explicit FusedField(const RenderFused& a)
      : density(a, density_network(a), 3, 0, a.table_type),
        color(network_call(color_network(a), a.features, a.table_type, a.degree * a.degree, a.table_type, F32)) {
    density.pack();
    run_mlp(color, true);
  }
  int64_t value_bytes() const { return density.grid.table_type == F32 ? 4 : 2; }
};

struct TileRays {
  float *o[3], *d[3], *start, *far, *jitter;
  int32_t* steps;
};

// A ray's samples in the batch: `count` from `first` on, of which `live` are reached; these are asked for their colour,
// from `seen` on.
struct Run {
  int32_t slot, first, count, live, seen;
  bool more;  // whether the ray may have samples behind these
};

template <bool CONE, bool CASCADES>
struct FusedTile {
  const RenderFused& a;
  const FusedField& field;
  const Marcher<CONE, CASCADES>& marcher;
  const RayTile tile;
  StageClock clock;
  // Of each of the tile's rays: the ray, how far it is marched, and what it has seen so far.
  TileRays rays;
  Place* place;
  float *reached, *depth, *color[3];
  int32_t* going;  // slots of rays under way
  int64_t going_count = 0, waiting = 0;
  // Of the batch: rays, and of each sample its step, interval, weight; where it is, and what the networks say of it.
  Run* runs;
  int64_t run_count, samples, seen;
  int32_t* step;
  float *middle, *tau, *weight, *after, *x, *directions, *logit, *rgb;
  char *features, *geometry, *reached_geometry, *harmonics;

  static int64_t bytes(const FusedField& field) {
    const int64_t values = 2 * field.density.outputs() + field.color.B, pieces = 31;  // each rounded up to 64 bytes
    const int64_t rays = (4 * 16 + (int64_t)sizeof(Place)) * (TILE + W);
    const int64_t batch = (4 * 15 + (int64_t)sizeof(Run) + field.value_bytes() * values) * (BATCH + W);
    return rays + batch + field.density.feature_bytes(BATCH) + 64 * pieces;
  }

  FusedTile(const RenderFused& a, const FusedField& field, const Marcher<CONE, CASCADES>& marcher, const RayTile& tile)
      : a(a), field(field), marcher(marcher), tile(tile), clock(a.nanoseconds) {
    char* memory = (char*)scratch(bytes(field), 1);
    auto take = [&](int64_t count) {
      char* const piece = memory;
      return memory += (count + 63) / 64 * 64, piece;
    };
    auto floats = [&](int64_t count) { return (float*)take(4 * (count + W)); };
    for (auto& v : rays.o) v = floats(TILE);
    for (auto& v : rays.d) v = floats(TILE);
    rays.start = floats(TILE), rays.far = floats(TILE), rays.jitter = floats(TILE), rays.steps = (int32_t*)floats(TILE);
    reached = floats(TILE), depth = floats(TILE);
    for (auto& v : color) v = floats(TILE);
    going = (int32_t*)floats(TILE), step = (int32_t*)floats(BATCH);
    middle = floats(BATCH), tau = floats(BATCH), weight = floats(BATCH), after = floats(BATCH), logit = floats(BATCH);
    x = floats(3 * BATCH), directions = floats(3 * BATCH), rgb = floats(3 * BATCH);
    place = (Place*)take((int64_t)sizeof(Place) * TILE), runs = (Run*)take((int64_t)sizeof(Run) * BATCH);
    const int64_t channels = field.density.outputs(), value = field.value_bytes();
    features = take(field.density.feature_bytes(BATCH));
    geometry = take(value * channels * BATCH), reached_geometry = take(value * channels * BATCH);
    harmonics = take(value * field.color.B * BATCH);
  }

  void load_rays() {
    const MarchCount m = march_arguments(a);
    for (int64_t s = 0; s < tile.count; s += tile.across)
      for (int64_t i = 0; i < tile.across; i += W)
        prepare<CONE>(m, marcher.p, tile.ray(s) + i, (int)(tile.across - i < W ? tile.across - i : W), rays, s + i);
    for (int64_t s = 0; s < tile.count; ++s) {
      place[s] = {}, reached[s] = 1.0f, depth[s] = 0.0f;
      for (auto& v : color) v[s] = 0.0f;
    }
  }

  void render() {
    load_rays();
    while (fill()) {
      place_samples();
      weigh();
      see();
    }
    finish();
  }

  // Marches rays until the batch is full or there are none left; false where it is empty.
  bool fill() {
    run_count = samples = 0;
    int64_t most = FEW;
    if (waiting == tile.count && going_count > 0) most = BATCH / going_count;
    most = most < FEW ? FEW : most > MANY ? MANY : most;
    for (int64_t i = 0; i < going_count; ++i) add(going[i], most);
    for (; waiting < tile.count && samples + FEW <= BATCH; ++waiting) add((int32_t)waiting, FEW);
    return samples > 0;
  }
  void add(int32_t slot, int64_t most) {
    const int64_t found = marcher.take(ray_of(rays, slot), place[slot], step + samples, most);
    if (found == 0) return;
    runs[run_count++] = {slot, (int32_t)samples, (int32_t)found, 0, 0, found == most};
    samples += found;
  }

  // Where the batch's samples are, in the space of the grid, and how long.
  void place_samples() {
    const float scale = inverse_side((int32_t)a.cascades - 1);
    for (int64_t j = 0; j < run_count; ++j) {
      const Run& run = runs[j];
      const Ray ray = ray_of(rays, run.slot);
      for (int32_t i = run.first, end = run.first + run.count; i < end; i += W) {
        const int n = end - i < W ? end - i : W;
        const vi s = load(step + i);
        const vf t0 = marcher.time(ray, s, 0.0f), t1 = marcher.time(ray, s + 1, 0.0f);
        const Point q = point_at(ray, marcher.time(ray, s, 0.5f));
        store(middle + i, (t0 + t1) * 0.5f), store(tau + i, t1 - t0);
        put(x + i, q.x, scale, n), put(x + samples + i, q.y, scale, n), put(x + 2 * samples + i, q.z, scale, n);
      }
    }
  }
  static void put(float* to, vf q, float scale, int n) {
    store_n(to, CASCADES ? (q - 0.5f) * scale + 0.5f : q, n);
  }

  // Asks for densities and composites them: which samples their ray reaches, and their weights.
  void weigh() {
    field.density.ask(geometry, x, nullptr, samples, features, clock, logit);
    for (int64_t i = 0; i < samples; i += W) {
      const vf thick = density(load(logit + i), 0.0f) * load(tau + i);
      store(weight + i, absorbed(thick)), store(after + i, transmittance(thick));
    }
    seen = 0;
    for (int64_t j = 0; j < run_count; ++j) {
      Run& run = runs[j];
      float left = reached[run.slot], sum = depth[run.slot];
      while (run.live < run.count && left >= (float)a.stop) {
        const int32_t i = run.first + run.live++;
        weight[i] *= left;
        sum = fma(weight[i], middle[i], sum), left *= after[i];
      }
      reached[run.slot] = left, depth[run.slot] = sum;
      run.seen = (int32_t)seen, seen += run.live;
    }
  }

  // Adds the colours of the samples that are reached; the rays that go on are then under way.
  void see() {
    for (int64_t j = 0; j < run_count; ++j) {
      const Run& run = runs[j];
      for (int k = 0; k < 3; ++k) {
        const vf along = splat(rays.d[k][run.slot]);
        for (int32_t i = 0; i < run.live; i += W)
          store_n(directions + k * seen + run.seen + i, along, run.live - i < W ? run.live - i : W);
      }
    }
    SphericalHarmonicsForward h{};
    h.encoded = harmonics, h.encoded_type = field.color.x1_type, h.directions = directions, h.degree = a.degree;
    h.C = field.color.B, h.M = seen;
    spherical_harmonics_forward(&h);
    run_network(field.color, rgb, geometry_of_seen(), harmonics, seen, clock);
    for (int64_t i = 0; i < 3 * seen; i += W) store(rgb + i, colour(load(rgb + i)));
    going_count = 0;
    for (int64_t j = 0; j < run_count; ++j) {
      const Run& run = runs[j];
      for (int k = 0; k < 3; ++k) {
        const float* value = rgb + k * seen + run.seen;
        float sum = color[k][run.slot];
        for (int32_t i = 0; i < run.live; ++i) sum = fma(weight[run.first + i], value[i], sum);
        color[k][run.slot] = sum;
      }
      if (run.more && reached[run.slot] >= (float)a.stop) going[going_count++] = run.slot;
    }
  }

  // The geometry features of the samples that are reached, side by side.
  const char* geometry_of_seen() {
    if (seen == samples) return geometry;
    const int64_t value = field.value_bytes();
    for (int64_t j = 0; j < run_count;) {
      // runs whose samples are all reached go together with the next
      const Run& first = runs[j];
      int64_t count = 0;
      bool whole = true;
      for (; j < run_count && whole; ++j) count += runs[j].live, whole = runs[j].live == runs[j].count;
      for (int64_t c = 0; c < field.density.outputs(); ++c)
        memcpy(reached_geometry + (c * seen + first.seen) * value, geometry + (c * samples + first.first) * value,
               (size_t)(count * value));
    }
    return reached_geometry;
  }

  void finish() {
    for (int64_t s = 0; s < tile.count; ++s) {
      const int64_t ray = tile.ray(s);
      a.opacity[ray] = 1.0f - reached[s], a.depth[ray] = depth[s];
      for (int k = 0; k < 3; ++k) a.color[k * a.N + ray] = color[k][s];
    }
  }
};

template <bool CONE, bool CASCADES>
void render(const RenderFused& a) {
  const FusedField field(a);
  const Marcher<CONE, CASCADES> marcher(march_arguments(a));
  for_ray_tiles(a.N, a.width, SIDE, [&](const RayTile& tile) {
    FusedTile<CONE, CASCADES>(a, field, marcher, tile).render();
  });
}

}  // namespace

RADFIELD_OP(render_fused, RenderFused) {
  if (a.cone > 0)
    a.cascades > 1 ? render<true, true>(a) : render<true, false>(a);
  else
    a.cascades > 1 ? render<false, true>(a) : render<false, false>(a);
}
