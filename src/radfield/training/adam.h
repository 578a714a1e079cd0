// Adam (adam.py has the equations) of one parameter.
#pragma once
#include "../maths.h"

namespace radfield {

struct AdamStep {
  float* parameter;
  float* m;
  float* v;
  float* grad;
  bf16* shadow;
  int64_t* bad;
  const double* schedule;
  double rate;
  double beta1;
  double beta2;
  double epsilon;
  double correction2;
  double l2;
  int64_t skip;
  int64_t P;
};

#ifdef RADFIELD_CPU
// Steps parameters begin .. end - 1; returns how many gradients cannot be applied.
int64_t adam_range(const AdamStep& a, int64_t begin, int64_t end);
#endif

// Whether a gradient can be applied: its square is finite, so it is no NaN and v does not become infinite for good.
template <class F>
RADFIELD_FN auto adam_accepts(F grad) {
  return grad * grad <= F{} + 3.402823466e38f;
}

template <class F>
struct AdamState {
  F parameter, m, v;
};

// rate is lr / (1 - beta1^t), correction2 is 1 / (1 - beta2^t).
template <class F>
RADFIELD_FN AdamState<F> adam_update(AdamState<F> s, F grad, const AdamStep& a) {
  const F zero = F{};
  grad = fma(zero + (float)a.l2, s.parameter, grad);
  s.m = fma(zero + (float)(1 - a.beta1), grad - s.m, s.m);
  s.v = fma(zero + (float)(1 - a.beta2), grad * grad - s.v, s.v);
  const F scale = sqrt(s.v * (float)a.correction2) + (float)a.epsilon;
  s.parameter = s.parameter - s.m * (float)a.rate / scale;
  return s;
}

}  // namespace radfield
