// Colours of Gaussians whose means and coefficients lie Gaussian by Gaussian (gaussian_color_rows.py).
#pragma once
#include "gaussian_color.h"

namespace radfield {

struct GaussianColorRowsForward {
  float* colors;
  const float* means;
  const float* coefficients;
  const int64_t* rows;
  const float* radius;
  const float* position;
  int64_t degree;
  int64_t G, N, S;
};
struct GaussianColorRowsBackward {
  float* grad_means;
  float* grad_coefficients;
  const float* grad_colors;
  const float* colors;
  const float* means;
  const float* coefficients;
  const int64_t* rows;
  const float* radius;
  const float* position;
  int64_t degree;
  int64_t N, S, G;
};

}  // namespace radfield
