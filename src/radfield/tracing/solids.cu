// A thread is a ray (solids_ray.h).
#include "solids_ray.h"

#include "../cuda/device.h"

namespace radfield {

__global__ void solids_trace(const SolidsTrace a) {
  const int64_t i = thread_number();
  if (i >= a.N) return;
  Packet<float> ray;
  for (int c = 0; c < 3; ++c) ray.o[c] = a.origins[c * a.N + i], ray.d[c] = a.directions[c * a.N + i];
  const auto hit = meet_solids(a, ray, a.limit ? a.limit[i] : FAR, (int32_t)1);
  a.depth[i] = hit.depth, a.index[i] = hit.index;
  for (int c = 0; a.normal && c < 3; ++c) a.normal[c * a.N + i] = hit.normal[c];
}

}  // namespace radfield
