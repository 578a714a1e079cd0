// The products of the MLP in 16 bits: see mlp_kernels.h. Included by files that are compiled for AVX512-BF16.
#pragma once
#include "mlp_kernels_amx.h"

namespace radfield {

// Words and rows of 16 bits, shared by Dot and Amx.
struct Bf16Panels {
  typedef uint32_t Word;
  typedef uint16_t Row;
  static constexpr int PER_WORD = 2;
  static constexpr bool SHARED = false, SPLIT = false;

  static uint32_t weight_word(float a, float b) { return to_bf16(a).bits | (uint32_t)to_bf16(b).bits << 16; }

  static RADFIELD_SIMD void put(uint32_t* words, uint16_t* rows, int pair, Channel a, Channel b) {
    put_rows(words, rows, pair, (__m512i)_mm512_cvtne2ps_pbh((__m512)a.high, (__m512)a.low),
             (__m512i)_mm512_cvtne2ps_pbh((__m512)b.high, (__m512)b.low));
  }
  // The same of two whole channels that are bf16 already.
  static RADFIELD_SIMD void put(uint32_t* words, uint16_t* rows, int pair, const bf16* a, const bf16* b) {
    put_rows(words, rows, pair, _mm512_loadu_si512(a), _mm512_loadu_si512(b));
  }
  static RADFIELD_SIMD void put_rows(uint32_t* words, uint16_t* rows, int pair, __m512i a, __m512i b) {
    const __m512i low = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), high = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    const __m512i first = _mm512_unpacklo_epi16(a, b), second = _mm512_unpackhi_epi16(a, b);  // within quarters
    _mm512_storeu_si512(words + pair * PW, _mm512_permutex2var_epi64(first, low, second));
    _mm512_storeu_si512(words + pair * PW + W, _mm512_permutex2var_epi64(first, high, second));
    if (rows) _mm512_storeu_si512(rows + 2 * pair * PW, a), _mm512_storeu_si512(rows + (2 * pair + 1) * PW, b);
  }
  // g where that channel is positive, else 0.
  static RADFIELD_SIMD Channel keep_positive(Channel g, const uint16_t* rows, int channel) {
    const __mmask32 positive = _mm512_cmpgt_epi16_mask(_mm512_loadu_si512(rows + channel * PW), _mm512_setzero_si512());
    return {(vf)_mm512_maskz_mov_ps((__mmask16)positive, (__m512)g.low),
            (vf)_mm512_maskz_mov_ps((__mmask16)(positive >> 16), (__m512)g.high)};
  }
};

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

struct Dot : Bf16Panels {
  static constexpr int PAD = 8;
  static constexpr int GROUP = 1;
  static constexpr int ROW_BLOCK = ROWS;
  static int packed_rows() { return ROWS; }
  static void begin() {}
  static void end() {}

