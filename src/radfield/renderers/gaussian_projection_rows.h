// Projection of Gaussians whose parameters lie Gaussian by Gaussian (gaussian_projection_rows.py).
#pragma once
#include "gaussian_projection.h"

namespace radfield {

struct GaussianProjectRowsForward {
  float* mean2d;
  float* conic;
  float* depth;
  float* radius;
  float* opacity;
  const float* means;
  const float* quaternions;
  const float* scales;
  const float* opacities;
  const float* world_to_camera;
  double focal_x;
  double focal_y;
  double center_x;
  double center_y;
  int64_t width;
  int64_t height;
  double near;
  double far;
  int64_t antialiased;
  int64_t G;
};
struct GaussianProjectRowsBackward {
  float* grad_means;
  float* grad_quaternions;
  float* grad_scales;
  float* grad_opacities;
  float* grad_camera;
  const float* grad_mean2d;
  const float* grad_conic;
  const float* grad_depth;
  const float* grad_opacity;
  const float* radius;
  const int64_t* rows;
  const float* means;
  const float* quaternions;
  const float* scales;
  const float* opacities;
  const float* world_to_camera;
  double focal_x;
  double focal_y;
  double center_x;
  double center_y;
  int64_t width;
  int64_t height;
  double near;
  double far;
  int64_t antialiased;
  int64_t N, B, G;
};

}  // namespace radfield
