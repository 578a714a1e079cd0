// The MLP with AVX512-BF16 and AMX: a file of its own, because all of it is compiled for AVX512-BF16 (it runs only where
// the CPU has it), so that the conversions are inlined.
#if defined(__AVX512F__)
#include "../cpu/parallel.h"
#include "mlp.h"
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512bf16"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512bf16")
#endif
#include "mlp_kernels_bf16.h"

#include "mlp_backward.h"

namespace radfield {

void mlp_forward_bf16(const MlpForward& a, bool pack, bool amx) { amx ? forward<Amx>(a, pack) : forward<Dot>(a, pack); }
void mlp_backward_bf16(const MlpBackward& a, bool amx) { amx ? backward<Amx>(a) : backward<Dot>(a); }

}  // namespace radfield
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
