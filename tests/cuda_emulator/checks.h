// The checked build: g++ -fsanitize=thread puts a call before every load and store of the kernel, and here are the
// functions that it calls, in place of libtsan.
#pragma once
#include "collectives.h"

namespace cuda_emu {
// What the checked build remembers of a byte: the last write and the last two readers.
struct Mark { unsigned epoch; uint16_t thread; uint16_t warp_epoch : 15, atomic : 1; };
struct Cell { Mark write, read[2]; };

#define EMU_PC instruction = __builtin_return_address(0);
#ifdef __SANITIZE_THREAD__
static Cell shared_shadow[sizeof shared_arena];

EMU bool unordered(Mark m, bool global, bool atomic) {  // may run at the same time as self
  if (m.epoch < (global ? launch_epoch : block_epoch) || (m.atomic && atomic)) return false;
  if (m.epoch < block_epoch) return true;  // another block of this launch
  if (m.epoch < epoch || m.thread == self->linear) return false;
  return m.thread / 32 != self->linear / 32 || m.warp_epoch == warps[m.thread / 32].epoch % 32768;
}
EMU void touch(Cell* cells, size_t n, bool write, bool atomic, const char* what, size_t at, bool global) {
  Mark now = {epoch, uint16_t(self->linear), uint16_t(warps[self->linear / 32].epoch % 32768), atomic};
  for (size_t i = 0; i < n; ++i) {
    Cell& c = cells[i];
    if (!global && !write && c.write.epoch < block_epoch)
      fail("reads %s byte %zu, which no thread of the block has written", what, at + i);
    const Mark* other = unordered(c.write, global, atomic) ? &c.write : nullptr;
    for (int r = 0; r < 2 && write && !other; ++r)
      if (unordered(c.read[r], global, atomic)) other = &c.read[r];
    if (other && (!global || options->global_races))
      fail("race: %s %s byte %zu, which thread %u of %s %s with no barrier between", write ? "writes" : "reads", what,
           at + i, other->thread, other->epoch < block_epoch ? "another block" : "the block",
           other == &c.write ? "wrote" : "read");
    if (write) c.write = now;
    if (!write || atomic) {
      if (c.read[0].thread != now.thread || c.read[0].epoch != now.epoch) c.read[1] = c.read[0];
      c.read[0] = now;
    }
  }
}
EMU void access_shared(size_t at, size_t n, bool write, bool atomic) {
  for (unsigned i = 0; i < n_shared_arrays; ++i) {
    const size_t begin = shared_arrays[i].begin;
    if (at < begin || at + n > shared_arrays[i].end) continue;
    return touch(shared_shadow + at, n, write, atomic, i ? "static shared" : "dynamic shared", at - begin, false);
  }
  fail("shared memory: %s of %zu bytes outside every array", write ? "write" : "read", n);
}
EMU void access_tensor(const Range& r, size_t at, size_t n, bool write, bool atomic) {
  if (write && r.role == INPUT) fail("writes %s byte %zu, which is an input", r.name, at);
  if (!r.shadow) return;
  Cell* cells = r.shadow + at;
  for (size_t i = 0; i < n && r.role == OUTPUT && (!write || atomic); ++i)
    if (!cells[i].write.epoch) fail("reads %s byte %zu, an output that nobody has written", r.name, at + i);
  touch(cells, n, write, atomic, r.name, at, true);
}
__attribute__((noreturn)) EMU void fail_outside(const char* p, size_t n, bool write) {
  long long nearest = 1LL << 62;
  const char* name = "any argument";
  for (unsigned i = 0; i < n_ranges; ++i) {
    const long long past = p < ranges[i].begin ? p - ranges[i].begin : p + n - ranges[i].end;
    if (llabs(past) < llabs(nearest)) nearest = past, name = ranges[i].name;
  }
  fail("%s of %zu bytes at %p, %lld bytes %s %s", write ? "write" : "read", n, p, llabs(nearest),
       nearest < 0 ? "before" : "past the end of", name);
}
EMU void access(const void* address, size_t n, bool write, bool atomic = false) {
  const char* p = static_cast<const char*>(address);
  if (!self || size_t(p - current->stack) < STACK) return;
  if (size_t(p - shared_arena) < sizeof shared_arena) return access_shared(size_t(p - shared_arena), n, write, atomic);
  for (unsigned i = 0; i < n_ranges; ++i) {
    const Range& r = ranges[i];
    if (p >= r.begin && p + n <= r.end) return access_tensor(r, size_t(p - r.begin), n, write, atomic);
  }
  if (p >= &__ehdr_start && p < &_end) return;  // constants, and the emulator's own state
  fail_outside(p, n, write);
}
#define EMU_HOOK extern "C" __attribute__((used, visibility("hidden"), no_sanitize("thread"))) void
#define EMU_SIZED(n) \
  EMU_HOOK __tsan_read##n(void* p) { EMU_PC access(p, n, false); } \
  EMU_HOOK __tsan_write##n(void* p) { EMU_PC access(p, n, true); } \
  EMU_HOOK __tsan_unaligned_read##n(void* p) { EMU_PC access(p, n, false); } \
  EMU_HOOK __tsan_unaligned_write##n(void* p) { EMU_PC access(p, n, true); }
EMU_SIZED(1) EMU_SIZED(2) EMU_SIZED(4) EMU_SIZED(8) EMU_SIZED(16)
EMU_HOOK __tsan_read_range(void* p, size_t n) { EMU_PC access(p, n, false); }
EMU_HOOK __tsan_write_range(void* p, size_t n) { EMU_PC access(p, n, true); }
EMU_HOOK __ubsan_handle_type_mismatch_v1(void*, void* p) { EMU_PC if (self) fail("misaligned address %p", p); }
EMU_HOOK __ubsan_handle_out_of_bounds(void*, void* i) {
  EMU_PC if (self) fail("index %lld outside its array", (long long)i);
}
EMU_HOOK __tsan_init() {}
EMU_HOOK __tsan_func_entry(void*) {}
EMU_HOOK __tsan_func_exit() {}
#else
EMU void access(const void*, size_t, bool, bool = false) {}
#endif
}  // namespace cuda_emu