  // As Fp32's, with pairs of inputs for inputs.
  template <class Epilogue>
  static RADFIELD_SIMD void product(const uint32_t* weights, const float* bias, const uint32_t* x, int64_t x_step,
                                    int panels, int rows, int inputs, Epilogue epilogue) {
    for (int p = 0; p < panels; ++p) {
      const uint32_t* w = weights;
      for (int o = 0; o < rows; o += ROWS, w += (int64_t)inputs / 2 * ROWS) {
        __m512 acc[ROWS][2];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) acc[r][0] = acc[r][1] = _mm512_set1_ps(bias ? bias[o + r] : 0.0f);
        multiply_add(acc, w, x + p * x_step, inputs / 2);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r += 2)
          epilogue(p, o + r, Channel{(vf)acc[r][0], (vf)acc[r][1]}, Channel{(vf)acc[r + 1][0], (vf)acc[r + 1][1]});
      }
    }
  }
  static RADFIELD_SIMD void multiply_add(__m512 (&acc)[ROWS][2], const uint32_t* weights, const uint32_t* x, int words) {
    for (int k = 0; k < words; ++k) {
      const __m512bh low = (__m512bh)_mm512_loadu_si512(x + k * PW), high = (__m512bh)_mm512_loadu_si512(x + k * PW + W);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) {
        const __m512bh w = (__m512bh)_mm512_set1_epi32((int)weights[k * ROWS + r]);
        acc[r][0] = _mm512_dpbf16_ps(acc[r][0], w, low), acc[r][1] = _mm512_dpbf16_ps(acc[r][1], w, high);
      }
    }
  }

  static void weight_gradient(float* dw, int64_t stride, const uint16_t* g, const uint16_t* x, int outputs,
                                            int inputs, int panels, int64_t g_step, int64_t x_step, float*) {
    constexpr int N = 4, K = 4;
    for (int o = 0; o < outputs; o += N)
      for (int i = 0; i < inputs; i += K) {
        __m512 acc[N][K];
        for (int r = 0; r < N; ++r)
          for (int c = 0; c < K; ++c) acc[r][c] = _mm512_setzero_ps();
        for (int p = 0; p < panels; ++p) {
          __m512bh gs[N], xs[K];
#pragma GCC unroll 4
          for (int r = 0; r < N; ++r) gs[r] = (__m512bh)_mm512_loadu_si512(g + p * g_step + (o + r) * PW);
#pragma GCC unroll 4
          for (int c = 0; c < K; ++c) xs[c] = (__m512bh)_mm512_loadu_si512(x + p * x_step + (i + c) * PW);
#pragma GCC unroll 4
          for (int r = 0; r < N; ++r)
#pragma GCC unroll 4
            for (int c = 0; c < K; ++c) acc[r][c] = _mm512_dpbf16_ps(acc[r][c], gs[r], xs[c]);
        }
        vf sums[N][K];
        for (int r = 0; r < N; ++r)
          for (int c = 0; c < K; ++c) sums[r][c] = (vf)acc[r][c];
        add_sums<N, K>(dw + o * stride + i, stride, sums, N < outputs - o ? N : outputs - o, K < inputs - i ? K : inputs - i);
      }
  }
};

// Tiles of 16 rows of 64 bytes: weights [16 outputs][16 pairs] times words [16 pairs][16 samples].
struct Amx : Bf16Panels {
  static constexpr int PAD = 32;
  static constexpr int MOST_PANELS = 16;  // turned at a time
  static constexpr int ROW_BLOCK = 16;
  // A tile is loaded from words that were stored a moment ago, and results are read that a tile has just stored; neither
  // is forwarded, so that one panel by itself waits at every layer.
  static constexpr int GROUP = 2;
  static int packed_rows() { return 1; }
  static void begin() { amx::configure(); }
  static void end() { amx::release(); }

