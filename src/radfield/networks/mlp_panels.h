// Templates of the MLP's loops over the kernels of mlp_kernels.h. Samples go through the whole network in panels of PW,
// so that activations stay in the first-level cache. The backward pass computes a block of panels forward again, then
// backward, and then the weight gradients of the block, one product per layer. Weight gradients of a fixed chunk of
// samples have one owner; chunks are added up in their order: the same bits with any number of threads.
// Everything is in an anonymous namespace, because it is compiled twice: with and without AVX512-BF16.
#pragma once
#include "../cpu/parallel.h"
#include "mlp.h"
#include "mlp_kernels.h"

namespace radfield {
namespace {

constexpr int MAX_LAYERS = 16;             // mlp.py checks it
constexpr int64_t BLOCK_BYTES = 384 << 10;  // activations and gradients of a block: part of a second-level cache
constexpr int MAX_BLOCK = 16;              // panels

int round_up(int n, int to) { return (n + to - 1) / to * to; }

struct Layer {
  int hidden;    // inputs from the layer before, padded to `hidden_padded`
  int hidden_padded;
  int inputs;    // padded, with the network's inputs behind the hidden ones where the layer is a skip layer
  int outputs;
  int outputs_padded;
  bool skip;
  const float* weights;  // [outputs][logical inputs]
  const float* bias;     // or null
};

struct Shape {
  int layers, channels, channels_padded, widest;
  bool skips = false;
  Layer layer[MAX_LAYERS];

  Shape(const int64_t* table, int64_t L, int64_t C, const float* parameters, bool bias, int pad) {
    layers = (int)L, channels = (int)C, channels_padded = round_up((int)C, pad), widest = channels_padded;
    for (int l = 0; l < layers; ++l, table += 4) {
      Layer& y = layer[l];
      y.skip = table[3] != 0, skips |= y.skip;
      y.hidden = l == 0 ? 0 : layer[l - 1].outputs, y.hidden_padded = round_up(y.hidden, pad);
      y.inputs = y.hidden_padded + (l == 0 || y.skip ? channels_padded : 0);
      y.outputs = (int)table[1], y.outputs_padded = round_up(y.outputs, pad);
      y.weights = parameters + table[2];
      y.bias = bias ? y.weights + table[0] * table[1] : nullptr;
      widest = round_up(widest > y.inputs ? widest : y.inputs, pad);
      widest = widest > y.outputs_padded ? widest : y.outputs_padded;
    }
  }
  int logical_inputs(int l) const { return layer[l].hidden + (l == 0 || layer[l].skip ? channels : 0); }
  // Padded input channel -> column of the weights, or -1.
  int column(int l, int channel) const {
    const Layer& y = layer[l];
    if (channel < y.hidden_padded) return channel < y.hidden ? channel : -1;
    channel -= y.hidden_padded;
    return channel < channels ? y.hidden + channel : -1;
  }
};

// Weights of every layer as the kernel K reads them, forward and transposed, and padded biases.
template <class K>
struct Packed {
  typename K::Word* forward[MAX_LAYERS];
  typename K::Word* transposed[MAX_LAYERS];
  float* bias[MAX_LAYERS];

