// A thread is a sample along x, and a product of a level along y.
#include "factored.h"

#include "factored_device.h"

namespace radfield {

// At sample i, of product and level `at`.
template <class Kind, int F, class T, class Args>
RADFIELD_FN void sample_values(float (&values)[F][Kind::K], const Args& a, int64_t i, int64_t at, int64_t L) {
  factor_values<Kind, F, T>(values, a, [&](int axis) { return a.x[axis * a.M + i]; }, at / L, at % L, L);
}

template <class Kind, int F, class T>
__global__ void factored_forward(const FactoredForward a) {
  const int64_t i = thread_number(), at = blockIdx.y, L = gridDim.y / Kind::P;
  if (i >= a.M) return;
  float values[F][Kind::K];
  sample_values<Kind, F, T>(values, a, i, at, L);
  for (int f = 0; f < F; ++f) write((T*)a.features + (at * F + f) * a.M + i, product(values[f]));
}

template <class Kind, int F, class T>
__global__ void factored_backward(const FactoredBackward a) {
  const int64_t i = thread_number(), at = blockIdx.y, L = gridDim.y / Kind::P;
  if (i >= a.M) return;
  float values[F][Kind::K];
  sample_values<Kind, F, T>(values, a, i, at, L);
  for (int k = 0; k < Kind::K; ++k) {
    T* const out = (T*)a.grad_factors + factor_row<Kind>(at / L, k, at % L, L) * F * a.M + i;
    for (int f = 0; f < F; ++f) {
      const float g = read((const T*)a.grad_features + (at * F + f) * a.M + i);
      write(out + f * a.M, g * product_but(values[f], k));
    }
  }
}

}  // namespace radfield
