#include "mlp.h"

#include "mlp_tiles.h"

namespace radfield {

template <int MMA, class Args>
__global__ void mlp_pack(const Args a) {
  SHARED_ARRAY(TileShape, shape, [1]);
  read_shape(shape[0], a.layers, a.L, a.bias);
  pack_weights<MMA>(a, shape[0]);
}

// Both inputs of the network, or their tangents.
struct InputStreams {
  const void *first, *second;
  int64_t first_type, second_type;
};
template <class Args>
RADFIELD_FN InputStreams inputs_of(const Args& a) {
  return {a.x0, a.x1, a.x0_type, a.x1_type};
}

// Those of samples i .. i + 31.
template <class Args>
RADFIELD_FN void load_inputs(const Args& a, const InputStreams& from, float* x, int64_t i, int rows) {
  const int64_t M = rows_in_use(a.count, a.M);
  for_rows(rows, [&](int c, int s) {
    float value = 0.0f;
    if (i + s < M && c < a.A) value = read_stream(from.first, from.first_type, c * a.M + i + s);
    else if (i + s < M && c < a.A + a.B) value = read_stream(from.second, from.second_type, (c - a.A) * a.M + i + s);
    x[c * STRIDE + s] = value;
  });
}

template <int MMA>
__global__ void __launch_bounds__(128) mlp_forward(const MlpForward a, float* scratch, int64_t rows) {
  SHARED_ARRAY(TileShape, shared_shape, [1]);
  read_shape(shared_shape[0], a.layers, a.L, a.bias);
  const TileShape& shape = shared_shape[0];
  Rows memory = block_rows(scratch, rows);
  const int inputs = shape.layer[0].rows;
  float* const x = memory.take(inputs);
  float* const h[2] = {memory.take((int)a.widest), memory.take((int)a.widest)};
  const int64_t M = rows_in_use(a.count, a.M);
  for (int64_t i = (int64_t)blockIdx.x * TILE; i < M; i += (int64_t)gridDim.x * TILE) {
    load_inputs(a, inputs_of(a), x, i, inputs);
    __syncthreads();
    run_layers<MMA>(a, shape, x, h, [&](int o, int s, float value) {
      if (i + s >= M) return;
      write_stream(a.y, a.y_type, o * a.M + i + s, value);
      if (a.head && o < a.H) a.head[o * a.M + i + s] = value;
    });
  }
}

// What the backward pass keeps of a tile.
struct Tape {
  float* h[MOST_LAYERS];      // inputs of each layer
  float* slope[MOST_LAYERS];  // derivative of each activation
  float *g, *below;           // gradient of a layer's outputs before activation, and of those of the layer below
  float* grad_x;

