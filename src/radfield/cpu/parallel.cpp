// The thread pool. Letters: n threads = the caller and n-1 workers.
//
// A region (one run_chunks) opens a door, works itself, closes the door and waits for the workers that are inside. A
// worker that wakes late finds the door closed and goes back to sleep: nobody waits for it, so a region costs little
// where a worker's CPU is busy with something else. While the door is open or anybody is inside, `job` and `next`
// do not change. Whoever reads them has come through the door (acquire) after they were written (release).
#include "parallel.h"

#include <atomic>
#include <new>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <type_traits>
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

struct Pool;
struct Worker {
  Pool* pool;
  uint32_t seen;  // the last posted job that it knows of
  int cpu;        // where it is pinned; -1: nowhere
  pthread_t thread;
};

// Where threads sleep until ready(); ring() after a change wakes them, and costs next to nothing where nobody sleeps.
// (std::atomic's wait would do the same, but brings the C++ runtime's exceptions into a library that has none.)
struct Bell {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t rung = PTHREAD_COND_INITIALIZER;
  std::atomic<int> sleepers{0};

  template <class Ready>
  void wait(Ready ready) {
    pthread_mutex_lock(&mutex);
    sleepers.fetch_add(1);
    // Either this thread sees the change, or the one that made it sees the sleeper.
    for (std::atomic_thread_fence(std::memory_order_seq_cst); !ready();) pthread_cond_wait(&rung, &mutex);
    sleepers.fetch_sub(1);
    pthread_mutex_unlock(&mutex);
  }
  void ring() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (sleepers.load(std::memory_order_relaxed) == 0) return;
    pthread_mutex_lock(&mutex);
    pthread_cond_broadcast(&rung);
    pthread_mutex_unlock(&mutex);
  }
};

constexpr uint32_t OPEN = 1u << 31;
constexpr int SPIN_MICROSECONDS = 200;  // see parallel.h

struct Pool {
  pthread_mutex_t entry = PTHREAD_MUTEX_INITIALIZER;  // one region at a time; a second caller waits
  std::atomic<int> wanted{1};                         // n
  int running = 0;                                    // workers started
  bool started = false;                               // they start with the first region that has use for them
  Worker* workers = nullptr;
  int free_cpu = -1;                                  // the caller's CPU, if the workers are pinned to all others
  Bell job_posted, all_left;
  alignas(64) std::atomic<uint32_t> posted{0};        // counts jobs
  std::atomic<bool> stop{false};
  Job job{};
  alignas(64) std::atomic<uint32_t> door{0};          // OPEN, plus the number of workers inside
  alignas(64) std::atomic<int64_t> next{0};           // the next chunk
};

// Constant-initialised and never destroyed: workers may outlive static destructors.
static_assert(std::is_trivially_destructible_v<Pool>);
constinit Pool pool;

// The child of a fork() has no workers, and of the pool what the parent's other threads had in hand: it starts anew,
// with as many threads wanted.
void forget_parent() {
  const int wanted = pool.wanted;
  new (&pool) Pool;
  pool.wanted = wanted;
}
const int at_fork_set = pthread_atfork(nullptr, nullptr, forget_parent);

// Frees a thread's scratch memory when the thread ends.
constexpr int SLOTS = 3, ZEROED = 2;
pthread_key_t scratch_key[SLOTS];
const int scratch_key_made = pthread_key_create(&scratch_key[0], free) | pthread_key_create(&scratch_key[1], free) |
                             pthread_key_create(&scratch_key[2], free);

thread_local bool inside = false;  // nested regions run on the calling thread

struct Lock {
  pthread_mutex_t& mutex;
  explicit Lock(pthread_mutex_t& m) : mutex(m) { pthread_mutex_lock(&mutex); }
  ~Lock() { pthread_mutex_unlock(&mutex); }
};

int64_t microseconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000ll + t.tv_nsec / 1000;
}

// Watches for ready() for a while without giving the CPU away; returns whether it came.
template <class Ready>
bool spin(Ready ready) {
  const int64_t end = microseconds() + SPIN_MICROSECONDS;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#elif defined(__aarch64__)
      asm volatile("isb");
#endif
    }
  } while (microseconds() < end);
  return false;
}

void work(Pool& p) {
  inside = true;
  for (int64_t chunk; (chunk = p.next.fetch_add(1, std::memory_order_relaxed)) < p.job.chunks;)
    p.job.task(p.job.context, chunk);
  inside = false;
}

bool enter(Pool& p) {
  uint32_t door = p.door.load(std::memory_order_relaxed);
  while (door & OPEN)
    if (p.door.compare_exchange_weak(door, door + 1, std::memory_order_acquire, std::memory_order_relaxed)) return true;
  return false;
}

void leave(Pool& p) {
  if (p.door.fetch_sub(1, std::memory_order_release) == 1) p.all_left.ring();  // closed, and this was the last
}

