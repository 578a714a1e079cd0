// Atomic operations: each is a read and a write with nothing between, which the checks know to be atomic.
#pragma once
#include "checks.h"

namespace cuda_emu {
template <class T, class F> EMU T atomic(T* p, F update) {
  EMU_PC
  access(p, sizeof(T), true, true);
  instruction = nullptr;
  T old = *p;
  *p = update(old);
  return old;
}
template <class T> using plain = std::common_type_t<T>;  // not deduced, so that literals convert
}  // namespace cuda_emu
#define EMU_ATOMIC(name, expression) \
  template <class T> EMU T name(T* p, cuda_emu::plain<T> v) { \
    return cuda_emu::atomic(p, [&](T old) -> T { return expression; }); \
  }
EMU_ATOMIC(atomicAdd, T(old + v))
EMU_ATOMIC(atomicSub, old - v)
EMU_ATOMIC(atomicMax, old < v ? v : old)
EMU_ATOMIC(atomicMin, v < old ? v : old)
EMU_ATOMIC(atomicOr, old | v)
EMU_ATOMIC(atomicAnd, old & v)
EMU_ATOMIC(atomicXor, old ^ v)
template <class T> EMU T atomicExch(T* p, cuda_emu::plain<T> v) {
  return cuda_emu::atomic(p, [&](T) { return v; });
}
template <class T> EMU T atomicCAS(T* p, cuda_emu::plain<T> expected, cuda_emu::plain<T> v) {
  T old = cuda_emu::atomic(p, [&](T now) { return now == expected ? v : now; });
  if (old == expected) {
    cuda_emu::failures = 0;
  } else {
    cuda_emu::instruction = __builtin_return_address(0);
    cuda_emu::spin();
    cuda_emu::instruction = nullptr;
  }
  return old;
}
EMU __half2 atomicAdd(__half2* p, __half2 v) {
  return cuda_emu::atomic(p, [&](__half2 old) { return __hadd2(old, v); });
}
EMU __nv_bfloat162 atomicAdd(__nv_bfloat162* p, __nv_bfloat162 v) {
  return cuda_emu::atomic(p, [&](__nv_bfloat162 old) { return __hadd2(old, v); });
}
template <class T> __forceinline__ T __ldg(const T* p) { return *p; }  // instrumented in its caller

