// Runs CUDA C++ kernels on the host, for tests only:  g++ -x c++ -include emulator.h kernel.cu
//
// A block is a set of cooperative fibers on one OS thread; blocks run one after another. A fiber leaves the processor
// only at a barrier or a warp collective, so code between two of them is atomic here and is not on a GPU: the checked
// build (-fsanitize=thread, with the hooks of checks.h in place of libtsan) is what finds races, bad addresses and
// uninitialised reads. Every rule that a kernel breaks ends the launch with a message naming block, thread and line.
//
//   numbers.h      keywords, vector types, half and bfloat16, intrinsics of one thread
//   fibers.h       threads of a block as fibers; schedules; the end of a launch by an error
//   collectives.h  barriers, shuffles, votes; shared memory
//   checks.h       the checked build: every access of a kernel
//   atomics.h      atomic operations
//   ptx_twins.h    what cuda/ptx.h has for a GPU
//   launch.h       blocks, arguments, what Python calls
//
// What it does not model is in README.md.
#pragma once
#include "numbers.h"
#include "fibers.h"
#include "collectives.h"
#include "checks.h"
#include "atomics.h"
#include "ptx_twins.h"
#include "launch.h"
