// Particles in lanes: streams read in the order of a tree.
#pragma once
#include "../renderers/gaussian_projection_lanes.h"
#include "particle_bvh.h"

namespace radfield {

// The particles of these numbers.
template <class Struct>
RADFIELD_SIMD Gaussian<vf> gather_particles(const Struct& a, vi at) {
  Gaussian<vf> g;
  for (int k = 0; k < 3; ++k) g.mean[k] = gather(a.means + k * a.G, at), g.scale[k] = gather(a.scales + k * a.G, at);
  for (int k = 0; k < 4; ++k) g.quaternion[k] = gather(a.quaternions + k * a.G, at);
  g.opacity = gather(a.opacities, at);
  return g;
}

}  // namespace radfield
