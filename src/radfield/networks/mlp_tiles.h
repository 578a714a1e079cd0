// What the CUDA kernels of the MLP share. A block works on tiles of 32 samples: channels are rows of 36 floats (32
// samples, and 4 so that the fragments of a product lie in different banks) in shared memory where they fit, else in
// scratch memory. Products are plain FMAs (lanes are samples), or MMA: tensor cores with operands rounded to 16 bits
// (MMA 1: bfloat16, 2: fp16) and fp32 sums, where layers and lanes are laid out as mma.m16n8k16 wants them. Only device compilers take this file.
//
// Weights are packed once per call: per layer those of the forward product, those of the backward product, the bias,
// with inputs and outputs padded to 16 by zeros.
#pragma once
#include "../cuda/device.h"
#include "mlp.h"

namespace radfield {

constexpr int TILE = 32, STRIDE = 36, MOST_LAYERS = 16, MLP_THREADS = 128, MLP_WARPS = MLP_THREADS / WARP;

RADFIELD_FN int padded(int channels) { return (channels + 15) / 16 * 16; }

struct TileLayer {
  int inputs, outputs, rows, outputs_padded;  // rows: inputs padded
  bool skip;
  int64_t weights, bias;                      // in the parameters; bias -1: none
  int64_t forward, backward, packed_bias;     // in the packed ones
};

struct TileShape {
  TileLayer layer[MOST_LAYERS];
  int layers;
};

// Thread 0 reads the table [layers, 4]; all wait.
RADFIELD_FN void read_shape(TileShape& shape, const int64_t* table, int64_t layers, int64_t bias) {
  if (threadIdx.x == 0) {
    shape.layers = (int)layers;
    int64_t at = 0;
    for (int l = 0; l < (int)layers; ++l) {
      TileLayer& layer = shape.layer[l];
      layer.inputs = (int)table[4 * l], layer.outputs = (int)table[4 * l + 1];
      layer.rows = padded(layer.inputs), layer.outputs_padded = padded(layer.outputs);
      layer.skip = table[4 * l + 3] != 0;
      layer.weights = table[4 * l + 2];
      layer.bias = bias ? layer.weights + (int64_t)layer.inputs * layer.outputs : -1;
      const int64_t size = (int64_t)layer.rows * layer.outputs_padded;
      layer.forward = at, layer.backward = at + size, layer.packed_bias = at + 2 * size;
      at += 2 * size + layer.outputs_padded;
    }
  }
  __syncthreads();
}

// Where the weight of output o and input i stands in a packed matrix with `inputs` inputs (both padded).
// FMA: four outputs of one input side by side. MMA: the words of lane 4 g + t of a fragment side by side (ptx.h).
template <int MMA>
RADFIELD_FN int64_t packed_index(int o, int i, int inputs) {
  if (!MMA) return ((int64_t)(o / 4) * inputs + i) * 4 + o % 4;
  const int tile = o / 16 * (inputs / 16) + i / 16, r = o % 16, c = i % 16;
  const int lane = r % 8 * 4 + c % 8 / 2, word = r / 8 + 2 * (c / 8);
  return (((int64_t)tile * WARP + lane) * 4 + word) * 2 + c % 2;
}
template <int MMA>
RADFIELD_FN void put_weight(float* matrix, int64_t index, float w) {
  if (MMA == 2) ((f16*)matrix)[index] = to_f16(w);
  else if (MMA) ((bf16*)matrix)[index] = to_bf16(w);
  else matrix[index] = w;
}

// All weights of all layers, by all threads of the grid.
template <int MMA, class Args>
RADFIELD_FN void pack_weights(const Args& a, const TileShape& shape) {
  const int64_t first = thread_number(), step = (int64_t)gridDim.x * blockDim.x;
  for (int l = 0; l < shape.layers; ++l) {
    const TileLayer& layer = shape.layer[l];
    for (int64_t k = first; k < (int64_t)layer.rows * layer.outputs_padded; k += step) {
      const int o = (int)(k / layer.rows), i = (int)(k % layer.rows);
      const bool real = o < layer.outputs && i < layer.inputs;
      const float w = real ? a.parameters[layer.weights + (int64_t)o * layer.inputs + i] : 0.0f;
      put_weight<MMA>(a.packed + layer.forward, packed_index<MMA>(o, i, layer.rows), w);
      put_weight<MMA>(a.packed + layer.backward, packed_index<MMA>(i, o, layer.outputs_padded), w);
    }
    for (int64_t o = first; o < layer.outputs_padded; o += step)
      a.packed[layer.packed_bias + o] = layer.bias >= 0 && o < layer.outputs ? a.parameters[layer.bias + o] : 0.0f;
  }
}

// Two operands of a product in a word; and the product of such words.
template <int MMA>
RADFIELD_FN uint32_t pair(float low, float high) {
  if constexpr (MMA == 2) return (uint32_t)to_f16(low).bits | (uint32_t)to_f16(high).bits << 16;
  else return (uint32_t)to_bf16(low).bits | (uint32_t)to_bf16(high).bits << 16;
}
template <int MMA>
RADFIELD_FN void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (MMA == 2) mma_m16n8k16_f16(d, a, b);
  else mma_m16n8k16(d, a, b);
}

