// Second derivatives of the MLP: gradients of s = <g, dy/dx u> for a direction u of the inputs. With the tangents
// dh_l+1 = sigma'(z_l) W_l dh_l carried forward, s is an ordinary function of the weights, and its gradients come back
// by two adjoints per layer: of the tangent, and of the value (which feels the tangent through sigma'').
// In fp32, one product per layer and quantity on panels; the notation is that of mlp.py.
#include "mlp_backward.h"

namespace radfield {
namespace {

typedef Fp32<false> K;

struct Second {
  const MlpSecond& a;
  const Shape& s;
  const Packed<K>& packed;
  float* dw;
  // panels [channels][PW] per layer: its inputs h and their tangents, its sigma'(z), sigma''(z), tangent of z, and the
  // adjoints of z and of its tangent
  float *h[MAX_LAYERS], *dh[MAX_LAYERS], *slope[MAX_LAYERS], *bend[MAX_LAYERS], *dz[MAX_LAYERS];
  float *adjoint[MAX_LAYERS], *tangent_adjoint[MAX_LAYERS];
  float *value, *tangent, *grad_x, *turned;

  static int64_t size(const Shape& s) {
    int64_t channels = 4 * s.widest + s.channels_padded + PW;
    for (int l = 0; l < s.layers; ++l) channels += 2 * s.layer[l].inputs + 5 * s.layer[l].outputs_padded;
    return 4 * channels * PW + 64 * 8 * MAX_LAYERS;
  }
  void take(Arena arena) {
    for (int l = 0; l < s.layers; ++l) {
      float** const inputs[] = {&h[l], &dh[l]};
      float** const outputs[] = {&slope[l], &bend[l], &dz[l], &adjoint[l], &tangent_adjoint[l]};
      for (float** p : inputs) *p = arena.take<float>((int64_t)s.layer[l].inputs * PW);
      for (float** p : outputs) *p = arena.take<float>((int64_t)s.layer[l].outputs_padded * PW);
    }
    value = arena.take<float>((int64_t)s.widest * PW), tangent = arena.take<float>((int64_t)s.widest * PW);
    grad_x = arena.take<float>((int64_t)s.channels_padded * PW), turned = arena.take<float>((int64_t)PW * PW);
  }
  static void product(float* y, const float* weights, const float* bias, const float* x, int outputs, int inputs) {
    K::product(weights, bias, x, 0, 1, outputs, inputs, [&](int, int o, Channel a, Channel b) {
      store_channel(y + o * PW, a), store_channel(y + (o + 1) * PW, b);
    });
  }
  int64_t kind(int l) const { return l + 1 == s.layers ? a.output_activation : a.activation; }

