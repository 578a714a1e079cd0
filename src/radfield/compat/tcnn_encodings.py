"""tiny-cuda-nn's encodings by their configurations, with its order of channels and of parameters.

An encoding maps x [M, D] float32 and its part of the parameters [P] to [M, C]. On the native ops run Frequency,
SphericalHarmonics, and HashGrid and DenseGrid (`tcnn_grid.py`, which says when a grid is plain torch); TriangleWave,
OneBlob, Identity and Composite are plain torch. Formulas: tiny-cuda-nn's `encodings/*.h` (BSD-3), read as facts.

Padding: behind an encoding stand channels of the constant 1 (0 behind a grid) up to the width that a network or the
next encoding of a Composite asks for.
"""

from __future__ import annotations

import math

import torch

from ..encodings.frequency import frequency
from ..encodings.spherical_harmonics import spherical_harmonics
from ..errors import BadInput
from .tcnn_config import check_dict, choice, integer, number


class Encoder:
    """What every encoding has: D `inputs`, C `width` own channels, `padded` channels in all, P `n_params`."""

    alignment = 1  # its first channel's number within a Composite is a multiple of this
    padding = 1.0  # the value of padded channels
    n_params = 0

    def __init__(self, inputs: int, width: int):
        self.inputs = inputs
        self.width = self.padded = width

    def pad_to(self, width: int) -> None:
        """Sets the number of channels in all."""
        self.padded = width

    def align(self, multiple: int) -> None:
        """Pads to a multiple of `multiple` (and of the encoding's own alignment)."""
        multiple = math.lcm(multiple, self.alignment)
        self.pad_to(-(-self.padded // multiple) * multiple)

    def initial(self, generator: torch.Generator) -> torch.Tensor:
        """Parameters [P] to start from."""
        return torch.empty(0)

    def encode(self, x: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
        """The own channels [M, C]."""
        raise NotImplementedError

    def __call__(self, x: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
        """All channels, padded ones included."""
        y = self.encode(x, params)
        extra = self.padded - y.shape[1]
        return torch.cat([y, y.new_full((len(y), extra), self.padding)], 1) if extra else y


class Identity(Encoder):
    """scale x + offset."""

    def __init__(self, inputs: int, config: dict):
        super().__init__(inputs, inputs)
        self.scale = number(config, "scale", 1.0, -math.inf, math.inf)
        self.offset = number(config, "offset", 0.0, -math.inf, math.inf)

    def encode(self, x, params):
        return x * self.scale + self.offset


class Frequency(Encoder):
    """Channel (d K + k) 2 + s is sin(2^k pi x_d + s pi / 2): sine and cosine in turns, unlike `encodings/frequency`."""

    def __init__(self, inputs: int, config: dict):
        self.frequencies = integer(config, "n_frequencies", 12, 1, 24)
        super().__init__(inputs, 2 * inputs * self.frequencies)

    def encode(self, x, params):
        y = frequency(x, self.frequencies).view(len(x), self.inputs, 2, self.frequencies)
        return y.transpose(2, 3).reshape(len(x), self.width)


class TriangleWave(Encoder):
    """Channel d K + k is 4 |v - floor(v) - 1/2| - 1 with v = 2^(k - 1) x_d + k / 4 (Mueller et al. 2021, NRC)."""

    def __init__(self, inputs: int, config: dict):
        self.frequencies = integer(config, "n_frequencies", 12, 1, 24)
        super().__init__(inputs, inputs * self.frequencies)

    def encode(self, x, params):
        k = torch.arange(self.frequencies, dtype=x.dtype, device=x.device)
        v = x[:, :, None] * 2.0 ** (k - 1) + k / 4
        return ((v - v.detach().floor() - 0.5).abs() * 4 - 1).reshape(len(x), self.width)


class OneBlob(Encoder):
    """Channel d n + k is the part of a bump of radius 1 / n around x_d that lies in bin k of n, with wrap-around.

    The bump is the quartic kernel 15/16 (1 - u^2)^2 (Mueller et al. 2019, with a quartic for the Gaussian).
    """

    def __init__(self, inputs: int, config: dict):
        self.bins = integer(config, "n_bins", 16, 1, 256)
        if self.bins & (self.bins - 1):
            raise BadInput(f"tinycudann: n_bins is {self.bins}; the rule: a power of 2")
        super().__init__(inputs, inputs * self.bins)

    def encode(self, x, params):
        edge = torch.arange(self.bins + 1, dtype=x.dtype, device=x.device) / self.bins - x[:, :, None]
        below = sum(_quartic_cdf((edge + turn) * self.bins) for turn in (-1, 0, 1))
        return below.diff(dim=2).reshape(len(x), self.width)


def _quartic_cdf(u: torch.Tensor) -> torch.Tensor:
    """Integral of the quartic kernel up to u: 0 below -1, 1 above 1."""
    return (15 / 16 * u * (1 - 2 / 3 * u**2 + u**4 / 5) + 0.5).clamp(0, 1)


class SphericalHarmonics(Encoder):
    """The harmonics of the direction 2 x - 1: x is a unit vector mapped to [0, 1]^3."""

    def __init__(self, inputs: int, config: dict):
        if inputs != 3:
            raise BadInput(f"tinycudann: SphericalHarmonics has {inputs} inputs; the rule: 3, a direction")
        self.degree = integer(config, "degree", 4, 1, 8)
        super().__init__(inputs, self.degree**2)

    def encode(self, x, params):
        return spherical_harmonics(x * 2 - 1, self.degree)


class Composite(Encoder):
    """Encodings of parts of the inputs, side by side, or their sum or product ("reduction")."""

    def __init__(self, inputs: int, config: dict):
        self.reduction = choice(config, "reduction", "Concatenation", ("Concatenation", "Sum", "Product"))
        self.begins, self.nested = _nested(inputs, config)
        self.alignment = math.lcm(*(part.alignment for part in self.nested))
        self.n_params = sum(part.n_params for part in self.nested)
        if self.reduction == "Concatenation":
            self._align_parts()
        else:
            widths = [part.width for part in self.nested]
            if len(set(widths)) > 1:
                raise BadInput(f"tinycudann: a {self.reduction} of encodings of {widths} channels; the rule: all alike")
            for part in self.nested:
                part.align(self.alignment)
        super().__init__(inputs, self._width())

    def _align_parts(self) -> None:
        so_far = 0
        for part, following in zip(self.nested, self.nested[1:], strict=False):
            end = so_far + part.padded
            part.pad_to(-(-end // following.alignment) * following.alignment - so_far)
            so_far += part.padded

    def _width(self) -> int:
        widths = [part.padded for part in self.nested]
        return sum(widths) if self.reduction == "Concatenation" else widths[0]

    def pad_to(self, width: int) -> None:
        if self.reduction == "Concatenation":
            self.nested[-1].pad_to(width - self._width() + self.nested[-1].padded)
        else:
            for part in self.nested:
                part.pad_to(width)
        self.padded = width

    def initial(self, generator):
        return torch.cat([part.initial(generator) for part in self.nested])

    def encode(self, x, params):
        parts = zip(self.nested, self.begins, params.split([part.n_params for part in self.nested]), strict=True)
        encoded = [part(x[:, begin : begin + part.inputs], own) for part, begin, own in parts]
        if self.reduction == "Concatenation":
            return torch.cat(encoded, 1)
        result = encoded[0]
        for other in encoded[1:]:
            result = result + other if self.reduction == "Sum" else result * other
        return result


def _nested(inputs: int, config: dict) -> tuple[list[int], list[Encoder]]:
    """First inputs and encodings of a Composite's parts. One part may leave `n_dims_to_encode` to what remains."""
    nested = config.get("nested")
    if not isinstance(nested, (list, tuple)) or not nested:
        raise BadInput(f"tinycudann: nested is {nested!r}; the rule: a list of encodings")
    for part in nested:
        check_dict("nested encoding", part)
    counts = [
        integer(part, "n_dims_to_encode", 0, 0, inputs) if "n_dims_to_encode" in part else None for part in nested
    ]
    free = inputs - sum(count or 0 for count in counts)
    placed = any("dims_to_encode_begin" in part for part in nested)
    if counts.count(None) > (0 if placed else 1) or (free < 0 and not placed):
        rule = f"one part at most leaves it out, none with dims_to_encode_begin, and the sum is at most {inputs}"
        raise BadInput(f"tinycudann: n_dims_to_encode of the nested encodings are {counts}; the rule: {rule}")
    begins, encoders, begin = [], [], 0
    for part, given in zip(nested, counts, strict=True):
        count = free if given is None else given
        begin = integer(part, "dims_to_encode_begin", begin, 0, inputs)
        if begin + count > inputs:
            raise BadInput(f"tinycudann: a nested encoding reads inputs {begin} to {begin + count}; there are {inputs}")
        if count:
            begins.append(begin)
            encoders.append(encoder(count, part))
        begin += count
    if not encoders:
        raise BadInput("tinycudann: no nested encoding has inputs; the rule: one at least")
    return begins, encoders


def _one_blob_frequency(inputs: int, config: dict) -> Encoder:
    """The inputs of neural radiance caching: triangle waves of 3, one-blob of 5, the rest as they are."""
    parts = [
        {"otype": "TriangleWave", "n_dims_to_encode": 3, "n_frequencies": config.get("n_frequencies", 12)},
        {"otype": "OneBlob", "n_dims_to_encode": 5, "n_bins": config.get("n_bins", 4)},
        {"otype": "Identity"},
    ]
    return Composite(inputs, {"nested": parts})


def _grid(inputs: int, config: dict) -> Encoder:
    from .tcnn_grid import Grid

    return Grid(inputs, config)


_ENCODERS = {
    "Composite": Composite,
    "Identity": Identity,
    "Frequency": Frequency,
    "TriangleWave": TriangleWave,
    "SphericalHarmonics": SphericalHarmonics,
    "OneBlob": OneBlob,
    "OneBlobFrequency": _one_blob_frequency,
    "NRC": _one_blob_frequency,
    "Grid": _grid,
    "HashGrid": _grid,
    "DenseGrid": _grid,
    "TiledGrid": _grid,
}


def encoder(inputs: int, config: dict) -> Encoder:
    """The encoding of `inputs` dimensions that `config` describes. Raises `BadInput` on what radfield has not."""
    check_dict("encoding", config)
    return _ENCODERS[choice(config, "otype", "OneBlob", tuple(_ENCODERS))](inputs, config)
