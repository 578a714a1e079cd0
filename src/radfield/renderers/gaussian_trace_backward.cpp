// The way back goes front to back as well: rays are traced again, and what lies behind a particle is what the ray saw in
// all, less what it has passed. Each particle that a packet or a lone ray blends gets a row of sums of its own; afterwards
// each particle adds its rows in the order of the tiles: no atomics, and no copy per thread.
#include "gaussian_blocks.h"
#include "gaussian_trace.h"
#include "gaussian_trace_setup.h"

using namespace radfield;

namespace {

using Trace = GaussianTraceBackward;

// Gradients by the rays of a packet.
struct PacketRays {
  vf origin[3], direction[3], harmonics[MOST_HARMONICS];
};

// d loss / d direction through the harmonics, from that by each harmonic.
template <class F>
void add_harmonic_gradient(int64_t bands, const F (&d)[3], const F* by_harmonic, F (&grad)[3]) {
  with_trace_bands(bands, [&]<int BANDS>() {
    sh_gradient<BANDS>(d[0], d[1], d[2], F{} + 1.0f, F{}, F{}, F{}, [&](int c) { return c ? by_harmonic[c] : F{}; }, grad);
  });
}

// The sums of the coefficients' gradients.
void write_rest(float* out, int64_t R, const vf* harmonics, const vf (&color)[3]) {
  for (int64_t first = 0; first < R; first += W) {
    vf products[W] = {};
    const int n = R - first < W ? (int)(R - first) : W;
    for (int i = 0; i < n; ++i) products[i] = harmonics[(first + i) / 3 + 1] * color[(first + i) % 3];
    store_n(out + first, lane_sums(products), n);
  }
}

void row_gradient(Tile<Trace>& t, const Packet& p, int r, const vf (&grad)[4], RowWriter& writer, PacketRays* by_rays) {
  const Trace& a = t.a;
  const Row& row = p.table->row[r];
  const int64_t at = writer.take(row.number);
  if (at < 0) return;
  const Data g = particle_data(a.block + row.place / PARTICLE_WIDE * BLOCK_ROWS * PARTICLE_WIDE + row.place % PARTICLE_WIDE);
  Meeting<vf> hit = meet(g.mean, g.whiten, p.o, p.d);
  refine(hit);
  const vf response = kernel_response(hit.square, a.degree, t.scale);
  const vf weight = load(p.table->weight + r * W), on_ceiling = g.opacity * response;
  const vf slope = select(on_ceiling < (float)a.max_alpha, load(p.table->slope + r * W), vf{});
  vf color[3], sums[TRACE_SUMS] = {};
  const float* colors = p.table->color + r * W * 4;
  for (int c = 0; c < 3; ++c) {
    color[c] = weight * grad[c];
    if (a.R) {
      vf seen;
      for (int lane = 0; lane < W; ++lane) seen[lane] = colors[4 * lane + c];
      color[c] = select(seen > 0.0f, color[c], vf{});
    } else if (!(row.color[c] > 0)) {
      color[c] = vf{};
    }
  }
  trace_sums(hit, response, kernel_derivative(hit.square, response, a.degree, t.scale), g.opacity, slope, weight, grad[3], color, sums);
  float* out = a.partial + at * TRACE_SUMS;
  for (int k = 0; k < TRACE_SUMS; ++k) out[k] = 0;
  add_sums<TRACE_USED>(out, sums);
  if (a.R) write_rest(a.partial_rest + at * a.R, a.R, p.harmonics, color);
  if (!by_rays) return;
  const vf force[3] = {sums[TRACE_FORCE], sums[TRACE_FORCE + 1], sums[TRACE_FORCE + 2]};
  trace_ray_gradient(hit, g.whiten, force, weight * grad[3] * hit.inverse, by_rays->origin, by_rays->direction);
  const float* coefficient = a.coefficients + row.place * a.R;
  for (int k = 1; 3 * k <= a.R; ++k, coefficient += 3)
    for (int c = 0; c < 3; ++c) by_rays->harmonics[k] = fma(color[c], splat(coefficient[c]), by_rays->harmonics[k]);
}

void packet_gradient(Tile<Trace>& t, const Packet& p, RowWriter& writer) {
  if (!p.rows) return;
  const Trace& a = t.a;
  vf grad[4];
  for (int lane = 0; lane < W; ++lane) {
    for (int c = 0; c < 3; ++c) grad[c][lane] = p.gradient[lane].color[c];
    grad[3][lane] = p.gradient[lane].depth;
  }
  PacketRays rays = {};
  for (int r = 0; r < p.rows; ++r)
    if (p.table->row[r].used) row_gradient(t, p, r, grad, writer, a.grad_origins ? &rays : nullptr);
  if (!a.grad_origins) return;
  if (a.R) add_harmonic_gradient(a.harmonics, p.d, rays.harmonics, rays.direction);
  for (int lane = 0; lane < W; ++lane) {
    const int64_t ray = t.rays.index[p.first + lane];
    const float origin[3] = {rays.origin[0][lane], rays.origin[1][lane], rays.origin[2][lane]};
    const float direction[3] = {rays.direction[0][lane], rays.direction[1][lane], rays.direction[2][lane]};
    if (ray >= 0) add_ray_gradient(a, ray, origin, direction);
  }
}

void trace_alone(Tile<Trace>& t, int i, RowWriter& writer) {
  const Trace& a = t.a;
  LoneRay ray = lone_ray(t, i);
  const float d[3] = {t.rays.d[0][i], t.rays.d[1][i], t.rays.d[2][i]}, o[3] = {t.rays.o[0][i], t.rays.o[1][i], t.rays.o[2][i]};
  vf harmonics[MOST_HARMONICS];
  if (a.R) trace_harmonics<vf>(a.harmonics, ray.d, harmonics);
  LoneGradient by_ray = {};
  walk_ray<MOST_K>(a, ray, [&](const KEntry& e) {
    const LoneParticle p = lone_particle(a, e.place, harmonics);
    float slope, weight;
    const bool on = blend_gradient(t.state[i], t.gradient[i], e.alpha, key_depth(e.key), p.color, (float)a.min_transmittance,
                                   slope, weight);
    auto harmonic = [&](int64_t k) { return harmonics[k][0]; };
    lone_row(a, t.scale, o, d, t.gradient[i], p, e.place, slope, weight, harmonic, writer, by_ray);
    return on;
  });
  if (!a.grad_origins) return;
  if (a.R) add_harmonic_gradient(a.harmonics, d, by_ray.by_harmonic, by_ray.direction);
  add_ray_gradient(a, t.rays.index[i], by_ray.origin, by_ray.direction);
}

void trace_tile(const Trace& a, int64_t tile) {
  uint64_t refused;
  RowWriter writer = {a, a.row_start[tile] - a.row_start[a.first_tile], a.row_start[tile + 1] - a.row_start[a.first_tile]};
  Tile<Trace>* t = make_tile(a, tile, refused);
  if (!t) return;
  for (int i = 0; i < TRACE_TILE; ++i)
    if (t->rays.index[i] >= 0) t->gradient[i] = gradient_of(a, t->rays.index[i]);
  const uint64_t alone = trace_packets(*t, true);
  for (const Packet& p : t->packet) packet_gradient(*t, p, writer);
  for (int i = 0; i < TRACE_TILE; ++i)
    if (alone >> i & 1) trace_alone(*t, i, writer);
  writer.finish();
}

}  // namespace