  Packed(const Shape& s, float* memory) {
    for (int l = 0; l < s.layers; ++l) {
      const Layer& y = s.layer[l];
      const int64_t words = (int64_t)y.inputs * y.outputs_padded / K::PER_WORD;
      forward[l] = (typename K::Word*)memory, memory += words;
      transposed[l] = (typename K::Word*)memory, memory += words;
      bias[l] = nullptr;
      if (y.bias) bias[l] = memory, memory += y.outputs_padded;
    }
  }
  void fill(const Shape& s) {
    for (int l = 0; l < s.layers; ++l) {
      const Layer& y = s.layer[l];
      const int columns = s.logical_inputs(l);
      auto weight = [&](int o, int i) {
        const int column = i < y.inputs ? s.column(l, i) : -1;
        return o < y.outputs && column >= 0 ? y.weights[(int64_t)o * columns + column] : 0.0f;
      };
      pack(forward[l], y.outputs_padded, y.inputs, [&](int o, int i) { return weight(o, i); });
      pack(transposed[l], y.inputs, y.outputs_padded, [&](int i, int o) { return weight(o, i); });
      if (bias[l])
        for (int o = 0; o < y.outputs_padded; ++o) bias[l][o] = o < y.outputs ? y.bias[o] : 0.0f;
    }
  }
  template <class Weight>
  static void pack(typename K::Word* words, int rows, int columns, Weight weight) {
    const int R = K::panel_rows(), per_row = columns / K::PER_WORD;
    for (int r = 0; r < rows; ++r)
      for (int k = 0; k < per_row; ++k) {
        const int c = k * K::PER_WORD;
        words[(int64_t)(r / R) * per_row * R + k * R + r % R] =
            K::weight_word(weight(r, c), K::PER_WORD == 2 ? weight(r, c + 1) : 0.0f);
      }
  }
};

// ---- streams [C][M] of fp32 or bf16 in and out of panels: n samples from i

RADFIELD_SIMD Channel load_stream(const void* stream, int64_t type, int64_t row, int64_t M, int64_t i, int n) {
  const int low = n < W ? n : W, high = n - low;
  if (type == F32) {
    const float* p = (const float*)stream + row * M + i;
    return {load_n(p, low), load_n(p + low, high)};
  }
  const bf16* p = (const bf16*)stream + row * M + i;
  return {load_n(p, low), load_n(p + low, high)};
}
RADFIELD_SIMD void store_stream(void* stream, int64_t type, int64_t row, int64_t M, int64_t i, int n, Channel c) {
  const int low = n < W ? n : W, high = n - low;
  if (type == F32) {
    float* p = (float*)stream + row * M + i;
    store_n(p, c.low, low), store_n(p + low, c.high, high);
  } else {
    bf16* p = (bf16*)stream + row * M + i;
    store_n(p, c.low, low), store_n(p + low, c.high, high);
  }
}

struct Inputs {
  const void *x0, *x1;
  int64_t type0, type1, A, B, M;
  RADFIELD_SIMD Channel channel(int c, int64_t i, int n) const {
    if (c < A) return load_stream(x0, type0, c, M, i, n);
    if (c < A + B) return load_stream(x1, type1, c - A, M, i, n);
    return Channel{};
  }
};

// Memory handed out piece by piece from a thread's scratch.
struct Arena {
  char* at;
  template <class T>
  T* take(int64_t count) {
    T* p = (T*)at;
    at += (count * (int64_t)sizeof(T) + 63) / 64 * 64;
    return p;
  }
};

// One thread's view of a network on one panel at a time.
template <class K>
struct Runner {
  typedef typename K::Word Word;
  typedef typename K::Row Row;
  const Shape& s;
  const Packed<K>& packed;
  int64_t activation, output_activation;
  bool keep_rows;
  float* y;            // [widest][PW] a product's result
  Word* words[2];      // [widest] panels of the layer before and of this one, where rows do not serve as words
  Word* input_words;   // the network's inputs, for skip layers
  Row* rows[MAX_LAYERS];     // inputs of each layer
  float* slope[MAX_LAYERS];  // derivative of each hidden activation, where rows do not tell it

  Runner(const Shape& s, const Packed<K>& packed, int64_t activation, int64_t output_activation, bool keep_rows)
      : s(s), packed(packed), activation(activation), output_activation(output_activation), keep_rows(keep_rows) {}

  static int64_t words_of(int channels) { return (int64_t)channels * PW / K::PER_WORD; }
  bool needs_slope() const { return keep_rows && activation != RELU && activation != NONE; }
  int64_t panel_rows_size() const {  // Row elements per panel, inputs of all layers
    int64_t n = 0;
    for (int l = 0; l < s.layers; ++l) n += (int64_t)s.layer[l].inputs * PW;
    return n;
  }
  void take(Arena& arena) {
    y = arena.take<float>((int64_t)(s.widest + 16) * PW);
    for (auto& w : words) w = arena.take<Word>(words_of(s.widest));
    input_words = arena.take<Word>(words_of(s.channels_padded));
    for (int l = 0; l + 1 < s.layers; ++l)
      slope[l] = needs_slope() ? arena.take<float>((int64_t)s.layer[l].outputs_padded * PW) : nullptr;
  }
  static int64_t size(const Shape& s) {
    int64_t floats = (int64_t)(s.widest + 16) * PW + 4 * words_of(s.widest);
    for (int l = 0; l < s.layers; ++l) floats += (int64_t)s.layer[l].outputs_padded * PW + 16;
    return 4 * floats + 4096;
  }
  // Where layer l reads its input words: its rows where these are the same memory and kept, else a scratch panel.
  Word* layer_words(int l) {
    if constexpr (K::SHARED) {
      if (keep_rows) return (Word*)rows[l];
    }
    return words[l & 1];
  }
  Row* layer_rows(int l) { return !K::SHARED && keep_rows ? rows[l] : nullptr; }

