// The MLP's backward pass. A block of panels is computed forward again, then backward, and then the weight gradients of
// the block, one product per layer. Weight gradients of a fixed chunk of samples have one owner; chunks are added up in
// their order: the same bits with any number of threads.
//
// With tangents t of the inputs the parameters also get the gradient of s = dy_0/dx t. Where activations are piecewise
// linear, with D_l their derivatives (0 or 1), t_l+1 = D_l W_l t_l and b_l = D_l W_l+1^T b_l+1 from b = (1, 0, ..) at the
// top, that is ds/dW_l = b_l t_l^T (NeuS2, Wang et al. 2023, sec. 3.2): one more panel behind each panel of samples, whose
// rows are t_l and b_l, adds it to the same products.
#pragma once
#include "mlp_panels.h"

namespace radfield {
namespace {

constexpr int64_t BLOCK_BYTES = 512 << 10;  // activations and gradients of a block: part of a second-level cache
constexpr int MAX_BLOCK = 32;               // panels

// The gradients of the outputs.
struct OutputGradients {
  const MlpBackward& a;
  int outputs;

  RADFIELD_SIMD Channel channel(int o, int64_t i, int n) const {
    Channel g{};
    if (o >= outputs) return g;
    if (a.grad_y) g = load_stream(a.grad_y, a.grad_y_type, o, a.M, i, n);
    if (o < a.H) {
      const Channel h = load_stream(a.grad_head, F32, o, a.M, i, n);
      g = {g.low + h.low, g.high + h.high};
    }
    return g;
  }
  bool any(int64_t i, int n) const {
    vi nonzero = {};
    for (int o = 0; o < outputs; ++o) {
      if (a.grad_y) prefetch_stream(a.grad_y, a.grad_y_type, o, a.M, i);
      const Channel g = n == PW ? channel(o, i, PW) : channel(o, i, n);
      nonzero |= ((vi)g.low << 1) | ((vi)g.high << 1);  // the sign of a zero does not count
    }
    return radfield::any(nonzero != 0);
  }
};

template <class K>
struct Backward {
  typedef typename K::Word Word;
  typedef typename K::Row Row;
  const MlpBackward& a;
  const Shape& s;
  Runner<K>& run;
  const Inputs inputs, tangents;
  const OutputGradients outputs;
  float* dw;               // this chunk's gradients, laid out as the parameters
  Row* x[MAX_LAYERS];      // rows of a block's first panel: each layer's inputs
  Row* g[MAX_LAYERS];      // and the gradients of each layer's results before activation
  int64_t step = 0;        // from a panel's rows to the next one's
  Word* grad_words[2];     // [GROUP][widest] channels: gradients of the layer at hand and of the one before
  float* y;                // [GROUP][outputs_padded][PW]: results before the output activation
  float* grad_inputs;      // [GROUP][channels_padded][PW], where skip layers add to it
  float* bias_sums;        // [layers][widest][W]
  float* turned;           // scratch of the weight gradients

  Backward(const MlpBackward& a, const Shape& s, Runner<K>& run, float* dw)
      : a(a), s(s), run(run), inputs{a.x0, a.x1, a.x0_type, a.x1_type, a.A, a.B, a.M},
        tangents{a.tangent0, a.tangent1, a.tangent0_type, a.tangent1_type, a.A, a.B, a.M}, outputs{a, s.layer[s.layers - 1].outputs}, dw(dw) {}

  static int64_t panel_rows(const Shape& s) {
    int64_t n = 0;
    for (int l = 0; l < s.layers; ++l) n += (int64_t)(s.layer[l].inputs + s.layer[l].outputs_padded) * PW;
    return n;
  }
  static int64_t turned_size(const Shape& s) { return (int64_t)TURNED_PANELS * PW * PW + (s.widest + 8) * 2 * W; }
  static int64_t size(const Shape& s, int block) {  // bytes that take() takes
    return (int64_t)sizeof(Row) * panel_rows(s) * block +
           (int64_t)K::GROUP * s.widest * PW * 2 * (int64_t)(4 + sizeof(Word) / K::PER_WORD) +
           4 * ((int64_t)s.layers * s.widest * W + turned_size(s)) + 4096;
  }
  void take(Arena& arena, int block) {
    for (auto& words : grad_words) words = arena.take<Word>(K::GROUP * Runner<K>::words_of(s.widest));
    y = arena.take<float>((int64_t)K::GROUP * s.layer[s.layers - 1].outputs_padded * PW);
    grad_inputs = arena.take<float>((int64_t)K::GROUP * s.channels_padded * PW);
    bias_sums = arena.take<float>((int64_t)s.layers * s.widest * W);
    turned = arena.take<float>(turned_size(s));
    step = panel_rows(s);
    Row* memory = arena.take<Row>(step * block);
    for (int l = 0; l < s.layers; ++l) x[l] = memory, memory += s.layer[l].inputs * PW;
    for (int l = 0; l < s.layers; ++l) g[l] = memory, memory += s.layer[l].outputs_padded * PW;
    run.rows_step = step;
  }

