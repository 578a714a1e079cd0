// Few columns: number by number, a block of rows at a time, which stays in the first cache; three of them, as colours
// have, W rows at a time.
#include "rows.h"

#include "cpu/parallel.h"
#include "cpu/rows.h"

using namespace radfield;

namespace {
constexpr int64_t ROWS = 1024;  // per task

void take_three(const RowsTake& a, int64_t begin, int64_t end) {
  for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
    vf columns[3];
    load_columns(a.values, {a.rows, i, n}, columns);
    for (int c = 0; c < 3; ++c) store_n(a.streams + c * a.M + i, columns[c], n);
  });
}

void put_three(const RowsPut& a, int64_t begin, int64_t end) {
  for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
    vf columns[3];
    for (int c = 0; c < 3; ++c) columns[c] = load_n(a.streams + c * a.M + i, n);
    store_columns(a.values, {a.rows, i, n}, vi{} - 1, columns);
  });
}

void take(const RowsTake& a, int64_t begin, int64_t end) {
  for (int64_t c = 0; c < a.C; ++c) {
    float* out = a.streams + c * a.M;
    const float* in = a.values + c;
    if (a.rows)
      for (int64_t i = begin; i < end; ++i) out[i] = in[a.rows[i] * a.C];
    else
      for (int64_t i = begin; i < end; ++i) out[i] = in[i * a.C];
  }
}

void put(const RowsPut& a, int64_t begin, int64_t end) {
  for (int64_t c = 0; c < a.C; ++c) {
    const float* in = a.streams + c * a.M;
    float* out = a.values + c;
    if (a.rows)
      for (int64_t i = begin; i < end; ++i) out[a.rows[i] * a.C] = in[i];
    else
      for (int64_t i = begin; i < end; ++i) out[i * a.C] = in[i];
  }
}

}  // namespace

RADFIELD_OP(rows_take, RowsTake) {
  parallel_blocks(a.M, ROWS, [&](int64_t begin, int64_t end) { (a.C == 3 ? take_three : take)(a, begin, end); });
}

RADFIELD_OP(rows_put, RowsPut) {
  parallel_blocks(a.M, ROWS, [&](int64_t begin, int64_t end) {
    (a.C == 3 ? put_three : put)(a, begin, end);
    clear_between({a.rows, begin, (int)(end - begin)}, a.M, a.N, [&](int64_t first, int64_t last) {
      memset(a.values + first * a.C, 0, 4 * (size_t)((last - first) * a.C));
    });
  });
}

RADFIELD_OP(columns_take, ColumnsTake) {
  parallel_blocks(a.M, ROWS, [&](int64_t begin, int64_t end) {
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES {
      const RowsOf row = {a.rows, i, n};
      const bool adjacent = row.adjacent();
      for (int64_t c = 0; c < a.C; ++c) {
        const float* in = a.values + c * a.N;
        float* out = a.taken + c * a.M + i;
        if (adjacent) store(out, load(in + row[0]));
        else for (int lane = 0; lane < n; ++lane) out[lane] = in[row[lane]];
      }
    });
  });
}

// On one thread: little more than a pass over one stream.
RADFIELD_OP(rows_above_zero, RowsAboveZero) {
  int64_t count = 0;
  for_lanes(0, a.N, [&](int64_t i, int n) RADFIELD_LANES {
    alignas(64) int32_t found[W];
    const int some = (int)append_lanes(found, 0, mask_bits(load_n(a.values + i, n) > 0.0f));
    for (int k = 0; k < some; ++k) a.rows[count + k] = i + found[k];
    count += some;
  });
  *a.count = count;
}