  void load_inputs(const Inputs& inputs, int64_t i, int n) {
    Word* to = layer_words(0);
    Row* row = layer_rows(0);
    for (int c = 0; c < s.channels_padded; c += 2)
      K::put(to, row, c / 2, inputs.channel(c, i, n), inputs.channel(c + 1, i, n));
    if (s.skips) memcpy(input_words, to, sizeof(Word) * words_of(s.channels_padded));
  }
  // Leaves the last layer's results, before its activation, in y.
  void forward() {
    for (int l = 0; l + 1 < s.layers; ++l) {
      if (activation == RELU) hidden_layer(l, [](vf z) { return max(z, vf{}); });
      else if (activation == NONE) hidden_layer(l, [](vf z) { return z; });
      else hidden_layer(l, [&](vf z) { return activate(activation, z).value; });
      append_inputs(l + 1);
    }
    const int l = s.layers - 1;
    K::product(packed.forward[l], packed.bias[l], layer_words(l), s.layer[l].outputs_padded, s.layer[l].inputs,
            [&](int o, Channel a, Channel b) { store_channel(y + o * PW, a), store_channel(y + (o + 1) * PW, b); });
  }
  template <class Function>
  void hidden_layer(int l, Function f) {
    Word* to = layer_words(l + 1);
    Row* row = layer_rows(l + 1);
    float* const slopes = needs_slope() ? slope[l] : nullptr;
    K::product(packed.forward[l], packed.bias[l], layer_words(l), s.layer[l].outputs_padded, s.layer[l].inputs,
            [&](int o, Channel a, Channel b) __attribute__((always_inline)) {
              K::put(to, row, o / 2, {f(a.low), f(a.high)}, {f(b.low), f(b.high)});
              if (slopes) store_channel(slopes + o * PW, derivatives(a)), store_channel(slopes + (o + 1) * PW, derivatives(b));
            });
  }
  Channel derivatives(Channel z) const {
    return {activate(activation, z.low).derivative, activate(activation, z.high).derivative};
  }
  // A skip layer's inputs end with those of the network.
  void append_inputs(int l) {
    const Layer& layer = s.layer[l];
    if (!layer.skip) return;
    memcpy(layer_words(l) + words_of(layer.hidden_padded), input_words, sizeof(Word) * words_of(s.channels_padded));
    if (Row* row = layer_rows(l)) memcpy(row + layer.hidden_padded * PW, rows[0], sizeof(Row) * s.channels_padded * PW);
  }
  // sigma'(z) of hidden channel o of layer l.
  RADFIELD_SIMD Channel derivative(int l, int o) const {
    if (activation == NONE) return {vf{} + 1.0f, vf{} + 1.0f};
    if (activation != RELU) return load_channel(slope[l] + o * PW);
    const Channel a = K::get(rows[l + 1], o);
    const vf one = vf{} + 1.0f;
    return {select(a.low > 0.0f, one, vf{}), select(a.high > 0.0f, one, vf{})};
  }
  Channel output(int o) const {
    const Channel z = load_channel(y + o * PW);
    return {activate(output_activation, z.low).value, activate(output_activation, z.high).value};
  }
};

// ---- forward

template <class K>
void forward(const MlpForward& a, bool pack) {
  const Shape shape(a.layers, a.L, a.A + a.B, a.parameters, a.bias, K::PAD);
  Packed<K> packed(shape, a.packed);
  if (pack) packed.fill(shape);
  const Inputs inputs{a.x0, a.x1, a.x0_type, a.x1_type, a.A, a.B, a.M};
  parallel_blocks(a.M, 64 * PW, [&](int64_t begin, int64_t end) {
    Runner<K> run(shape, packed, a.activation, a.output_activation, false);
    Arena arena{(char*)scratch(Runner<K>::size(shape))};
    run.take(arena);
    K::begin();
    for (int64_t i = begin; i < end; i += PW) {
      const int n = (int)(end - i < PW ? end - i : PW);
      run.load_inputs(inputs, i, n);
      run.forward();
      for (int o = 0; o < (int)a.O; ++o) store_stream(a.y, a.y_type, o, a.M, i, n, run.output(o));
    }
    K::end();
  });
}

// ---- backward

template <class K>
struct Backward {
  typedef typename K::Word Word;
  typedef typename K::Row Row;
  const MlpBackward& a;
  const Shape& s;
  Runner<K>& run;
  const Inputs inputs;
  float* dw;           // this chunk's gradients, laid out as the parameters
  Row* grads[MAX_LAYERS];  // of each layer's outputs before activation, of one panel
  Word* grad_words[2];     // of the layer at hand and of the one before
  float* grad_inputs;  // [channels_padded][PW]
  float* bias_sums;    // [widest][W] per layer

