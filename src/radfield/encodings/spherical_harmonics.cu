#include "spherical_harmonics.h"

#include "../cuda/device.h"

namespace radfield {

// A thread is a direction.
template <int DEGREE, class T>
__global__ void spherical_harmonics_forward(const SphericalHarmonicsForward a) {
  const int64_t i = thread_number();
  if (i >= a.M) return;
  T* const out = (T*)a.encoded;
  const float x = a.directions[i], y = a.directions[a.M + i], z = a.directions[2 * a.M + i];
  sh_values<DEGREE>(x, y, z, 1.0f, 0.0f, [&](int c, float value) { write(out + c * a.M + i, value); });
}

template <int DEGREE, class T>
__global__ void spherical_harmonics_backward(const SphericalHarmonicsBackward a) {
  const int64_t i = thread_number();
  if (i >= a.M) return;
  const T* const grad_encoded = (const T*)a.grad_encoded;
  const float x = a.directions[i], y = a.directions[a.M + i], z = a.directions[2 * a.M + i];
  float grad[3] = {};
  auto g = [&](int c) { return read(grad_encoded + c * a.M + i); };
  sh_gradient<DEGREE>(x, y, z, 1.0f, 0.0f, 0.0f, 0.0f, g, grad);
  for (int d = 0; d < 3; ++d) a.grad_directions[d * a.M + i] = grad[d];
}

}  // namespace radfield
