// Matrix products of the MLP on panels of PW samples, for three kinds of arithmetic:
//   F32   fp32 multiply-add, any CPU. With ROUND, activations and weights are rounded to bf16 first: the numbers of the
//         16-bit kernels on CPUs that lack their instructions.
//   Dot   bf16 pairs by AVX512-BF16.      Amx   bf16 tiles by AMX.      (mlp_kernels_bf16.h)
// A panel of C channels is held in two layouts. `words` serves the product with weights: fp32 [C][PW], or for 16 bits
// the pairs of neighbouring channels [C/2][PW][2]. `rows` serves weight gradients, which sum over samples: fp32 [C][PW]
// (the same memory), or bf16 [C][PW]. A product takes a group of up to GROUP panels.
#pragma once
#include "../cpu/lanes.h"
#include "../maths.h"

namespace radfield {

constexpr int PW = 2 * W;
constexpr int ROWS = W == 16 || W == 4 ? 8 : 4;  // accumulators ROWS x 2 fit the registers (AVX2 has 16)

// Two vectors: one channel of a panel.
struct Channel {
  vf low, high;
};
RADFIELD_SIMD Channel load_channel(const float* p) { return {load(p), load(p + W)}; }
RADFIELD_SIMD void store_channel(float* p, Channel c) { store(p, c.low), store(p + W, c.high); }

RADFIELD_SIMD vf round_bf16(vf x) { return (vf)(bf16_bits(x) << 16); }

// Adds the lane sums of N x K accumulators into dw[i * stride + j], i < n, j < k.
template <int N, int K>
RADFIELD_SIMD void add_sums(float* dw, int64_t stride, const vf (&acc)[N][K], int n, int k) {
  static_assert(N * K % W == 0);
  alignas(64) float sums[N * K];
  for (int first = 0; first < N * K; first += W) {
    vf v[W];
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) v[i] = acc[(first + i) / K][(first + i) % K];
    store(sums + first, lane_sums<W>(v));
  }
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < k; ++j) dw[i * stride + j] += sums[i * K + j];
}

template <bool ROUND>
struct Fp32 {
  typedef float Word;
  typedef float Row;
  static constexpr int PAD = 8;       // channel counts are multiples of it
  static constexpr int PER_WORD = 1;  // channels in a word
  static constexpr bool SHARED = true;  // words and rows are the same memory

  static float weight_word(float a, float) { return ROUND ? to_float(to_bf16(a)) : a; }

  // Channels 2 pair and 2 pair + 1.
  static RADFIELD_SIMD void put(float* words, float*, int pair, Channel a, Channel b) {
    if (ROUND) a = {round_bf16(a.low), round_bf16(a.high)}, b = {round_bf16(b.low), round_bf16(b.high)};
    store_channel(words + 2 * pair * PW, a);
    store_channel(words + (2 * pair + 1) * PW, b);
  }
  // g where that channel is positive, else 0.
  static RADFIELD_SIMD Channel keep_positive(Channel g, const float* rows, int channel) {
    const Channel x = load_channel(rows + channel * PW);
    return {select(x.low > 0.0f, g.low, vf{}), select(x.high > 0.0f, g.high, vf{})};
  }

  static constexpr int GROUP = 1;
  static constexpr int ROW_BLOCK = ROWS;  // rows of a product come in multiples of it
  static int packed_rows() { return ROWS; }

  // epilogue(p, o, row o, row o + 1) for `rows` rows of bias + weights x, for each of `panels` panels p that lie x_step
  // apart; weights are packed [rows / packed_rows][inputs][packed_rows].
  template <class Epilogue>
  static RADFIELD_SIMD void product(const float* weights, const float* bias, const float* x, int64_t x_step, int panels,
                                    int rows, int inputs, Epilogue epilogue) {
    for (int p = 0; p < panels; ++p) {
      const float* w = weights;
      for (int o = 0; o < rows; o += ROWS, w += (int64_t)inputs * ROWS) {
        vf acc[ROWS][2];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) acc[r][0] = acc[r][1] = splat(bias ? bias[o + r] : 0.0f);
        multiply_add(acc, w, x + p * x_step, inputs);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r += 2)
          epilogue(p, o + r, Channel{acc[r][0], acc[r][1]}, Channel{acc[r + 1][0], acc[r + 1][1]});
      }
    }
  }
  static RADFIELD_SIMD void multiply_add(vf (&acc)[ROWS][2], const float* weights, const float* x, int inputs) {
    for (int k = 0; k < inputs; ++k) {
      const vf low = load(x + k * PW), high = load(x + k * PW + W);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) {
        const vf w = splat(weights[k * ROWS + r]);
        acc[r][0] = fma(w, low, acc[r][0]), acc[r][1] = fma(w, high, acc[r][1]);
      }
    }
  }

  // dw [outputs][stride] += sum over samples of g x, over `panels` panels that lie g_step and x_step apart.
  static void weight_gradient(float* dw, int64_t stride, const float* g, const float* x, int outputs, int inputs,
                              int panels, int64_t g_step, int64_t x_step) {
    constexpr int N = W == 16 ? 8 : 4, K = W == 4 ? 4 : 2;  // accumulators N x K
    for (int o = 0; o < outputs; o += N)
      for (int i = 0; i < inputs; i += K) {
        vf acc[N][K] = {};
        for (int p = 0; p < panels; ++p)
          for (int v = 0; v < 2; ++v) {
            vf gs[N], xs[K];
#pragma GCC unroll 8
            for (int r = 0; r < N; ++r) gs[r] = load(g + p * g_step + (o + r) * PW + v * W);
#pragma GCC unroll 4
            for (int c = 0; c < K; ++c) xs[c] = load(x + p * x_step + (i + c) * PW + v * W);
#pragma GCC unroll 8
            for (int r = 0; r < N; ++r)
#pragma GCC unroll 4
              for (int c = 0; c < K; ++c) acc[r][c] = fma(gs[r], xs[c], acc[r][c]);
          }
        add_sums<N, K>(dw + o * stride + i, stride, acc, min_int(N, outputs - o), min_int(K, inputs - i));
      }
  }

  static int min_int(int a, int b) { return a < b ? a : b; }
  static void begin() {}
  static void end() {}
};

}  // namespace radfield
