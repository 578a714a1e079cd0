// The loops of Adam: one pass over parameters, gradients, moments and the 16-bit copy, bound by memory. (Stores that pass
// by the cache were measured, for the copy alone and for the moments too: no faster.)
#include "adam.h"

#include "../cpu/lanes.h"
#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t BLOCK = 1 << 14;  // parameters per task
constexpr int GROUP = 32;           // vectors that are searched for gradients at once, one group ahead of their update

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
  return any(~accepted) ? (int64_t)total(to_float(accepted + 1)) : 0;
}

int64_t update_all(const AdamStep& a, int64_t begin, int64_t end) {
  int64_t bad = 0;
  for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES { bad += update<false>(a, i, n); });
  return bad;
}

// The vectors of a group that are worth an update, by their first parameter.
struct Touched {
  int64_t at[GROUP];
  int count = 0;
};

// Those that have a gradient; all, where that is an eighth or more: memory streams faster than it jumps (20 % of them
// at random cost as much as all). Of few it asks for what their update will read: the hardware foresees no such gaps.
Touched touched(const AdamStep& a, int64_t begin, int64_t end) {
  Touched found;
  if (end > begin + GROUP * W) end = begin + GROUP * W;
  for (int64_t i = begin; i < end; i += W) {
    found.at[found.count] = i;
    found.count += any((vi)(load_n(a.grad + i, end - i < W ? (int)(end - i) : W) != 0.0f));
  }
  if (found.count >= GROUP / 8) {
    found.count = 0;
    for (int64_t i = begin; i < end; i += W) found.at[found.count++] = i;
    return found;
  }
  for (int k = 0; k < found.count; ++k) {
    const int64_t i = found.at[k];
    __builtin_prefetch(a.parameter + i, 1), __builtin_prefetch(a.m + i, 1), __builtin_prefetch(a.v + i, 1);
    if (a.shadow) __builtin_prefetch(a.shadow + i, 1);
  }
  return found;
}

// Where gradients are 0 neither parameters nor moments change.
int64_t update_touched(const AdamStep& a, int64_t begin, int64_t end) {
  int64_t bad = 0;
  Touched groups[2];
  groups[0] = touched(a, begin, end);
  for (int64_t i = begin, g = 0; i < end; i += GROUP * W, ++g) {
    groups[(g + 1) % 2] = touched(a, i + GROUP * W, end);
    const Touched& now = groups[g % 2];
    for (int k = 0; k < now.count; ++k) {
      const int64_t at = now.at[k];
      if (at + W <= end) bad += update<true>(a, at, W);
      else bad += update<true>(a, at, (int)(end - at));
    }
  }
  return bad;
}

}  // namespace

RADFIELD_OP(adam_step, AdamStep) {
  int64_t bad = 0;
  parallel_blocks(a.P, BLOCK, [&](int64_t begin, int64_t end) {
    const int64_t found = (a.skip ? update_touched : update_all)(a, begin, end);
    if (found) __atomic_fetch_add(&bad, found, __ATOMIC_RELAXED);
  });
  *a.bad = bad;
}
