// The MLP's ops: which kernel runs. The loops are in mlp_panels.h and mlp_backward.h.
#if defined(__AVX512F__)
#include "amx.h"
#endif
#include "mlp_backward.h"

using namespace radfield;

enum Kernel { KERNEL_F32 = 0, KERNEL_ROUNDED = 1, KERNEL_DOT = 2, KERNEL_AMX = 3 };

#if defined(__AVX512F__)
namespace radfield {
void mlp_forward_bf16(const MlpForward&, bool pack, bool amx);  // mlp_bf16.cpp
void mlp_backward_bf16(const MlpBackward&, bool amx);
}  // namespace radfield
#endif

// The kernel that the precision "bf16" runs on. AVX512-BF16 and AMX are asked for at run time, and the system may refuse
// the tiles. Where neither is, products stay in fp32: rounding their operands in software took longer than all of them.
RADFIELD_EXPORT int64_t mlp_best_bf16_kernel() {
#if defined(RADFIELD_EMULATE_AMX)
  return KERNEL_AMX;
#elif defined(__AVX512F__)
  if (!cpu_features.avx512_bf16) return KERNEL_F32;
  return cpu_features.amx_bf16 && amx::enable() ? KERNEL_AMX : KERNEL_DOT;
#else
  return KERNEL_F32;
#endif
}

void radfield::run_mlp(const MlpForward& a, bool pack) {
#if defined(__AVX512F__)
  if (a.kernel >= KERNEL_DOT) return mlp_forward_bf16(a, pack, a.kernel == KERNEL_AMX);
#endif
  a.kernel == KERNEL_F32 ? forward<Fp32<false>>(a, pack) : forward<Fp32<true>>(a, pack);
}

RADFIELD_OP(mlp_forward, MlpForward) { run_mlp(a, true); }

RADFIELD_OP(mlp_backward, MlpBackward) {
#if defined(__AVX512F__)
  if (a.kernel >= KERNEL_DOT) return mlp_backward_bf16(a, a.kernel == KERNEL_AMX);
#endif
  a.kernel == KERNEL_F32 ? backward<Fp32<false>>(a) : backward<Fp32<true>>(a);
}
