// The products of the MLP in fp32 by AMX's bf16 tiles. An operand is the exact sum of three bf16 numbers, its 24 bits
// 8 at a time: a = a0 + a1 + a2. Of the nine products of a b the six largest are summed in fp32,
// a0 b0 + (a0 b1 + a1 b0) + (a0 b2 + a1 b1 + a2 b0); what is left out is at most about 2^-22 |a b|. (Henry, Tang,
// Heinecke 2019, "Leveraging the bfloat16 artificial intelligence datatype for higher-precision computations".)
// A tile takes numbers below 2^-126 as 0.
//
// Memory is in tiles of 16 rows of 16 words of two bf16. Of each operand there are three, of its pieces:
//   weights  [16 outputs][16 pairs of channels]
//   words    [16 pairs of channels][16 samples], once for the lower and once for the upper half of a panel
//   rows     [16 channels][16 pairs of samples k and k + 16], made of words where weight gradients need them: with rows
//            written beside the words, hidden layers took 1.3 times as long
#pragma once
#include "mlp_kernels_amx.h"

namespace radfield {

struct Split {
  struct Word {
    uint16_t piece[3];  // says how much memory a number takes, not where its pieces are
  };
  typedef Word Row;
  static constexpr int PAD = 32, PER_WORD = 1, ROW_BLOCK = 16;
  static constexpr bool SHARED = true, SPLIT = true;
  static constexpr int GROUP = 2;  // as Amx
  static constexpr int TILE = 16 * 16;
  static int packed_rows() { return 1; }
  static void begin() { amx::configure(); }
  static void end() { amx::release(); }

  struct Pieces {
    __m512i piece[3];  // bf16 in the upper halves; below them the first has 0, the others anything
  };
  // The first is a cut off: no number overflows. The second is rounded, so that the third has any sign and what is left
  // out of a product is no bias.
  static RADFIELD_SIMD Pieces split(vf a) {
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000), half = _mm512_set1_epi32(0x8000);
    const __m512i first = _mm512_and_si512((__m512i)a, upper);
    const vf rest = a - (vf)first;
    const __m512i second = _mm512_and_si512(_mm512_add_epi32((__m512i)rest, half), upper);
    return {{first, second, (__m512i)(rest - (vf)second)}};
  }
  static void put_weight(Word* words, int columns, int row, int column, float a) {
    uint16_t* to = (uint16_t*)words + ((int64_t)(row / 16) * (columns / 32) + column / 32) * 6 * TILE;
    to += row % 16 * 32 + column % 32;
    for (int k = 0; k < 3; ++k, to += 2 * TILE) {
      const uint32_t bits = piece(a, k);
      *to = (uint16_t)bits, a -= as_float((int32_t)(bits << 16));
    }
  }
  // Piece k of what is left of a, as the upper half of its bits.
  static uint32_t piece(float a, int k) { return ((uint32_t)as_int(a) + (k == 1 ? 0x8000u : 0)) >> 16; }

  // The upper halves of a's lanes as lower ones, below b's. (vpermt2w takes longer.)
  static RADFIELD_SIMD __m512i paired(__m512i a, __m512i b) {
    constexpr int A_OR_UPPER_B = 0xf8;  // a | (b & c)
    return _mm512_ternarylogic_epi32(_mm512_srli_epi32(a, 16), b, _mm512_set1_epi32((int)0xffff0000), A_OR_UPPER_B);
  }
  // Words of 16 samples of a pair of channels: piece 0, lower half of the panel.
  static uint32_t* words_of(const Word* words, int pair) {
    return (uint32_t*)words + pair / 16 * 6 * TILE + pair % 16 * 16;
  }
  static RADFIELD_SIMD void put(Word* words, Row*, int pair, Channel a, Channel b) {
    const Pieces a0 = split(a.low), a1 = split(a.high), b0 = split(b.low), b1 = split(b.high);
    uint32_t* to = words_of(words, pair);
#pragma GCC unroll 3
    for (int k = 0; k < 3; ++k, to += 2 * TILE) {
      _mm512_storeu_si512(to, paired(a0.piece[k], b0.piece[k]));
      _mm512_storeu_si512(to + TILE, paired(a1.piece[k], b1.piece[k]));
    }
  }
  // g where that channel is positive, else 0.
  static RADFIELD_SIMD Channel keep_positive(Channel g, const Word* words, int channel) {
    const uint32_t* at = words_of(words, channel / 2);
    const __m512i below = _mm512_set1_epi32(0xffff), up = _mm512_set1_epi32(channel % 2 ? 0 : 16);
    const __mmask16 low = _mm512_cmpgt_epi32_mask(_mm512_sllv_epi32(_mm512_loadu_si512(at), up), below);
    const __mmask16 high = _mm512_cmpgt_epi32_mask(_mm512_sllv_epi32(_mm512_loadu_si512(at + TILE), up), below);
    return {(vf)_mm512_maskz_mov_ps(low, (__m512)g.low), (vf)_mm512_maskz_mov_ps(high, (__m512)g.high)};
  }

