// The threads of a block as fibers on one OS thread, their schedules, and the end of a launch by an error.
#pragma once
#include "numbers.h"

extern "C" __attribute__((visibility("hidden"))) char __ehdr_start, _end;  // of this library
namespace cuda_emu {
constexpr size_t STACK = 128 << 10, GUARD = 4096, MAX_THREADS = 1024;
constexpr size_t MAX_SHARED = 227 << 10, SHARED_GAP = 32;

typedef void* Context;  // a stack pointer; the switch is written for x86-64 only
extern "C" void cuda_emu_switch(Context* from, Context* to) __attribute__((visibility("hidden")));
asm(R"(.text
.hidden cuda_emu_switch
.globl cuda_emu_switch
cuda_emu_switch:
  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
  mov %rsp, (%rdi); mov (%rsi), %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
  ret
)");
EMU void prepare(Context* c, char* stack, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack + STACK);
  *--top = nullptr;  // entry sees the alignment that a call would leave
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  *c = top;
}

struct Fiber { Context context; char* stack = nullptr; };
struct Site { const char* what; const char* fn; int line; };
EMU bool same(const Site& a, const Site& b) {
  return a.line == b.line && !strcmp(a.what, b.what) && !strcmp(a.fn, b.fn);
}
enum State : uint8_t { UNSTARTED, RUNNING, WAITING, EXITED };

struct Thread {
  uint3 index;
  unsigned linear;
  State state;
  Fiber* fiber;
  Site site;        // where it waits
  unsigned mask;    // lanes it waits for; 0 at a block barrier
  void* payload;    // what it brought to the collective
};
struct Warp { unsigned waiting, exited, existing; uint16_t epoch; };
enum Role : unsigned { INPUT, IN_PLACE, OUTPUT };  // of a tensor: never written; any; read only after it is written
struct Range { const char *begin, *end; const char* name; struct Cell* shadow; unsigned role; };
struct Options {  // shared with the launcher
  unsigned order;          // 0 forward, 1 backward, else the seed of a random schedule
  unsigned global_races;   // checked build: also look for races in global memory
  unsigned long long switches, barriers, collectives;  // out
  char* stacks;  // of cuda_emu_stacks: a process maps 65,530 ranges at most, so libraries have none of their own
};

static Thread threads[MAX_THREADS], *ready[MAX_THREADS], *self;
static Warp warps[MAX_THREADS / 32];
static Fiber fibers[MAX_THREADS + 1], *pool[MAX_THREADS + 1], main_fiber, *current;
static uint16_t start_order[MAX_THREADS];
static unsigned n_pool, n_fibers, ready_head, n_ready, n_threads, n_started, n_exited, n_barrier, failures, rng;
static int barrier_sum;
static Options* options;
constexpr unsigned MAX_RANGES = 64;
static Range ranges[MAX_RANGES];
static void (*kernel_call)(void*);
static void* kernel_args;
static char error[1024];
static void* instruction;  // of the access being checked: the launcher turns it into a line
alignas(128) static char shared_arena[MAX_SHARED + (16 << 10)];
static struct { unsigned begin, end; } shared_arrays[256];
static unsigned n_ranges, n_shared_arrays, shared_used, launch_id;
static unsigned epoch = 1, block_epoch, launch_epoch;  // advance at each block and block barrier
}  // namespace cuda_emu

