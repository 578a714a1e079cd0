// A thread is a Gaussian, whose row it reads, as gaussian_projection_rows.cpp.
#include "gaussian_projection_rows.h"

#include "gaussian_projection_device.h"

namespace radfield {

// Row i of [N, D], and its way back.
template <int D>
RADFIELD_FN void load_row(const float* rows, int64_t i, float (&out)[D]) {
  for (int k = 0; k < D; ++k) out[k] = rows[i * D + k];
}
template <int D>
RADFIELD_FN void store_row(float* rows, int64_t i, const float (&values)[D]) {
  for (int k = 0; k < D; ++k) rows[i * D + k] = values[k];
}
template <class Struct>
RADFIELD_FN Gaussian<float> gaussian_of_row(const Struct& a, int64_t row) {
  Gaussian<float> g;
  load_row(a.means, row, g.mean);
  load_row(a.quaternions, row, g.quaternion);
  load_row(a.scales, row, g.scale);
  g.opacity = a.opacities[row];
  return g;
}
// What gaussian_projection_device.h asks for.
RADFIELD_FN Gaussian<float> load_gaussian(const GaussianProjectRowsForward& a, int64_t i) { return gaussian_of_row(a, i); }
RADFIELD_FN int64_t row_of(const GaussianProjectRowsBackward& a, int64_t i) { return a.rows ? a.rows[i] : i; }
RADFIELD_FN Gaussian<float> load_gaussian(const GaussianProjectRowsBackward& a, int64_t i) {
  return gaussian_of_row(a, row_of(a, i));
}
RADFIELD_FN void store_gradient(const GaussianProjectRowsBackward& a, int64_t i, const Gaussian<float>& out) {
  const int64_t row = row_of(a, i);
  store_row(a.grad_means, row, out.mean);
  store_row(a.grad_quaternions, row, out.quaternion);
  store_row(a.grad_scales, row, out.scale);
  a.grad_opacities[row] = out.opacity;
}

__global__ void gaussian_project_rows_forward(const GaussianProjectRowsForward a) { project_gaussian(a); }

// Where rows are named: what they do not name.
__global__ void gaussian_project_rows_clear(const GaussianProjectRowsBackward a) {
  clear_numbers(a.grad_means, 3 * a.N), clear_numbers(a.grad_quaternions, 4 * a.N);
  clear_numbers(a.grad_scales, 3 * a.N), clear_numbers(a.grad_opacities, a.N);
}

template <bool WITH_CAMERA>
__global__ void gaussian_project_rows_backward(const GaussianProjectRowsBackward a) {
  project_gaussian_backward<WITH_CAMERA>(a);
}

}  // namespace radfield
