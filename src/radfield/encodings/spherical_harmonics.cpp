#include "spherical_harmonics.h"

#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t CHUNK = 4096;  // samples per task

// body.run<DEGREE>() for the run-time degree 1..8 (Python checks it).
template <int DEGREE = 1, class Body>
void with_degree(int64_t degree, Body body) {
  if (degree == DEGREE) body.template operator()<DEGREE>();
  else if constexpr (DEGREE < 8) with_degree<DEGREE + 1>(degree, body);
}

template <int DEGREE, class T>
void forward(const SphericalHarmonicsForward& a, int64_t begin, int64_t end) {
  T* out = (T*)a.encoded;
  for (int64_t i = begin; i < end; i += W) {
    const int n = (int)(end - i < W ? end - i : W);
    const vf x = load_n(a.directions + i, n), y = load_n(a.directions + a.M + i, n);
    const vf z = load_n(a.directions + 2 * a.M + i, n);
    auto emit = [&](int c, vf value) {
      if (n == W) store(out + c * a.M + i, value);
      else store_n(out + c * a.M + i, value, n);
    };
    sh_values<DEGREE>(x, y, z, vf{} + 1.0f, vf{}, emit);
  }
}

template <int DEGREE, class T>
void backward(const SphericalHarmonicsBackward& a, int64_t begin, int64_t end) {
  const T* grad_encoded = (const T*)a.grad_encoded;
  for (int64_t i = begin; i < end; i += W) {
    const int n = (int)(end - i < W ? end - i : W);
    const vf x = load_n(a.directions + i, n), y = load_n(a.directions + a.M + i, n);
    const vf z = load_n(a.directions + 2 * a.M + i, n);
    vf grad[3] = {};
    auto g = [&](int c) { return n == W ? load(grad_encoded + c * a.M + i) : load_n(grad_encoded + c * a.M + i, n); };
    sh_gradient<DEGREE>(x, y, z, vf{} + 1.0f, vf{}, vf{}, vf{}, g, grad);
    for (int d = 0; d < 3; ++d) store_n(a.grad_directions + d * a.M + i, grad[d], n);
  }
}

}  // namespace

RADFIELD_OP(spherical_harmonics_forward, SphericalHarmonicsForward) {
  with_degree(a.degree, [&]<int DEGREE>() {
    parallel_blocks(a.M, CHUNK, [&](int64_t begin, int64_t end) {
      a.encoded_type == F32 ? forward<DEGREE, float>(a, begin, end) : forward<DEGREE, bf16>(a, begin, end);
    });
  });
}

RADFIELD_OP(spherical_harmonics_backward, SphericalHarmonicsBackward) {
  with_degree(a.degree, [&]<int DEGREE>() {
    parallel_blocks(a.M, CHUNK, [&](int64_t begin, int64_t end) {
      a.grad_encoded_type == F32 ? backward<DEGREE, float>(a, begin, end) : backward<DEGREE, bf16>(a, begin, end);
    });
  });
}
