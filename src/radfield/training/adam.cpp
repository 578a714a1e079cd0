// The loops of Adam: one pass over parameters, gradients, moments and the 16-bit copy, bound by memory. (Stores past the
// cache were measured, for the copy alone and for the moments too: no faster.)
#include "adam.h"

#include "../cpu/lanes.h"
#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t BLOCK = 1 << 14;  // parameters per task
constexpr int GROUP = 32;           // vectors that are searched for gradients at once

// Parameters i .. i + n - 1. Returns how many gradients cannot be applied; those entries stay.
template <bool SKIP>
RADFIELD_SIMD int64_t update(const AdamStep& a, int64_t i, int n) {
  const vf grad = load_n(a.grad + i, n);
  const vi accepted = (vi)adam_accepts(grad);
  const AdamState<vf> old = {load_n(a.parameter + i, n), load_n(a.m + i, n), load_n(a.v + i, n)};
  const AdamState<vf> next = adam_update(old, grad, a);
  const vi apply = SKIP ? accepted & (vi)(grad != 0.0f) : accepted;
  const vf parameter = select(apply, next.parameter, old.parameter);
  store_n(a.parameter + i, parameter, n);
  store_n(a.m + i, select(apply, next.m, old.m), n);
  store_n(a.v + i, select(apply, next.v, old.v), n);
  store_n(a.grad + i, vf{}, n);
  if (a.shadow) store_n(a.shadow + i, parameter, n);
  return any(~accepted) ? (int64_t)sum(to_float(accepted + 1)) : 0;
}

int64_t update_all(const AdamStep& a, int64_t begin, int64_t end) {
  int64_t bad = 0;
  for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES { bad += update<false>(a, i, n); });
  return bad;
}

RADFIELD_SIMD bool has_gradient(const AdamStep& a, int64_t i, int n) {
  return any((vi)(load_n(a.grad + i, n) != 0.0f));
}

// Updates all vectors of a group; counts those that had a gradient.
int update_group(const AdamStep& a, int64_t begin, int64_t end, int64_t& bad) {
  int count = 0;
  for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
    count += has_gradient(a, i, n);
    bad += update<true>(a, i, n);
  });
  return count;
}

// Updates the vectors of a group that have a gradient, after asking for all that they will read: the hardware foresees
// no such gaps.
int update_few(const AdamStep& a, int64_t begin, int64_t end, int64_t& bad) {
  int64_t found[GROUP];
  int count = 0;
  for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
    found[count] = i;
    count += has_gradient(a, i, n);
  });
  for (int k = 0; k < count; ++k) {
    const int64_t i = found[k];
    __builtin_prefetch(a.parameter + i, 1), __builtin_prefetch(a.m + i, 1), __builtin_prefetch(a.v + i, 1);
    if (a.shadow) __builtin_prefetch(a.shadow + i, 1);
  }
  for (int k = 0; k < count; ++k) {
    const int64_t stop = found[k] + W < end ? found[k] + W : end;
    for_lanes(found[k], stop, [&](int64_t i, int n) RADFIELD_LANES { bad += update<true>(a, i, n); });
  }
  return count;
}

// Where gradients are 0 neither parameters nor moments change, and where they are rare neither are read. Memory streams
// faster than it jumps (a fifth of the vectors at random cost as much as all), so a group is done like the one before.
int64_t update_touched(const AdamStep& a, int64_t begin, int64_t end) {
  int64_t bad = 0;
  bool rare = false;
  for (int64_t i = begin; i < end; i += GROUP * W) {
    const int64_t stop = i + GROUP * W < end ? i + GROUP * W : end;
    const int count = rare ? update_few(a, i, stop, bad) : update_group(a, i, stop, bad);
    rare = count < GROUP / 8;
  }
  return bad;
}

}  // namespace

int64_t radfield::adam_range(const AdamStep& a, int64_t begin, int64_t end) {
  return (a.skip ? update_touched : update_all)(a, begin, end);
}

RADFIELD_OP(adam_step, AdamStep) {
  int64_t bad = 0;
  parallel_blocks(a.P, BLOCK, [&](int64_t begin, int64_t end) {
    const int64_t found = adam_range(a, begin, end);
    if (found) __atomic_fetch_add(&bad, found, __ATOMIC_RELAXED);
  });
  *a.bad = bad;
}
