"""Random numbers by counter, the torch form of `random.h`: a hash of (seed, index), never a state.

`index` is an int64 tensor of numbers below 2^32; the 32 bits of a result are an int64 tensor too, since torch has few
operations on uint32.
"""

from __future__ import annotations

import math

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


def random_bits(seed: int | torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """32 random bits of each number `index` in stream `seed` (its lower 32 bits; on a device [1] int64)."""
    return pcg((pcg(index) + (seed & _MASK)) & _MASK)


def unit_float(bits: torch.Tensor) -> torch.Tensor:
    """float32 in [0, 1), in steps of 2^-24."""
    return (bits >> 8).float() * 2.0**-24


def random_below(bits: torch.Tensor, n: int) -> torch.Tensor:
    """Whole numbers from 0 to n - 1, n up to 2^31 (what an int64 product holds)."""
    return (bits * n) >> 32


class Counted:
    """Random numbers on a device, each drawn once: those of stream `seed`, [1] int64 on the device, in the order of
    asking. A CUDA graph of what asks for them draws others where `seed` is another."""

    def __init__(self, seed: torch.Tensor):
        self.seed, self.device, self._drawn = seed, seed.device, 0

    def bits(self, count: int) -> torch.Tensor:
        """The next 32 bits, [count] int64."""
        index = torch.arange(self._drawn, self._drawn + count, device=self.device)
        self._drawn += count
        return random_bits(self.seed, index)


#: where random numbers come from: a generator of torch on the CPU, a counter on a device
Source = torch.Generator | Counted


def uniform(source: Source, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The next numbers of `source`, evenly from [0, 1), of float32 in steps of 2^-24, of float64 in steps of 2^-53."""
    if isinstance(source, torch.Generator):
        return torch.rand(*shape, generator=source, dtype=dtype, device=source.device)
    count = math.prod(shape)
    if dtype == torch.float32:
        return unit_float(source.bits(count)).view(shape)
    high, low = source.bits(count), source.bits(count)
    return ((((high << 21) | (low >> 11)).double()) * 2.0**-53).view(shape)


def whole_numbers(source: Source, below: int, count: int) -> torch.Tensor:
    """[count] int64, the next whole numbers of `source` from 0 to below - 1."""
    if isinstance(source, torch.Generator):
        return torch.randint(below, (count,), generator=source, device=source.device)
    return (uniform(source, count, dtype=torch.float64) * below).long().clamp_max(below - 1)