  RADFIELD_FN void take(Rows memory, const TileShape& shape, int channels, int widest) {
    for (int l = 0; l < shape.layers; ++l)
      h[l] = memory.take(shape.layer[l].rows), slope[l] = memory.take(shape.layer[l].outputs_padded);
    g = memory.take(widest), below = memory.take(widest), grad_x = memory.take(padded(channels));
  }
};

template <int MMA>
RADFIELD_FN void tape_forward(const MlpBackward& a, const TileShape& shape, const Tape& tape, int64_t i) {
  const int channels = (int)(a.A + a.B);
  load_inputs(a, inputs_of(a), tape.h[0], i, shape.layer[0].rows);
  __syncthreads();
  for (int l = 0; l < shape.layers; ++l) {
    const TileLayer& layer = shape.layer[l];
    const bool last = l + 1 == shape.layers;
    float *const to = last ? nullptr : tape.h[l + 1], *const slope = tape.slope[l];
    product<MMA>(a.packed + layer.forward, a.packed + layer.packed_bias, tape.h[l], layer.outputs_padded, layer.rows,
                 [&](int o, int s, float z) {
                   const Activated<float> found = activate(last ? a.output_activation : a.activation, z);
                   slope[o * STRIDE + s] = found.derivative;
                   if (!last && o < layer.outputs) to[o * STRIDE + s] = found.value;
                 });
    if (!last) finish_inputs(to, tape.h[0], shape.layer[l + 1], layer.outputs, channels);
    __syncthreads();
  }
}

// Gradients of the last layer's outputs before activation; whether there is any in this tile.
RADFIELD_FN bool output_gradient(const MlpBackward& a, const TileShape& shape, float* g, const float* slope, int64_t i) {
  const int64_t M = rows_in_use(a.count, a.M);
  const TileLayer& last = shape.layer[shape.layers - 1];
  bool any = false;
  for_rows(last.outputs_padded, [&](int o, int s) {
    float value = 0.0f;
    if (o < last.outputs && i + s < M) {  // a.O is 0 where there is no grad_y
      if (a.grad_y) value = read_stream(a.grad_y, a.grad_y_type, o * a.M + i + s);
      if (a.grad_head && o < a.H) value = value + a.grad_head[o * a.M + i + s];
    }
    any |= value != 0.0f;
    g[o * STRIDE + s] = value * slope[o * STRIDE + s];
  });
  return __syncthreads_or(any) != 0;
}

// From the gradient of layer l's outputs (tape.g) down to that of the layer below.
template <int MMA>
RADFIELD_FN void layer_backward(const MlpBackward& a, const TileShape& shape, Tape& tape, int l, float* partial) {
  const TileLayer& layer = shape.layer[l];
  const int channels = (int)(a.A + a.B), hidden = l ? shape.layer[l - 1].outputs : 0;
  const float* const slope = l ? tape.slope[l - 1] : nullptr;
  add_weight_gradient<MMA>(partial + layer.weights, tape.g, tape.h[l], layer.outputs, layer.inputs);
  if (layer.bias >= 0) add_bias_gradient(partial + layer.bias, tape.g, layer.outputs);
  float *const below = tape.below, *const grad_x = tape.grad_x;
  product<MMA>(a.packed + layer.backward, nullptr, tape.g, layer.rows, layer.outputs_padded,
               [&](int c, int s, float value) {
                 if (c < hidden) below[c * STRIDE + s] = value * slope[c * STRIDE + s];
                 else if (c < layer.inputs) grad_x[(c - hidden) * STRIDE + s] += value;
               });
  if (l) for_rows(shape.layer[l - 1].outputs_padded - hidden, [&](int c, int s) { below[(hidden + c) * STRIDE + s] = 0.0f; });
  __syncthreads();
  tape.below = tape.g, tape.g = below;
}

RADFIELD_FN void store_grad_inputs(const MlpBackward& a, const float* grad_x, int64_t i) {
  const int64_t M = rows_in_use(a.count, a.M);
  for_rows((int)(a.A + a.B), [&](int c, int s) {
    if (i + s >= M) return;
    const float value = grad_x[c * STRIDE + s];
    if (c < a.A && a.grad_x0) write_stream(a.grad_x0, a.grad_x0_type, c * a.M + i + s, value);
    if (c >= a.A && a.grad_x1) write_stream(a.grad_x1, a.grad_x1_type, (c - a.A) * a.M + i + s, value);
  });
}

// The gradient of s = dy_0/dx t by the weights, where activations are piecewise linear: mlp_backward.h has the equations.
// Runs after the tile's own backward pass, of which the activations' derivatives are left; tangents take the inputs' rows.
template <int MMA>
RADFIELD_FN void tangent_gradient(const MlpBackward& a, const TileShape& shape, Tape& tape, float* partial, int64_t i) {
  const int top = shape.layers - 1;
  __syncthreads();  // rows are not read any more
  load_inputs(a, {a.tangent0, a.tangent1, a.tangent0_type, a.tangent1_type}, tape.h[0], i, shape.layer[0].rows);
  __syncthreads();
  for (int l = 0; l < top; ++l) {
    const TileLayer& layer = shape.layer[l];
    float *const to = tape.h[l + 1], *const slope = tape.slope[l];
    product<MMA>(a.packed + layer.forward, nullptr, tape.h[l], layer.outputs_padded, layer.rows,
                 [&](int o, int s, float z) { if (o < layer.outputs) to[o * STRIDE + s] = z * slope[o * STRIDE + s]; });
    finish_inputs(to, tape.h[0], shape.layer[l + 1], layer.outputs, (int)(a.A + a.B));
    __syncthreads();
  }
  for_rows(shape.layer[top].outputs_padded, [&](int o, int s) { tape.g[o * STRIDE + s] = o ? 0.0f : tape.slope[top][s]; });
  __syncthreads();
  for (int l = top; l >= 0; --l) {
    const TileLayer& layer = shape.layer[l];
    add_weight_gradient<MMA>(partial + layer.weights, tape.g, tape.h[l], layer.outputs, layer.inputs);
    if (!l) break;
    float *const below = tape.below, *const slope = tape.slope[l - 1];
    const int hidden = shape.layer[l - 1].outputs;
    product<MMA>(a.packed + layer.backward, nullptr, tape.g, layer.rows, layer.outputs_padded,
                 [&](int c, int s, float z) { if (c < hidden) below[c * STRIDE + s] = z * slope[c * STRIDE + s]; });
    for_rows(shape.layer[l - 1].outputs_padded - hidden, [&](int c, int s) { below[(hidden + c) * STRIDE + s] = 0.0f; });
    __syncthreads();
    tape.below = tape.g, tape.g = below;
  }
}

// A block is a chunk of samples, whose gradients it adds up in its own row of `partial`. TANGENTS: those along a
// tangent of the inputs too.
template <int MMA, bool TANGENTS>
__global__ void __launch_bounds__(128) mlp_backward(const MlpBackward a, float* scratch, int64_t rows) {
  SHARED_ARRAY(TileShape, shared_shape, [1]);
  read_shape(shared_shape[0], a.layers, a.L, a.bias);
  const TileShape& shape = shared_shape[0];
  Tape tape;
  tape.take(block_rows(scratch, rows), shape, (int)(a.A + a.B), (int)a.widest);
  const int64_t M = rows_in_use(a.count, a.M);
  for (int64_t r = blockIdx.x; r < a.R; r += gridDim.x) {
    float* const partial = a.partial + r * a.P;
    for (int64_t p = threadIdx.x; p < a.P; p += MLP_THREADS) partial[p] = 0.0f;
    __syncthreads();
    const int64_t begin = r * a.chunk, end = begin + a.chunk < M ? begin + a.chunk : M;
    for (int64_t i = begin; i < end; i += TILE) {
      tape_forward<MMA>(a, shape, tape, i);
      for_rows(padded((int)(a.A + a.B)), [&](int c, int s) { tape.grad_x[c * STRIDE + s] = 0.0f; });
      const bool any = output_gradient(a, shape, tape.g, tape.slope[shape.layers - 1], i);
      for (int l = shape.layers - 1; any && l >= 0; --l) layer_backward<MMA>(a, shape, tape, l, partial);
      store_grad_inputs(a, tape.grad_x, i);
      if constexpr (TANGENTS) tangent_gradient<MMA>(a, shape, tape, partial, i);
      __syncthreads();
    }
  }
}

// grad_parameters += the rows of `partial`, in their order: a thread is a parameter.
__global__ void mlp_add_partial(const MlpBackward a) {
  const int64_t p = thread_number();
  if (p < a.P) add_rows(a.grad_parameters + p, a.partial + p, a.P, a.R);
}

}  // namespace radfield