  bool any_gradient(int64_t i, int n) const {
    vi nonzero = {};
    for (int64_t o = 0; o < a.O; ++o) {
      const Channel g = load_stream(a.grad_y, a.grad_y_type, o, a.M, i, n);
      nonzero |= ((vi)g.low << 1) | ((vi)g.high << 1);
    }
    return any(nonzero != 0);
  }
  void store_grad_inputs(int64_t i, int n, bool zero) {
    for (int c = 0; c < s.channels; ++c) {
      const Channel g = zero ? Channel{} : load_channel(grad_inputs + c * PW);
      if (c < a.A) {
        if (a.grad_x0) store_stream(a.grad_x0, a.grad_x0_type, c, a.M, i, n, g);
      } else if (a.grad_x1) {
        store_stream(a.grad_x1, a.grad_x1_type, c - a.A, a.M, i, n, g);
      }
    }
  }
  RADFIELD_SIMD void add_inputs(int c, Channel x, Channel y) {
    float* to = grad_inputs + c * PW;
    const Channel a = load_channel(to), b = load_channel(to + PW);
    store_channel(to, {a.low + x.low, a.high + x.high}), store_channel(to + PW, {b.low + y.low, b.high + y.high});
  }
  RADFIELD_SIMD void put(int l, int o, Channel g, Channel h) {
    if constexpr (K::SHARED) K::put((Word*)grads[l], nullptr, o / 2, g, h);
    else K::put(grad_words[l & 1], grads[l], o / 2, g, h);
    if (!a.bias) return;
    float* sums = bias_sums + (int64_t)(l * s.widest + o) * W;
    store(sums, load(sums) + (g.low + g.high)), store(sums + W, load(sums + W) + (h.low + h.high));
  }
  void output_gradient(int64_t i, int n) {
    const int l = s.layers - 1;
    auto channel = [&](int o) __attribute__((always_inline)) {
      if (o >= a.O) return Channel{};
      Channel g = load_stream(a.grad_y, a.grad_y_type, o, a.M, i, n);
      if (a.output_activation != NONE) {
        const Channel z = load_channel(run.y + o * PW);
        g.low = g.low * activate(a.output_activation, z.low).derivative;
        g.high = g.high * activate(a.output_activation, z.high).derivative;
      }
      return g;
    };
    for (int o = 0; o < s.layer[l].outputs_padded; o += 2) put(l, o, channel(o), channel(o + 1));
  }
  void panel(int64_t i, int n) {
    run.load_inputs(inputs, i, n);
    run.forward();
    output_gradient(i, n);
    const bool need_inputs = a.grad_x0 || a.grad_x1;
    memset(grad_inputs, 0, sizeof(float) * (size_t)s.channels_padded * PW);
    for (int l = s.layers - 1; l >= 0; --l) {
      const Layer& layer = s.layer[l];
      if (l == 0 && !need_inputs) break;
      const Word* g = K::SHARED ? (const Word*)grads[l] : grad_words[l & 1];
      K::product(run.packed.transposed[l], nullptr, g, layer.inputs, layer.outputs_padded,
                  [&](int o, Channel x, Channel y) __attribute__((always_inline)) {
                    if (o >= layer.hidden_padded) return add_inputs(o - layer.hidden_padded, x, y);
                    const Channel d = run.derivative(l - 1, o), e = run.derivative(l - 1, o + 1);
                    put(l - 1, o, {x.low * d.low, x.high * d.high}, {y.low * e.low, y.high * e.high});
                  });
    }
    if (need_inputs) store_grad_inputs(i, n, false);
  }
  void weight_gradients(int panels, Row* const (&x)[MAX_LAYERS], Row* const (&g)[MAX_LAYERS], int64_t step) {
    for (int l = 0; l < s.layers; ++l) {
      const Layer& layer = s.layer[l];
      const int stride = s.logical_inputs(l);
      float* to = dw + (layer.weights - a.parameters);
      if (layer.hidden) K::weight_gradient(to, stride, g[l], x[l], layer.outputs, layer.hidden, panels, step, step);
      if (layer.inputs > layer.hidden_padded)
        K::weight_gradient(to + layer.hidden, stride, g[l], x[l] + layer.hidden_padded * PW, layer.outputs, s.channels,
                           panels, step, step);
    }
  }
  void finish_bias() {
    if (!a.bias) return;
    for (int l = 0; l < s.layers; ++l)
      for (int o = 0; o < s.layer[l].outputs; ++o)
        dw[s.layer[l].bias - a.parameters + o] += sum(load(bias_sums + (int64_t)(l * s.widest + o) * W));
  }

