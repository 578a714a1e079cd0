// Runs the ops of the library that it is linked with, for a test in another process (remote_library.py): so ops of
// another architecture run under an emulator, without a Python for it. Every buffer ends where a page that nobody may
// touch begins: an op that goes beyond its arguments stops the driver.
//
// All numbers are int64. A request on standard input: bytes of the name, the name; bytes of the struct, the struct;
// the number of buffers and, for each, its bytes and whether it is written; the number of pointers in the struct and
// their indices (8 bytes each); the content of every buffer. A pointer is 0 or the number of a buffer, from 1. The
// reply on standard output: the content of the buffers that are written.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <vector>

static void read_exactly(void* data, size_t bytes) {
  if (bytes && fread(data, 1, bytes, stdin) != bytes) exit(feof(stdin) ? 0 : 1);
}

static int64_t read_number() {
  int64_t n;
  read_exactly(&n, sizeof n);
  return n;
}

struct Buffer {
  int64_t bytes, written;
  char *pages, *data;
  size_t mapped;
};

static Buffer new_buffer() {
  Buffer b;
  b.bytes = read_number(), b.written = read_number();
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  b.mapped = ((size_t)b.bytes + page - 1) / page * page + page;
  b.pages = (char*)mmap(nullptr, b.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (b.pages == MAP_FAILED || mprotect(b.pages + b.mapped - page, page, PROT_NONE) != 0) exit(3);
  b.data = b.pages + b.mapped - page - b.bytes;
  return b;
}

static void* find(const std::string& name) {
  void* function = dlsym(RTLD_DEFAULT, name.c_str());
  if (!function) fprintf(stderr, "driver: no function %s\n", name.c_str()), exit(4);
  return function;
}

int main() {
  ((void (*)(int64_t))find("radfield_set_num_threads"))(2);
  ((int64_t(*)(int64_t, int64_t))find("mlp_best_kernel"))(0, 1);  // asks the system for AMX's tiles, which each process must
  for (;;) {
    std::string name((size_t)read_number(), ' ');
    read_exactly(name.data(), name.size());
    std::vector<int64_t> fields((size_t)read_number() / 8);
    read_exactly(fields.data(), fields.size() * 8);
    if (((int64_t(*)())find(name + "_size"))() != (int64_t)fields.size() * 8) exit(5);

    std::vector<Buffer> buffers((size_t)read_number());
    for (auto& b : buffers) b = new_buffer();
    std::vector<int64_t> pointers((size_t)read_number());
    read_exactly(pointers.data(), pointers.size() * 8);
    for (auto& b : buffers) read_exactly(b.data, (size_t)b.bytes);
    for (int64_t i : pointers)
      if (fields[i]) fields[i] = (int64_t)buffers[fields[i] - 1].data;

    ((void (*)(const void*))find(name))(fields.data());

    for (auto& b : buffers) {
      if (b.written) fwrite(b.data, 1, (size_t)b.bytes, stdout);
      munmap(b.pages, b.mapped);
    }
    fflush(stdout);
  }
}
