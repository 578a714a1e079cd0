// W rays go together (solids_ray.h).
#include "solids_ray.h"

#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t BLOCK = 256;  // rays per task

void trace_packet(const SolidsTrace& a, int64_t i, int n) {
  Packet<vf> rays;
  for (int c = 0; c < 3; ++c)
    rays.o[c] = load_n(a.origins + c * a.N + i, n), rays.d[c] = load_n(a.directions + c * a.N + i, n);
  const vi lanes_on = lanes() < n;
  const auto hit = meet_solids(a, rays, a.limit ? load_n(a.limit + i, n) : vf{} + FAR, lanes_on);
  store_n(a.depth + i, hit.depth, n);
  store_n((float*)a.index + i, as_float(hit.index), n);
  if (a.normal)
    for (int c = 0; c < 3; ++c) store_n(a.normal + c * a.N + i, hit.normal[c], n);
}

}  // namespace

RADFIELD_OP(solids_trace, SolidsTrace) {
  parallel_blocks(a.N, BLOCK, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += W) trace_packet(a, i, (int)(end - i < W ? end - i : W));
  });
}
