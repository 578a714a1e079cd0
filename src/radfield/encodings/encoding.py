"""What fields and programs ask of an encoding of positions: `Encoding`.

Letters: M samples, D dimensions, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..tensors import check_shape
from . import outside


class Encoding(torch.nn.Module):
    """Positions [M, D] in [0, 1] -> features [M, `channels`].

    `forward(x, computed=None)`: `computed` are the features of `x` where an earlier call found them; an encoding whose
    kernels take them need not read its entries again, the others ignore them. `outside` is the policy for positions
    outside [0, 1]: see outside.py. Raises `BadInput` on positions of other dimensions.
    """

    channels: int
    takes_count = False  # whether `forward` has a `count`, [1] int64 on a device: the rows in use, others are undefined
    _outside = "clamp"

    def __init__(self, dimensions: int):
        super().__init__()
        self.dimensions = dimensions

    @property
    def outside(self) -> str:
        return self._outside

    @outside.setter
    def outside(self, policy: str) -> None:
        self._outside = outside.check_policy(policy)

    def __call__(self, x: Tensor, computed: Tensor | None = None, **counted) -> Tensor:
        check_shape(type(self).__name__, "x", x, (None, self.dimensions))
        return outside.encoded(super().__call__, x, computed, self._outside, **counted)

    def gate(self, features: Tensor) -> Tensor | None:
        """The logarithm [M] of a factor on the density where the encoding has these features; None: there is none."""
        return None

    def add_gradients(self) -> None:
        """Adds the gradients of what the encoding itself wants: once per step, before the optimiser."""
        for part in self._parts():
            part.add_gradients()

    def stored(self) -> Tensor | None:
        """Makes the 16-bit copies of the parameters new where torch changed them."""
        for part in self._parts():
            part.stored()
        return None

    def adam_groups(self) -> list[dict]:
        """The groups of `training.adam.Adam`, for all parameters; call it once. Autograd adds the gradients of what
        stands in torch into the buffers that are made here."""
        groups = []
        for part in self._parts():
            groups += part.adam_groups()
        for parameter in self.parameters(recurse=False):
            parameter.grad = torch.zeros_like(parameter)
            groups.append({"parameter": parameter.data, "grad": parameter.grad})
        return groups

    def refine(self, progress: float, occupied_box: Callable[[], Tensor], samples: float = math.inf) -> bool:
        """Grows, prunes or shrinks as the encoding's schedule says at `progress` in [0, 1] of a training. True where
        its parameters are new ones, which the optimiser must take. occupied_box() is the part [2, 3] of [0, 1]^3 that
        is not empty; samples: how many the whole training is expected to see."""
        return False

    def regularise(self, rate: float) -> None:
        """A step of length `rate` against the encoding's regulariser, where it has one, apart from the loss's (as the
        weight decay of Loshchilov and Hutter 2019)."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Makes the parameters as large as those of a checkpoint, `tensors` by name."""

    def loaded(self) -> None:
        """Follows after values were copied into parameters and buffers."""
        self.stored()

    def _parts(self) -> list[Encoding]:
        """The encodings that this one is made of."""
        children = [
            c for child in self.children() for c in (child if isinstance(child, torch.nn.ModuleList) else [child])
        ]
        return [child for child in children if isinstance(child, Encoding)]
