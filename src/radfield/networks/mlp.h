// The small MLP (mlp.py has the equations and the letters): its argument structs and activation functions.
#pragma once
#include "../maths.h"

namespace radfield {

struct MlpForward {
  void* y;
  int64_t y_type;
  float* head;
  const void* x0;
  int64_t x0_type;
  const void* x1;
  int64_t x1_type;
  const int64_t* count;
  const float* parameters;
  const int64_t* layers;
  float* packed;
  int64_t activation;
  int64_t output_activation;
  int64_t bias;
  int64_t channels;
  int64_t widest;
  int64_t kernel;
  int64_t O, M, H, A, B, P, L, Q;
};
struct MlpBackward {
  void* grad_x0;
  int64_t grad_x0_type;
  void* grad_x1;
  int64_t grad_x1_type;
  float* grad_parameters;
  float* partial;
  const void* grad_y;
  int64_t grad_y_type;
  const float* grad_head;
  const void* x0;
  int64_t x0_type;
  const void* x1;
  int64_t x1_type;
  const void* tangent0;
  int64_t tangent0_type;
  const void* tangent1;
  int64_t tangent1_type;
  const int64_t* count;
  const float* parameters;
  const int64_t* layers;
  float* packed;
  int64_t activation;
  int64_t output_activation;
  int64_t bias;
  int64_t channels;
  int64_t widest;
  int64_t kernel;
  int64_t chunk;
  int64_t A, M, B, P, R, O, H, L, Q;
};
struct MlpSecond {
  float* grad_grad_y;
  float* grad_x;
  float* grad_parameters;
  float* partial;
  const float* tangent;
  const float* grad_y;
  const float* x;
  const float* parameters;
  const int64_t* layers;
  float* packed;
  int64_t activation;
  int64_t output_activation;
  int64_t bias;
  int64_t channels;
  int64_t widest;
  int64_t chunk;
  int64_t O, M, A, P, R, L, Q;
};

#ifdef RADFIELD_CPU
// The forward pass; without `pack` the weights were packed into a.packed by an earlier call (one of no samples will do).
void run_mlp(const MlpForward& a, bool pack);
#endif

enum Activation { NONE = 0, RELU = 1, SILU = 2, SOFTPLUS = 3, SINE = 4 };
constexpr float TURNS_PER_RADIAN = 0.159154943f;

template <class F>
struct Activated {
  F value, derivative, second;
};

// sigma(z), sigma'(z), sigma''(z). What is not used is not computed, since all of this is inlined.
template <class F>
RADFIELD_FN Activated<F> activate(int64_t kind, F z) {
  const F zero = F{}, one = F{} + 1.0f;
  if (kind == RELU) return {max(zero, z), select(z > 0.0f, one, zero), zero};
  if (kind == SILU) {
    const F s = sigmoid(z), ds = s * (1.0f - s);
    return {z * s, fma(z, ds, s), fma(z * ds, 1.0f - 2.0f * s, 2.0f * ds)};
  }
  if (kind == SOFTPLUS) {  // max(z, 0) + log(1 + e^-|z|) does not overflow
    const F s = sigmoid(z);
    return {max(z, zero) + log(1.0f + exp(zero - abs(z))), s, s * (1.0f - s)};
  }
  if (kind == SINE) {
    const F sine = sin_turns(z * TURNS_PER_RADIAN);
    return {sine, sin_turns(fma(z, zero + TURNS_PER_RADIAN, zero + 0.25f)), zero - sine};
  }
  return {z, one, zero};
}

}  // namespace radfield
