// The MLP's loops over the kernels of mlp_kernels.h. Samples go through the whole network in panels of PW, a group of a
// few panels at a time, so that activations stay in the first-level cache.
// Everything is in an anonymous namespace, because it is compiled twice: with and without AVX512-BF16.
#pragma once
#include "../cpu/parallel.h"
#include "mlp_shape.h"
#include "mlp_streams.h"

namespace radfield {
namespace {

// Panels that go through the network together: their first samples and numbers of samples.
template <class K>
struct Group {
  int count = 0;
  int64_t at[K::GROUP];
  int n[K::GROUP];

  bool full() const { return count == K::GROUP; }
  void add(int64_t i, int samples) { at[count] = i, n[count] = samples, ++count; }
};

// One thread's view of a network on one group of panels at a time.
template <class K>
struct Runner {
  typedef typename K::Word Word;
  typedef typename K::Row Row;
  const Shape& s;
  const Packed<K>& packed;
  int64_t activation;
  bool keep_rows;
  Word* words[2];           // [GROUP][widest] channels: a layer's inputs and those of the next, where rows are none
  Word* input_words;        // [GROUP][channels_padded] channels: the network's inputs, for skip layers
  Row* rows[MAX_LAYERS];    // inputs of each layer of the group's first panel
  int64_t rows_step;        // from a panel's rows to the next one's
  float* slope[MAX_LAYERS];  // [GROUP][outputs_padded][PW]: derivatives of hidden activations, where rows do not tell

  Runner(const Shape& s, const Packed<K>& packed, int64_t activation, bool keep_rows)
      : s(s), packed(packed), activation(activation), keep_rows(keep_rows) {}

  static int64_t words_of(int channels) { return (int64_t)channels * PW / K::PER_WORD; }
  bool needs_slope() const { return keep_rows && activation != RELU && activation != NONE; }
  void take(Arena& arena) {
    for (auto& w : words) w = arena.take<Word>(K::GROUP * words_of(s.widest));
    input_words = arena.take<Word>(K::GROUP * words_of(s.channels_padded));
    for (int l = 0; l + 1 < s.layers; ++l)
      slope[l] = needs_slope() ? arena.take<float>(K::GROUP * (int64_t)s.layer[l].outputs_padded * PW) : nullptr;
  }
  static int64_t size(const Shape& s) {  // bytes that take() takes
    int64_t floats = 64;
    for (int l = 0; l < s.layers; ++l) floats += (int64_t)s.layer[l].outputs_padded * PW + 16;
    return K::GROUP * (4 * floats + (int64_t)sizeof(Word) * 3 * words_of(s.widest)) + 4096;
  }

  // Where layer l reads the input words of panel p: its rows where these are the same memory and kept, else scratch.
  Word* layer_words(int l, int p) const {
    if constexpr (K::SHARED) {
      if (keep_rows) return (Word*)rows[l] + p * rows_step;
    }
    return words[l & 1] + p * words_of(s.widest);
  }
  int64_t words_step() const { return K::SHARED && keep_rows ? rows_step : words_of(s.widest); }
  Row* layer_rows(int l, int p) const { return !K::SHARED && keep_rows ? rows[l] + p * rows_step : nullptr; }

