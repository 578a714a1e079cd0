// A thread is a sample.
#include "neus_alpha.h"

#include "../cuda/device.h"

namespace radfield {

template <class Args>
RADFIELD_FN SurfaceSample<float> read_sample(const Args& a, int64_t i) {
  SurfaceSample<float> x;
  x.f = a.f[i];
  for (int c = 0; c < 3; ++c) x.normal[c] = a.normal[c * a.M + i], x.d[c] = a.directions[c * a.M + i];
  x.dt = interval_length(a.t_start[i], a.t_end[i]);
  return x;
}

// Sharpness and annealing: those of the schedule on the device where there is one.
template <class Args>
RADFIELD_FN float sharpness_of(const Args& a) { return (float)(a.schedule ? a.schedule[0] : a.sharpness); }
template <class Args>
RADFIELD_FN float annealed_of(const Args& a) { return (float)(a.schedule ? a.schedule[1] : a.annealed); }

__global__ void neus_alpha_forward(const NeusAlphaForward a) {
  const int64_t i = thread_number();
  if (i >= rows_in_use(a.count, a.M)) return;
  const SurfaceAnswer<float> answer = surface_answer(read_sample(a, i), sharpness_of(a), annealed_of(a));
  a.sigma[i] = answer.sigma, a.stretch[i] = answer.stretch;
  for (int c = 0; c < 3; ++c) a.rgb[c * a.M + i] = sigmoid(a.logits[c * a.M + i]);
}

__global__ void neus_alpha_backward(const NeusAlphaBackward a) {
  const int64_t i = thread_number();
  if (i >= rows_in_use(a.count, a.M)) return;
  const float by_stretch = a.grad_stretch ? a.grad_stretch[i] : (float)a.stretch_weight;
  const SurfaceGradient<float> found =
      surface_gradient(read_sample(a, i), a.grad_sigma[i], by_stretch, sharpness_of(a), annealed_of(a));
  a.grad_f[i] = found.f, a.grad_sharpness[i] = found.sharpness;
  for (int c = 0; c < 3; ++c) {
    const float value = a.rgb[c * a.M + i];
    a.grad_normal[c * a.M + i] = found.normal[c];
    a.grad_logits[c * a.M + i] = a.grad_rgb[c * a.M + i] * value * (1.0f - value);
  }
}

}  // namespace radfield
