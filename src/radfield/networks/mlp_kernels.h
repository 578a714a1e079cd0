// Matrix products of the MLP on panels of PW samples, for three kinds of arithmetic:
//   F32   fp32 multiply-add, any CPU. With ROUND, activations and weights are rounded to bf16 first: the numbers of the
//         16-bit kernels on CPUs that lack their instructions.
//   Dot   bf16 pairs by AVX512-BF16.
//   Amx   bf16 tiles by AMX.
// A panel of C channels is held in two layouts. `words` serves the product with weights: fp32 [C][PW], or for 16 bits
// the pairs of neighbouring channels [C/2][PW][2]. `rows` serves weight gradients, which sum over samples: fp32 [C][PW]
// (the same memory), or bf16 [C][PW].
#pragma once
#include "../cpu/lanes.h"
#include "../maths.h"
#include "amx.h"

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
  static RADFIELD_SIMD Channel get(const float* rows, int channel) { return load_channel(rows + channel * PW); }

  static int panel_rows() { return ROWS; }

  // epilogue(o, row o, row o + 1) for the rows of bias + weights x; weights are packed [outputs / ROWS][inputs][ROWS].
  template <class Epilogue>
  static void product(const float* weights, const float* bias, const float* x, int outputs, int inputs,
                      Epilogue epilogue) {
    for (int o = 0; o < outputs; o += ROWS, weights += (int64_t)inputs * ROWS) {
      vf acc[ROWS][2];
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) acc[r][0] = acc[r][1] = vf{} + (bias ? bias[o + r] : 0.0f);
      for (int k = 0; k < inputs; ++k) {
        const vf low = load(x + k * PW), high = load(x + k * PW + W);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
          const vf w = vf{} + weights[k * ROWS + r];
          acc[r][0] = fma(w, low, acc[r][0]), acc[r][1] = fma(w, high, acc[r][1]);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r += 2) epilogue(o + r, Channel{acc[r][0], acc[r][1]}, Channel{acc[r + 1][0], acc[r + 1][1]});
    }
  }

  // dw [outputs][stride] += sum over samples of g x, over `panels` panels that lie g_step and x_step apart.
  static void weight_gradient(float* dw, int64_t stride, const float* g, const float* x, int outputs, int inputs,
                              int panels, int64_t g_step, int64_t x_step) {
    constexpr int N = 4, K = W == 8 ? 2 : 4;
    for (int o = 0; o < outputs; o += N)
      for (int i = 0; i < inputs; i += K) {
        vf acc[N][K] = {};
        for (int p = 0; p < panels; ++p)
          for (int v = 0; v < 2; ++v) {
            vf gs[N], xs[K];
#pragma GCC unroll 4
            for (int r = 0; r < N; ++r) gs[r] = load(g + p * g_step + (o + r) * PW + v * W);
#pragma GCC unroll 4
            for (int c = 0; c < K; ++c) xs[c] = load(x + p * x_step + (i + c) * PW + v * W);
#pragma GCC unroll 4
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

#if defined(RADFIELD_AVX512_BF16)

// Words and rows of 16 bits, shared by Dot and Amx.
struct Bf16Panels {
  typedef uint32_t Word;
  typedef uint16_t Row;
  static constexpr int PER_WORD = 2;
  static constexpr bool SHARED = false;

  static uint32_t weight_word(float a, float b) { return to_bf16(a).bits | (uint32_t)to_bf16(b).bits << 16; }

  static RADFIELD_SIMD void put(uint32_t* words, uint16_t* rows, int pair, Channel a, Channel b) {
    const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                                21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i low = (__m512i)_mm512_cvtne2ps_pbh((__m512)b.low, (__m512)a.low);
    const __m512i high = (__m512i)_mm512_cvtne2ps_pbh((__m512)b.high, (__m512)a.high);
    _mm512_storeu_si512(words + pair * PW, _mm512_permutexvar_epi16(interleave, low));
    _mm512_storeu_si512(words + pair * PW + W, _mm512_permutexvar_epi16(interleave, high));
    if (rows) {
      _mm512_storeu_si512(rows + 2 * pair * PW, (__m512i)_mm512_cvtne2ps_pbh((__m512)a.high, (__m512)a.low));
      _mm512_storeu_si512(rows + (2 * pair + 1) * PW, (__m512i)_mm512_cvtne2ps_pbh((__m512)b.high, (__m512)b.low));
    }
  }
  static RADFIELD_SIMD Channel get(const uint16_t* rows, int channel) {
    const bf16* p = (const bf16*)rows + channel * PW;
    return {load(p), load(p + W)};
  }
};

struct Dot : Bf16Panels {
  static constexpr int PAD = 8;
  static int panel_rows() { return ROWS; }
  static void begin() {}
  static void end() {}

  // As Fp32's, with pairs of inputs for inputs.
  template <class Epilogue>
  static void product(const uint32_t* weights, const float* bias, const uint32_t* x, int outputs, int inputs,
                      Epilogue epilogue) {
    const int words = inputs / 2;
    for (int o = 0; o < outputs; o += ROWS, weights += (int64_t)words * ROWS) {
      __m512 acc[ROWS][2];
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) acc[r][0] = acc[r][1] = _mm512_set1_ps(bias ? bias[o + r] : 0.0f);
      for (int k = 0; k < words; ++k) {
        const __m512bh low = (__m512bh)_mm512_loadu_si512(x + k * PW), high = (__m512bh)_mm512_loadu_si512(x + k * PW + W);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
          const __m512bh w = (__m512bh)_mm512_set1_epi32((int)weights[k * ROWS + r]);
          acc[r][0] = _mm512_dpbf16_ps(acc[r][0], w, low), acc[r][1] = _mm512_dpbf16_ps(acc[r][1], w, high);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r += 2)
        epilogue(o + r, Channel{(vf)acc[r][0], (vf)acc[r][1]}, Channel{(vf)acc[r + 1][0], (vf)acc[r + 1][1]});
    }
  }

  static void weight_gradient(float* dw, int64_t stride, const uint16_t* g, const uint16_t* x, int outputs,
                                            int inputs, int panels, int64_t g_step, int64_t x_step) {
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
  static int panel_rows() { return 1; }  // weights are packed row by row
  static void begin() { amx::configure(); }
  static void end() { amx::release(); }

  // Results go through memory, as tiles can only be stored.
  template <class Epilogue>
  static void product(const uint32_t* weights, const float* bias, const uint32_t* x, int outputs, int inputs,
                      Epilogue epilogue) {
    const int words = inputs / 2;
    for (int o = 0; o < outputs; o += 32) {  // channel counts are multiples of 32
      amx::zero<0>(), amx::zero<1>(), amx::zero<2>(), amx::zero<3>();
      for (int k = 0; k < words; k += 16) {
        amx::load<6>(x + k * PW, 4 * PW), amx::load<7>(x + k * PW + W, 4 * PW);
        amx::load<4>(weights + (int64_t)o * words + k, 4 * words);
        amx::load<5>(weights + (int64_t)(o + 16) * words + k, 4 * words);
        amx::dot<0, 4, 6>(), amx::dot<1, 4, 7>(), amx::dot<2, 5, 6>(), amx::dot<3, 5, 7>();
      }
      alignas(64) float tile[32 * PW];
      amx::store<0>(tile, 4 * PW), amx::store<1>(tile + W, 4 * PW);
      amx::store<2>(tile + 16 * PW, 4 * PW), amx::store<3>(tile + 16 * PW + W, 4 * PW);
      for (int r = 0; r < 32; r += 2) {
        Channel a = load_channel(tile + r * PW), b = load_channel(tile + (r + 1) * PW);
        if (bias) {
          a = {a.low + bias[o + r], a.high + bias[o + r]};
          b = {b.low + bias[o + r + 1], b.high + bias[o + r + 1]};
        }
        epilogue(o + r, a, b);
      }
    }
  }

  // Rows g [16 outputs][16 pairs of samples] times rows x turned to [16 pairs of samples][16 inputs].
  static void weight_gradient(float* dw, int64_t stride, const uint16_t* g, const uint16_t* x, int outputs, int inputs,
                              int panels, int64_t g_step, int64_t x_step) {
    alignas(64) uint32_t turned[8][16 * 16];
    alignas(64) float sums[16 * 16];
    for (int i = 0; i < inputs; i += 16)
      for (int first = 0; first < panels; first += 8) {
        const int count = panels - first < 8 ? panels - first : 8;
        for (int p = 0; p < count; ++p)
          transpose_16x16(turned[p], (const uint32_t*)(x + (first + p) * x_step + i * PW));
        for (int o = 0; o < outputs; o += 16) {
          amx::zero<0>();
          for (int p = 0; p < count; ++p) {
            amx::load<4>(g + (first + p) * g_step + o * PW, 2 * PW), amx::load<6>(turned[p], 64);
            amx::dot<0, 4, 6>();
          }
          amx::store<0>(sums, 64);
          for (int r = 0; r < 16 && o + r < outputs; ++r)
            for (int c = 0; c < 16 && i + c < inputs; ++c) dw[(o + r) * stride + i + c] += sums[16 * r + c];
        }
      }
  }

  // Four perfect shuffles of the 16 rows turn rows into columns.
  static void transpose_16x16(uint32_t* out, const uint32_t* in) {
    const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i high = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
    __m512i a[16], b[16];
    for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(in + 16 * i);
    for (int stage = 0; stage < 2; ++stage) {
      for (int i = 0; i < 8; ++i) {
        b[2 * i] = _mm512_permutex2var_epi32(a[i], low, a[i + 8]);
        b[2 * i + 1] = _mm512_permutex2var_epi32(a[i], high, a[i + 8]);
      }
      for (int i = 0; i < 8; ++i) {
        a[2 * i] = _mm512_permutex2var_epi32(b[i], low, b[i + 8]);
        a[2 * i + 1] = _mm512_permutex2var_epi32(b[i], high, b[i + 8]);
      }
    }
    for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + 16 * i, a[i]);
  }
};
#endif

}  // namespace radfield