  void load_inputs(const Inputs& inputs, const Group<K>& group) {
    for (int p = 0; p < group.count; ++p) {
      inputs.prefetch(group.at[p]);
      if (group.n[p] == PW) load_panel(inputs, p, group.at[p], PW);  // the compiler knows it
      else load_panel(inputs, p, group.at[p], group.n[p]);
      if (s.skips)
        memcpy(input_words + p * words_of(s.channels_padded), layer_words(0, p), sizeof(Word) * words_of(s.channels_padded));
    }
  }
  RADFIELD_SIMD void load_panel(const Inputs& inputs, int p, int64_t i, int n) {
    Word* to = layer_words(0, p);
    Row* row = layer_rows(0, p);
    for (int c = 0; c < s.channels_padded; c += 2) {
      if constexpr (sizeof(Row) == sizeof(bf16)) {
        const bf16 *a = inputs.whole_bf16(c, i, n), *b = inputs.whole_bf16(c + 1, i, n);
        if (a && b) {
          K::put(to, row, c / 2, a, b);
          continue;
        }
      }
      K::put(to, row, c / 2, inputs.channel(c, i, n), inputs.channel(c + 1, i, n));
    }
  }
  void hidden_layers(int panels) {
    for (int l = 0; l + 1 < s.layers; ++l) {
      if (activation == RELU) hidden_layer(l, panels, [](vf z) RADFIELD_LANES { return max(vf{}, z); });  // z where it is NaN
      else if (activation == NONE) hidden_layer(l, panels, [](vf z) RADFIELD_LANES { return z; });
      else hidden_layer(l, panels, [&](vf z) { return activate(activation, z).value; });
      append_inputs(l + 1, panels);
    }
  }
  template <class Function>
  void hidden_layer(int l, int panels, Function f) {
    float* const slopes = needs_slope() ? slope[l] : nullptr;
    const int64_t slope_step = (int64_t)s.layer[l].outputs_padded * PW, to_step = words_step();
    Word* to = layer_words(l + 1, 0);
    Row* row = layer_rows(l + 1, 0);
    K::product(packed.forward[l], packed.bias[l], layer_words(l, 0), words_step(), panels, s.layer[l].outputs_padded,
               s.layer[l].inputs, [&](int p, int o, Channel a, Channel b) RADFIELD_LANES {
                 K::put(to + p * to_step, row ? row + p * rows_step : nullptr, o / 2, {f(a.low), f(a.high)},
                        {f(b.low), f(b.high)});
                 if (!slopes) return;
                 store_channel(slopes + p * slope_step + o * PW, derivatives(a));
                 store_channel(slopes + p * slope_step + (o + 1) * PW, derivatives(b));
               });
  }
  // epilogue(p, o, row o, row o + 1) for the last layer's results, before its activation.
  template <class Epilogue>
  RADFIELD_SIMD void last_layer(int panels, Epilogue epilogue) {
    const int l = s.layers - 1;
    K::product(packed.forward[l], packed.bias[l], layer_words(l, 0), words_step(), panels,
               round_up(s.layer[l].outputs, K::ROW_BLOCK), s.layer[l].inputs, epilogue);
  }
  Channel derivatives(Channel z) const {
    return {activate(activation, z.low).derivative, activate(activation, z.high).derivative};
  }
  // A skip layer's inputs end with those of the network.
  void append_inputs(int l, int panels) {
    const Layer& layer = s.layer[l];
    if (!layer.skip) return;
    for (int p = 0; p < panels; ++p) {
      memcpy(layer_words(l, p) + words_of(layer.hidden_padded), input_words + p * words_of(s.channels_padded),
             sizeof(Word) * words_of(s.channels_padded));
      if (Row* row = layer_rows(l, p))
        memcpy(row + layer.hidden_padded * PW, layer_rows(0, p), sizeof(Row) * s.channels_padded * PW);
    }
  }
  // g sigma'(z), of hidden channel o of layer l.
  RADFIELD_SIMD Channel times_derivative(Channel g, int l, int p, int o) const {
    if (activation == NONE) return g;
    if (activation == RELU) return K::keep_positive(g, rows[l + 1] + p * rows_step, o);
    const Channel d = load_channel(slope[l] + ((int64_t)p * s.layer[l].outputs_padded + o) * PW);
    return {g.low * d.low, g.high * d.high};
  }
};

// Activates and writes outputs o and o + 1 of a panel.
struct Outputs {
  const MlpForward& a;

  RADFIELD_SIMD void put(int64_t i, int n, int o, Channel z, Channel next) const {
    put_one(i, n, o, z), put_one(i, n, o + 1, next);
  }
  RADFIELD_SIMD void put_one(int64_t i, int n, int o, Channel z) const {
    if (o >= a.O) return;
    if (a.output_activation != NONE)
      z = {activate(a.output_activation, z.low).value, activate(a.output_activation, z.high).value};
    store_stream(a.y, a.y_type, o, a.M, i, n, z);
    if (o < a.H) store_stream(a.head, F32, o, a.M, i, n, z);
  }
};

template <class K>
void forward(const MlpForward& a, bool pack) {
  const Shape shape(a.layers, a.L, a.A + a.B, a.parameters, a.bias, K::PAD);
  Packed<K> packed(shape, a.packed);
  if (pack) packed.fill(shape);
  const Inputs inputs{a.x0, a.x1, a.x0_type, a.x1_type, a.A, a.B, a.M};
  const Outputs outputs{a};
  parallel_blocks(a.M, 64 * PW, [&](int64_t begin, int64_t end) {
    Runner<K> run(shape, packed, a.activation, false);
    Arena arena{(char*)scratch(Runner<K>::size(shape))};
    run.take(arena);
    K::begin();
    for (int64_t i = begin; i < end;) {
      Group<K> group;
      for (; !group.full() && i < end; i += PW) group.add(i, (int)(end - i < PW ? end - i : PW));
      run.load_inputs(inputs, group);
      run.hidden_layers(group.count);
      run.last_layer(group.count, [&](int p, int o, Channel z, Channel next) RADFIELD_LANES {
        if (group.n[p] == PW) outputs.put(group.at[p], PW, o, z, next);
        else outputs.put(group.at[p], group.n[p], o, z, next);
      });
    }
    K::end();
  });
}

}  // namespace
}  // namespace radfield
