"""Random numbers by counter, the torch form of `random.h`: a hash of (seed, index), never a state.

`index` is an int64 tensor of numbers below 2^32; the 32 bits of a result are an int64 tensor too, since torch has few
operations on uint32.
"""

from __future__ import annotations

import torch

_MASK = 0xFFFFFFFF


def pcg(x):
    """A bijection of 32 bits (Jarzynski and Olano 2020), of an int or an int64 tensor."""
    x = (x * 747796405 + 2891336453) & _MASK
    x = (((x >> ((x >> 28) + 4)) ^ x) * 277803737) & _MASK
    return (x >> 22) ^ x


def stream(seed: int, *numbers: int) -> int:
    """The 32-bit seed of an independent stream for each (seed, numbers...), for example (seed, purpose, step)."""
    state = pcg(seed & _MASK) ^ pcg((seed >> 32) & _MASK)
    for number in numbers:
        state = pcg((pcg(number & _MASK) + state) & _MASK)
    return state


def random_bits(seed: int, index: torch.Tensor) -> torch.Tensor:
    """32 random bits of each number `index` in stream `seed` (its lower 32 bits)."""
    return pcg((pcg(index) + (seed & _MASK)) & _MASK)


def unit_float(bits: torch.Tensor) -> torch.Tensor:
    """float32 in [0, 1), in steps of 2^-24."""
    return (bits >> 8).float() * 2.0**-24


def random_below(bits: torch.Tensor, n: int) -> torch.Tensor:
    """Whole numbers from 0 to n - 1, n up to 2^31 (what an int64 product holds)."""
    return (bits * n) >> 32