  // ---- one group of panels, whose rows begin `panel` panels into the block

  // Where the gradients of layer l are read as words.
  Word* gradient_words(int l, int panel, int p) const {
    if constexpr (K::SHARED) return (Word*)g[l] + (panel + p) * step;
    else return grad_words[l & 1] + p * Runner<K>::words_of(s.widest);
  }
  RADFIELD_SIMD void put(int l, int panel, int p, int o, Channel u, Channel v, bool with_bias = true) {
    Row* rows = K::SHARED ? nullptr : g[l] + (panel + p) * step;
    K::put(gradient_words(l, panel, p), rows, o / 2, u, v);
    if (!a.bias || !with_bias) return;
    float* sums = bias_sums + (int64_t)(l * s.widest + o) * W;
    store(sums, load(sums) + (u.low + u.high)), store(sums + W, load(sums + W) + (v.low + v.high));
  }
  void output_gradient(const Group<K>& group, int panel) {
    const int l = s.layers - 1, padded = s.layer[l].outputs_padded;
    if (a.output_activation != NONE)
      run.last_layer(group.count, [&](int p, int o, Channel z, Channel next) RADFIELD_LANES {
        store_channel(y + ((int64_t)p * padded + o) * PW, z), store_channel(y + ((int64_t)p * padded + o + 1) * PW, next);
      });
    for (int p = 0; p < group.count; ++p) {
      auto channel = [&](int o) RADFIELD_LANES {
        Channel grad = group.n[p] == PW ? outputs.channel(o, group.at[p], PW) : outputs.channel(o, group.at[p], group.n[p]);
        if (a.output_activation == NONE || o >= outputs.outputs) return grad;
        const Channel z = load_channel(y + ((int64_t)p * padded + o) * PW);
        grad.low = grad.low * activate(a.output_activation, z.low).derivative;
        grad.high = grad.high * activate(a.output_activation, z.high).derivative;
        return grad;
      };
      for (int o = 0; o < padded; o += 2) put(l, panel, p, o, channel(o), channel(o + 1));
    }
  }
  RADFIELD_SIMD void store_grad_input(int c, int64_t i, int n, Channel grad) const {
    if (c < a.A) {
      if (a.grad_x0) store_stream(a.grad_x0, a.grad_x0_type, c, a.M, i, n, grad);
    } else if (a.grad_x1 && c < s.channels) {
      store_stream(a.grad_x1, a.grad_x1_type, c - a.A, a.M, i, n, grad);
    }
  }
  // Gradients of the network's inputs c and c + 1 of panel p, of the first layer (which comes last) or of a skip layer.
  RADFIELD_SIMD void input_gradient(const Group<K>& group, int p, int c, Channel u, Channel v, bool last) {
    if (s.skips) {
      float* sums = grad_inputs + ((int64_t)p * s.channels_padded + c) * PW;
      const Channel b = load_channel(sums), d = load_channel(sums + PW);
      u = {u.low + b.low, u.high + b.high}, v = {v.low + d.low, v.high + d.high};
      store_channel(sums, u), store_channel(sums + PW, v);
    }
    if (!last) return;
    if (group.n[p] == PW) store_grad_input(c, group.at[p], PW, u), store_grad_input(c + 1, group.at[p], PW, v);
    else store_grad_input(c, group.at[p], group.n[p], u), store_grad_input(c + 1, group.at[p], group.n[p], v);
  }
  void run_group(const Group<K>& group, int panel) {
    for (int l = 0; l < s.layers; ++l) run.rows[l] = x[l] + panel * step;
    run.load_inputs(inputs, group);
    run.hidden_layers(group.count);
    output_gradient(group, panel);
    if (s.skips) memset(grad_inputs, 0, sizeof(float) * (size_t)group.count * s.channels_padded * PW);
    for (int l = s.layers - 1; l >= 0; --l) {
      const Layer& layer = s.layer[l];
      if (l == 0 && !a.grad_x0 && !a.grad_x1) break;
      // of the first layer, what nobody asked for is left out
      const int rows = l > 0 || a.grad_x1 || s.skips ? layer.inputs : round_up((int)a.A, K::ROW_BLOCK);
      const int64_t words_step = K::SHARED ? step : Runner<K>::words_of(s.widest);
      K::product(run.packed.transposed[l], nullptr, gradient_words(l, panel, 0), words_step, group.count, rows,
                 layer.outputs_padded, [&](int p, int o, Channel u, Channel v) RADFIELD_LANES {
                   if (o >= layer.hidden_padded) return input_gradient(group, p, o - layer.hidden_padded, u, v, l == 0);
                   put(l - 1, panel, p, o, run.times_derivative(u, l - 1, p, o), run.times_derivative(v, l - 1, p, o + 1));
                 });
    }
  }

  // ---- the group's tangents, `behind` panels behind its samples

