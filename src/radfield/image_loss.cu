// A block is a tile of 16 x 16 pixels, a thread a pixel; channels one after another. The first kernel filters what the
// similarity needs and keeps its three derivatives; the second filters those into the gradient. Pixels outside the image
// count as 0, for the images and for the derivatives.
#include "image_loss.h"

#include "cuda/device.h"

namespace radfield {

constexpr int HALF = 5, TILE = 16, WIDE = TILE + 2 * HALF;

// FIELDS values of each pixel of a tile and of the window's half width around it, and their means along rows.
template <int FIELDS>
struct Filtered {
  float values[FIELDS][WIDE][WIDE];
  float along_rows[FIELDS][WIDE][TILE];
};

// load(row, column, values): the FIELDS values of a pixel of the image. Leaves the window's means around this thread's
// pixel in `means`.
template <int FIELDS, class Load>
RADFIELD_FN void filter(const ImageLoss& a, Filtered<FIELDS>& shared, float (&means)[FIELDS], Load load) {
  const int thread = threadIdx.y * TILE + threadIdx.x;
  __syncthreads();  // the channel before is done
  for (int i = thread; i < WIDE * WIDE; i += TILE * TILE) {
    const int64_t row = (int64_t)blockIdx.y * TILE + i / WIDE - HALF, column = (int64_t)blockIdx.x * TILE + i % WIDE - HALF;
    float values[FIELDS] = {};
    if (row >= 0 && column >= 0 && row < a.H && column < a.W) load(row, column, values);
    for (int f = 0; f < FIELDS; ++f) shared.values[f][i / WIDE][i % WIDE] = values[f];
  }
  __syncthreads();
  for (int i = thread; i < WIDE * TILE; i += TILE * TILE)
    for (int f = 0; f < FIELDS; ++f) {
      float sum = 0.0f;
      for (int k = 0; k <= 2 * HALF; ++k) sum = fma(a.window[k], shared.values[f][i / TILE][i % TILE + k], sum);
      shared.along_rows[f][i / TILE][i % TILE] = sum;
    }
  __syncthreads();
  for (int f = 0; f < FIELDS; ++f) {
    means[f] = 0.0f;
    for (int k = 0; k <= 2 * HALF; ++k)
      means[f] = fma(a.window[k], shared.along_rows[f][threadIdx.y + k][threadIdx.x], means[f]);
  }
}

// GRAD: also keeps the derivatives, [3][H][W][C].
template <bool GRAD>
__global__ void image_loss_similarity(const ImageLoss a, float* derivatives) {
  SHARED_ARRAY(Filtered<4>, shared, [1]);
  const int64_t row = (int64_t)blockIdx.y * TILE + threadIdx.y, column = (int64_t)blockIdx.x * TILE + threadIdx.x;
  const bool inside = row < a.H && column < a.W;
  float absolute = 0.0f, similar = 0.0f;
  for (int64_t c = 0; c < a.C; ++c) {
    float mean[4];
    filter(a, shared[0], mean, [&](int64_t r, int64_t col, float (&values)[4]) {
      const float x = a.image[(r * a.W + col) * a.C + c], y = a.target[(r * a.W + col) * a.C + c];
      values[0] = x, values[1] = y, values[2] = fma(x, x, y * y), values[3] = x * y;
    });
    if (!inside) continue;
    const int64_t at = (row * a.W + column) * a.C + c, all = a.H * a.W * a.C;
    const Similarity<float> found = similarity(mean[0], mean[1], mean[2], mean[3]);
    absolute = absolute + abs(a.image[at] - a.target[at]), similar = similar + found.s;
    if (GRAD) derivatives[at] = found.p, derivatives[all + at] = found.q, derivatives[2 * all + at] = found.r;
  }
  absolute = block_sum(absolute), similar = block_sum(similar);
  const int64_t t = (int64_t)blockIdx.y * gridDim.x + blockIdx.x;
  if (threadIdx.x == 0 && threadIdx.y == 0) a.sums[2 * t] = absolute, a.sums[2 * t + 1] = similar;
}

__global__ void image_loss_gradient(const ImageLoss a, const float* derivatives) {
  SHARED_ARRAY(Filtered<3>, shared, [1]);
  const int64_t row = (int64_t)blockIdx.y * TILE + threadIdx.y, column = (int64_t)blockIdx.x * TILE + threadIdx.x;
  const int64_t all = a.H * a.W * a.C;
  const float per_value = 1.0f / (float)all;
  const float l1 = (1.0f - (float)a.ssim_weight) * per_value, ssim = -(float)a.ssim_weight * per_value;
  for (int64_t c = 0; c < a.C; ++c) {
    float mean[3];
    filter(a, shared[0], mean, [&](int64_t r, int64_t col, float (&values)[3]) {
      for (int f = 0; f < 3; ++f) values[f] = derivatives[f * all + (r * a.W + col) * a.C + c];
    });
    if (row >= a.H || column >= a.W) continue;
    const int64_t at = (row * a.W + column) * a.C + c;
    const float x = a.image[at], y = a.target[at];
    const float similar = fma(x + x, mean[0], fma(y, mean[1], mean[2]));
    const float sign = x > y ? l1 : x < y ? -l1 : 0.0f;
    a.grad[at] = fma(similar, ssim, sign);
  }
}

}  // namespace radfield
