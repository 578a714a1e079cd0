// Second derivatives of the MLP, as mlp_second.cpp has them: the tangents go forward beside the values, and two adjoints
// per layer come back. In fp32, on the tiles of mlp_tiles.h.
#include "mlp.h"

#include "mlp_tiles.h"

namespace radfield {

// What is kept of a tile.
struct SecondTape {
  float *h[MOST_LAYERS], *dh[MOST_LAYERS];                          // inputs of each layer, and their tangents
  float *slope[MOST_LAYERS], *bend[MOST_LAYERS], *dz[MOST_LAYERS];  // sigma'(z), sigma''(z), tangent of z
  float *adjoint[MOST_LAYERS], *tangent_adjoint[MOST_LAYERS];       // of z, and of its tangent
  float *value, *tangent;                                           // adjoints of a layer's activations and their tangents
  float* grad_x;

  RADFIELD_FN void take(Rows memory, const TileShape& shape, int channels, int widest) {
    for (int l = 0; l < shape.layers; ++l) {
      const int inputs = shape.layer[l].rows, outputs = shape.layer[l].outputs_padded;
      h[l] = memory.take(inputs), dh[l] = memory.take(inputs);
      slope[l] = memory.take(outputs), bend[l] = memory.take(outputs), dz[l] = memory.take(outputs);
      adjoint[l] = memory.take(outputs), tangent_adjoint[l] = memory.take(outputs);
    }
    value = memory.take(widest), tangent = memory.take(widest), grad_x = memory.take(padded(channels));
  }
};

RADFIELD_FN void load_rows(float* to, const float* stream, int rows, int64_t channels, int64_t M, int64_t i) {
  for_rows(rows, [&](int c, int s) {
    to[c * STRIDE + s] = c < channels && i + s < M ? stream[c * M + i + s] : 0.0f;
  });
}

// Fills everything but the adjoints, and the derivative of the outputs along the tangent.
RADFIELD_FN void second_forward(const MlpSecond& a, const TileShape& shape, const SecondTape& tape, int64_t i) {
  load_rows(tape.h[0], a.x, shape.layer[0].rows, a.A, a.M, i);
  load_rows(tape.dh[0], a.tangent, shape.layer[0].rows, a.A, a.M, i);
  __syncthreads();
  for (int l = 0; l < shape.layers; ++l) {
    const TileLayer& layer = shape.layer[l];
    const bool last = l + 1 == shape.layers;
    const int64_t kind = last ? a.output_activation : a.activation;
    float *const slope = tape.slope[l], *const bend = tape.bend[l], *const dz = tape.dz[l];
    float *const h = last ? nullptr : tape.h[l + 1], *const dh = last ? nullptr : tape.dh[l + 1];
    const float* const matrix = a.packed + layer.forward;
    product<false>(matrix, a.packed + layer.packed_bias, tape.h[l], layer.outputs_padded, layer.rows,
                   [&](int o, int s, float z) {
                     const Activated<float> found = activate(kind, z);
                     slope[o * STRIDE + s] = found.derivative, bend[o * STRIDE + s] = found.second;
                     if (!last && o < layer.outputs) h[o * STRIDE + s] = found.value;
                   });
    // the same thread has this element of both products
    product<false>(matrix, nullptr, tape.dh[l], layer.outputs_padded, layer.rows, [&](int o, int s, float rate) {
      dz[o * STRIDE + s] = rate;
      if (o >= layer.outputs) return;
      const float along = slope[o * STRIDE + s] * rate;
      if (!last) dh[o * STRIDE + s] = along;
      else if (i + s < a.M) a.grad_grad_y[o * a.M + i + s] = along;
    });
    if (!last) finish_inputs(h, tape.h[0], shape.layer[l + 1], layer.outputs, (int)a.A);
    if (!last) finish_inputs(dh, tape.dh[0], shape.layer[l + 1], layer.outputs, (int)a.A);
    __syncthreads();
  }
}

// From the adjoints of a layer's activations (value) and of their tangents (tangent) down to the layer below.
RADFIELD_FN void second_layer(const MlpSecond& a, const TileShape& shape, const SecondTape& tape, int l) {
  const TileLayer& layer = shape.layer[l];
  const int hidden = l ? shape.layer[l - 1].outputs : 0;
  for_rows(layer.outputs_padded, [&](int o, int s) {
    const int at = o * STRIDE + s;
    const float p = tape.tangent[at], q = tape.value[at], d = tape.slope[l][at];
    tape.tangent_adjoint[l][at] = p * d;
    tape.adjoint[l][at] = fma(p * tape.dz[l][at], tape.bend[l][at], q * d);
  });
  __syncthreads();
  const float* const matrix = a.packed + layer.backward;
  product<false>(matrix, nullptr, tape.adjoint[l], layer.rows, layer.outputs_padded, [&](int c, int s, float x) {
    if (c < hidden) tape.value[c * STRIDE + s] = x;
    else if (c < layer.inputs) tape.grad_x[(c - hidden) * STRIDE + s] += x;
  });
  product<false>(matrix, nullptr, tape.tangent_adjoint[l], layer.rows, layer.outputs_padded,
                 [&](int c, int s, float x) {
                   if (c < hidden) tape.tangent[c * STRIDE + s] = x;
                 });
  if (l) for_rows(shape.layer[l - 1].outputs_padded - hidden, [&](int c, int s) {
    tape.value[(hidden + c) * STRIDE + s] = 0.0f, tape.tangent[(hidden + c) * STRIDE + s] = 0.0f;
  });
  __syncthreads();
}

RADFIELD_FN void second_tile(const MlpSecond& a, const TileShape& shape, const SecondTape& tape, float* partial,
                             int64_t i) {
  second_forward(a, shape, tape, i);
  const int outputs = shape.layer[shape.layers - 1].outputs_padded;
  load_rows(tape.tangent, a.grad_y, outputs, a.O, a.M, i);
  for_rows(outputs, [&](int o, int s) { tape.value[o * STRIDE + s] = 0.0f; });
  for_rows(padded((int)a.A), [&](int c, int s) { tape.grad_x[c * STRIDE + s] = 0.0f; });
  __syncthreads();
  for (int l = shape.layers - 1; l >= 0; --l) second_layer(a, shape, tape, l);
  for_rows((int)a.A, [&](int c, int s) {
    if (i + s < a.M) a.grad_x[c * a.M + i + s] = tape.grad_x[c * STRIDE + s];
  });
  for (int l = 0; l < shape.layers; ++l) {
    const TileLayer& layer = shape.layer[l];
    float* const sums = partial + layer.weights;
    add_weight_gradient<false>(sums, tape.adjoint[l], tape.h[l], layer.outputs, layer.inputs);
    add_weight_gradient<false>(sums, tape.tangent_adjoint[l], tape.dh[l], layer.outputs, layer.inputs);
    if (layer.bias >= 0) add_bias_gradient(partial + layer.bias, tape.adjoint[l], layer.outputs);
  }
  __syncthreads();
}

__global__ void mlp_second_pack(const MlpSecond a) {
  SHARED_ARRAY(TileShape, shape, [1]);
  read_shape(shape[0], a.layers, a.L, a.bias);
  pack_weights<false>(a, shape[0]);
}

// A block is a chunk of samples, whose gradients it adds up in its own row of `partial`.
__global__ void __launch_bounds__(128) mlp_second(const MlpSecond a, float* scratch, int64_t rows) {
  SHARED_ARRAY(TileShape, shape, [1]);
  SHARED_ARRAY(SecondTape, tape, [1]);
  read_shape(shape[0], a.layers, a.L, a.bias);
  if (threadIdx.x == 0) tape[0].take(block_rows(scratch, rows), shape[0], (int)a.A, (int)a.widest);
  __syncthreads();
  for (int64_t r = blockIdx.x; r < a.R; r += gridDim.x) {
    float* const partial = a.partial + r * a.P;
    for (int64_t p = threadIdx.x; p < a.P; p += MLP_THREADS) partial[p] = 0.0f;
    __syncthreads();
    const int64_t begin = r * a.chunk, end = begin + a.chunk < a.M ? begin + a.chunk : a.M;
    for (int64_t i = begin; i < end; i += TILE) second_tile(a, shape[0], tape[0], partial, i);
  }
}

// grad_parameters += the rows of `partial`, in their order: a thread is a parameter.
__global__ void mlp_second_add_partial(const MlpSecond a) {
  const int64_t p = thread_number();
  if (p < a.P) add_rows(a.grad_parameters + p, a.partial + p, a.P, a.R);
}

}  // namespace radfield
