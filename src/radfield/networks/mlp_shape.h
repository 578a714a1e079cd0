// The MLP's layers as the kernels see them: padded sizes, packed weights, and scratch memory.
#pragma once
#include "mlp.h"

namespace radfield {
namespace {

constexpr int MAX_LAYERS = 16;  // mlp.py checks it

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
      const int64_t size = (int64_t)y.inputs * y.outputs_padded / K::PER_WORD * (int64_t)sizeof(typename K::Word) / 4;
      forward[l] = (typename K::Word*)memory, memory += size;
      transposed[l] = (typename K::Word*)memory, memory += size;
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
    const int R = K::packed_rows(), per_row = columns / K::PER_WORD;
    for (int r = 0; r < rows; ++r)
      for (int k = 0; k < per_row; ++k) {
        const int c = k * K::PER_WORD;
        const float a = weight(r, c), b = K::PER_WORD == 2 ? weight(r, c + 1) : 0.0f;
        if constexpr (K::SPLIT) K::put_weight(words, columns, r, c, a);
        else words[(int64_t)(r / R) * per_row * R + k * R + r % R] = K::weight_word(a, b);
      }
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

}  // namespace
}  // namespace radfield
