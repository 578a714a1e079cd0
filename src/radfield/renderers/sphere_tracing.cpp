// A task is a tile of rays. Those under way are asked for together, a batch of them through grid and network; where some
// have ended, waiting ones take their places, so that batches stay full until the tile's last rays. At the end the
// normals of all that met the surface are asked for. A ray's bits do not depend on the others.
#include "sphere_tracing.h"

#include "../networks/grid_field.h"
#include "ray_tiles.h"

using namespace radfield;

namespace {

constexpr int64_t SIDE = 64, TILE = SIDE * SIDE;  // rays of a task
constexpr int64_t BATCH = 1088;  // points asked at a time: no power of two, see picture_frame.cpp

struct Tracer {
  const SphereTrace& a;
  const GridField& field;
  const RayTile tile;
  StageClock clock;
  // Of each of the tile's rays.
  float *o[3], *d[3], *t, *far;
  int32_t* asked;  // times
  // Slots of rays: under way, and those that met the surface.
  int32_t *going, *met;
  int64_t going_count = 0, met_count = 0;
  float *x, *beside, *y;
  void* features;

  static int64_t bytes(const GridField& field) {
    return 4 * (11 * TILE + 7 * BATCH + 64) + field.feature_bytes(BATCH) + 1024;
  }

  Tracer(const SphereTrace& a, const GridField& field, const RayTile& tile)
      : a(a), field(field), tile(tile), clock(a.nanoseconds) {
    float* memory = (float*)scratch(bytes(field), 1);
    auto take = [&](int64_t count) { return memory += count, memory - count; };
    for (auto& v : o) v = take(TILE);
    for (auto& v : d) v = take(TILE);
    t = take(TILE), far = take(TILE);
    asked = (int32_t*)take(TILE), met = (int32_t*)take(TILE), going = (int32_t*)take(TILE);
    x = take(3 * BATCH), beside = take(3 * BATCH), y = take(BATCH + 64);
    features = memory;
  }

  // Rays into the tile's memory, and what is known before anything is asked.
  void load_rays() {
    tile.load(o, a.origins, a.R), tile.load(d, a.directions, a.R);
    for (int64_t s = 0; s < tile.count; s += W) {
      const int n = (int)(tile.count - s < W ? tile.count - s : W);
      vf origin[3], direction[3], near, end;
      for (int k = 0; k < 3; ++k) origin[k] = load_n(o[k] + s, n), direction[k] = load_n(d[k] + s, n);
      intersect_box(origin, direction, a.box, a.box + 3, near, end);
      store_n(t + s, near, n), store_n(far + s, end, n);
    }
    for (int64_t s = 0; s < tile.count; ++s) {
      const int64_t ray = tile.ray(s);
      asked[s] = 0, a.opacity[ray] = a.depth[ray] = 0.0f;
      for (int k = 0; k < 3; ++k) a.color[3 * ray + k] = a.background[k];
    }
  }

  // Points at the distances of n rays `slots`.
  RADFIELD_SIMD void at(vf (&point)[3], vi slots, vf distance) const {
    for (int k = 0; k < 3; ++k) point[k] = gather(o[k], slots) + distance * gather(d[k], slots);
  }

  // Moves n rays on while their cells are free; those that stay within the box are under way.
  RADFIELD_SIMD void advance(const int32_t* slots, int n) {
    const vi slot = load_n(slots, n);
    const vf end = gather(far, slot);
    vf distance = gather(t, slot);
    vi moving = (vi)(lanes() < n) & (vi)(distance < end);
    for (int64_t k = 0; k < a.free_steps && any(moving); ++k) {
      vf point[3];
      at(point, slot, distance);
      const vf step = gather(a.free, cell_of<vi>(point, (int)a.cells));
      distance = select(moving, distance + step, distance);
      moving &= (vi)(step > 0.0f) & (vi)(distance < end);
    }
    alignas(64) float distances[W];
    alignas(64) int32_t stay[W];
    store(distances, distance), store(stay, (vi)(distance < end));
    for (int i = 0; i < n; ++i) {
      const int32_t s = slots[i];
      t[s] = distances[i];
      if (stay[i]) going[going_count++] = s;
    }
  }

