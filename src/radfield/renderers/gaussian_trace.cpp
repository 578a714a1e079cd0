// What rays see of particles; and the particles' records, which it reads.
#include "gaussian_trace.h"

#include "gaussian_trace_setup.h"

using namespace radfield;

namespace {

// The records of a leaf. Returns how many of its particles stand out of the boxes that the tree has for them.
int32_t pack_leaf(const GaussianTracePack& a, int64_t leaf, float scale) {
  const float* boxes = a.leaf_box + leaf * 6 * PARTICLE_WIDE;
  const float least = (float)a.min_response;
  int32_t stale = 0;
  for (int i = 0; i < PARTICLE_WIDE; i += W) {
    const int64_t at = leaf * PARTICLE_WIDE + i, left = a.G - at;
    const int n = left < 0 ? 0 : left < W ? (int)left : W;
    const vi number = load_n(a.order + (n ? at : 0), n);
    const Gaussian<vf> g = gather_particles(a, number);
    const vi met = is_met(g, least) & (lanes() < n);
    const TracedParticle<vf> p = traced_particle(g, met);
    vf half[3];
    particle_half(p, least, a.degree, scale, half);
    vi out = {};
    for (int k = 0; k < 3; ++k) {
      out = out | (p.mean[k] - half[k] < load(boxes + k * PARTICLE_WIDE + i));
      out = out | (p.mean[k] + half[k] > load(boxes + (3 + k) * PARTICLE_WIDE + i));
    }
    stale += __builtin_popcount(mask_bits(out & met));
    float* data = a.block + leaf * BLOCK_ROWS * PARTICLE_WIDE + i;
    for (int k = 0; k < 3; ++k) {
      store(data + (BLOCK_MEAN + k) * PARTICLE_WIDE, p.mean[k]);
      const vf base = fma(gather(a.base + k * a.G, number), vf{} + GAUSSIAN_HARMONIC_0, vf{} + 0.5f);
      store(data + (BLOCK_COLOR + k) * PARTICLE_WIDE, base);
    }
    for (int k = 0; k < 9; ++k) store(data + (BLOCK_WHITEN + k) * PARTICLE_WIDE, p.whiten[k]);
    store(data + BLOCK_OPACITY * PARTICLE_WIDE, p.opacity);
  }
  return stale;
}

// The coefficients of a leaf's particles, one after another.
void pack_coefficients(const GaussianTracePack& a, int64_t leaf) {
  const int64_t begin = leaf * PARTICLE_WIDE, end = begin + PARTICLE_WIDE < a.G ? begin + PARTICLE_WIDE : a.G;
  for (int64_t r = 0; r < a.R; ++r)
    for (int64_t i = begin; i < end; ++i) a.coefficients[i * a.R + r] = a.rest[r * a.G + a.order[i]];
}

void trace_alone(Tile<GaussianTraceForward>& t, int i, vf* harmonics) {
  const GaussianTraceForward& a = t.a;
  LoneRay ray = lone_ray(t, i);
  const float d[3] = {t.rays.d[0][i], t.rays.d[1][i], t.rays.d[2][i]}, o[3] = {t.rays.o[0][i], t.rays.o[1][i], t.rays.o[2][i]};
  if (a.R) trace_harmonics<vf>(a.harmonics, ray.d, harmonics);
  walk_ray<MOST_K>(a, ray, [&](const KEntry& e) {
    const LoneParticle p = lone_particle(a, e.place, harmonics);
    float normal[3];
    if (t.normals) {
      const float radius = kernel_radius(p.opacity, (float)a.min_response, a.degree, t.scale);
      entry_normal(meet(p.mean, p.whiten, o, d), p.whiten, radius, normal);
    }
    return blend(t.state[i], e.alpha, key_depth(e.key), p.color, t.normals ? normal : nullptr, (float)a.min_transmittance);
  });
  for (int k = 0; k < 3; ++k) t.visits[k] += ray.visits[k];
}

void trace_tile(const GaussianTraceForward& a, int64_t tile) {
  uint64_t refused;
  Tile<GaussianTraceForward>* made = make_tile(a, tile, refused);
  a.rows[tile] = 0;
  for (int i = 0; i < TRACE_TILE; ++i)
    if (refused >> i & 1) write_ray(a, ray_of(a, tile, i), {{}, 0, {}, 1.0f, -1, 0});
  if (!made) return;
  Tile<GaussianTraceForward>& t = *made;
  t.normals = a.normals != nullptr;
  const uint64_t alone = trace_packets(t, false);
  int32_t rows = 0;
  for (const Packet& p : t.packet)
    for (int r = 0; r < p.rows; ++r) rows += p.table->row[r].used;
  vf harmonics[MOST_HARMONICS];
  for (int i = 0; i < TRACE_TILE; ++i) {
    if (alone >> i & 1) {
      const int32_t before = t.state[i].hits;
      trace_alone(t, i, harmonics);
      rows += t.state[i].hits - before;
    }
    if (t.rays.index[i] >= 0) write_ray(a, t.rays.index[i], t.state[i]);
  }
  a.rows[tile] = rows;
  for (int k = 0; k < 3 && a.visits; ++k) a.visits[3 * tile + k] = t.visits[k];
}

}  // namespace

RADFIELD_OP(gaussian_trace_pack, GaussianTracePack) {
  const float scale = kernel_scale(a.degree);
  parallel_blocks(a.L, 64, [&](int64_t begin, int64_t end) {
    for (int64_t leaf = begin; leaf < end; ++leaf) {
      a.stale[leaf] = pack_leaf(a, leaf, scale);
      pack_coefficients(a, leaf);
    }
  });
}

RADFIELD_OP(gaussian_trace_forward, GaussianTraceForward) {
  parallel_for(a.T, [&](int64_t tile) { trace_tile(a, tile); });
}
