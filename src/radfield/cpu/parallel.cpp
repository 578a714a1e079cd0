#include "parallel.h"

#include <atomic>
#include <mutex>
#include <stdlib.h>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <sched.h>
#endif

namespace radfield {
namespace {

struct Job {
  Task task;
  void* context;
  int64_t chunks;
};

struct Pool {
  std::mutex entry;  // one parallel region at a time; a second caller waits
  std::vector<std::thread> workers;
  std::atomic<uint32_t> generation{0};  // grows by one per job; workers sleep on it
  std::atomic<int64_t> next{0};
  std::atomic<int> busy{0};
  Job job{};
  bool stop = false;
};

Pool* pool = nullptr;          // never destroyed: worker threads may outlive static destructors
thread_local bool inside = false;  // nested calls run on the calling thread

void work(Pool& p) {
  const Job job = p.job;
  inside = true;
  for (int64_t chunk; (chunk = p.next.fetch_add(1, std::memory_order_relaxed)) < job.chunks;)
    job.task(job.context, chunk);
  inside = false;
}

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

constexpr int SPINS = 2000;  // some 50 us: ops follow one another within a step; longer would take time from torch

void worker_loop(Pool& p, uint32_t seen) {
  for (;;) {
    for (int i = 0; i < SPINS && p.generation.load(std::memory_order_acquire) == seen; ++i) pause_cpu();
    p.generation.wait(seen, std::memory_order_acquire);
    seen = p.generation.load(std::memory_order_acquire);
    if (p.stop) return;
    work(p);
    if (p.busy.fetch_sub(1, std::memory_order_acq_rel) == 1) p.busy.notify_one();
  }
}

// Worker i goes on the (i+1)-th CPU that the process may use; the caller is left where the system puts it.
void pin(std::thread& thread, int i) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  const int count = CPU_COUNT(&allowed);
  int wanted = (i + 1) % count;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &allowed) && wanted-- == 0) {
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      pthread_setaffinity_np(thread.native_handle(), sizeof one, &one);
      return;
    }
#else
  (void)thread, (void)i;
#endif
}

void stop_workers(Pool& p) {
  p.stop = true;
  p.generation.fetch_add(1, std::memory_order_release);
  p.generation.notify_all();
  for (auto& w : p.workers) w.join();
  p.workers.clear();
  p.stop = false;
}

}  // namespace

int num_threads() { return pool ? (int)pool->workers.size() + 1 : 1; }

void run_chunks(int64_t chunks, Task task, void* context) {
  if (chunks <= 0) return;
  if (chunks == 1 || inside || !pool || pool->workers.empty()) {
    for (int64_t c = 0; c < chunks; ++c) task(context, c);
    return;
  }
  Pool& p = *pool;
  std::lock_guard<std::mutex> lock(p.entry);
  p.job = {task, context, chunks};
  p.next.store(0, std::memory_order_relaxed);
  p.busy.store((int)p.workers.size(), std::memory_order_relaxed);
  p.generation.fetch_add(1, std::memory_order_release);
  p.generation.notify_all();
  work(p);
  for (int i = 0; i < SPINS && p.busy.load(std::memory_order_acquire) != 0; ++i) pause_cpu();
  for (int left; (left = p.busy.load(std::memory_order_acquire)) != 0;) p.busy.wait(left, std::memory_order_acquire);
}

void* scratch(int64_t bytes) {
  struct Buffer {
    void* data = nullptr;
    int64_t size = 0;
    ~Buffer() { free(data); }
  };
  static thread_local Buffer buffer;
  if (buffer.size < bytes) {
    free(buffer.data);
    buffer.size = (bytes + 4095) / 4096 * 4096;
    buffer.data = aligned_alloc(4096, (size_t)buffer.size);
    if (!buffer.data) abort();  // a few hundred kilobytes: nothing sensible can follow
  }
  return buffer.data;
}

}  // namespace radfield

// Sets the number of threads (>= 1), the calling one included.
RADFIELD_EXPORT void radfield_set_num_threads(int64_t threads) {
  using namespace radfield;
  if (!pool) pool = new Pool;
  std::lock_guard<std::mutex> lock(pool->entry);
  stop_workers(*pool);
  const uint32_t seen = pool->generation.load();
  for (int i = 0; i + 1 < threads; ++i) {
    pool->workers.emplace_back(worker_loop, std::ref(*pool), seen);
    pin(pool->workers.back(), i);
  }
}
RADFIELD_EXPORT int64_t radfield_num_threads() { return radfield::num_threads(); }

// After fork() the child has no workers: forget the pool (its mutex and threads are the parent's).
RADFIELD_EXPORT void radfield_forget_threads() { radfield::pool = nullptr; }
