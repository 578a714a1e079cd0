#include "plas.h"

#include "../cpu/parallel.h"

using namespace radfield;

namespace {

constexpr int64_t BLOCK = 256;  // groups per task

RADFIELD_SIMD float dot(const float* a, const float* b, int64_t K) {
  vf total = load(a) * load(b);
  for (int64_t k = W; k < K; k += W) total = fma(load(a + k), load(b + k), total);
  return sum(total);
}

// What moves is copied through `held`, four rows.
void exchange(const PlasExchange& a, const int32_t* group, const int8_t* place, float* held) {
  int32_t numbers[4];
  for (int i = 0; i < 4; ++i) {
    memcpy(held + i * a.K, a.cells + group[i] * a.K, sizeof(float) * a.K);
    numbers[i] = a.order[group[i]];
  }
  for (int i = 0; i < 4; ++i) {
    const int64_t to = group[place[i]];
    memcpy(a.cells + to * a.K, held + i * a.K, sizeof(float) * a.K);
    a.order[to] = numbers[i];
  }
}

}  // namespace

RADFIELD_OP(plas_exchange, PlasExchange) {
  parallel_blocks(a.Q, BLOCK, [&](int64_t begin, int64_t end) {
    float* held = (float*)scratch(4 * sizeof(float) * a.K);
    for (int64_t q = begin; q < end; ++q) {
      const int32_t* group = a.groups + 4 * q;
      float dots[4][4], gain;
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) dots[i][j] = dot(a.cells + group[i] * a.K, a.target + group[j] * a.K, a.K);
      const int best = plas_best(dots, gain);
      a.gain[q] = 2.0f * gain;
      if (best) exchange(a, group, plas_places[best], held);
    }
  });
}
