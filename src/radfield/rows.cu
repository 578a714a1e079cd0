// A thread is a row: its numbers are read from lines that its neighbours read too, and written beside theirs.
#include "rows.h"

#include "cuda/device.h"

namespace radfield {

__global__ void rows_take(const RowsTake a) {
  const int64_t i = thread_number();
  if (i >= a.M) return;
  const float* const in = a.values + (a.rows ? a.rows[i] : i) * a.C;
  for (int64_t c = 0; c < a.C; ++c) a.streams[c * a.M + i] = in[c];
}

// Where rows are named: what they do not name.
__global__ void rows_clear(const RowsPut a) { clear_numbers(a.values, a.N * a.C); }

__global__ void rows_put(const RowsPut a) {
  const int64_t i = thread_number();
  if (i >= a.M) return;
  float* const out = a.values + (a.rows ? a.rows[i] : i) * a.C;
  for (int64_t c = 0; c < a.C; ++c) out[c] = a.streams[c * a.M + i];
}

}  // namespace radfield
