// The best exchange of four cells (plas.py has the algorithm and the letters): all orders of four, and their choice.
#pragma once
#include "../maths.h"

namespace radfield {

struct PlasExchange {
  float* gain;
  int32_t* order;
  float* cells;
  const float* target;
  const int32_t* groups;
  int64_t Q, G, K;
};

// Cell i of a group goes to place [p][i]; 0 leaves all where they are.
constexpr int PLAS_ORDERS = 24;
constexpr int8_t plas_places[PLAS_ORDERS][4] = {
    {0, 1, 2, 3}, {0, 1, 3, 2}, {0, 2, 1, 3}, {0, 2, 3, 1}, {0, 3, 1, 2}, {0, 3, 2, 1}, {1, 0, 2, 3}, {1, 0, 3, 2},
    {1, 2, 0, 3}, {1, 2, 3, 0}, {1, 3, 0, 2}, {1, 3, 2, 0}, {2, 0, 1, 3}, {2, 0, 3, 1}, {2, 1, 0, 3}, {2, 1, 3, 0},
    {2, 3, 0, 1}, {2, 3, 1, 0}, {3, 0, 1, 2}, {3, 0, 2, 1}, {3, 1, 0, 2}, {3, 1, 2, 0}, {3, 2, 0, 1}, {3, 2, 1, 0}};

// The order with the largest sum of dots[i][place of i], the first of equals; the sum is what it gains over order 0.
template <class F>
RADFIELD_FN int plas_best(const F (&dots)[4][4], F& gain) {
  int best = 0;
  const F before = (dots[0][0] + dots[1][1]) + (dots[2][2] + dots[3][3]);
  F most = before;
  for (int p = 1; p < PLAS_ORDERS; ++p) {
    const int8_t* place = plas_places[p];
    const F sum = (dots[0][place[0]] + dots[1][place[1]]) + (dots[2][place[2]] + dots[3][place[3]]);
    if (sum > most) most = sum, best = p;
  }
  gain = most - before;
  return best;
}

}  // namespace radfield
