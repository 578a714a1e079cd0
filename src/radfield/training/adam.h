// Adam's update of one parameter (adam.py has the equations).
#pragma once
#include "../maths.h"

namespace radfield {

struct AdamStep {
  float* p;
  float* grad;
  float* m;
  float* v;
  bf16* shadow;
  int64_t* rejected;
  double rate;
  double root;
  double beta1;
  double beta2;
  double eps;
  double l2;
  double scale;
  int64_t skip;
  int64_t clear;
  int64_t P;
};

// The scalars in float32, each rounded once from double: 1 - beta would lose digits in float32.
struct AdamFactors {
  float rate, root, keep1, add1, keep2, add2, eps, l2, scale;
};

RADFIELD_FN AdamFactors adam_factors(const AdamStep& a) {
  return {(float)a.rate, (float)a.root, (float)a.beta1, (float)(1 - a.beta1), (float)a.beta2,
          (float)(1 - a.beta2), (float)a.eps, (float)a.l2, (float)a.scale};
}

// True where the gradient can be applied: its square is finite, so it is no NaN, and v stays finite.
template <class F>
RADFIELD_FN auto adam_accepts(F scaled) {
  return scaled * scaled <= F{} + 3.402823466e38f;
}

template <class F>
struct AdamState {
  F p, m, v;
};

template <class F>
RADFIELD_FN AdamState<F> adam_update(AdamState<F> s, F scaled, const AdamFactors& a) {
  const F g = fma(F{} + a.l2, s.p, scaled);
  const F m = fma(F{} + a.keep1, s.m, g * a.add1);
  const F v = fma(F{} + a.keep2, s.v, g * g * a.add2);
  return {s.p - m * a.rate / fma(sqrt(v), F{} + a.root, F{} + a.eps), m, v};
}

}  // namespace radfield