RADFIELD_OP(gaussian_trace_backward, GaussianTraceBackward) {
  parallel_for(a.tiles, [&](int64_t i) { trace_tile(a, a.first_tile + i); });
}

// Rows by particle, in their order: B parts count on their own, then each particle's slots are dealt out part by part.
RADFIELD_OP(gaussian_trace_sort, GaussianTraceSort) {
  const int64_t part = (a.K + a.B - 1) / a.B;
  auto rows = [&](int64_t b, auto body) {
    const int64_t end = (b + 1) * part < a.K ? (b + 1) * part : a.K;
    for (int64_t row = b * part; row < end; ++row)
      if (a.row_particle[row] >= 0) body(row, a.counts[b * a.G + a.row_particle[row]]);
  };
  parallel_for(a.B, [&](int64_t b) {
    memset(a.counts + b * a.G, 0, (size_t)a.G * 4);
    rows(b, [](int64_t, int32_t& count) { ++count; });
  });
  int32_t next = 0;
  for (int64_t g = 0; g < a.G; ++g) {
    a.slot_start[g] = next;
    for (int64_t b = 0; b < a.B; ++b) {
      const int32_t count = a.counts[b * a.G + g];
      a.counts[b * a.G + g] = next, next += count;
    }
  }
  a.slot_start[a.G] = next;
  parallel_for(a.B, [&](int64_t b) {
    rows(b, [&](int64_t row, int32_t& slot) { a.position[slot++] = (int32_t)row; });
  });
}