static uint3 blockIdx;
static dim3 blockDim, gridDim;
constexpr int warpSize = 32;
#define threadIdx (::cuda_emu::self->index)
namespace cuda_emu {
EMU void switch_to(Fiber* to) {
  Fiber* from = current;
  if (from == to) return;
  current = to, ++options->switches;
  cuda_emu_switch(&from->context, &to->context);
}

// Ends the launch: the fibers are abandoned where they stand.
__attribute__((noreturn, format(printf, 1, 2))) EMU void fail(const char* format, ...) {
  va_list list;
  va_start(list, format);
  int n = snprintf(error, sizeof error, "block (%u,%u,%u)", blockIdx.x, blockIdx.y, blockIdx.z);
  if (self) n += snprintf(error + n, sizeof error - n, " thread (%u,%u,%u)", threadIdx.x, threadIdx.y, threadIdx.z);
  n += snprintf(error + n, sizeof error - n, ": ");
  n += vsnprintf(error + n, sizeof error - n, format, list);
  if (instruction) snprintf(error + n, sizeof error - n, " @%zx", static_cast<char*>(instruction) - &__ehdr_start - 1);
  va_end(list);
  switch_to(&main_fiber);
  __builtin_unreachable();
}

EMU void report_deadlock() {  // no thread can run: who waits where
  char text[800];
  int n = 0;
  bool told[MAX_THREADS] = {};
  for (unsigned t = 0; t < n_threads && n < 600; ++t) {
    if (told[t]) continue;
    Thread& a = threads[t];
    unsigned count = 0;
    for (unsigned u = t; u < n_threads; ++u)
      if (threads[u].state == a.state && (a.state == EXITED || same(a.site, threads[u].site)))
        told[u] = true, ++count;
    n += snprintf(text + n, sizeof text - n, "%s%u (first: thread (%u,%u,%u))", n ? "; " : "", count, a.index.x,
                  a.index.y, a.index.z);
    if (a.state == EXITED) n += snprintf(text + n, sizeof text - n, " exited");
    else n += snprintf(text + n, sizeof text - n, " at %s in %s:%d", a.site.what, a.site.fn, a.site.line);
  }
  self = nullptr, instruction = nullptr;
  fail("divergence, of %u threads: %s", n_threads, text);
}

EMU unsigned random_below(unsigned n) {
  rng = rng * 1664525u + 1013904223u;
  return unsigned((uint64_t(rng) * n) >> 32);
}
EMU void push_ready(Thread* t) { t->state = RUNNING; ready[(ready_head + n_ready++) % MAX_THREADS] = t; }
EMU Thread* pop_ready() {
  if (!n_ready) return nullptr;
  const unsigned last = n_ready - 1;
  const unsigned pick = options->order == 0 ? 0 : options->order == 1 ? last : random_below(n_ready);
  unsigned end = pick ? last : 0;  // a hole anywhere but at the head is filled from the tail
  Thread* t = ready[(ready_head + pick) % MAX_THREADS];
  if (end) ready[(ready_head + pick) % MAX_THREADS] = ready[(ready_head + end) % MAX_THREADS];
  else ready_head = (ready_head + 1) % MAX_THREADS;
  --n_ready;
  return t;
}

// A fiber runs unstarted threads one after another on one stack until a thread has to wait, so a
// kernel without barriers costs no switch at all.
EMU void fiber_main() {
  for (;;) {
    while (!n_ready && n_started < n_threads) {
      self = &threads[start_order[n_started++]];
      self->fiber = current, self->state = RUNNING;
      kernel_call(kernel_args);
      self->state = EXITED, ++n_exited;
      warps[self->linear / 32].exited |= 1u << self->linear % 32;
    }
    self = pop_ready();
    if (!self && n_exited < n_threads) report_deadlock();
    pool[n_pool++] = current;
    switch_to(self ? self->fiber : &main_fiber);
  }
}
// Stacks of all fibers, each with a guard below; null where there is no room.
EMU char* make_stacks() {
  constexpr size_t EACH = GUARD + STACK, ALL = (MAX_THREADS + 1) * EACH;
  void* p = mmap(nullptr, ALL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  for (size_t at = 0; at < ALL; at += EACH)
    if (mprotect(static_cast<char*>(p) + at, GUARD, PROT_NONE)) return munmap(p, ALL), nullptr;
  return static_cast<char*>(p);
}
EMU Fiber* take_fiber() {
  if (n_pool) return pool[--n_pool];
  Fiber* f = &fibers[n_fibers];
  f->stack = options->stacks + n_fibers++ * (GUARD + STACK) + GUARD;
  prepare(&f->context, f->stack, fiber_main);
  return f;
}
EMU void wait_here(State state = WAITING) {  // returns when the calling thread is resumed
  Thread* me = self;
  me->state = state;
  self = pop_ready();
  if (!self && n_started == n_threads) report_deadlock();
  switch_to(self ? self->fiber : take_fiber());
  self = me;
}
// After a compare-and-swap that failed: lets the others run, and gives up in the end.
EMU void spin() {
  if (++failures == 1u << 20) fail("spins: a million compare-and-swaps or sleeps without a success");
  if (failures % 16) return;
  push_ready(self);
  wait_here(RUNNING);
}
}  // namespace cuda_emu
