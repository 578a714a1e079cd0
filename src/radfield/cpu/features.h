// What is asked of the CPU at run time, once, beyond the instruction set that a library is compiled for.
#pragma once

namespace radfield {

struct CpuFeatures {
  bool avx512_bf16 = false;
  bool amx_bf16 = false;      // the CPU has it; the system must also allow it (networks/amx.h)
  bool fast_gather = false;   // gather instructions beat single loads
};

extern const CpuFeatures cpu_features;

}  // namespace radfield
