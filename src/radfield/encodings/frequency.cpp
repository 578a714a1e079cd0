#include "frequency.h"

#include "../cpu/parallel.h"

using namespace radfield;

constexpr int64_t BLOCK = 4096;  // samples per task

RADFIELD_OP(frequency_forward, FrequencyForward) {
  const int K = (int)a.frequencies;
  parallel_blocks(a.M, BLOCK, [&](int64_t begin, int64_t end) {
    for (int64_t d = 0; d < a.D; ++d)
      for (int64_t i = begin; i < end; i += W) {
        const int n = (int)(end - i < W ? end - i : W);
        const vf x = load_n(a.x + d * a.M + i, n);
        for (int s = 0; s < 2; ++s)
          for (int k = 0; k < K; ++k)
            store_n(a.encoded + ((2 * d + s) * K + k) * a.M + i, frequency_value(x, k, s), n);
      }
  });
}

RADFIELD_OP(frequency_backward, FrequencyBackward) {
  const int K = (int)a.frequencies;
  parallel_blocks(a.M, BLOCK, [&](int64_t begin, int64_t end) {
    for (int64_t d = 0; d < a.D; ++d)
      for (int64_t i = begin; i < end; i += W) {
        const int n = (int)(end - i < W ? end - i : W);
        const vf x = load_n(a.x + d * a.M + i, n);
        vf grad = {};
        for (int s = 0; s < 2; ++s)
          for (int k = 0; k < K; ++k) {
            const vf g = load_n(a.grad_encoded + ((2 * d + s) * K + k) * a.M + i, n);
            grad = fma(g, frequency_derivative(x, k, s), grad);
          }
        store_n(a.grad_x + d * a.M + i, grad, n);
      }
  });
}
