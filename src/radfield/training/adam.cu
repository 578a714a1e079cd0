#include "adam.h"

#include "../cuda/device.h"

namespace radfield {

__global__ void adam_clear(const AdamStep a) { *a.bad = 0; }

// A thread is a parameter. Where gradients are rare (SKIP) a warp without any reads nothing else.
template <bool SKIP>
__global__ void adam_step(const AdamStep a) {
  const int64_t i = thread_number();
  bool refused = false;
  if (i < a.P) {
    const float grad = a.grad[i];
    refused = !adam_accepts(grad);
    if (grad != 0.0f) a.grad[i] = 0.0f;
    if (!refused && (!SKIP || grad != 0.0f)) {
      const AdamState<float> next = adam_update(AdamState<float>{a.parameter[i], a.m[i], a.v[i]}, grad, a);
      a.parameter[i] = next.parameter, a.m[i] = next.m, a.v[i] = next.v;
      if (a.shadow) a.shadow[i] = to_bf16(next.parameter);
    }
  }
  const int count = __syncthreads_count(refused);
  if (count && threadIdx.x == 0) atomicAdd((unsigned long long*)a.bad, (unsigned long long)count);
}

}  // namespace radfield
