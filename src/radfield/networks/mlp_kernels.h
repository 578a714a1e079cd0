// Matrix products of the MLP on panels of PW samples, for four kinds of arithmetic:
//   F32   fp32 multiply-add, any CPU. With ROUND, activations and weights are rounded to bf16 first: the numbers of the
//         16-bit kernels on CPUs that lack their instructions.
//   Dot   bf16 pairs by AVX512-BF16.      Amx   bf16 tiles by AMX.      (mlp_kernels_bf16.h)
//   Split fp32 operands as three bf16 each, tiles by AMX.          (mlp_kernels_split.h)
// A panel of C channels is held in two layouts. `words` serves the product with weights: fp32 [C][PW], or for 16 bits
// the pairs of neighbouring channels [C/2][PW][2]. `rows` serves weight gradients, which sum over samples: fp32 [C][PW]
// (the same memory), or bf16 [C][PW]. A product takes a group of up to GROUP panels.
#pragma once
#include "../cpu/lanes.h"
#include "../maths.h"

namespace radfield {

constexpr int PW = 2 * W;
constexpr int TURNED_PANELS = 4;  // of weight gradients, turned at a time
constexpr int ROWS = W == 16 || W == 4 ? 8 : 4;  // accumulators ROWS x 2 fit the registers (AVX2 has 16)

// Two vectors: one channel of a panel.
struct Channel {
  vf low, high;
};
RADFIELD_SIMD Channel load_channel(const float* p) { return {load(p), load(p + W)}; }
RADFIELD_SIMD void store_channel(float* p, Channel c) { store(p, c.low), store(p + W, c.high); }

RADFIELD_SIMD vf round_bf16(vf x) { return (vf)(bf16_bits(x) << 16); }

template <bool ROUND>
struct Fp32 {
  typedef float Word;
  typedef float Row;
  static constexpr int PAD = 8;       // channel counts are multiples of it
  static constexpr int PER_WORD = 1;  // channels in a word
  static constexpr bool SHARED = true;  // words and rows are the same memory
  static constexpr bool SPLIT = false;  // operands are one number, not three

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

  // dw [outputs][stride] += sum over samples of g x, over `panels` panels that lie g_step and x_step apart; `scratch` has
  // [panels][PW][PW]. The side of fewer channels is turned, so that sums over samples run along no vector's lanes.
  static void weight_gradient(float* dw, int64_t stride, const float* g, const float* x, int outputs, int inputs,
                              int panels, int64_t g_step, int64_t x_step, float* scratch) {
    if (outputs < inputs) sums_of_products<true>(dw, stride, x, g, inputs, outputs, panels, x_step, g_step, scratch);
    else sums_of_products<false>(dw, stride, g, x, outputs, inputs, panels, g_step, x_step, scratch);
  }
  // sum over samples of a[i] b[j] for i < rows, j < columns, in tiles of R x 2 vectors. TURNED: dw is [j][i]. A few panels
  // at a time, so that their turned side stays in the first-level cache while all tiles pass over it.
  template <bool TURNED>
  static void sums_of_products(float* dw, int64_t stride, const float* a, const float* b, int rows, int columns,
                               int panels, int64_t a_step, int64_t b_step, float* scratch) {
    constexpr int R = W == 8 ? 4 : 8;
    float* const sums = scratch + TURNED_PANELS * PW * PW;  // [rows / R][R][2 W]
    for (int j = 0; j < columns; j += 2 * W) {
      const int n = min_int(2 * W, columns - j);
      for (int first = 0; first < panels; first += TURNED_PANELS) {
        const int count = min_int(TURNED_PANELS, panels - first);
        for (int p = 0; p < count; ++p) turn(scratch + p * PW * PW, b + (first + p) * b_step + j * PW, n);
        for (int i = 0; i < rows; i += R) {
          vf acc[R][2] = {};
          if (first) load_tile(acc, sums + i * 2 * W);
          for (int p = 0; p < count; ++p) multiply_turned(acc, a + (first + p) * a_step + i * PW, scratch + p * PW * PW);
          if (first + count < panels) store_tile(sums + i * 2 * W, acc);
          else add_tile<TURNED>(dw, stride, acc, i, j, min_int(R, rows - i), n);
        }
      }
    }
  }
  template <int R>
  static RADFIELD_SIMD void load_tile(vf (&acc)[R][2], const float* from) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[r][0] = load(from + 2 * r * W), acc[r][1] = load(from + (2 * r + 1) * W);
  }
  template <int R>
  static RADFIELD_SIMD void store_tile(float* to, const vf (&acc)[R][2]) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) store(to + 2 * r * W, acc[r][0]), store(to + (2 * r + 1) * W, acc[r][1]);
  }
  // acc[r] += sum over a panel's samples of a[r] times all columns of the turned side.
  template <int R>
  static RADFIELD_SIMD void multiply_turned(vf (&acc)[R][2], const float* a, const float* turned) {
    for (int k = 0; k < PW; ++k) {
      const vf low = load(turned + k * PW), high = load(turned + k * PW + W);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const vf w = splat(a[r * PW + k]);
        acc[r][0] = fma(w, low, acc[r][0]), acc[r][1] = fma(w, high, acc[r][1]);
      }
    }
  }
  // n channels of a panel, 2 W at most, to [PW samples][2 W channels]; missing channels are 0.
  static void turn(float* to, const float* from, int n) {
    for (int c = 0; c < 2 * W; c += W)
      for (int v = 0; v < 2; ++v) {
        vi block[W];
        for (int k = 0; k < W; ++k) block[k] = c + k < n ? (vi)load(from + (c + k) * PW + v * W) : vi{};
        transpose(block);
        for (int k = 0; k < W; ++k) store(to + (v * W + k) * PW + c, (vf)block[k]);
      }
  }
  template <bool TURNED, int R>
  static RADFIELD_SIMD void add_tile(float* dw, int64_t stride, const vf (&acc)[R][2], int i, int j, int m, int n) {
    alignas(64) float tile[R][2 * W];
    for (int r = 0; r < R; ++r) store_channel(tile[r], {acc[r][0], acc[r][1]});
    for (int r = 0; r < m; ++r)
      for (int c = 0; c < n; ++c) dw[TURNED ? (j + c) * stride + i + r : (i + r) * stride + j + c] += tile[r][c];
  }

  static int min_int(int a, int b) { return a < b ? a : b; }
  static void begin() {}
  static void end() {}
};

}  // namespace radfield
