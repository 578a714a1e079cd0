"""The Python interface of tiny-cuda-nn (NVlabs, BSD-3) on radfield's kernels, on a CPU as on a GPU.

    radfield.compat.install()
    import tinycudann as tcnn  # is this module

It offers `Encoding`, `Network`, `NetworkWithInputEncoding` and `free_temporary_memory`, with tiny-cuda-nn's JSON
configurations (`tcnn_encodings.py`, `tcnn_grid.py`, `tcnn_network.py` say which of them run on native ops and which as
plain torch). Every line is radfield's own. What is as there, and what is not:

- **Parameters**: one flat float32 `params`: network, then encoding, each in tiny-cuda-nn's layout, so that its
  checkpoints load. They start from the same distributions, with other random numbers: `seed` fixes radfield's own.
- **Types**: inputs of any float type are read as float32; outputs have `module.dtype`: float16 where torch has a GPU,
  float32 without one; an `Encoding` takes `dtype`. Within, everything is float32 (there, float16), so that
  `loss_scale`, which an attribute still states, has nothing to scale, and outputs are nearer to the exact ones.
- **Place**: parameters are made on the GPU where torch has one, else on the CPU. Inputs that are elsewhere are moved
  there, announced once.
- **Sizes**: any number of rows, 0 included. Padding to 16 is inside; users see `n_output_dims` columns, row-major.
- **Derivatives**: grids twice (by input and table), networks of native activations twice (the inputs' gradient),
  frequencies and harmonics once.
- `jit_fusion` can be set and changes nothing; `native_tcnn_module` and the random bits of initialisation are not here.

What radfield has not (ResNet, stochastic interpolation, other hash functions) raises `BadInput`, a ValueError.
"""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from ..errors import BadInput, warn
from .tcnn_encodings import encoder
from .tcnn_network import ALIGNMENT, Mlp

__all__ = [
    "Encoding",
    "Module",
    "Network",
    "NetworkWithInputEncoding",
    "free_temporary_memory",
    "rtc_set_cache_dir",
    "supports_jit_fusion",
]


def free_temporary_memory() -> None:
    """Collects what Python no longer uses, and gives torch's cached GPU memory back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def supports_jit_fusion(device: object = None) -> bool:
    """False: kernels are compiled when first used anyway, and `jit_fusion` changes nothing."""
    return False


def rtc_set_cache_dir(path: str | Path) -> None:
    """Does nothing: radfield's kernels are cached in the folder that RADFIELD_CACHE names."""


def _preferred_dtype() -> torch.dtype:
    return torch.float16 if torch.cuda.is_available() else torch.float32


class Module(torch.nn.Module):
    """Encoding and network, either of which may be absent, over one flat vector of parameters."""

    def __init__(self, seed: int = 1337, *, encode=None, network=None, dtype: torch.dtype | None = None):
        super().__init__()
        self._encode, self._network = encode, network
        self.dtype = _preferred_dtype() if dtype is None else dtype
        self.seed = seed
        self.loss_scale = 128.0 if self.dtype == torch.float16 else 1.0
        self.jit_fusion = False
        generator = torch.Generator().manual_seed(int(seed))
        parts = [part.initial(generator) for part in (network, encode) if part is not None]
        self.params = torch.nn.Parameter(torch.cat(parts).to("cuda" if torch.cuda.is_available() else "cpu"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` [M, n_input_dims] -> [M, n_output_dims] of `dtype`. Raises `BadInput` on another shape."""
        if x.ndim != 2 or x.shape[1] != self.n_input_dims or not x.is_floating_point():
            raise BadInput(
                f"tinycudann: the input is {list(x.shape)} of {x.dtype}; the rule: [:, {self.n_input_dims}] of floats"
            )
        if x.device != self.params.device:
            warn(f"tinycudann: inputs on {x.device} are moved to {self.params.device}, where the parameters are")
            x = x.to(self.params.device)
        with torch.autocast(x.device.type, enabled=False):
            return self._evaluate(x.float()).to(self.dtype).contiguous()

    def _evaluate(self, x):
        params = self.params.float()
        if self._network is None:
            return self._encode(x, params)
        weights, rest = params.split([self._network.n_params, self._encode.n_params])
        return self._network(self._encode(x, rest), weights)[:, : self.n_output_dims]

    def extra_repr(self) -> str:
        sizes = f"n_input_dims={self.n_input_dims}, n_output_dims={self.n_output_dims}"
        return f"{sizes}, seed={self.seed}, dtype={self.dtype}, params={self.params.numel()}"


class NetworkWithInputEncoding(Module):
    """An encoding of `n_input_dims` inputs, then a network of `n_output_dims` outputs."""

    def __init__(
        self, n_input_dims: int, n_output_dims: int, encoding_config: dict, network_config: dict, seed: int = 1337
    ):
        _check_sizes(n_input_dims=n_input_dims, n_output_dims=n_output_dims)
        encode = encoder(n_input_dims, encoding_config)
        encode.align(ALIGNMENT)
        super().__init__(seed, encode=encode, network=Mlp(encode.padded, n_output_dims, network_config))
        self.n_input_dims, self.n_output_dims = n_input_dims, n_output_dims
        self.encoding_config, self.network_config = encoding_config, network_config


class Network(NetworkWithInputEncoding):
    """A network of `n_input_dims` inputs, padded with ones to a multiple of 16, and `n_output_dims` outputs."""

    def __init__(self, n_input_dims: int, n_output_dims: int, network_config: dict, seed: int = 1337):
        super().__init__(n_input_dims, n_output_dims, {"otype": "Identity"}, network_config, seed)


class Encoding(Module):
    """An encoding of `n_input_dims` inputs, not padded; `dtype` (float32 or float16) is that of the result."""

    def __init__(self, n_input_dims: int, encoding_config: dict, seed: int = 1337, dtype: torch.dtype | None = None):
        _check_sizes(n_input_dims=n_input_dims)
        if dtype not in (None, torch.float32, torch.float16):
            raise BadInput(f"tinycudann: dtype is {dtype}; the rule: float32, float16 or None")
        encode = encoder(n_input_dims, encoding_config)
        super().__init__(seed, encode=encode, dtype=dtype)
        self.n_input_dims, self.n_output_dims = n_input_dims, encode.padded
        self.encoding_config = encoding_config


def _check_sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 4096:
            raise BadInput(f"tinycudann: {name} is {value!r}; the rule: a whole number from 1 to 4096")
