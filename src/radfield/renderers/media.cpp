// A task is a tile of rays, which take their steps together; where light is scattered, all steps towards a source of
// light are asked for at once. A ray's bits do not depend on the others.
#include "media.h"

#include "../networks/grid_field.h"
#include "ray_tiles.h"

using namespace radfield;

namespace {

constexpr int64_t SIDE = 32, TILE = SIDE * SIDE;  // rays of a task
// Points asked at a time, or the steps towards a light where these are more; no power of two: see picture_frame.cpp.
constexpr int64_t BATCH = 1088;

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

struct Marcher {
  const MediaMarch& a;
  const GridField& field;
  const RayTile tile;
  const int64_t batch;
  StageClock clock;
  // Of each of the tile's rays: where it starts in the box, the length of a step, the part of the light that is left.
  float *o[3], *d[3], *near, *length, *through, *color[3];
  int32_t *alive, *lit;      // slots: of rays under way, and rows of `alive` where light is scattered
  float *weight, *received[3], *path, *depth;  // of each lit row
  float *x, *points, *y, *towards_y;
  void* features;

  static int64_t batch_of(const MediaMarch& a) { return a.light_steps > BATCH ? a.light_steps : BATCH; }
  static int64_t bytes(const MediaMarch& a, const GridField& field) {
    const int64_t points = batch_of(a), outputs = field.outputs();
    return 4 * (20 * TILE + 3 * TILE + outputs * TILE + (3 + outputs) * points) + field.feature_bytes(points);
  }

  Marcher(const MediaMarch& a, const GridField& field, const RayTile& tile)
      : a(a), field(field), tile(tile), batch(batch_of(a)), clock(a.nanoseconds) {
    float* memory = (float*)scratch(bytes(a, field), 1);
    auto take = [&](int64_t count) { return memory += count, memory - count; };
    for (auto& v : o) v = take(TILE);
    for (auto& v : d) v = take(TILE);
    for (auto& v : color) v = take(TILE);
    for (auto& v : received) v = take(TILE);
    near = take(TILE), length = take(TILE), through = take(TILE), weight = take(TILE);
    path = take(TILE), depth = take(TILE);
    alive = (int32_t*)take(TILE), lit = (int32_t*)take(TILE);
    x = take(3 * TILE), y = take(field.outputs() * TILE);
    points = take(3 * batch), towards_y = take(field.outputs() * batch);
    features = memory;
  }

  int lanes_from(int64_t i, int64_t n) const { return (int)smaller(W, n - i); }
  vf density(const float* values, int n) const {
    return (float)a.extinction * max(min(load_n(values, n), vf{} + 1.0f), vf{});
  }

  void load_rays() {
    tile.load(o, a.origins, a.R), tile.load(d, a.directions, a.R);
    for (int64_t s = 0; s < tile.count; s += W) {
      const int n = lanes_from(s, tile.count);
      vf origin[3], direction[3], begin, end;
      for (int k = 0; k < 3; ++k) origin[k] = load_n(o[k] + s, n), direction[k] = load_n(d[k] + s, n);
      crossing(origin, direction, a.box, a.box + 3, begin, end);
      store_n(near + s, begin, n);
      store_n(length + s, max(end - begin, vf{}) / (float)a.steps, n);
      store_n(through + s, vf{} + 1.0f, n);
      for (int k = 0; k < 3; ++k) store_n(color[k] + s, vf{}, n);
    }
  }

  void march() {
    load_rays();
    for (int64_t step = 0; step < a.steps; ++step) {
      int64_t n = 0;
      for (int64_t s = 0; s < tile.count; ++s)
        if (through[s] > (float)a.least && length[s] > 0.0f) alive[n++] = (int32_t)s;
      if (n == 0) break;
      take_step(step, n);
    }
    finish();
  }

  void take_step(int64_t step, int64_t n) {
    for (int64_t j = 0; j < n; j += W) {
      const int m = lanes_from(j, n);
      const vi slot = load_n(alive + j, m);
      const vf t = gather(near, slot) + ((float)step + 0.5f) * gather(length, slot);
      for (int k = 0; k < 3; ++k) store_n(x + k * n + j, gather(o[k], slot) + t * gather(d[k], slot), m);
    }
    ask(y, x, n);
    int64_t lit_count = 0;
    for (int64_t j = 0; j < n; j += W) {
      const int m = lanes_from(j, n);
      const vi slot = load_n(alive + j, m);
      const vf left = gather(through, slot);
      const vf lost = absorbed(density(y + j, m) * gather(length, slot));
      alignas(64) float losing[W], after[W];
      store(losing, lost * left), store(after, left * (1.0f - lost));
      for (int i = 0; i < m; ++i) {
        through[alive[j + i]] = after[i];
        if (losing[i] > (float)a.least) weight[lit_count] = losing[i], lit[lit_count++] = (int32_t)(j + i);
      }
    }
    if (lit_count > 0) scatter(lit_count, n);
  }

