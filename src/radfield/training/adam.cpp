#include "adam.h"

#include "../cpu/parallel.h"

using namespace radfield;

constexpr int64_t BLOCK = 1 << 15;  // parameters per task

// W parameters from i, of which n exist. Returns how many gradients were not finite; those entries stay.
static int64_t update(const AdamStep& a, int64_t i, int n) {
  const vf grad = load_n(a.grad + i, n);
  const vi moved = ((vi)grad << 1) != 0;  // the sign of a zero does not count
  if (a.skip && !any(moved)) return 0;
  const vi finite = ((vi)grad & 0x7f800000) != 0x7f800000;
  AdamState<vf> s{load_n(a.parameter + i, n), load_n(a.m + i, n), load_n(a.v + i, n)};
  const AdamState<vf> next = adam_update(s, grad, a);
  const vi apply = a.skip ? finite & moved : finite;
  s = {select(apply, next.parameter, s.parameter), select(apply, next.m, s.m), select(apply, next.v, s.v)};
  store_n(a.parameter + i, s.parameter, n), store_n(a.m + i, s.m, n), store_n(a.v + i, s.v, n);
  store_n(a.grad + i, vf{}, n);
  if (a.shadow) store_n(a.shadow + i, s.parameter, n);
  int64_t bad = 0;
  if (any(~finite))
    for (int j = 0; j < n; ++j) bad += finite[j] == 0;
  return bad;
}

RADFIELD_OP(adam_step, AdamStep) {
  int64_t bad = 0;
  parallel_blocks(a.P, BLOCK, [&](int64_t begin, int64_t end) {
    int64_t found = 0;
    for (int64_t i = begin; i < end; i += W) found += update(a, i, (int)(end - i < W ? end - i : W));
    if (found) __atomic_fetch_add(&bad, found, __ATOMIC_RELAXED);
  });
  *a.bad = bad;
}