void* worker_main(void* argument) {
  Worker& w = *(Worker*)argument;
  Pool& p = *w.pool;
  const FloatMode mode;
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "radfield");
#endif
  while (!p.stop.load(std::memory_order_relaxed)) {
    if (enter(p)) {
      work(p);
      leave(p);
    }
    const auto news = [&] { return p.posted.load(std::memory_order_acquire) != w.seen; };
    if (!spin(news)) p.job_posted.wait(news);
    w.seen = p.posted.load(std::memory_order_acquire);
  }
  return nullptr;
}

#if defined(__linux__)
void pin(Worker& w, int cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  pthread_setaffinity_np(w.thread, sizeof one, &one);
  w.cpu = cpu;
}

// With as many threads as CPUs each worker gets a CPU of its own and one is left for the caller. With fewer threads
// the system places them: other programs, and other processes of ours, have the same CPUs in mind.
void pin_workers(Pool& p) {
  cpu_set_t allowed;
  p.free_cpu = -1;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) != p.running + 1) return;
  const int here = sched_getcpu();
  for (int cpu = 0, i = 0; cpu < CPU_SETSIZE && i < p.running; ++cpu)
    if (CPU_ISSET(cpu, &allowed) && cpu != here) pin(p.workers[i++], cpu);
  p.free_cpu = here;
}

// The caller is where the system puts it. On a worker's CPU the two would take turns while the free one idles (twice
// the time on two CPUs, for milliseconds): that worker goes to the free one.
void make_room_for_caller(Pool& p) {
  if (p.free_cpu < 0) return;
  const int here = sched_getcpu();
  for (int i = 0; here != p.free_cpu && i < p.running; ++i)
    if (p.workers[i].cpu == here) {
      pin(p.workers[i], p.free_cpu);
      p.free_cpu = here;
    }
}
#else  // macOS takes no orders
void pin_workers(Pool&) {}
void make_room_for_caller(Pool&) {}
#endif

// Called with `entry` held. Where the system refuses a thread, those that run do all the work.
void start_workers(Pool& p) {
  p.started = true;
  p.workers = (Worker*)calloc((size_t)p.wanted - 1, sizeof(Worker));
  if (!p.workers) return;
  sigset_t all, before;
  sigfillset(&all);  // signals are for the program's own threads
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (p.running = 0; p.running < p.wanted - 1; ++p.running) {
    Worker& w = p.workers[p.running];
    w = {&p, p.posted.load(), -1, {}};
    if (pthread_create(&w.thread, nullptr, worker_main, &w) != 0) break;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pin_workers(p);
}

// Called with `entry` held.
void stop_workers(Pool& p) {
  p.stop = true;
  p.posted.fetch_add(1);
  p.job_posted.ring();
  for (int i = 0; i < p.running; ++i) pthread_join(p.workers[i].thread, nullptr);
  p.stop = false;
  free(p.workers);
  p.workers = nullptr;
  p.running = 0;
  p.started = false;
}

}  // namespace

int num_threads() { return pool.wanted.load(std::memory_order_relaxed); }

void run_chunks(int64_t chunks, Task task, void* context) {
  Pool& p = pool;
  if (chunks <= 1 || inside || num_threads() == 1) {
    for (int64_t c = 0; c < chunks; ++c) task(context, c);
    return;
  }
  const Lock lock(p.entry);
  if (!p.started) start_workers(p);
  make_room_for_caller(p);
  p.job = {task, context, chunks};
  p.next.store(0, std::memory_order_relaxed);
  p.door.store(OPEN, std::memory_order_release);
  p.posted.fetch_add(1, std::memory_order_release);
  p.job_posted.ring();
  work(p);
  p.door.fetch_sub(OPEN, std::memory_order_relaxed);
  const auto empty = [&] { return p.door.load(std::memory_order_acquire) == 0; };
  if (!spin(empty)) p.all_left.wait(empty);
}

void* scratch(int64_t bytes, int slot) {
  static thread_local void* data[SLOTS] = {};
  static thread_local int64_t size[SLOTS] = {};
  if (size[slot] < bytes) {
    free(data[slot]);
    size[slot] = (bytes + 4095) / 4096 * 4096;
    data[slot] = aligned_alloc(4096, (size_t)size[slot]);
    if (!data[slot]) abort();  // a few megabytes at most: nothing sensible can follow
    if (slot == ZEROED) memset(data[slot], 0, (size_t)size[slot]);
    pthread_setspecific(scratch_key[slot], data[slot]);
  }
  return data[slot];
}

float* zeroed_scratch(int64_t bytes) { return (float*)scratch(bytes, ZEROED); }

}  // namespace radfield

// Sets the number of threads, 1 to 1024, the calling one included. Waits for the region that is running.
RADFIELD_EXPORT void radfield_set_num_threads(int64_t threads) {
  using namespace radfield;
  const Lock lock(pool.entry);
  if (threads == pool.wanted) return;
  stop_workers(pool);
  pool.wanted = (int)threads;
}
RADFIELD_EXPORT int64_t radfield_num_threads() { return radfield::num_threads(); }
