// Loops of the spherical harmonics.
#include "spherical_harmonics.h"

#include "../cpu/lanes.h"
#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t BLOCK = 4096;  // samples per task

template <int N, class T>
void forward(const SphericalHarmonicsForward& a) {
  T* encoded = (T*)a.encoded;
  parallel_blocks(a.M, BLOCK, [&](int64_t begin, int64_t end) {
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
      const vf x = load_n(a.directions + i, n);
      const vf y = load_n(a.directions + a.M + i, n);
      const vf z = load_n(a.directions + 2 * a.M + i, n);
      const auto emit = [&](int channel, vf value) RADFIELD_LANES { store_n(encoded + channel * a.M + i, value, n); };
      spherical_harmonics<N>(x, y, z, emit);
    });
  });
}

template <int N, class T>
void backward(const SphericalHarmonicsBackward& a) {
  const T* grad = (const T*)a.grad_encoded;
  parallel_blocks(a.M, BLOCK, [&](int64_t begin, int64_t end) {
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
      const vf x = load_n(a.directions + i, n);
      const vf y = load_n(a.directions + a.M + i, n);
      const vf z = load_n(a.directions + 2 * a.M + i, n);
      const auto channel_grad = [&](int channel) RADFIELD_LANES { return load_n(grad + channel * a.M + i, n); };
      vf gx, gy, gz;
      spherical_harmonics_gradient<N>(x, y, z, channel_grad, gx, gy, gz);
      store_n(a.grad_directions + i, gx, n);
      store_n(a.grad_directions + a.M + i, gy, n);
      store_n(a.grad_directions + 2 * a.M + i, gz, n);
    });
  });
}

// Calls body.run<N>() for the run-time degree 1..8 (Python checks it).
template <int N = 8, class Body>
void with_degree(int64_t degree, Body body) {
  if (degree == N) return body.template operator()<N>();
  if constexpr (N > 1) with_degree<N - 1>(degree, body);
}

}  // namespace

RADFIELD_OP(spherical_harmonics_forward, SphericalHarmonicsForward) {
  with_degree(a.degree, [&]<int N>() { a.encoded_type == F32 ? forward<N, float>(a) : forward<N, bf16>(a); });
}

RADFIELD_OP(spherical_harmonics_backward, SphericalHarmonicsBackward) {
  with_degree(a.degree, [&]<int N>() { a.grad_encoded_type == F32 ? backward<N, float>(a) : backward<N, bf16>(a); });
}
