// Rays that step to the surface, and there ask for the four values that give its normal (field_rays_device.h).
#include "sphere_tracing.h"

#include "field_rays_device.h"

namespace radfield {

template <int MMA>
__global__ void sphere_trace_pack(const SphereTrace a) {
  pack_network<MMA>(a);
}

struct SphereRay {
  const SphereTrace& a;
  FieldTile& tile;
  int64_t ray = -1;  // -1: none
  float o[3], d[3], t, far;
  float x[3];         // the point that is asked for
  float gradient[3];  // from the corners so far
  int64_t asked;      // times, on the way
  int corner;         // of the tetrahedron around the surface that is next; -1: on the way

  RADFIELD_FN bool next(float (&point)[3]) {
    for (;;) {
      if (ray < 0 && !take()) return false;
      if (corner >= 0 || advance()) break;
      ray = -1;
    }
    for (int k = 0; k < 3; ++k) {
      const float surface = o[k] + t * d[k];
      point[k] = x[k] = corner < 0 ? surface : surface + (float)a.normal_step * a.corners[3 * corner + k];
    }
    return true;
  }
  // A new ray, whose pixel is the background until it meets the surface.
  RADFIELD_FN bool take() {
    ray = take_ray(tile, a.R);
    if (ray < 0) return false;
    for (int k = 0; k < 3; ++k) {
      o[k] = a.origins[k * a.R + ray], d[k] = a.directions[k * a.R + ray];
      a.color[3 * ray + k] = a.background[k];
    }
    intersect_box(o, d, a.box, a.box + 3, t, far);
    a.opacity[ray] = a.depth[ray] = 0.0f;
    asked = 0, corner = -1;
    return true;
  }
  // Moves on while cells are free; whether it is still within the box.
  RADFIELD_FN bool advance() {
    bool moving = t < far;
    for (int64_t k = 0; k < a.free_steps && moving; ++k) {
      const float point[3] = {o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]};
      const float step = a.free[cell_of<int32_t>(point, (int)a.cells)];
      t = t + step;
      moving = step > 0.0f && t < far;
    }
    return t < far;
  }
  RADFIELD_FN void see(const FieldTile& answers, int s) {
    float f = answers.y[0][s] - (float)a.level;
    if (a.crop) f = max(f, outside_box(x, a.crop, a.crop + 3));
    if (corner < 0) return step(f);
    for (int k = 0; k < 3; ++k) gradient[k] = fma(f, a.corners[3 * corner + k], gradient[k]);
    if (++corner == 4) shade();
  }
  RADFIELD_FN void step(float f) {
    if (f < (float)a.hit) {
      corner = 0, gradient[0] = gradient[1] = gradient[2] = 0.0f;
      return;
    }
    t = t + (float)a.relaxed * f;
    if (!(t < far && ++asked < a.most_steps)) ray = -1;
  }
  RADFIELD_FN void shade() {
    const float light = light_from_camera(gradient, d);
    a.opacity[ray] = 1.0f, a.depth[ray] = t;
    for (int k = 0; k < 3; ++k) a.color[3 * ray + k] = a.albedo[k] * light;
    ray = -1;
  }
};

template <int MMA, int F, class T>
__global__ void __launch_bounds__(128) sphere_trace(const SphereTrace a, float* scratch, int64_t rows) {
  walk_rays<MMA, F, T, 3, SphereRay>(a, scratch, rows);
}

}  // namespace radfield
