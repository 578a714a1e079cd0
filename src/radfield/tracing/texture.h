// Patterns and noise: texture.py has the equations. Letters: N points, Q materials. F: float or SIMD vector. Which
// pattern it is, is the same for all lanes.
#pragma once
#include "../sampling/random.h"

namespace radfield {

struct Texture {
  float* color;
  const float* x;
  const float* width;
  const int32_t* index;
  const int32_t* pattern;
  const float* values;
  const float* placement;
  int64_t N, Q;
};

enum Pattern { PLAIN, CHECKER, STRIPES, GRADIENT, RINGS, NOISE, SPOTS, TILES };
constexpr int OCTAVES = 3;
constexpr float CHIP_SCALE = 2.3f;
constexpr float JOINT = 0.03f, JOINT_SHADE = 0.45f;

RADFIELD_FN uint32_t to_unsigned(float x) { return (uint32_t)(int32_t)x; }
#ifdef RADFIELD_CPU
RADFIELD_FN vu to_unsigned(vf x) { return (vu)to_int(x); }
#endif

template <class F>
RADFIELD_FN F clamp_unit(F x) {
  return min(max(x, F{}), F{} + 1.0f);
}
template <class F>
RADFIELD_FN F keep(F width) {
  return clamp_unit(2.0f - 4.0f * width);
}
template <class F>
RADFIELD_FN F wave(F phase) {
  return 0.5f + 0.5f * sin_turns(phase + 0.25f);
}
template <class F>
RADFIELD_FN F soft_steps(F wave) {
  return clamp_unit((wave - 0.5f) * 6.0f + 0.5f);
}

// A random number in [0, 1) per lattice point; x, y, z: whole numbers.
template <class F>
RADFIELD_FN F lattice(F x, F y, F z, uint32_t seed) {
  return unit_float(pcg(pcg(pcg(to_unsigned(x) + seed) + to_unsigned(y)) + to_unsigned(z)));
}

template <class F>
RADFIELD_FN F value_noise(F x, F y, F z, uint32_t seed) {
  const F p[3] = {x, y, z};
  F cell[3], s[3];
  for (int i = 0; i < 3; ++i) {
    cell[i] = floor(p[i]);
    const F inside = p[i] - cell[i];
    s[i] = inside * inside * (3.0f - 2.0f * inside);
  }
  F total = F{};
  for (int corner = 0; corner < 8; ++corner) {
    const int a = corner & 1, b = corner >> 1 & 1, c = corner >> 2;
    const F weight = (a ? s[0] : 1.0f - s[0]) * (b ? s[1] : 1.0f - s[1]) * (c ? s[2] : 1.0f - s[2]);
    total = total + weight * lattice(cell[0] + (float)a, cell[1] + (float)b, cell[2] + (float)c, seed);
  }
  return total;
}

template <class F>
RADFIELD_FN F octaves(const F* p, F width) {
  F total = F{};
  float scale = 1.0f, frequency = 1.0f;
  for (int octave = 0; octave < OCTAVES; ++octave) {
    const float shift = 17.31f * (float)octave;
    const F value = value_noise(p[0] * frequency + shift, p[1] * frequency + shift, p[2] * frequency + shift, octave);
    total = total + scale * (value - 0.5f) * keep(width * frequency);
    scale *= 0.5f, frequency *= 2.0f;
  }
  return 0.5f + total / (2.0f - 2.0f * scale);
}

template <class F>
RADFIELD_FN F checker(const F* p) {
  F product = F{} + 1.0f;
  for (int i = 0; i < 3; ++i)
    product = product * min(max(6.0f * sin_turns(0.5f * p[i] + 0.25f), F{} - 1.0f), F{} + 1.0f);
  return 0.5f + 0.5f * product;
}

// 1 inside each cell's ball, 0 outside; tone: the ball's random number.
template <class F>
RADFIELD_FN F balls(const F* p, uint32_t seed, F& tone) {
  const F x = floor(p[0]), y = floor(p[1]), z = floor(p[2]);
  F square = F{};
  for (int i = 0; i < 3; ++i) {
    const F away = p[i] - floor(p[i]) - (0.3f + 0.4f * lattice(x, y, z, seed + (uint32_t)i));
    square = square + away * away;
  }
  tone = lattice(x, y, z, seed + 4u);
  return clamp_unit((0.14f + 0.16f * lattice(x, y, z, seed + 3u) - sqrt(square)) * 12.0f + 0.5f);
}

template <class F>
RADFIELD_FN F chips(const F* p, F width) {
  F total = F{};
  for (int i = 0; i < 2; ++i) {
    const float scale = i ? CHIP_SCALE : 1.0f, shift = i ? 7.7f : 0.0f;
    const F q[3] = {p[0] * scale + shift, p[1] * scale + shift, p[2] * scale + shift};
    F tone;
    const F ball = balls(q, 9u + 5u * (uint32_t)i, tone);
    total = total + ball * (2.0f * tone - 1.0f) * keep(width * scale);
  }
  return min(max(total, F{} - 1.0f), F{} + 1.0f);
}

// The weight of the second colour; shade: the share of the colour that is left. width: in units of p.
template <class F>
RADFIELD_FN F pattern_weight(int pattern, const F* p, F width, F& shade) {
  shade = F{} + 1.0f;
  F weight = F{};
  switch (pattern) {
    case PLAIN: return weight;
    case NOISE: return octaves(p, width);
    case CHECKER: weight = checker(p); break;
    case STRIPES: weight = soft_steps(wave(p[2] + 0.35f * p[0])); break;
    case GRADIENT: weight = wave(0.5f * (p[2] + 0.3f * p[1])); break;
    case RINGS: weight = soft_steps(wave(sqrt(p[0] * p[0] + p[1] * p[1]) + p[2])); break;
    case SPOTS: weight = balls(p, 5u, shade), shade = F{} + 1.0f; break;
    default: {
      const F x = floor(p[0]), y = floor(p[1]), u = p[0] - x, v = p[1] - y;
      const F edge = min(min(u, 1.0f - u), min(v, 1.0f - v));
      shade = 1.0f - (1.0f - JOINT_SHADE) * (1.0f - clamp_unit(edge / JOINT - 1.0f)) * keep(width * 4.0f);
      weight = lattice(x, y, floor(p[2] + 0.5f), 3u);
    }
  }
  return 0.5f + (weight - 0.5f) * keep(width);
}

// Colour of a point x of one material; `values` and `placement` are the material's.
template <class F>
RADFIELD_FN void surface_color(int pattern, const float* values, const float* placement, const F* x, F width, F* color) {
  F local[3], p[3], fine[3], shade;
  const F a = x[0] - placement[9], b = x[1] - placement[10], c = x[2] - placement[11];
  for (int i = 0; i < 3; ++i) {
    local[i] = a * placement[3 * i] + b * placement[3 * i + 1] + c * placement[3 * i + 2];
    p[i] = local[i] * values[6], fine[i] = local[i] * values[8];
  }
  const F weight = pattern_weight(pattern, p, width * values[6], shade);
  if (values[7] != 0) {
    const F fine_width = width * values[8];
    const F grain = 2.0f * octaves(fine, fine_width) - 1.0f + chips(fine, fine_width);
    shade = shade * max(1.0f + values[7] * grain, F{});
  }
  for (int i = 0; i < 3; ++i) color[i] = (values[i] + weight * (values[3 + i] - values[i])) * shade;
}

}  // namespace radfield
