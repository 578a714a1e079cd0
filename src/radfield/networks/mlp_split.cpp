// The MLP in fp32 by AMX: mlp_kernels_split.h. A file of its own, because its loops take long to compile.
#if defined(__AVX512F__)
#include "mlp_kernels_split.h"

#include "mlp_backward.h"

namespace radfield {

void mlp_forward_split(const MlpForward& a, bool pack) { forward<Split>(a, pack); }
void mlp_backward_split(const MlpBackward& a) { backward<Split>(a); }

}  // namespace radfield
#endif
