// The learned probe's Lookup (level_loops.h): the hash grid's, whose entries are found through the codebook.
#pragma once
#include "hash_grid_loops.h"
#include "learned_probe.h"

namespace radfield {
namespace {

template <int DIMENSIONS>
struct ProbeLookup : GridLookup<DIMENSIONS> {
  static constexpr int D = DIMENSIONS;
  using Cell = ProbeCell<D, vf, vi>;
  Codebook book;

  template <class Args>
  ProbeLookup(const Args& a, int64_t l) : GridLookup<D>(a, l), book(codebook_of(a, l)) {}
  // Three copies of the loop, so that the compiler sees whether it hashes and whether it probes.
  template <class Body>
  RADFIELD_SIMD void specialised(Body body) const {
    ProbeLookup known = *this;
    if (!this->level.hashed) known.level.hashed = false, known.book.log2_probes = 0, body(known);
    else if (known.book.log2_probes == 0) known.level.hashed = true, known.book.log2_probes = 0, body(known);
    else if (known.book.log2_probes > 0) known.level.hashed = true, body(known);
  }
  RADFIELD_SIMD Cell find(const vf (&x)[D]) const {
    return locate_probe<D, vi>(x, this->level, this->factor, this->interpolation, book);
  }
  RADFIELD_SIMD vi entry(const Cell& cell, int c) const { return probed_entry(cell, c, this->level, book); }
};

}  // namespace
}  // namespace radfield
