// Real spherical harmonics of a unit direction (spherical_harmonics.py has the convention). The one of band l and order
// m >= 0 is q_lm(z) Re (x + i y)^m, that of order -m is q_lm(z) Im (x + i y)^m. For one m the polynomials q_lm follow
// from each other by a recurrence over l, so a *column* (all l of one m) is computed at once.
#pragma once
#include "../maths.h"

namespace radfield {

struct SphericalHarmonicsForward {
  void* encoded;
  int64_t encoded_type;
  const float* directions;
  int64_t degree;
  int64_t C, M;
};
struct SphericalHarmonicsBackward {
  float* grad_directions;
  const void* grad_encoded;
  int64_t grad_encoded_type;
  const float* directions;
  int64_t degree;
  int64_t M, C;
};

// Square root at compile time, by Newton's iteration; exact to double precision for the small ratios used here.
constexpr double constant_sqrt(double x) {
  double r = x > 1 ? x : 1;
  for (int i = 0; i < 60; ++i) r = 0.5 * (r + x / r);
  return r;
}

// q_mm, a constant: (-1)^m sqrt((2 - [m = 0]) (2 m + 1)!! / (4 pi (2 m)!!)).
constexpr double sh_first(int m) {
  double squared = (m ? 2.0 : 1.0) / (4 * 3.14159265358979323846);
  for (int k = 1; k <= m; ++k) squared *= (2 * k + 1) / (2.0 * k);
  return (m % 2 ? -1.0 : 1.0) * constant_sqrt(squared);
}

// q_lm = a z q_(l-1)m - b q_(l-2)m
constexpr double sh_a(int l, int m) { return constant_sqrt((4.0 * l * l - 1) / (1.0 * l * l - m * m)); }
constexpr double sh_b(int l, int m) {
  return constant_sqrt((2.0 * l + 1) * ((l - 1.0) * (l - 1) - m * m) / ((2.0 * l - 3) * (1.0 * l * l - m * m)));
}

// emit(l, q_lm(z), d q_lm / dz) for l = m .. DEGREE-1. The derivative is computed only where `emit` uses it.
template <int DEGREE, int m, int l = m, class F, class Emit>
RADFIELD_FN void sh_column(F z, F q1, F q2, F d1, F d2, Emit emit) {  // 1: of band l-1, 2: of band l-2
  if constexpr (l < DEGREE) {
    F q, d;
    if constexpr (l == m) {
      q = F{} + (float)sh_first(m), d = F{};
    } else {
      constexpr float a = (float)sh_a(l, m), b = (float)sh_b(l, m);
      q = a * z * q1, d = a * fma(z, d1, q1);
      if constexpr (l > m + 1) q = fma(F{} - b, q2, q), d = fma(F{} - b, d2, d);
    }
    emit(l, q, d);
    sh_column<DEGREE, m, l + 1>(z, q, q1, d, d1, emit);
  }
}

// emit(channel, value) for each of the DEGREE^2 harmonics. re + i im = (x + i y)^m.
template <int DEGREE, int m = 0, class F, class Emit>
RADFIELD_FN void sh_values(F x, F y, F z, F re, F im, Emit emit) {
  if constexpr (m < DEGREE) {
    sh_column<DEGREE, m>(z, F{}, F{}, F{}, F{}, [&](int l, F q, F) {
      emit(l * l + l + m, q * re);
      if constexpr (m > 0) emit(l * l + l - m, q * im);
    });
    sh_values<DEGREE, m + 1>(x, y, z, x * re - y * im, x * im + y * re, emit);
  }
}

// Gradient of sum_c g(c) value_c by x, y, z, added to `grad`. low_re + i low_im = (x + i y)^(m-1), so that
// d/dx (x + i y)^m = m (low_re + i low_im) and d/dy is i times that.
template <int DEGREE, int m = 0, class F, class G>
RADFIELD_FN void sh_gradient(F x, F y, F z, F re, F im, F low_re, F low_im, G g, F (&grad)[3]) {
  if constexpr (m < DEGREE) {
    F sum_re = F{}, sum_im = F{}, sum_z = F{};
    sh_column<DEGREE, m>(z, F{}, F{}, F{}, F{}, [&](int l, F q, F d) {
      const F g_re = g(l * l + l + m);
      sum_re = fma(g_re, q, sum_re);
      F along = g_re * re;
      if constexpr (m > 0) {
        const F g_im = g(l * l + l - m);
        sum_im = fma(g_im, q, sum_im);
        along = fma(g_im, im, along);
      }
      sum_z = fma(along, d, sum_z);
    });
    grad[0] = grad[0] + (float)m * fma(low_re, sum_re, low_im * sum_im);
    grad[1] = grad[1] + (float)m * (low_re * sum_im - low_im * sum_re);
    grad[2] = grad[2] + sum_z;
    sh_gradient<DEGREE, m + 1>(x, y, z, x * re - y * im, x * im + y * re, re, im, g, grad);
  }
}

}  // namespace radfield