  RADFIELD_SIMD Channel through(Channel u, int l, int panel, int o) const {
    return a.activation == RELU ? K::keep_positive(u, x[l + 1] + panel * step, o) : u;
  }
  void run_tangents(const Group<K>& group, int panel, int behind) {
    const int own = panel + behind, top = s.layers - 1;
    for (int l = 0; l < s.layers; ++l) run.rows[l] = x[l] + own * step;
    run.load_inputs(tangents, group);
    for (int l = 0; l < top; ++l) {
      Word* to = run.layer_words(l + 1, 0);
      Row* row = run.layer_rows(l + 1, 0);
      K::product(run.packed.forward[l], nullptr, run.layer_words(l, 0), run.words_step(), group.count,
                 s.layer[l].outputs_padded, s.layer[l].inputs, [&](int p, int o, Channel u, Channel v) RADFIELD_LANES {
                   K::put(to + p * run.words_step(), row ? row + p * step : nullptr, o / 2,
                          through(u, l, panel + p, o), through(v, l, panel + p, o + 1));
                 });
    }
    for (int p = 0; p < group.count; ++p)
      for (int o = 0; o < s.layer[top].outputs_padded; o += 2) {
        const Channel chosen = o == 0 ? Channel{vf{} + 1.0f, vf{} + 1.0f} : Channel{};
        put(top, own, p, o, chosen, Channel{}, false);
      }
    for (int l = top; l > 0; --l)
      K::product(run.packed.transposed[l], nullptr, gradient_words(l, own, 0),
                 K::SHARED ? step : Runner<K>::words_of(s.widest), group.count, s.layer[l].inputs,
                 s.layer[l].outputs_padded, [&](int p, int o, Channel u, Channel v) RADFIELD_LANES {
                   put(l - 1, own, p, o, through(u, l - 1, panel + p, o), through(v, l - 1, panel + p, o + 1), false);
                 });
  }

  // ---- blocks of panels

  void weight_gradients(int panels, int first = 0) {
    if (!a.grad_parameters) return;
    const int64_t from = first * step;
    for (int l = 0; l < s.layers; ++l) {
      const Layer& layer = s.layer[l];
      const int stride = s.logical_inputs(l);
      float* to = dw + (layer.weights - a.parameters);
      const Row *grad = g[l] + from, *values = x[l] + from;
      if (layer.hidden) K::weight_gradient(to, stride, grad, values, layer.outputs, layer.hidden, panels, step, step, turned);
      if (layer.inputs > layer.hidden_padded)
        K::weight_gradient(to + layer.hidden, stride, grad, values + layer.hidden_padded * PW, layer.outputs, s.channels,
                           panels, step, step, turned);
    }
  }
  void finish_bias() {
    if (!a.bias) return;
    for (int l = 0; l < s.layers; ++l)
      for (int o = 0; o < s.layer[l].outputs; ++o)
        dw[s.layer[l].bias - a.parameters + o] += sum(load(bias_sums + (int64_t)(l * s.widest + o) * W));
  }
  void chunk(int64_t begin, int64_t end, int block) {
    memset(bias_sums, 0, sizeof(float) * (size_t)s.layers * s.widest * W);
    int filled = 0;  // panels of the block
    if (a.tangent0) block /= 2;  // its other half is for tangents
    for (int64_t i = begin; i < end;) {
      Group<K> group;
      for (; !group.full() && filled + group.count < block && i < end; i += PW) {
        const int n = (int)(end - i < PW ? end - i : PW);
        if (a.tangent0 || outputs.any(i, n)) group.add(i, n);
        else for (int c = 0; c < s.channels; ++c) store_grad_input(c, i, n, Channel{});  // samples behind a surface
      }
      if (group.count) run_group(group, filled);
      if (group.count && a.tangent0) run_tangents(group, filled, block);
      filled += group.count;
      if (filled < block && (i < end || !filled)) continue;
      weight_gradients(filled);
      if (a.tangent0) weight_gradients(filled, block);
      filled = 0;
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
  const int64_t fitting = BLOCK_BYTES / (Backward<K>::panel_rows(shape) * (int64_t)sizeof(typename K::Row));
  const int fewest = a.tangent0 ? 2 : 1;
  const int block = (int)(fitting < fewest ? fewest : fitting > MAX_BLOCK ? MAX_BLOCK : fitting);
  parallel_for(a.R, [&](int64_t r) {
    Runner<K> run(shape, packed, a.activation, true);
    Backward<K> back(a, shape, run, a.partial + r * a.P);
    Arena arena{(char*)scratch(Runner<K>::size(shape) + Backward<K>::size(shape, block))};
    run.take(arena), back.take(arena, block);
    memset(back.dw, 0, sizeof(float) * (size_t)a.P);
    K::begin();
    back.chunk(r * a.chunk, (r + 1) * a.chunk < a.M ? (r + 1) * a.chunk : a.M, block);
    K::end();
  });
  if (a.grad_parameters) add_partial(a.grad_parameters, a.partial, a.P, a.R);
}

}  // namespace
}  // namespace radfield
