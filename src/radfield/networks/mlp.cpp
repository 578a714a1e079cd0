// The MLP's ops: which kernel runs. The loops are in mlp_panels.h and mlp_backward.h.
#if defined(__AVX512F__)
#include "amx.h"
#endif
#include "mlp_backward.h"

using namespace radfield;

enum Kernel { KERNEL_F32 = 0, KERNEL_ROUNDED = 1, KERNEL_DOT = 2, KERNEL_AMX = 3, KERNEL_SPLIT = 5 };

#if defined(__AVX512F__)
namespace radfield {
void mlp_forward_bf16(const MlpForward&, bool pack, bool amx);  // mlp_bf16.cpp
void mlp_backward_bf16(const MlpBackward&, bool amx);
void mlp_forward_split(const MlpForward&, bool pack);  // mlp_split.cpp
void mlp_backward_split(const MlpBackward&);
}  // namespace radfield
#endif

// Whether AMX's tiles can be used here: the system may refuse them.
static bool have_tiles() {
#if defined(RADFIELD_EMULATE_AMX)
  return true;
#elif defined(__AVX512F__)
  return cpu_features.amx_bf16 && amx::enable();
#else
  return false;
#endif
}

// The kernel that the precision "bf16", or else "f32", runs on; without AMX where that is not wanted. Where "bf16" has
// neither AVX512-BF16 nor AMX, products stay in fp32: rounding their operands in software took longer than all of them.
RADFIELD_EXPORT int64_t mlp_best_kernel(int64_t bf16, int64_t amx) {
  if (amx && have_tiles()) return bf16 ? KERNEL_AMX : KERNEL_SPLIT;
  return bf16 && cpu_features.avx512_bf16 ? KERNEL_DOT : KERNEL_F32;
}

void radfield::run_mlp(const MlpForward& a, bool pack) {
#if defined(__AVX512F__)
  if (a.kernel == KERNEL_SPLIT) return mlp_forward_split(a, pack);
  if (a.kernel >= KERNEL_DOT) return mlp_forward_bf16(a, pack, a.kernel == KERNEL_AMX);
#endif
  a.kernel == KERNEL_F32 ? forward<Fp32<false>>(a, pack) : forward<Fp32<true>>(a, pack);
}

RADFIELD_OP(mlp_forward, MlpForward) { run_mlp(a, true); }

RADFIELD_OP(mlp_backward, MlpBackward) {
#if defined(__AVX512F__)
  if (a.kernel == KERNEL_SPLIT) return mlp_backward_split(a);
  if (a.kernel >= KERNEL_DOT) return mlp_backward_bf16(a, a.kernel == KERNEL_AMX);
#endif
  a.kernel == KERNEL_F32 ? backward<Fp32<false>>(a) : backward<Fp32<true>>(a);
}
