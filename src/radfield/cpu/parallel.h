// The thread pool: worker threads of our own, each pinned to its CPU, because two OpenMP threads were often stacked
// on one core and a process-wide binding would pin other libraries' threads too. The calling thread works as well.
//
// A thread that waits spins for 200 us and then sleeps. Measured on a virtual machine with two CPUs: an empty region
// costs 0.2 us while the workers spin and 7 us when they must be woken, but a worker that sleeps arrives 20 to 50 us
// late; ops of one training step follow one another within 20 to 100 us of Python, so they find the workers awake.
//
// torch's own threads spin for milliseconds after each of its parallel ops: on two CPUs one such op per 20 of ours made
// ours 1.5 to 2 times slower, and torch's op itself 5 times. With torch on one thread ours lose nothing (nor with
// OMP_WAIT_POLICY=passive in the environment before torch is imported), and torch's sums have the same bits whatever
// the number of threads. So our programs set torch to one thread, and loops elsewhere can run inside
// `library.one_torch_thread()`.
#pragma once
#include <stdint.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace radfield {

typedef void (*Task)(void* context, int64_t chunk);

// Calls task(context, chunk) for chunk = 0 .. chunks-1, on all threads, the next free thread taking the next chunk;
// returns when all are done. What a chunk computes must not depend on the thread or on other chunks: then the result
// has the same bits whatever the number of threads.
void run_chunks(int64_t chunks, Task task, void* context);
int num_threads();

template <class Body>
inline void parallel_for(int64_t chunks, Body body) {
  run_chunks(chunks, [](void* context, int64_t chunk) { (*(Body*)context)(chunk); }, &body);
}

// body(begin, end) over [0, n) in chunks of `size`.
template <class Body>
inline void parallel_blocks(int64_t n, int64_t size, Body body) {
  parallel_for((n + size - 1) / size, [&](int64_t chunk) {
    const int64_t begin = chunk * size, end = begin + size;
    body(begin, end < n ? end : n);
  });
}

// Aligned scratch memory of this thread, kept between calls: at least `bytes`, contents undefined. One per thread: a
// task asks once and divides it. The caller of a region is one of its threads: what it got before the region is lost
// if the tasks ask too. Slot 1 is for tasks that call other ops, which use slot 0.
void* scratch(int64_t bytes, int slot = 0);

// The same for floats that are all 0 when they are handed out; who takes them leaves them so.
float* zeroed_scratch(int64_t bytes);

// The one floating-point mode of our code, for as long as it lives: round to nearest, no traps, numbers below 2^-126
// are 0. Without it results would depend on what the caller's thread is set to (torch.set_flush_denormal), which the
// workers do not share; and gradients and moments that fade out would cost a hundred cycles each on the way.
class FloatMode {
 public:
#if defined(__x86_64__)
  FloatMode() : before_(_mm_getcsr()) { _mm_setcsr(0x9fc0); }  // FTZ, DAZ, all exceptions masked
  ~FloatMode() { _mm_setcsr(before_); }
 private:
  unsigned before_;
#elif defined(__aarch64__)
  FloatMode() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"((uint64_t)1 << 24));  // FZ
  }
  ~FloatMode() { asm volatile("msr fpcr, %0" : : "r"(before_)); }
 private:
  uint64_t before_;
#endif
};

}  // namespace radfield

// An exported op: `extern "C" void name(const Name* args)` beside `int64_t name_size()`, which the loader compares
// with the declaration in Python.
#define RADFIELD_EXPORT extern "C" __attribute__((visibility("default")))
#define RADFIELD_OP(name, Struct)                                      \
  RADFIELD_EXPORT int64_t name##_size() { return sizeof(Struct); }     \
  static void name##_op(const Struct& a);                              \
  RADFIELD_EXPORT void name(const Struct* args) {                      \
    const radfield::FloatMode mode;                                    \
    name##_op(*args);                                                  \
  }                                                                    \
  static void name##_op(const Struct& a)