// put(o, s, z): element z of W x (+ bias) for every output o < outputs and sample s of the tile. All of the block takes
// part; each element is put by one thread.
template <int MMA, class Put>
RADFIELD_FN void product(const float* matrix, const float* bias, const float* x, int outputs, int inputs, Put put) {
  const int warp = (int)threadIdx.x / WARP, lane = lane_number();
  if constexpr (!MMA) {
    for (int o = 4 * warp; o < outputs; o += 4 * MLP_WARPS) {
      float sum[4] = {}, w[4];
      for (int k = 0; bias && k < 4; ++k) sum[k] = bias[o + k];
      const float* const rows = matrix + (int64_t)o * inputs;
      for (int i = 0; i < inputs; ++i) {
        const float value = x[i * STRIDE + lane];
        read_vector(w, rows + 4 * i);
        for (int k = 0; k < 4; ++k) sum[k] = fma(w[k], value, sum[k]);
      }
      for (int k = 0; k < 4; ++k) put(o + k, lane, sum[k]);
    }
  } else {
    const int g = lane / 4, t = lane % 4;
    for (int o = 16 * warp; o < outputs; o += 16 * MLP_WARPS) {
      float d[TILE / 8][4];
      const float low = bias ? bias[o + g] : 0.0f, high = bias ? bias[o + g + 8] : 0.0f;
      for (int n = 0; n < TILE / 8; ++n) d[n][0] = d[n][1] = low, d[n][2] = d[n][3] = high;
      for (int i = 0; i < inputs; i += 16) {
        const uint4 words = *((const uint4*)matrix + (int64_t)(o / 16 * (inputs / 16) + i / 16) * WARP + lane);
        const uint32_t a[4] = {words.x, words.y, words.z, words.w};
        for (int n = 0; n < TILE / 8; ++n) {
          const float* const column = x + (i + 2 * t) * STRIDE + 8 * n + g;
          const uint32_t b[2] = {pair<MMA>(column[0], column[STRIDE]), pair<MMA>(column[8 * STRIDE], column[9 * STRIDE])};
          multiply<MMA>(d[n], a, b);
        }
      }
      for (int n = 0; n < TILE / 8; ++n)
        for (int k = 0; k < 4; ++k) put(o + g + 8 * (k / 2), 8 * n + 2 * t + k % 2, d[n][k]);
    }
  }
}

