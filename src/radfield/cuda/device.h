// What a `.cu` file includes: the number types and maths of maths.h, and names for what a GPU adds, the same for NVRTC
// and for the emulator of the tests. A kernel stands in namespace radfield, takes its op's struct by value, and never
// names std, the CUDA toolkit's headers or PTX: those instructions are in ptx.h, each with a twin in the emulator.
//
// Letters: a warp has 32 lanes; `full` masks name all of them.
#pragma once
#include "../maths.h"
#include "ptx.h"

// Shared memory, one array per statement: SHARED_ARRAY(float, partial, [32][2]); DYNAMIC_SHARED(float, rows);
#ifdef CUDA_EMU
#define SHARED_ARRAY(T, name, size) auto& name = cuda_emu::shared_array<T size>([] {})
#define DYNAMIC_SHARED(T, name) T* const name = cuda_emu::dynamic_shared<T>()
#else
#define SHARED_ARRAY(T, name, size) __shared__ T name size
#define DYNAMIC_SHARED(T, name)                            \
  extern __shared__ __align__(16) unsigned char radfield_shared[]; \
  T* const name = (T*)radfield_shared
#endif

namespace radfield {

constexpr uint32_t FULL = 0xffffffffu;
constexpr int WARP = 32;

// The number of this thread along x, over all blocks.
RADFIELD_FN int64_t thread_number() { return (int64_t)blockIdx.x * blockDim.x + threadIdx.x; }
// The rows that are in use, of M: where `count` is given, as many as a kernel before this one found.
RADFIELD_FN int64_t rows_in_use(const int64_t* count, int64_t M) { return count && *count < M ? *count : M; }
RADFIELD_FN int lane_number() { return (int)(threadIdx.x % WARP); }

// p[0..n-1] = 0, by all threads of the grid.
RADFIELD_FN void clear_numbers(float* p, int64_t n) {
  for (int64_t i = thread_number(); i < n; i += (int64_t)gridDim.x * blockDim.x) p[i] = 0.0f;
}

// One value of a stream of fp32, bf16 or fp16, as fp32.
RADFIELD_FN float read(const float* p) { return *p; }
RADFIELD_FN float read(const bf16* p) { return to_float(*p); }
RADFIELD_FN f16 to_f16(float x) { return {half_of(x)}; }
RADFIELD_FN float to_float(f16 x) { return value_of_half(x.bits); }
RADFIELD_FN float read(const f16* p) { return to_float(*p); }
RADFIELD_FN void write(f16* p, float x) { *p = to_f16(x); }
RADFIELD_FN void write(float* p, float x) { *p = x; }
RADFIELD_FN void write(bf16* p, float x) { *p = to_bf16(x); }

// Memory of N bytes, aligned to N, that is read by one instruction (two above 16).
template <int N> struct Bytes;
template <> struct Bytes<2> { uint16_t word; };
template <> struct Bytes<4> { uint32_t word; };
template <> struct Bytes<8> { uint2 words; };
template <> struct Bytes<16> { uint4 words; };

// The N values at p, which is aligned to all of them (to 16 bytes at most).
template <int N, class T>
RADFIELD_FN void read_vector(float (&values)[N], const T* p) {
  constexpr int SIZE = N * sizeof(T) < 16 ? N * sizeof(T) : 16, EACH = SIZE / sizeof(T);
  for (int i = 0; i < N; i += EACH) {
    union {
      Bytes<SIZE> bytes;
      T items[EACH];
    } part;
    part.bytes = *(const Bytes<SIZE>*)(p + i);
    for (int k = 0; k < EACH; ++k) values[i + k] = read(part.items + k);
  }
}

// *p += values, for N fp32 values aligned as above: one instruction per 16 bytes on sm_90 and newer, one per value
// before. Sums of several threads are in no fixed order.
template <int N>
RADFIELD_FN void add_vector(float* p, const float (&values)[N]) {
  if constexpr (N == 1) {
    atomicAdd(p, values[0]);
  } else if constexpr (N == 2) {
    add_2(p, values[0], values[1]);
  } else {
    for (int i = 0; i < N; i += 4) add_4(p + i, values[i], values[i + 1], values[i + 2], values[i + 3]);
  }
}

// The same for sums in fp16: one instruction per 16 bytes on sm_90 and newer, one per two values before. What is beyond
// 65504 becomes infinite, and a sum keeps 11 bits. There is no such sum in bf16: of equal terms it would stop growing
// after 2^8 (in fp16 after 2^11, in fp32 after 2^24), and thousands of samples share an entry of a coarse level.
template <int N>
RADFIELD_FN void add_vector(f16* p, const float (&values)[N]) {
  if constexpr (N == 1) add_1(&p->bits, values[0]);
  else if constexpr (N == 4) add_4(&p->bits, values);
  else if constexpr (N == 8) add_8(&p->bits, values);
  else
    for (int i = 0; i < N; i += 2) add_2(&p[i].bits, values[i], values[i + 1]);
}

// Sums over the lanes of a warp, all of which take part.
template <class T>
RADFIELD_FN T warp_sum(T x) {
  for (int d = WARP / 2; d; d >>= 1) x = x + __shfl_xor_sync(FULL, x, d);
  return x;
}
// Of this lane and those below; of this lane and those above.
template <class T>
RADFIELD_FN T prefix_sum(T x) {
  for (int d = 1; d < WARP; d <<= 1) {
    const T below = __shfl_up_sync(FULL, x, d);
    if (lane_number() >= d) x = x + below;
  }
  return x;
}
template <class T>
RADFIELD_FN T suffix_sum(T x) {
  for (int d = 1; d < WARP; d <<= 1) {
    const T above = __shfl_down_sync(FULL, x, d);
    if (lane_number() + d < WARP) x = x + above;
  }
  return x;
}
// The value of the lane below (`first` in lane 0); of the lane above (`last` in lane 31).
template <class T>
RADFIELD_FN T from_below(T x, T first) {
  const T below = __shfl_up_sync(FULL, x, 1);
  return lane_number() ? below : first;
}
template <class T>
RADFIELD_FN T from_above(T x, T last) {
  const T above = __shfl_down_sync(FULL, x, 1);
  return lane_number() < WARP - 1 ? above : last;
}

// The sum over a block of up to 1024 threads, a multiple of 32, that all take part; known to all of them. The order of
// the sum is fixed.
template <class T>
RADFIELD_FN T block_sum(T x) {
  SHARED_ARRAY(T, partial, [WARP]);
  const int warps = (int)(blockDim.x * blockDim.y / WARP), thread = (int)(threadIdx.y * blockDim.x + threadIdx.x);
  x = warp_sum(x);
  __syncthreads();  // an earlier call's sums are read
  if (thread % WARP == 0) partial[thread / WARP] = x;
  __syncthreads();
  T sum = T();
  for (int w = 0; w < warps; ++w) sum = sum + partial[w];
  return sum;
}

// The sum of x over the threads before this one in the block (1D, a multiple of 32), and `total` over all.
template <class T>
RADFIELD_FN T block_sum_before(T x, T& total) {
  SHARED_ARRAY(T, partial, [WARP]);
  const int warps = (int)(blockDim.x / WARP), warp = (int)(threadIdx.x / WARP);
  const T upto = prefix_sum(x);
  __syncthreads();
  if (lane_number() == WARP - 1) partial[warp] = upto;
  __syncthreads();
  T before = upto - x;
  total = T();
  for (int w = 0; w < warps; ++w) {
    if (w < warp) before = before + partial[w];
    total = total + partial[w];
  }
  return before;
}

// Turns values[0..n-1] into the sums of those before each, by one block (1D, a multiple of 32); returns the sum of all.
template <class T>
RADFIELD_FN T scan_before(T* values, int64_t n) {
  T done = T();
  for (int64_t begin = 0; begin < n; begin += blockDim.x) {
    const int64_t i = begin + threadIdx.x;
    T total;
    const T before = block_sum_before(i < n ? values[i] : T(), total);
    if (i < n) values[i] = done + before;
    done = done + total;
  }
  return done;
}

}  // namespace radfield