  // As Fp32's. Results go through memory, as tiles can only be stored: up to 64 rows of every panel of the group.
  template <class Epilogue>
  static RADFIELD_SIMD void product(const uint32_t* weights, const float* bias, const uint32_t* x, int64_t x_step,
                                    int panels, int rows, int inputs, Epilogue epilogue) {
    alignas(64) float results[GROUP][32 * PW];
    const int words = inputs / 2;
    for (int first = 0; first < rows; first += 32) {
      const int here = rows - first < 32 ? rows - first : 32;
      for (int p = 0; p < panels; ++p)
        for (int o = 0; o < here; o += 32) {
          const uint32_t* w = weights + (int64_t)(first + o) * words;
          here - o > 16 ? multiply<2>(results[p] + o * PW, w, x + p * x_step, words)
                        : multiply<1>(results[p] + o * PW, w, x + p * x_step, words);
        }
      for (int p = 0; p < panels; ++p)
        for (int r = 0; r < here; r += 2) {
          Channel a = load_channel(results[p] + r * PW), b = load_channel(results[p] + (r + 1) * PW);
          if (bias) {
            const float* at = bias + first + r;
            a = {a.low + at[0], a.high + at[0]}, b = {b.low + at[1], b.high + at[1]};
          }
          epilogue(p, first + r, a, b);
        }
    }
  }
  // out [16 N][PW] = 16 N rows of weights times x [words][PW].
  template <int N>
  static RADFIELD_SIMD void multiply(float* out, const uint32_t* weights, const uint32_t* x, int words) {
    amx::zero<0>(), amx::zero<1>();
    if constexpr (N == 2) amx::zero<2>(), amx::zero<3>();
    for (int k = 0; k < words; k += 16) {
      amx::load<6>(x + k * PW, 4 * PW), amx::load<7>(x + k * PW + W, 4 * PW), amx::load<4>(weights + k, 4 * words);
      amx::dot<0, 4, 6>(), amx::dot<1, 4, 7>();
      if constexpr (N == 2)
        amx::load<5>(weights + (int64_t)16 * words + k, 4 * words), amx::dot<2, 5, 6>(), amx::dot<3, 5, 7>();
    }
    amx::store<0>(out, 4 * PW), amx::store<1>(out + W, 4 * PW);
    if constexpr (N == 2) amx::store<2>(out + 16 * PW, 4 * PW), amx::store<3>(out + 16 * PW + W, 4 * PW);
  }

  // Rows of one side times those of the other, turned to [16 pairs of samples][16 channels]. The side that has fewer
  // blocks of 16 channels is turned.
  static void weight_gradient(float* dw, int64_t stride, const uint16_t* g, const uint16_t* x, int outputs, int inputs,
                              int panels, int64_t g_step, int64_t x_step, float*) {
    if (outputs < inputs) sums_of_products(dw, 1, stride, x, g, inputs, outputs, panels, x_step, g_step);
    else sums_of_products(dw, stride, 1, g, x, outputs, inputs, panels, g_step, x_step);
  }
  // dw[i down + j across] += sum over samples of a[i] b[j], i < rows, j < columns, where b is turned.
  static void sums_of_products(float* dw, int64_t down, int64_t across, const uint16_t* a, const uint16_t* b, int rows,
                               int columns, int panels, int64_t a_step, int64_t b_step) {
    alignas(64) uint32_t turned[2][MOST_PANELS][16 * 16];
    alignas(64) float sums[4][16 * 16];
    for (int j = 0; j < columns; j += 32)
      for (int first = 0; first < panels; first += MOST_PANELS) {
        const int count = panels - first < MOST_PANELS ? panels - first : MOST_PANELS;
        const bool wide = columns - j > 16;
        for (int p = 0; p < count; ++p)
          for (int k = 0; k <= wide; ++k)
            transpose_16x16(turned[k][p], (const uint32_t*)(b + (first + p) * b_step + (j + 16 * k) * PW));
        for (int i = 0; i < rows; i += 32) {
          const bool tall = rows - i > 16;
          amx::zero<0>(), amx::zero<1>(), amx::zero<2>(), amx::zero<3>();
          for (int p = 0; p < count; ++p) {
            const uint16_t* at = a + (first + p) * a_step + i * PW;
            amx::load<4>(at, 2 * PW), amx::load<6>(turned[0][p], 64);
            amx::dot<0, 4, 6>();
            if (wide) amx::load<7>(turned[1][p], 64), amx::dot<1, 4, 7>();
            if (tall) amx::load<5>(at + 16 * PW, 2 * PW), amx::dot<2, 5, 6>();
            if (tall && wide) amx::dot<3, 5, 7>();
          }
          amx::store<0>(sums[0], 64), amx::store<1>(sums[1], 64), amx::store<2>(sums[2], 64), amx::store<3>(sums[3], 64);
          for (int k = 0; k < 4; ++k)
            if ((k < 2 || tall) && (k % 2 == 0 || wide))
              add_tile(dw, down, across, sums[k], i + 16 * (k / 2), j + 16 * (k % 2), rows, columns);
        }
      }
  }
};

}  // namespace radfield
