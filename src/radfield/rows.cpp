// Few columns: number by number, a block of rows at a time, which stays in the first cache.
#include "rows.h"

#include "cpu/parallel.h"
#include "cpu/rows.h"

using namespace radfield;

namespace {
constexpr int64_t ROWS = 1024;  // per task
}

RADFIELD_OP(rows_take, RowsTake) {
  parallel_blocks(a.M, ROWS, [&](int64_t begin, int64_t end) {
    for (int64_t c = 0; c < a.C; ++c) {
      float* out = a.streams + c * a.M;
      const float* in = a.values + c;
      if (a.rows)
        for (int64_t i = begin; i < end; ++i) out[i] = in[a.rows[i] * a.C];
      else
        for (int64_t i = begin; i < end; ++i) out[i] = in[i * a.C];
    }
  });
}

RADFIELD_OP(rows_put, RowsPut) {
  parallel_blocks(a.M, ROWS, [&](int64_t begin, int64_t end) {
    for (int64_t c = 0; c < a.C; ++c) {
      const float* in = a.streams + c * a.M;
      float* out = a.values + c;
      if (a.rows)
        for (int64_t i = begin; i < end; ++i) out[a.rows[i] * a.C] = in[i];
      else
        for (int64_t i = begin; i < end; ++i) out[i * a.C] = in[i];
    }
    clear_between({a.rows, begin, (int)(end - begin)}, a.M, a.N, [&](int64_t first, int64_t last) {
      memset(a.values + first * a.C, 0, 4 * (size_t)((last - first) * a.C));
    });
  });
}
