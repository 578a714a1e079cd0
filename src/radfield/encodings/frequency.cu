#include "frequency.h"

#include "../cuda/device.h"

namespace radfield {

// A thread is a sample along x and a dimension along y.
__global__ void frequency_forward(const FrequencyForward a) {
  const int64_t i = thread_number(), d = blockIdx.y;
  if (i >= a.M) return;
  const int K = (int)a.frequencies;
  const float x = a.x[d * a.M + i];
  for (int s = 0; s < 2; ++s)
    for (int k = 0; k < K; ++k) a.encoded[((2 * d + s) * K + k) * a.M + i] = frequency_value(x, k, s);
}

__global__ void frequency_backward(const FrequencyBackward a) {
  const int64_t i = thread_number(), d = blockIdx.y;
  if (i >= a.M) return;
  const int K = (int)a.frequencies;
  const float x = a.x[d * a.M + i];
  float grad = 0.0f;
  for (int s = 0; s < 2; ++s)
    for (int k = 0; k < K; ++k)
      grad = fma(a.grad_encoded[((2 * d + s) * K + k) * a.M + i], frequency_derivative(x, k, s), grad);
  a.grad_x[d * a.M + i] = grad;
}

}  // namespace radfield