  void chunk(int64_t begin, int64_t end, Arena arena, int block) {
    for (auto& words : grad_words) words = arena.take<Word>(Runner<K>::words_of(s.widest));
    grad_inputs = arena.take<float>((int64_t)s.channels_padded * PW);
    bias_sums = arena.take<float>((int64_t)s.layers * s.widest * W);
    memset(bias_sums, 0, sizeof(float) * (size_t)s.layers * s.widest * W);
    // rows of a panel: every layer's inputs, then every layer's gradients
    Row *x[MAX_LAYERS], *g[MAX_LAYERS];
    int64_t step = 0;
    for (int l = 0; l < s.layers; ++l) step += (int64_t)(s.layer[l].inputs + s.layer[l].outputs_padded) * PW;
    Row* memory = arena.take<Row>(step * block);
    for (int l = 0; l < s.layers; ++l) x[l] = memory, memory += s.layer[l].inputs * PW;
    for (int l = 0; l < s.layers; ++l) g[l] = memory, memory += s.layer[l].outputs_padded * PW;
    int filled = 0;
    for (int64_t i = begin; i < end; i += PW) {
      const int n = (int)(end - i < PW ? end - i : PW);
      if (any_gradient(i, n)) {
        for (int l = 0; l < s.layers; ++l) run.rows[l] = x[l] + filled * step, grads[l] = g[l] + filled * step;
        panel(i, n);
        ++filled;
      } else {
        store_grad_inputs(i, n, true);
      }
      if (filled == block || (i + PW >= end && filled)) weight_gradients(filled, x, g, step), filled = 0;
    }
    finish_bias();
  }
};

// Adds the R rows of partial gradients [R][P], in their order.
inline void add_partial(float* sum, const float* partial, int64_t P, int64_t R) {
  parallel_blocks(P, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < R; ++r)
      for (int64_t p = begin; p < end; ++p) sum[p] += partial[r * P + p];
  });
}

template <class K>
void backward(const MlpBackward& a) {
  const Shape shape(a.layers, a.L, a.A + a.B, a.parameters, a.bias, K::PAD);
  Packed<K> packed(shape, a.packed);
  packed.fill(shape);
  int64_t panel_bytes = 0;
  for (int l = 0; l < shape.layers; ++l)
    panel_bytes += (int64_t)(shape.layer[l].inputs + shape.layer[l].outputs_padded) * PW * (int64_t)sizeof(typename K::Row);
  int block = (int)(BLOCK_BYTES / panel_bytes);
  block = block < 1 ? 1 : block > MAX_BLOCK ? MAX_BLOCK : block;
  const int64_t bytes = Runner<K>::size(shape) + panel_bytes * block +
                        4 * (int64_t)(3 * shape.widest * PW + shape.layers * shape.widest * W) + 4096;
  parallel_for(a.R, [&](int64_t r) {
    Runner<K> run(shape, packed, a.activation, a.output_activation, true);
    Arena arena{(char*)scratch(bytes)};
    run.take(arena);
    float* dw = a.partial + r * a.P;
    memset(dw, 0, sizeof(float) * (size_t)a.P);
    Backward<K> back{a, shape, run, {a.x0, a.x1, a.x0_type, a.x1_type, a.A, a.B, a.M}, dw, {}, {}, nullptr, nullptr};
    const int64_t begin = r * a.chunk, end = begin + a.chunk < a.M ? begin + a.chunk : a.M;
    K::begin();
    back.chunk(begin, end, arena, block);
    K::end();
  });
  if (a.grad_parameters) add_partial(a.grad_parameters, a.partial, a.P, a.R);
}

}  // namespace
}  // namespace radfield
