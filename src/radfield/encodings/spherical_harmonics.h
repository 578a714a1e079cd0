// Real spherical harmonics of bands l < N, with derivatives (spherical_harmonics.py has the equations and the letters).
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

// Factors of the recurrence along l: q_l = a[m][l] z q_(l-1) - b[m][l] q_(l-2), from q_m = start[m].
struct HarmonicTable {
  float start[8], a[8][8], b[8][8];
};

RADFIELD_FN constexpr double constant_sqrt(double x) {
  double r = x > 1 ? x : 1;
  for (int i = 0; i < 60; ++i) r = 0.5 * (r + x / r);
  return x == 0 ? 0 : r;
}

RADFIELD_FN constexpr HarmonicTable harmonic_table() {
  HarmonicTable t{};
  double start = constant_sqrt(0.25 / 3.14159265358979323846);
  for (int m = 0; m < 8; ++m) {
    if (m > 0) start *= -constant_sqrt((2.0 * m + 1) / (2.0 * m)) * (m == 1 ? constant_sqrt(2) : 1);
    t.start[m] = (float)start;
    for (int l = m + 1; l < 8; ++l) {
      const double k = l - 1, a = constant_sqrt((4.0 * l * l - 1) / (l * l - m * m));
      t.a[m][l] = (float)a;
      t.b[m][l] = (float)(a * constant_sqrt((k * k - m * m) / (4 * k * k - 1)));
    }
  }
  return t;
}

// emit(channel, value) for each of the N^2 channels.
template <int N, class F, class Emit>
RADFIELD_FN void spherical_harmonics(F x, F y, F z, Emit emit) {
  constexpr HarmonicTable t = harmonic_table();
  F c = F{} + 1.0f, s = F{};  // real and imaginary part of (x + i y)^m
  for (int m = 0; m < N; ++m) {
    F before = F{}, q = F{} + t.start[m];
    for (int l = m; l < N; ++l) {
      if (l > m) {
        const F next = fma(z * q, F{} + t.a[m][l], before * (-t.b[m][l]));
        before = q, q = next;
      }
      emit(l * l + l + m, q * c);
      if (m > 0) emit(l * l + l - m, q * s);
    }
    const F turned = fma(x, c, F{} - y * s);
    s = fma(x, s, y * c), c = turned;
  }
}

// The gradient of a direction from grad(channel), the gradient of each channel.
// d (x + i y)^m = m (x + i y)^(m-1) (dx + i dy), so c and s of m - 1 are kept.
template <int N, class F, class Grad>
RADFIELD_FN void spherical_harmonics_gradient(F x, F y, F z, Grad grad, F& gx, F& gy, F& gz) {
  constexpr HarmonicTable t = harmonic_table();
  F c = F{} + 1.0f, s = F{}, c1 = F{}, s1 = F{};
  gx = gy = gz = F{};
  for (int m = 0; m < N; ++m) {
    F before = F{}, q = F{} + t.start[m], dbefore = F{}, dq = F{};
    F real = F{}, imaginary = F{}, dreal = F{}, dimaginary = F{};  // sums over l of q (d: dq/dz) times the gradients
    for (int l = m; l < N; ++l) {
      if (l > m) {
        const F dnext = fma(fma(z, dq, q), F{} + t.a[m][l], dbefore * (-t.b[m][l]));
        const F next = fma(z * q, F{} + t.a[m][l], before * (-t.b[m][l]));
        before = q, q = next, dbefore = dq, dq = dnext;
      }
      const F g = grad(l * l + l + m);
      real = fma(g, q, real), dreal = fma(g, dq, dreal);
      if (m > 0) {
        const F h = grad(l * l + l - m);
        imaginary = fma(h, q, imaginary), dimaginary = fma(h, dq, dimaginary);
      }
    }
    gz = fma(c, dreal, fma(s, dimaginary, gz));
    gx = fma(fma(real, c1, imaginary * s1), F{} + (float)m, gx);
    gy = fma(fma(imaginary, c1, F{} - real * s1), F{} + (float)m, gy);
    c1 = c, s1 = s;
    c = fma(x, c1, F{} - y * s1), s = fma(x, s1, y * c1);
  }
}

}  // namespace radfield
