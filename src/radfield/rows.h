// Values that lie row by row, as streams, and back (rows.py).
#pragma once
#include "maths.h"

namespace radfield {

struct RowsTake {
  float* streams;
  const float* values;
  const int64_t* rows;
  int64_t C, M, N;
};
struct RowsPut {
  float* values;
  const float* streams;
  const int64_t* rows;
  int64_t N, C, M;
};
struct RowsAboveZero {
  int64_t* rows;
  int64_t* count;
  const float* values;
  int64_t N;
};
struct ColumnsTake {
  float* taken;
  const float* values;
  const int64_t* rows;
  int64_t C, M, N;
};

}  // namespace radfield
