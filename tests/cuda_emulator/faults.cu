// Kernels that break a rule of CUDA each, on purpose, and others that do the same right: test_emulator.py.
#include "../../src/radfield/cuda/device.h"

namespace radfield {

template <int RULE>
__global__ void fault(float* x) {
  SHARED_ARRAY(float, s, [64]);
  const int t = threadIdx.x;
  if (RULE != 6) s[t] = 0.f;
  __syncthreads();
  if (RULE == 0 && t != 5) __syncthreads();  // one thread leaves, 63 wait
  if (RULE == 1) {                           // another barrier in each branch
    if (t < 32) __syncthreads();
    else __syncthreads_or(t);
  }
  if (RULE == 2) {  // a lane that has exited
    if (t == 3) return;
    x[t] = __shfl_xor_sync(~0u, x[t], 1);
  }
  if (RULE == 3) x[64 + t] = 0.f;                                            // past the end
  if (RULE == 4) { s[t] = x[t]; x[t] = s[t ^ 33]; }                          // needs __syncthreads
  if (RULE == 5) { s[t] = x[t]; x[t] = s[t ^ 1]; }                           // needs __syncwarp
  if (RULE == 6) x[t] = s[t];                                                // nobody wrote it
  if (RULE == 7) s[t + RULE] = x[t];                                         // past the end of shared memory
  if (RULE == 8) x[t / 2] = t;                                               // a race in global memory
  if (RULE == 9 && t == 0) *(float2*)(x + 1) = make_float2(0.f, 0.f);        // misaligned
  if (RULE == 10 && t < 16) x[t] = __shfl_sync(0xffffffffu, x[t], 0);        // lanes that never come
  if (RULE == 11) { s[t] = x[t]; __syncwarp(); x[t] = s[t ^ 1]; }            // right
  if (RULE == 12 && t == 0) add_2(x + 1, 1.f, 1.f);                          // misaligned vector of atomics
  if (RULE == 13) x[t] = __shfl_sync(1u << t % 32, x[t], (t + 1) % 32);      // reads a lane outside the mask
  if (RULE == 14) atomicAdd(x + blockIdx.x, 1.f);                            // right, across blocks
  if (RULE == 15) x[blockIdx.x] = (float)t;                                  // a race across blocks and threads
  if (RULE == 16 && t == 0) while (atomicCAS((int*)x, 1, 2) != 1) {}         // never ends
  if (RULE == 17) { atomicAdd(x, 1.f); x[1 + t % 8] = x[0]; }                // a plain read beside atomic writes
}

__global__ void writes_input(const float* x, float* y) { ((float*)x)[threadIdx.x] = y[threadIdx.x]; }
__global__ void reads_output(float* x) { x[threadIdx.x] += 1.f; }
__global__ void takes_two(float* x, int64_t n) { if (threadIdx.x < n) x[threadIdx.x] = (float)n; }

// Sums over warps and blocks, as kernels use them.
__global__ void sums(float* total, float* upto, float* from, float* before, const float* x) {
  const int t = threadIdx.x;
  float all;
  const float v = x[t];
  upto[t] = prefix_sum(v), from[t] = suffix_sum(v);
  before[t] = block_sum_before(v, all);
  total[t] = block_sum(v) + from_below(v, 0.f) - from_above(v, 0.f) + all;
}

// One product of fragments given as [32, 4], [32, 2] -> [32, 4], to test the layout from outside.
template <int WAY>  // 0 the instruction, 1 by shuffles, 2 the instruction of fp16
__global__ void mma_fragments(const uint32_t* a, const uint32_t* b, float* d) {
  const int l = threadIdx.x;
  const uint32_t fa[4] = {a[4 * l], a[4 * l + 1], a[4 * l + 2], a[4 * l + 3]}, fb[2] = {b[2 * l], b[2 * l + 1]};
  float out[4] = {};
  if (WAY == 1) mma_by_shuffles(out, fa, fb);
  else if (WAY == 2) mma_m16n8k16_f16(out, fa, fb);
  else mma_m16n8k16(out, fa, fb);
  for (int i = 0; i < 4; ++i) d[4 * l + i] = out[i];
}

#ifdef CUDA_EMU  // half and bfloat16 of the emulator against torch's; NVRTC's wheel has no header for them
__global__ void to_half(const float* x, __half* y) { y[threadIdx.x] = __half(x[threadIdx.x]); }
__global__ void to_bfloat(const float* x, __nv_bfloat16* y) { y[threadIdx.x] = __nv_bfloat16(x[threadIdx.x]); }
__global__ void from_half(const __half* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }
__global__ void scatter_half(const int* index, const float* value, __half2* sum) {
  atomicAdd(sum + index[threadIdx.x], __floats2half2_rn(value[threadIdx.x], 1.f));
}
#endif

}  // namespace radfield