  // f [n] at x [3][n].
  void ask(int64_t n) {
    for (int64_t i = 0; i < 3 * n; i += W) {
      const int m = (int)(3 * n - i < W ? 3 * n - i : W);
      store_n(beside + i, 2.0f * load_n(x + i, m) - 1.0f, m);
    }
    field.ask(y, x, beside, n, features, clock);
    for (int64_t i = 0; i < n; i += W) {
      const int m = (int)(n - i < W ? n - i : W);
      vf f = load_n(y + i, m) - (float)a.level;
      if (a.crop) {
        const vf point[3] = {load_n(x + i, m), load_n(x + n + i, m), load_n(x + 2 * n + i, m)};
        f = max(f, outside_box(point, a.crop, a.crop + 3));
      }
      store_n(y + i, f, m);
    }
  }

  void trace() {
    load_rays();
    for (int64_t next = 0; next < tile.count || going_count > 0;) {
      for (; next < tile.count && going_count + W <= BATCH; next += W) {
        int32_t slots[W];
        const int n = (int)(tile.count - next < W ? tile.count - next : W);
        for (int i = 0; i < n; ++i) slots[i] = (int32_t)next + i;
        advance(slots, n);
      }
      if (going_count > 0) step();
    }
  }

  // Asks for the rays under way and moves them on.
  void step() {
    const int64_t n = going_count;
    for (int64_t j = 0; j < n; j += W) {
      const int m = (int)(n - j < W ? n - j : W);
      const vi slot = load_n(going + j, m);
      vf point[3];
      at(point, slot, gather(t, slot));
      for (int k = 0; k < 3; ++k) store_n(x + k * n + j, point[k], m);
    }
    ask(n);
    int64_t kept = 0;
    for (int64_t j = 0; j < n; ++j) {
      const int32_t s = going[j];
      if (y[j] < (float)a.hit) {
        met[met_count++] = s;
        continue;
      }
      t[s] += (float)a.relaxed * y[j];
      if (t[s] < far[s] && ++asked[s] < a.most_steps) going[kept++] = s;
    }
    going_count = 0;  // advance() writes behind what it has read
    for (int64_t j = 0; j < kept; j += W) {
      int32_t slots[W];
      const int m = (int)(kept - j < W ? kept - j : W);
      memcpy(slots, going + j, (size_t)(4 * m));
      advance(slots, m);
    }
  }

  void shade() {
    constexpr int64_t SURFACES = BATCH / 4;
    for (int64_t begin = 0; begin < met_count; begin += SURFACES) {
      const int64_t n = met_count - begin < SURFACES ? met_count - begin : SURFACES;
      for (int64_t j = 0; j < n; j += W) {
        const int m = (int)(n - j < W ? n - j : W);
        const vi slot = load_n(met + begin + j, m);
        vf point[3];
        at(point, slot, gather(t, slot));
        for (int corner = 0; corner < 4; ++corner)
          for (int k = 0; k < 3; ++k) {
            const float by = (float)a.normal_step * a.corners[3 * corner + k];
            store_n(x + k * 4 * n + corner * n + j, point[k] + by, m);
          }
      }
      ask(4 * n);
      for (int64_t j = 0; j < n; j += W) shade_lanes(begin + j, j, n);
    }
  }
  // The rays met[first ...], whose values are y[corner n + j].
  void shade_lanes(int64_t first, int64_t j, int64_t n) {
    const int m = (int)(n - j < W ? n - j : W);
    const vi slot = load_n(met + first, m);
    vf gradient[3] = {};
    for (int corner = 0; corner < 4; ++corner)
      for (int k = 0; k < 3; ++k)
        gradient[k] = fma(load_n(y + corner * n + j, m), splat(a.corners[3 * corner + k]), gradient[k]);
    const vf direction[3] = {gather(d[0], slot), gather(d[1], slot), gather(d[2], slot)};
    alignas(64) float light[W];
    store(light, light_from_camera(gradient, direction));
    for (int i = 0; i < m; ++i) {
      const int32_t s = met[first + i];
      const int64_t ray = tile.ray(s);
      a.opacity[ray] = 1.0f, a.depth[ray] = t[s];
      for (int k = 0; k < 3; ++k) a.color[3 * ray + k] = a.albedo[k] * light[i];
    }
  }
};

}  // namespace

RADFIELD_OP(sphere_trace, SphereTrace) {
  const GridField field(a, 3, 3, F32);
  field.pack();
  for_ray_tiles(a.R, a.width, SIDE, [&](const RayTile& tile) {
    Tracer tracer(a, field, tile);
    tracer.trace();
    tracer.shade();
  });
}
