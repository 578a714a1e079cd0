// Rays that take their steps through the medium, and from where light is scattered the steps towards every source of
// light, one after another (field_rays_device.h).
#include "media.h"

#include "field_rays_device.h"

namespace radfield {

template <int MMA>
__global__ void media_march_pack(const MediaMarch a) {
  pack_network<MMA>(a);
}

struct MediaRay {
  const MediaMarch& a;
  FieldTile& tile;
  int64_t ray = -1;  // -1: none
  float o[3], d[3], near, length, through, color[3];
  int64_t step;   // the next one
  int64_t light;  // the direction towards which it steps; -1: along the ray
  // Of a point that is lit: its weight and albedo, what arrives, and the way towards the light.
  float weight, x[3], albedo[3], received[3], part, depth;
  int64_t light_step;

  RADFIELD_FN bool next(float (&point)[3]) {
    for (;;) {
      if (ray < 0 && !take()) return false;
      if (light >= 0 || (step < a.steps && through > (float)a.least && length > 0.0f)) break;
      leave();
    }
    if (light >= 0) {
      for (int k = 0; k < 3; ++k) point[k] = x[k] + ((float)light_step + 0.5f) * part * towards(k);
      return true;
    }
    const float t = near + ((float)step + 0.5f) * length;
    for (int k = 0; k < 3; ++k) point[k] = x[k] = o[k] + t * d[k];
    return true;
  }
  RADFIELD_FN bool take() {
    ray = take_ray(tile, a.R);
    if (ray < 0) return false;
    for (int k = 0; k < 3; ++k)
      o[k] = a.origins[k * a.R + ray], d[k] = a.directions[k * a.R + ray], color[k] = 0.0f;
    float far;
    crossing(o, d, a.box, a.box + 3, near, far);
    length = max(far - near, 0.0f) / (float)a.steps;
    through = 1.0f, step = 0, light = -1;
    return true;
  }
  // What the ray has gathered, before the sky.
  RADFIELD_FN void leave() {
    float sky[3];
    sky_radiance(sky, d, a.sky, (float)a.sharpness);
    for (int k = 0; k < 3; ++k) a.color[3 * ray + k] = color[k] + through * sky[k];
    ray = -1;
  }
  RADFIELD_FN float towards(int k) const { return a.towards[k * a.K + light]; }

  RADFIELD_FN void see(const FieldTile& answers, int s) {
    const float sigma = (float)a.extinction * max(min(answers.y[0][s], 1.0f), 0.0f);
    if (light >= 0) return see_towards_light(sigma);
    const float lost = absorbed(sigma * length);
    weight = lost * through, through = through * (1.0f - lost), ++step;
    if (!(weight > (float)a.least)) return;
    const bool albedos = a.layers[4 * (a.N - 1) + 1] >= 4;
    for (int k = 0; k < 3; ++k) {
      albedo[k] = albedos ? max(min(answers.y[k + 1][s], 1.0f), 0.0f) : 1.0f;
      received[k] = 0.0f;
    }
    light = 0;
    turn_to_light();
  }
  RADFIELD_FN void turn_to_light() {
    const float w[3] = {towards(0), towards(1), towards(2)};
    float begin, end;
    crossing(x, w, a.box, a.box + 3, begin, end);
    part = max(end, 0.0f) / (float)a.light_steps;
    depth = 0.0f, light_step = 0;
  }
  RADFIELD_FN void see_towards_light(float sigma) {
    depth = depth + sigma * part;
    if (++light_step < a.light_steps) return;
    const float cosine = d[0] * towards(0) + d[1] * towards(1) + d[2] * towards(2);
    const float arriving = transmittance(depth) * phase(cosine, (float)a.g);
    for (int k = 0; k < 3; ++k) received[k] = received[k] + arriving * a.light[k * a.K + light];
    if (++light < a.K) return turn_to_light();
    for (int k = 0; k < 3; ++k) color[k] = color[k] + weight * albedo[k] * (received[k] / (float)a.K);
    light = -1;
  }
};

template <int MMA, int F, class T>
__global__ void __launch_bounds__(128) media_march(const MediaMarch a, float* scratch, int64_t rows) {
  walk_rays<MMA, F, T, 0, MediaRay>(a, scratch, rows);
}

}  // namespace radfield