  // Adds what the lit rows scatter towards the camera.
  void scatter(int64_t count, int64_t n) {
    for (int k = 0; k < 3; ++k) memset(received[k], 0, (size_t)(4 * count));
    for (int64_t k = 0; k < a.K; ++k) light_from(k, count, n);
    const int albedos = field.outputs() >= 4;
    for (int64_t i = 0; i < count; ++i) {
      const int32_t row = lit[i], slot = alive[row];
      for (int k = 0; k < 3; ++k) {
        const float albedo = albedos ? max(min(y[(k + 1) * n + row], 1.0f), 0.0f) : 1.0f;
        color[k][slot] += weight[i] * albedo * (received[k][i] / (float)a.K);
      }
    }
  }

  // Adds the light from direction k that reaches the lit rows and goes on to the camera.
  void light_from(int64_t k, int64_t count, int64_t n) {
    const float direction[3] = {a.towards[k], a.towards[a.K + k], a.towards[2 * a.K + k]};
    for (int64_t i = 0; i < count; i += W) {
      const int m = lanes_from(i, count);
      const vi row = load_n(lit + i, m);
      vf origin[3], w[3], begin, end;
      for (int c = 0; c < 3; ++c) origin[c] = gather(x + c * n, row), w[c] = splat(direction[c]);
      crossing(origin, w, a.box, a.box + 3, begin, end);
      store_n(path + i, max(end, vf{}) / (float)a.light_steps, m);
    }
    const int64_t at_once = batch / a.light_steps;
    for (int64_t i = 0; i < count; i += at_once) optical_depth(i, smaller(at_once, count - i), n, direction);
    for (int64_t i = 0; i < count; i += W) {
      const int m = lanes_from(i, count);
      const vi row = load_n(lit + i, m);
      const vi slot = gather((const int32_t*)alive, row);
      const vf cosine = gather(d[0], slot) * direction[0] + gather(d[1], slot) * direction[1] + gather(d[2], slot) * direction[2];
      const vf arriving = transmittance(load_n(depth + i, m)) * phase(cosine, (float)a.g);
      for (int c = 0; c < 3; ++c)
        store_n(received[c] + i, load_n(received[c] + i, m) + arriving * a.light[c * a.K + k], m);
    }
  }

  // depth[first ...] of `count` lit rows.
  void optical_depth(int64_t first, int64_t count, int64_t n, const float (&direction)[3]) {
    const int64_t all = count * a.light_steps;
    for (int64_t i = 0; i < count; i += W) {
      const int m = lanes_from(i, count);
      const vi row = load_n(lit + first + i, m);
      const vf part = load_n(path + first + i, m);
      for (int64_t step = 0; step < a.light_steps; ++step)
        for (int c = 0; c < 3; ++c)
          store_n(points + c * all + step * count + i,
                  gather(x + c * n, row) + ((float)step + 0.5f) * part * direction[c], m);
    }
    ask(towards_y, points, all);
    for (int64_t i = 0; i < count; i += W) {
      const int m = lanes_from(i, count);
      const vf part = load_n(path + first + i, m);
      vf sum = {};
      for (int64_t step = 0; step < a.light_steps; ++step) sum = sum + density(towards_y + step * count + i, m) * part;
      store_n(depth + first + i, sum, m);
    }
  }

  void ask(float* values, const float* at, int64_t n) { field.ask(values, at, nullptr, n, features, clock); }

  // What the rays have gathered, before the sky.
  void finish() {
    for (int64_t s = 0; s < tile.count; s += W) {
      const int n = lanes_from(s, tile.count);
      const vf w[3] = {load_n(d[0] + s, n), load_n(d[1] + s, n), load_n(d[2] + s, n)};
      vf sky[3];
      sky_radiance(sky, w, a.sky, (float)a.sharpness);
      for (int k = 0; k < 3; ++k) {
        alignas(64) float values[W];
        store(values, load_n(color[k] + s, n) + load_n(through + s, n) * sky[k]);
        for (int i = 0; i < n; ++i) a.color[3 * tile.ray(s + i) + k] = values[i];
      }
    }
  }
};

}  // namespace

RADFIELD_OP(media_march, MediaMarch) {
  const GridField field(a, 3, 0, F32);
  field.pack();
  for_ray_tiles(a.R, a.width, SIDE, [&](const RayTile& tile) { Marcher(a, field, tile).march(); });
}
