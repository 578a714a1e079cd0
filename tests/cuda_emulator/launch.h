// A launch: blocks one after another, arguments unpacked from an array of addresses, and what Python calls.
#pragma once
#include "ptx_twins.h"

namespace cuda_emu {
EMU void exchange(uint16_t& a, uint16_t& b) { uint16_t c = a; a = b, b = c; }
EMU void run_block() {
  n_ready = ready_head = n_started = n_exited = n_barrier = 0;
  block_epoch = ++epoch;
  for (unsigned i = 0; i < n_shared_arrays; ++i)  // NaNs, so that nothing can rest on an earlier block
    memset(shared_arena + shared_arrays[i].begin, 0xff, shared_arrays[i].end - shared_arrays[i].begin);
  for (unsigned t = 0; t < n_threads; ++t) {
    threads[t].state = UNSTARTED, threads[t].linear = t, threads[t].mask = 0;
    threads[t].index = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
    start_order[t] = uint16_t(options->order == 1 ? n_threads - 1 - t : t);
  }
  for (unsigned t = n_threads; options->order > 1 && t > 1; --t)
    exchange(start_order[t - 1], start_order[random_below(t)]);
  for (unsigned w = 0; w * 32 < n_threads; ++w) {
    unsigned lanes = n_threads - w * 32;
    warps[w] = {0, 0, lanes >= 32 ? ~0u : (1u << lanes) - 1, 0};
  }
  switch_to(take_fiber());
}

// Numbers below 2^-126 are 0, as NVRTC is told to compile (--ftz=true).
struct FloatMode {
  unsigned before = _mm_getcsr();
  EMU FloatMode() { _mm_setcsr(0x9fc0); }
  EMU ~FloatMode() { _mm_setcsr(before); }
};

template <class... A> struct Call {
  void (*kernel)(A...);
  void** args;
  template <size_t... I> EMU void unpack(std::index_sequence<I...>) {
    kernel(*static_cast<std::decay_t<A>*>(args[I])...);
  }
  EMU static void run(void* self) { static_cast<Call*>(self)->unpack(std::index_sequence_for<A...>()); }
};

template <class... A>
EMU const char* launch(void (*kernel)(A...), const dim3& grid, const dim3& block, unsigned dynamic, void** args,
                       const Range* memory, unsigned n_memory, Options* how) {
  Call<A...> call = {kernel, args};
  kernel_call = Call<A...>::run, kernel_args = &call;
  gridDim = grid, blockDim = block, options = how, rng = how->order;
  n_threads = block.x * block.y * block.z;
  failures = n_pool = n_fibers = n_shared_arrays = shared_used = 0, ++launch_id, launch_epoch = ++epoch;
  error[0] = 0, instruction = nullptr, self = nullptr, current = &main_fiber;
  if (n_threads < 1 || n_threads > MAX_THREADS) return "a block has 1 to 1024 threads";
  if (dynamic > MAX_SHARED || n_memory > MAX_RANGES) return "at most 227 KiB of dynamic shared memory and 64 tensors";
  memcpy(ranges, memory, (n_ranges = n_memory) * sizeof(Range));
  add_shared_array(0, dynamic);
  const FloatMode mode;
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
        run_block();
        if (error[0]) return error;
      }
  return nullptr;
}
// For the launcher's check of arguments: the size of each.
template <class... A> EMU int parameters(void (*)(A...), unsigned* sizes) {
  int n = 0;
  ((sizes[n++] = sizeof(A)), ...);
  return n;
}
}  // namespace cuda_emu
extern "C" char* cuda_emu_stacks() { return cuda_emu::make_stacks(); }

#define CUDA_EMU_EXPORT(i, ...)                                                                                   \
  extern "C" const char* cuda_emu_launch_##i(const dim3* grid, const dim3* block, unsigned dynamic, void** args,  \
                                             const cuda_emu::Range* memory, unsigned n, cuda_emu::Options* how) { \
    return cuda_emu::launch(__VA_ARGS__, *grid, *block, dynamic, args, memory, n, how);                           \
  }                                                                                                               \
  extern "C" int cuda_emu_parameters_##i(unsigned* sizes) { return cuda_emu::parameters(__VA_ARGS__, sizes); }
