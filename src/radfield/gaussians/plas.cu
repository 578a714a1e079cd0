// A team of 16 lanes serves a group: lane 4 i + j has the dot product of cell i and target j, the first lane chooses,
// and all move the rows, each lane its own columns.
#include "plas.h"

#include "../cuda/device.h"

namespace radfield {

constexpr int PLAS_TEAM = 16, PLAS_TEAMS = 8;

// What moves is copied through registers.
RADFIELD_FN void exchange(const PlasExchange& a, const int32_t* group, const int8_t* place, int lane) {
  for (int64_t k = lane; k < a.K; k += PLAS_TEAM) {
    float held[4];
    for (int i = 0; i < 4; ++i) held[i] = a.cells[group[i] * a.K + k];
    for (int i = 0; i < 4; ++i) a.cells[group[place[i]] * a.K + k] = held[i];
  }
  if (lane) return;
  int32_t numbers[4];
  for (int i = 0; i < 4; ++i) numbers[i] = a.order[group[i]];
  for (int i = 0; i < 4; ++i) a.order[group[place[i]]] = numbers[i];
}

__global__ void plas_exchange(const PlasExchange a) {
  SHARED_ARRAY(float, dots, [PLAS_TEAMS][4][4]);
  SHARED_ARRAY(int, best, [PLAS_TEAMS]);
  const int team = (int)threadIdx.x / PLAS_TEAM, lane = (int)threadIdx.x % PLAS_TEAM, i = lane / 4, j = lane % 4;
  const int64_t q = (int64_t)blockIdx.x * PLAS_TEAMS + team;
  const bool inside = q < a.Q;
  const int32_t* const group = a.groups + 4 * (inside ? q : 0);
  if (inside) {
    const float *const cell = a.cells + group[i] * a.K, *const target = a.target + group[j] * a.K;
    float sum = 0.0f, x[4], y[4];
    for (int64_t k = 0; k < a.K; k += 4) {
      read_vector(x, cell + k), read_vector(y, target + k);
      for (int n = 0; n < 4; ++n) sum = fma(x[n], y[n], sum);
    }
    dots[team][i][j] = sum;
  }
  __syncthreads();
  if (inside && lane == 0) {
    float gain;
    best[team] = plas_best(dots[team], gain);
    a.gain[q] = 2.0f * gain;
  }
  __syncthreads();
  if (inside && best[team]) exchange(a, group, plas_places[best[team]], lane);
}

}  // namespace radfield
