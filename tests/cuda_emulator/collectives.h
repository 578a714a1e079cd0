// Barriers, shuffles and votes: one mechanism. A thread leaves its operands on its own stack and waits; the last of
// the mask to arrive computes for all. They match on name, function and line, so that two branches that call "the same"
// barrier do not. Shared memory is one arena, filled with NaN before every block.
#pragma once
#include "fibers.h"

namespace cuda_emu {
// The last lane of `mask` to arrive runs complete(payloads, lanes) for all.
template <class F> EMU void warp_collective(Site site, unsigned mask, void* payload, F complete) {
  Thread* me = self;
  Warp& warp = warps[me->linear / 32];
  Thread* lanes = me - me->linear % 32;
  unsigned bit = 1u << me->linear % 32;
  ++options->collectives, instruction = nullptr;
  if (!(mask & bit))
    fail("%s at %s:%d: its own lane %u is not in mask %08x", site.what, site.fn, site.line, me->linear % 32, mask);
  unsigned wanted = mask & warp.existing;
  if (wanted & warp.exited)
    fail("%s at %s:%d: mask %08x names lanes %08x that have exited", site.what, site.fn, site.line, mask,
         wanted & warp.exited);
  me->site = site, me->mask = mask, me->payload = payload;
  warp.waiting |= bit;
  if ((warp.waiting & wanted) != wanted) return wait_here();
  void* payloads[32] = {};
  for (unsigned rest = wanted; rest; rest &= rest - 1) {
    Thread& lane = lanes[__builtin_ctz(rest)];
    if (lane.mask != mask || !same(lane.site, site)) return wait_here();
    payloads[__builtin_ctz(rest)] = lane.payload;
  }
  // The lambda reads the stacks of others: no access of this thread. GCC takes the hooks of the checked build for
  // functions that see no variable of this file, and would leave the first store out.
  self = nullptr;
  asm volatile("" ::: "memory");
  complete(payloads, wanted);
  asm volatile("" ::: "memory");
  self = me;
  warp.waiting &= ~wanted;
  for (unsigned rest = wanted & ~bit; rest; rest &= rest - 1) push_ready(&lanes[__builtin_ctz(rest)]);
}

EMU int block_barrier(Site site, int value) {
  Thread* me = self;
  ++options->barriers, instruction = nullptr;
  static Thread* first;
  if (!n_barrier) first = me;
  const Site& other = first->site;
  if (n_barrier && !same(other, site))
    fail("%s at %s:%d while thread %u of the block waits at %s at %s:%d", site.what, site.fn, site.line,
         first->linear, other.what, other.fn, other.line);
  me->site = site, me->mask = 0, me->payload = &value;
  barrier_sum = (n_barrier++ ? barrier_sum : 0) + value;
  if (n_barrier < n_threads) {
    wait_here();
    return value;
  }
  n_barrier = 0, ++epoch;
  for (unsigned t = 0; t < n_threads; ++t)
    if (&threads[t] != me && threads[t].state == WAITING && !threads[t].mask)
      *static_cast<int*>(threads[t].payload) = barrier_sum, push_ready(&threads[t]);
  return barrier_sum;
}

// ---------------------------------------------------------------- shared memory
EMU void add_shared_array(unsigned begin, unsigned bytes) {
  shared_used = begin + bytes + SHARED_GAP;
  if (begin + bytes > MAX_SHARED || n_shared_arrays == 256) fail("more than %zu bytes of shared memory", MAX_SHARED);
  memset(shared_arena + begin, 0xff, bytes);
  shared_arrays[n_shared_arrays++] = {begin, begin + bytes};
}
// One array per declaration and per instantiation: Tag is the type of a lambda written there.
template <class T, class Tag> EMU T& shared_array(Tag) {
  static unsigned launch, offset;
  if (launch != launch_id) {
    launch = launch_id, offset = (shared_used + 127) / 128 * 128;
    add_shared_array(offset, sizeof(T));
  }
  return *reinterpret_cast<T*>(shared_arena + offset);
}
template <class T> EMU T* dynamic_shared() { return reinterpret_cast<T*>(shared_arena); }

template <class T> EMU T shuffle(const char* what, unsigned mask, T value, int source, SITE) {
  struct Payload { T value; int source; T result; Site site; unsigned thread; };
  Payload mine = {value, source, value, {what, fn, line}, self->linear};
  warp_collective({what, fn, line}, mask, &mine, [](void** p, unsigned lanes) {
    for (unsigned i = 0; i < 32; ++i)
      if (Payload* me = static_cast<Payload*>(p[i])) {
        if (me->source < 0) continue;
        Payload* from = static_cast<Payload*>(p[me->source]);
        if (!from) {
          self = &threads[me->thread], instruction = nullptr;
          fail("%s at %s:%d reads lane %d, which is not in mask %08x", me->site.what, me->site.fn, me->site.line,
               me->source, lanes);
        }
        me->result = from->value;
      }
  });
  return mine.result;
}
EMU unsigned ballot(const char* what, unsigned mask, int predicate, int line, const char* fn) {
  struct Payload { int predicate; unsigned result; } mine = {predicate, 0};
  warp_collective({what, fn, line}, mask, &mine, [](void** p, unsigned) {
    unsigned bits = 0;
    for (int i = 0; i < 32; ++i) bits |= unsigned(p[i] && static_cast<Payload*>(p[i])->predicate) << i;
    for (int i = 0; i < 32; ++i) if (p[i]) static_cast<Payload*>(p[i])->result = bits;
  });
  return mine.result;
}
EMU int lane() { return int(self->linear % 32); }
}  // namespace cuda_emu

