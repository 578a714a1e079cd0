#include "adam_device.h"

namespace radfield {

__global__ void adam_clear(const AdamStep a) { *a.bad = 0; }

// A thread is a parameter. Where gradients are rare (SKIP) a warp without any reads nothing else.
template <bool SKIP>
__global__ void adam_step(const AdamStep a) {
  AdamStep now = a;
  const bool moves = read_schedule(now);
  const int64_t i = thread_number();
  bool refused = false;
  if (i < a.P) {
    const float grad = a.grad[i];
    if (grad != 0.0f) a.grad[i] = 0.0f;
    refused = adam_entry<SKIP>(now, i, grad, moves);
  }
  count_refused(a.bad, refused);
}

}  // namespace radfield