  // As Fp32's. While tiles are multiplied, the results of the 32 rows before are read and given to the epilogue, a few
  // at a time: vector instructions run beside those of tiles.
  template <class Epilogue>
  static RADFIELD_SIMD void product(const Word* weights, const float* bias, const Word* x, int64_t x_step, int panels,
                                    int rows, int inputs, Epilogue epilogue) {
    constexpr int PAIRS = 16, DELAY = 3;  // pairs of rows in 32; steps until stored tiles can be read
    alignas(64) float results[2][2 * PAIRS * PW];
    const int blocks = inputs / 32, share = (PAIRS + 6 * blocks - DELAY - 1) / (6 * blocks - DELAY);
    const float* waiting = nullptr;
    int panel = 0, first = 0, next = 0, end = 0, wait = 0;  // of the results that wait
    auto finish = [&](int pairs) RADFIELD_LANES {
      for (const int until = min_int(next + pairs, end); next < until; ++next) {
        const float* at = waiting + 2 * next * PW;
        const int o = first + 2 * next;
        Channel a = load_channel(at), b = load_channel(at + PW);
        if (bias) a = {a.low + bias[o], a.high + bias[o]}, b = {b.low + bias[o + 1], b.high + bias[o + 1]};
        epilogue(panel, o, a, b);
      }
    };
    int turn = 0;
    const uint32_t* w = (const uint32_t*)weights;
    const int64_t row_block = (int64_t)blocks * 3 * TILE;
    for (int row = 0; row < rows; row += 32, w += 2 * row_block)
      for (int p = 0; p < panels; ++p) {
        const bool tall = rows - row > 16;
        float* out = results[turn ^= 1];
        const uint32_t* const from = (const uint32_t*)(x + p * x_step);
        auto between = [&]() RADFIELD_LANES { if (--wait < 0) finish(share); };
        clear();
        for (int k = 0; k < blocks; ++k)
          six_products(w + k * 3 * TILE, row_block, from + k * 6 * TILE, 2 * TILE, TILE, tall, true, between);
        finish(PAIRS);
        amx::store<0>(out, 4 * PW), amx::store<1>(out + W, 4 * PW);
        if (tall) amx::store<2>(out + 16 * PW, 4 * PW), amx::store<3>(out + 16 * PW + W, 4 * PW);
        waiting = out, panel = p, first = row, next = 0, end = tall ? PAIRS : PAIRS / 2, wait = DELAY;
      }
    finish(PAIRS);
  }

  static RADFIELD_SIMD void clear() { amx::zero<0>(), amx::zero<1>(), amx::zero<2>(), amx::zero<3>(); }
  // Tiles 0 to 3 += the products of the tiles a and (where tall) a + a_next with b and (where wide) b + b_next, whose
  // pieces are TILE and b_piece apart; the largest come last. between() is called after each product.
  template <class Between>
  static RADFIELD_SIMD void six_products(const uint32_t* a, int64_t a_next, const uint32_t* b, int64_t b_piece,
                                         int64_t b_next, bool tall, bool wide, Between between) {
    static const struct { int8_t left, right; } pieces[6] = {{0, 2}, {0, 1}, {1, 1}, {1, 0}, {2, 0}, {0, 0}};
    int left = -1, right = -1;  // pieces that are loaded
#pragma GCC unroll 1
    for (const auto pair : pieces) {
      if (pair.left != left) {
        left = pair.left, amx::load<4>(a + left * TILE, 64);
        if (tall) amx::load<5>(a + left * TILE + a_next, 64);
      }
      if (pair.right != right) {
        right = pair.right, amx::load<6>(b + right * b_piece, 64);
        if (wide) amx::load<7>(b + right * b_piece + b_next, 64);
      }
      amx::dot<0, 4, 6>();
      if (wide) amx::dot<1, 4, 7>();
      if (tall) amx::dot<2, 5, 6>();
      if (tall && wide) amx::dot<3, 5, 7>();
      between();
    }
  }

