// Frequency encoding: channel (2 d + s) K + k of a point is sin(2^k pi x_d + s pi / 2), s = 0 the sine, 1 the cosine.
#pragma once
#include "../maths.h"

namespace radfield {

struct FrequencyForward {
  float* encoded;
  const float* x;
  int64_t frequencies;
  int64_t C, M, D;
};
struct FrequencyBackward {
  float* grad_x;
  const float* grad_encoded;
  const float* x;
  int64_t frequencies;
  int64_t D, M, C;
};

// 2^(k-1): the number of whole turns per unit of x.
RADFIELD_FN float turns_per_unit(int k) { return as_float((k - 1 + 127) << 23); }

// sin(2 pi (u + quarters / 4)). Whole turns go first, exactly: u + 1/4 would round the fraction of a large u.
template <class F>
RADFIELD_FN F sin_quarters(F u, int quarters) {
  return sin_turns((u - floor(u + 0.5f)) + 0.25f * (float)quarters);
}

template <class F>
RADFIELD_FN F frequency_value(F x, int k, int s) {
  return sin_quarters(x * turns_per_unit(k), s);
}

// d/dx sin(2 pi u) = 2 pi u' cos(2 pi u), and the cosine is the sine a quarter turn on.
template <class F>
RADFIELD_FN F frequency_derivative(F x, int k, int s) {
  float turns = turns_per_unit(k);
  return sin_quarters(x * turns, s + 1) * (6.28318530718f * turns);
}

}  // namespace radfield