namespace {

// The sums of n particles, as streams.
RADFIELD_SIMD void gather_sums(const GaussianTraceGather& a, int64_t i, int n, vf (&sums)[TRACE_SUMS]) {
  for (int part = 0; part < TRACE_SUMS; part += W) {
    vi words[W] = {};
    for (int k = 0; k < n; ++k) {
      vf row = {};
      for (int32_t slot = a.slot_start[i + k]; slot < a.slot_start[i + k + 1]; ++slot)
        row = row + load(a.partial + TRACE_SUMS * (int64_t)a.position[slot] + part);
      words[k] = as_int(row);
    }
    transpose(words);
    for (int k = 0; k < W; ++k) sums[part + k] = as_float(words[k]);
  }
}

void gather_rest(const GaussianTraceGather& a, int64_t i) {
  constexpr int MOST = 3 * (MOST_HARMONICS - 1);
  float sums[MOST] = {};
  for (int32_t slot = a.slot_start[i]; slot < a.slot_start[i + 1]; ++slot)
    for (int64_t r = 0; r < a.R; ++r) sums[r] += a.partial_rest[a.position[slot] * a.R + r];
  for (int64_t r = 0; r < a.R; ++r) a.grad_rest[r * a.G + i] = sums[r];
}

RADFIELD_SIMD void gather_vector(const GaussianTraceGather& a, int64_t i, int n) {
  vf sums[TRACE_SUMS];
  gather_sums(a, i, n, sums);
  const Gaussian<vf> g = load_gaussians(a, i, n);
  const vi met = is_met(g, (float)a.min_response);
  const Gaussian<vf> out = particle_gradient(traced_particle(g, met), g, sums);
  store_rows(a.grad_means, a.G, i, n, met, out.mean);
  store_rows(a.grad_quaternions, a.G, i, n, met, out.quaternion);
  store_rows(a.grad_scales, a.G, i, n, met, out.scale);
  store_n(a.grad_opacities + i, select(met, out.opacity, vf{}), n);
  vf base[3];
  for (int c = 0; c < 3; ++c) base[c] = sums[TRACE_COLOR + c] * GAUSSIAN_HARMONIC_0;
  store_rows(a.grad_base, a.G, i, n, met, base);
  for (int k = 0; k < n && a.R; ++k) gather_rest(a, i + k);
}

}  // namespace

RADFIELD_OP(gaussian_trace_gather, GaussianTraceGather) {
  parallel_blocks(a.G, 1024, [&](int64_t begin, int64_t end) {
    for_lanes(begin, end, [&](int64_t i, int n) RADFIELD_LANES { gather_vector(a, i, n); });
  });
}