  void load(const float* stream, float* to, int64_t i, int n) const {
    for (int c = 0; c < s.channels_padded; ++c)
      store_channel(to + c * PW, c < s.channels ? load_stream(stream, F32, c, a.M, i, n) : Channel{});
  }
  // Fills everything but the adjoints.
  void forward(int64_t i, int n) {
    load(a.x, h[0], i, n), load(a.tangent, dh[0], i, n);
    for (int l = 0; l < s.layers; ++l) {
      const Layer& layer = s.layer[l];
      product(value, packed.forward[l], packed.bias[l], h[l], layer.outputs_padded, layer.inputs);
      product(dz[l], packed.forward[l], nullptr, dh[l], layer.outputs_padded, layer.inputs);
      const bool last = l + 1 == s.layers;
      for (int k = 0; k < layer.outputs_padded * PW; k += W) {
        const Activated<vf> act = activate(kind(l), radfield::load(value + k));
        const vf rate = radfield::load(dz[l] + k);
        store(slope[l] + k, act.derivative), store(bend[l] + k, act.second);
        store((last ? tangent : dh[l + 1]) + k, act.derivative * rate);
        if (!last) store(h[l + 1] + k, act.value);
      }
      if (!last && s.layer[l + 1].skip) {
        const int64_t offset = (int64_t)s.layer[l + 1].hidden_padded * PW, size = 4 * (int64_t)s.channels_padded * PW;
        memcpy(h[l + 1] + offset, h[0], (size_t)size), memcpy(dh[l + 1] + offset, dh[0], (size_t)size);
      }
    }
    for (int o = 0; o < (int)a.O; ++o) store_stream(a.grad_grad_y, F32, o, a.M, i, n, load_channel(tangent + o * PW));
  }
  // From the adjoints of a layer's activations (in value) and of their tangents (in tangent) down to the inputs.
  void backward(int64_t i, int n) {
    const Layer& top = s.layer[s.layers - 1];
    memset(value, 0, sizeof(float) * (size_t)top.outputs_padded * PW);
    for (int o = 0; o < top.outputs_padded; ++o)
      store_channel(tangent + o * PW, o < a.O ? load_stream(a.grad_y, F32, o, a.M, i, n) : Channel{});
    memset(grad_x, 0, sizeof(float) * (size_t)s.channels_padded * PW);
    for (int l = s.layers - 1; l >= 0; --l) {
      const Layer& layer = s.layer[l];
      for (int k = 0; k < layer.outputs_padded * PW; k += W) {
        const vf p = radfield::load(tangent + k), q = radfield::load(value + k), d = radfield::load(slope[l] + k);
        store(tangent_adjoint[l] + k, p * d);
        store(adjoint[l] + k, fma(p * radfield::load(dz[l] + k), radfield::load(bend[l] + k), q * d));
      }
      product(value, packed.transposed[l], nullptr, adjoint[l], layer.inputs, layer.outputs_padded);
      product(tangent, packed.transposed[l], nullptr, tangent_adjoint[l], layer.inputs, layer.outputs_padded);
      if (l > 0 && !layer.skip) continue;
      for (int c = 0; c < s.channels_padded * PW; c += W)
        store(grad_x + c, radfield::load(grad_x + c) + radfield::load(value + layer.hidden_padded * PW + c));
    }
    for (int c = 0; c < s.channels; ++c) store_stream(a.grad_x, F32, c, a.M, i, n, load_channel(grad_x + c * PW));
  }
  void weight_gradients() {
    for (int l = 0; l < s.layers; ++l) {
      const Layer& layer = s.layer[l];
      const int stride = s.logical_inputs(l);
      float* to = dw + (layer.weights - a.parameters);
      for (int part = 0; part < 2; ++part) {  // hidden inputs, then those of the network
        const int inputs = part == 0 ? layer.hidden : layer.inputs > layer.hidden_padded ? s.channels : 0;
        const int64_t offset = part == 0 ? 0 : (int64_t)layer.hidden_padded * PW;
        if (inputs == 0) continue;
        float* columns = to + (part == 0 ? 0 : layer.hidden);
        K::weight_gradient(columns, stride, adjoint[l], h[l] + offset, layer.outputs, inputs, 1, 0, 0, turned);
        K::weight_gradient(columns, stride, tangent_adjoint[l], dh[l] + offset, layer.outputs, inputs, 1, 0, 0, turned);
      }
      if (!layer.bias) continue;
      for (int o = 0; o < layer.outputs; ++o) {
        const Channel g = load_channel(adjoint[l] + o * PW);
        dw[layer.bias - a.parameters + o] += sum(g.low + g.high);
      }
    }
  }
};

}  // namespace
}  // namespace radfield

using namespace radfield;

RADFIELD_OP(mlp_second, MlpSecond) {
  const Shape shape(a.layers, a.L, a.A, a.parameters, a.bias, K::PAD);
  Packed<K> packed(shape, a.packed);
  packed.fill(shape);
  parallel_for(a.R, [&](int64_t r) {
    float* dw = a.partial + r * a.P;
    memset(dw, 0, sizeof(float) * (size_t)a.P);
    Second second{a, shape, packed, dw, {}, {}, {}, {}, {}, {}, {}, nullptr, nullptr, nullptr, nullptr};
    second.take({(char*)scratch(Second::size(shape))});
    const int64_t begin = r * a.chunk, end = begin + a.chunk < a.M ? begin + a.chunk : a.M;
    for (int64_t i = begin; i < end; i += PW) {
      const int n = (int)(end - i < PW ? end - i : PW);
      second.forward(i, n);
      second.backward(i, n);
      second.weight_gradients();
    }
  });
  add_partial(a.grad_parameters, a.partial, a.P, a.R);
}