// sums[o inputs + i] += sum over the samples of g_o x_i, for outputs and inputs that are not padding. Each element of
// `sums` has one thread, the same for every tile.
template <int MMA>
RADFIELD_FN void add_weight_gradient(float* sums, const float* g, const float* x, int outputs, int inputs) {
  const int lane = lane_number();
  if constexpr (!MMA) {
    for (int k = (int)threadIdx.x; k < outputs * inputs; k += MLP_THREADS) {
      const float *const go = g + k / inputs * STRIDE, *const xi = x + k % inputs * STRIDE;
      float sum = 0.0f;
      for (int j = 0; j < TILE; ++j) {  // lanes start at different samples, and so in different banks
        const int s = (j + lane) % TILE;
        sum = fma(go[s], xi[s], sum);
      }
      sums[k] = sums[k] + sum;
    }
  } else {
    const int gr = lane / 4, t = lane % 4, columns = (inputs + 7) / 8, tiles = (outputs + 15) / 16 * columns;
    for (int tile = (int)threadIdx.x / WARP; tile < tiles; tile += MLP_WARPS) {
      const int o = tile / columns * 16, i = tile % columns * 8;
      float d[4] = {};
      for (int s = 0; s < TILE; s += 16) {
        const float *const r = g + (o + gr) * STRIDE + s + 2 * t, *const q = r + 8 * STRIDE;
        const float* const c = x + (i + gr) * STRIDE + s + 2 * t;
        const uint32_t a[4] = {pair<MMA>(r[0], r[1]), pair<MMA>(q[0], q[1]), pair<MMA>(r[8], r[9]), pair<MMA>(q[8], q[9])};
        const uint32_t b[2] = {pair<MMA>(c[0], c[1]), pair<MMA>(c[8], c[9])};
        multiply<MMA>(d, a, b);
      }
      for (int k = 0; k < 4; ++k) {
        const int row = o + gr + 8 * (k / 2), column = i + 2 * t + k % 2;
        if (row < outputs && column < inputs) sums[(int64_t)row * inputs + column] += d[k];
      }
    }
  }
}
RADFIELD_FN void add_bias_gradient(float* sums, const float* g, int outputs) {
  for (int o = (int)threadIdx.x; o < outputs; o += MLP_THREADS) {
    float sum = 0.0f;
    for (int s = 0; s < TILE; ++s) sum = sum + g[o * STRIDE + s];
    sums[o] = sums[o] + sum;
  }
}

// *sum += the R values at `partial`, P apart, in their order.
RADFIELD_FN void add_rows(float* sum, const float* partial, int64_t P, int64_t R) {
  float total = *sum;
  for (int64_t r = 0; r < R; ++r) total = total + partial[r * P];
  *sum = total;
}

// One element of a stream of fp32, bf16 or fp16.
RADFIELD_FN float read_stream(const void* stream, int64_t type, int64_t at) {
  if (type == F32) return read((const float*)stream + at);
  return type == F16 ? read((const f16*)stream + at) : read((const bf16*)stream + at);
}
RADFIELD_FN void write_stream(void* stream, int64_t type, int64_t at, float x) {
  if (type == F32) write((float*)stream + at, x);
  else if (type == F16) write((f16*)stream + at, x);
  else write((bf16*)stream + at, x);
}

// each(channel, sample of the tile), for `channels` rows, by all threads.
template <class Each>
RADFIELD_FN void for_rows(int channels, Each each) {
  for (int k = (int)threadIdx.x; k < channels * TILE; k += MLP_THREADS) each(k / TILE, k % TILE);
}

// Behind the hidden channels of a skip layer stand the network's inputs; then nothing up to the padding.
RADFIELD_FN void finish_inputs(float* h, const float* x, const TileLayer& layer, int hidden, int channels) {
  for_rows(layer.rows - hidden, [&](int c, int s) {
    h[(hidden + c) * STRIDE + s] = layer.skip && c < channels ? x[c * STRIDE + s] : 0.0f;
  });
}

// out(o, s, y) for every output and sample of the tile whose inputs are the rows x; a is any op's arguments, h two sets
// of rows as wide as the widest layer. Ends with all threads at one place.
template <int MMA, class Args, class Out>
RADFIELD_FN void run_layers(const Args& a, const TileShape& shape, const float* x, float* const (&h)[2], Out out) {
  for (int l = 0; l < shape.layers; ++l) {
    const TileLayer& layer = shape.layer[l];
    const bool last = l + 1 == shape.layers;
    float* const to = h[l & 1];
    product<MMA>(a.packed + layer.forward, a.packed + layer.packed_bias, l ? h[(l - 1) & 1] : x, layer.outputs_padded,
                 layer.rows, [&](int o, int s, float z) {
                   if (o >= layer.outputs) return;
                   const float value = activate(last ? a.output_activation : a.activation, z).value;
                   if (last) out(o, s, value);
                   else to[o * STRIDE + s] = value;
                 });
    if (!last) finish_inputs(to, x, shape.layer[l + 1], layer.outputs, shape.layer[0].inputs);
    __syncthreads();
  }
}

// Rows handed out one after another.
struct Rows {
  float* at;
  RADFIELD_FN float* take(int channels) {
    float* const p = at;
    at += channels * STRIDE;
    return p;
  }
};

// Rows of this block: in dynamic shared memory, or block by block in the scratch memory.
RADFIELD_FN Rows block_rows(float* scratch, int64_t rows) {
  DYNAMIC_SHARED(float, shared);
  return {scratch ? scratch + blockIdx.x * rows * STRIDE : shared};
}

}  // namespace radfield