  // As Fp32's: rows of one side times those of the other, turned.
  static void weight_gradient(float* dw, int64_t stride, const Row* g, const Row* x, int outputs, int inputs, int panels,
                              int64_t g_step, int64_t x_step, float*) {
    if (outputs < inputs) sums_of_products(dw, 1, stride, x, g, inputs, outputs, panels, x_step, g_step);
    else sums_of_products(dw, stride, 1, g, x, outputs, inputs, panels, g_step, x_step);
  }
  // A panel's tiles for DOWN rows and ACROSS columns of dw, and that much of dw: all of it fits the first-level cache.
  static constexpr int DOWN = 64, ACROSS = 32;
  struct Tiles {
    uint32_t left[DOWN / 16][3][TILE], right[ACROSS / 16][3][TILE];
    float sums[DOWN / 16][ACROSS / 16][TILE];
  };
  // dw[i down + j across] += sum over samples of a[i] b[j], i < rows, j < columns, where b is turned.
  static void sums_of_products(float* dw, int64_t down, int64_t across, const Row* a, const Row* b, int rows, int columns,
                               int panels, int64_t a_step, int64_t b_step) {
    alignas(64) Tiles tiles;
    for (int i = 0; i < rows; i += DOWN)
      for (int j = 0; j < columns; j += ACROSS) {
        const int m = (min_int(rows - i, DOWN) + 15) / 16, n = (min_int(columns - j, ACROSS) + 15) / 16;
        memset(tiles.sums, 0, sizeof tiles.sums);
        for (int p = 0; p < panels; ++p) {
          for (int k = 0; k < 3 * m; ++k)
            rows_of_words<false>(tiles.left[k / 3][k % 3], a + p * a_step, i / 16 + k / 3, k % 3);
          for (int k = 0; k < 3 * n; ++k)
            rows_of_words<true>(tiles.right[k / 3][k % 3], b + p * b_step, j / 16 + k / 3, k % 3);
          for (int r = 0; r < m; r += 2) add_products(tiles, r, r + 1 < m, n > 1);
        }
        for (int r = 0; r < m; ++r)
          for (int c = 0; c < n; ++c)
            add_tile(dw, down, across, tiles.sums[r][c], i + 16 * r, j + 16 * c, rows, columns);
      }
  }
  // Sums of 16 rows from tile row r on, and where tall of 16 more, += the products of a panel.
  static RADFIELD_SIMD void add_products(Tiles& tiles, int r, bool tall, bool wide) {
    float(*const at)[TILE] = tiles.sums[r], (*const below)[TILE] = at + ACROSS / 16;
    amx::load<0>(at[0], 64);
    if (wide) amx::load<1>(at[1], 64);
    if (tall) amx::load<2>(below[0], 64);
    if (tall && wide) amx::load<3>(below[1], 64);
    six_products(tiles.left[r][0], 3 * TILE, tiles.right[0][0], TILE, 3 * TILE, tall, wide, []() RADFIELD_LANES {});
    amx::store<0>(at[0], 64);
    if (wide) amx::store<1>(at[1], 64);
    if (tall) amx::store<2>(below[0], 64);
    if (tall && wide) amx::store<3>(below[1], 64);
  }
  // Rows of a piece of 16 channels, or what they are when turned: [16 pairs of samples][16 channels].
  template <bool TURNED>
  static void rows_of_words(uint32_t* out, const Word* words, int block, int piece) {
    const uint32_t* from = words_of(words, 8 * block) + 2 * piece * TILE;
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    __m512i rows[16];
    for (int k = 0; k < 8; ++k) {
      const __m512i low = _mm512_loadu_si512(from + 16 * k), high = _mm512_loadu_si512(from + TILE + 16 * k);
      rows[2 * k] = _mm512_ternarylogic_epi32(_mm512_slli_epi32(high, 16), low, upper, 0xf4);  // a | (b & ~c)
      rows[2 * k + 1] = paired(low, high);
    }
    if constexpr (TURNED) transpose_16x16(rows);
    for (int k = 0; k < 16; ++k) _mm512_storeu_si512(out + 16 * k, rows[k]);
  }

  static int min_int(int a, int b) { return a < b ? a : b; }
};

}  // namespace radfield
