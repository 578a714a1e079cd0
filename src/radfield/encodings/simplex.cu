// As hash_grid.cu: a thread is a sample along x and a level along y, and of the gradient by x a sample alone. A simplex
// has D + 1 vertices.
#include "simplex.h"

#include "../training/adam_device.h"
#include "simplex_device.h"

namespace radfield {

// Of sample i.
template <int D, class Args>
RADFIELD_FN DeviceSimplex<D> simplex_of(const Args& a, int64_t l, int64_t i) {
  float point[D];
  read_point(point, a.x, a.M, i);
  return DeviceSimplex<D>(a, l, point);
}

// grad += the gradients g of sample i's features in level l.
template <int D, int F, bool TANGENT, class Sum, class Args>
RADFIELD_FN void spread_to_vertices(const Args& a, int64_t l, int64_t i, const float (&g)[F], const float (&tangent)[D],
                                    Sum* grad) {
  const DeviceSimplex<D> simplex = simplex_of<D>(a, l, i);
  float added[F];
#pragma unroll
  for (int k = 0; k <= D; ++k) {
    const float w = simplex.template weight<TANGENT>(k, tangent);
    for (int f = 0; f < F; ++f) added[f] = g[f] * w;
    add_vector(grad + simplex.template at<F>(k), added);
  }
}

template <int D, int F, class T, class Out, bool TANGENT>
__global__ void simplex_forward(const SimplexForward a) {
  const int64_t i = thread_number(), l = blockIdx.y;
  if (i >= rows_in_use(a.count, a.M)) return;
  const DeviceSimplex<D> simplex = simplex_of<D>(a, l, i);
  float tangent[D] = {}, sum[F] = {};
  if (TANGENT) read_point(tangent, a.tangent, a.M, i);
  add_vertices<TANGENT>(sum, simplex, (const T*)a.table, tangent);
  Out* const out = (Out*)a.features + l * F * a.M;
  for (int f = 0; f < F; ++f) write(out + f * a.M + i, sum[f]);
}

template <int D, int F, class G, bool TANGENT, class Sum>
__global__ void simplex_backward(const SimplexBackward a) {
  const int64_t i = thread_number(), l = blockIdx.y;
  float g[F], tangent[D] = {};
  if (i >= rows_in_use(a.count, a.M) || !read_gradient(g, (const G*)a.grad_features + l * F * a.M + i, a.M)) return;
  if (TANGENT) read_point(tangent, a.tangent, a.M, i);
  spread_to_vertices<D, F, TANGENT>(a, l, i, g, tangent, (Sum*)a.grad_table);
}

// All levels by one thread: no atomics, sums in one order. Along a tangent it is 0: weights are linear in the simplex.
template <int D, int F, class T, class G, bool TANGENT>
__global__ void simplex_backward_x(const SimplexBackwardX a) {
  const int64_t i = thread_number();
  if (i >= a.M) return;
  float sum[D] = {}, dots[D + 1], values[F], g[F];
  for (int64_t l = 0; !TANGENT && l < a.L; ++l) {
    const DeviceSimplex<D> simplex = simplex_of<D>(a, l, i);
    if (!read_gradient(g, (const G*)a.grad_features + l * F * a.M + i, a.M)) continue;
#pragma unroll
    for (int k = 0; k <= D; ++k) {
      read_vector(values, (const T*)a.table + simplex.template at<F>(k));
      dots[k] = values[0] * g[0];
      for (int f = 1; f < F; ++f) dots[k] = fma(values[f], g[f], dots[k]);
    }
    pull_simplex(simplex.cell, dots, simplex.map, sum);
  }
  for (int d = 0; d < D; ++d) {
    const float x = a.x[d * a.M + i];
    a.grad_x[d * a.M + i] = x >= 0.0f && x <= 1.0f ? sum[d] : 0.0f;  // clamped points do not move
  }
}

// Adam on the table, as hash_grid_adam.cu.
__global__ void simplex_adam_clear(const SimplexAdam a, float* grad) { clear_table(a, grad); }

template <int D, int F, class G>
__global__ void simplex_adam_add(const SimplexAdam a, float* grad) {
  const int64_t i = thread_number(), l = blockIdx.y;
  float g[F], none[D] = {};
  if (i >= rows_in_use(a.count, a.M) || !read_gradient(g, (const G*)a.grad_features + l * F * a.M + i, a.M)) return;
  spread_to_vertices<D, F, false>(a, l, i, g, none, grad);
}

template <bool SKIP>
__global__ void simplex_adam_step(const SimplexAdam a, float* grad) {
  step_table<SKIP>(a, grad);
}

}  // namespace radfield