// ---- the names of CUDA
EMU void __syncthreads(SITE) { cuda_emu::block_barrier({"__syncthreads", fn, line}, 0); }
EMU int __syncthreads_count(int p, SITE) { return cuda_emu::block_barrier({"__syncthreads_count", fn, line}, p != 0); }
EMU int __syncthreads_or(int p, SITE) { return cuda_emu::block_barrier({"__syncthreads_or", fn, line}, p != 0) > 0; }
EMU int __syncthreads_and(int p, SITE) { return cuda_emu::block_barrier({"__syncthreads_and", fn, line}, p == 0) == 0; }
EMU void __syncwarp(unsigned mask = ~0u, SITE) {
  cuda_emu::warp_collective({"__syncwarp", fn, line}, mask, &cuda_emu::warps[cuda_emu::self->linear / 32],
                            [](void** p, unsigned lanes) {
                              ++static_cast<cuda_emu::Warp*>(p[__builtin_ctz(lanes)])->epoch;
                            });
}
// Source lane -1 keeps the own value; w is the width of the logical warp.
template <class T> EMU T __shfl_sync(unsigned m, T v, int src, int w = 32, SITE) {
  return cuda_emu::shuffle("__shfl_sync", m, v, (cuda_emu::lane() & ~(w - 1)) | (src & (w - 1)), line, fn);
}
template <class T> EMU T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32, SITE) {
  int l = cuda_emu::lane();
  return cuda_emu::shuffle("__shfl_up_sync", m, v, (l & (w - 1)) >= int(d) ? l - int(d) : -1, line, fn);
}
template <class T> EMU T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32, SITE) {
  int l = cuda_emu::lane();
  return cuda_emu::shuffle("__shfl_down_sync", m, v, (l & (w - 1)) + int(d) < w ? l + int(d) : -1, line, fn);
}
template <class T> EMU T __shfl_xor_sync(unsigned m, T v, int x, int w = 32, SITE) {
  int l = cuda_emu::lane(), from = l ^ x;  // beyond the own segment upwards: own value, as PTX bfly
  return cuda_emu::shuffle("__shfl_xor_sync", m, v, from <= (l | (w - 1)) ? from : -1, line, fn);
}
EMU unsigned __ballot_sync(unsigned m, int p, SITE) { return cuda_emu::ballot("__ballot_sync", m, p, line, fn); }
EMU int __any_sync(unsigned m, int p, SITE) { return cuda_emu::ballot("__any_sync", m, p, line, fn) != 0; }
EMU int __all_sync(unsigned m, int p, SITE) { return cuda_emu::ballot("__all_sync", m, !p, line, fn) == 0; }
// Which lanes run together is the hardware's choice: the emulator's is the least helpful legal one.
EMU unsigned __activemask() { return 1u << cuda_emu::lane(); }
EMU void __threadfence() {}
EMU void __threadfence_block() {}
EMU void __nanosleep(unsigned) { cuda_emu::spin(); }
