"""Hash grid and MLP in one pass, for inference: `network(grid(x))` without its features ever being in memory.

On a CPU this saves memory (64 to 128 bytes a sample), not time: the grid alone can hand every level's entries to all
threads at once, which one pass per chunk cannot. At 2^18 samples it took 1.1 to 1.3 times as long
(benchmarks/ops.py), so fields call grid and network one after another.

Letters: as in encodings/hash_grid.py and mlp.py; N layers of the network, L levels of the grid.
"""

from __future__ import annotations

import torch

from ..backend import by_tinycudann, native
from ..cuda.plan import Launch, blocks
from ..encodings.encoding import Encoding
from ..encodings.hash_grid import OPS, HashGrid, entry_bytes
from ..errors import BadInput
from ..op import In, InOut, Op, Out, Scalar
from ..tensors import feature_major, streams
from .mlp import MLP, _Call, kernel_of, per_parameter, products, tiles

#: the grid and the network as ops in one pass take them (grid_field.h)
FIELD = (
    In("table", "f32 bf16", "E F", "its dtype is that of the features between grid and network"),
    In("levels", "i64", "L 4"),
    In("scales", "f32", "L"),
    Scalar("smoothstep", "int"),
    In("parameters", "f32", "P"),
    In("layers", "i64", "N 4"),
    InOut("packed", "f32", "Q", "scratch: the weights as the kernels read them"),
    Scalar("activation", "int"),
    Scalar("output_activation", "int"),
    Scalar("bias", "int"),
    Scalar("channels", "int"),
    Scalar("widest", "int"),
    Scalar("kernel", "int"),
)
FORWARD = Op(
    "grid_mlp_forward",
    Out("y", "f32 bf16", "O M"),
    In("x", "f32", "D M", "positions, clamped to [0, 1]"),
    *FIELD,
)


@FORWARD.cuda
def _(a) -> tuple[Launch, ...]:
    a.aligned("table", min(a.F * (4 if a.cxx("table") == "float" else 2), 16))
    mma = products(a.kernel)
    kernel = f"grid_mlp_forward<{mma}, {a.D}, {a.F}, {a.cxx('table')}>"
    rows = -(-a.L * a.F // 16) * 16 + 2 * a.widest
    return per_parameter(a, f"grid_mlp_pack<{mma}>"), tiles(kernel, rows, -(-a.M // 32))


RAYS_IN_A_ROW = 64  # that a block takes at a time, in frames of rays: renderers/field_rays_device.h


def frame_launches(a, name: str, tasks: int, *kinds: str, beside: int = 0) -> tuple[Launch, Launch]:
    """The launches on CUDA of an op with the arguments FIELD: the kernel `name`_pack, then `name`, a block of which
    does one of `tasks` after another. beside: inputs of the network besides the features; kinds: what the kernel's
    template takes besides product, features per level and the table's type."""
    a.aligned("table", entry_bytes(a, "table"))
    mma = products(a.kernel)
    rows = -(-(a.L * a.F + beside) // 16) * 16 + 2 * a.widest
    kernel = f"{name}<{', '.join((mma, str(a.F), a.cxx('table'), *kinds))}>"
    return Launch(f"{name}_pack<{mma}>", blocks(a.P if tasks else 0)), tiles(kernel, rows, tasks)


@torch.no_grad()
def grid_mlp(x: torch.Tensor, grid: HashGrid, network: MLP, *, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """`network(grid(x))` [M, O] for `x` [M, D] float32 in [0, 1], bit for bit, without gradients.

    `dtype` (float32 or bfloat16) is that of the result. Raises `BadInput` where the network does not take the grid's
    channels, or on another shape or dtype.
    """
    # other interpolations, and other policies for positions outside [0, 1], have no kernel in one pass
    if not native(x) or grid.grid.ops is not OPS or grid.outside != "clamp":
        return network(grid(x), dtype=dtype)
    y = streams(x, network.layers.outputs, dtype)
    FORWARD(y=y, x=feature_major(x), **field_arguments(grid, network, x))
    return y.T


def takes(grid: Encoding, like: torch.Tensor) -> bool:
    """Whether ops in one pass take this grid, for tensors where `like` is: hash, dense and tiled grids that span the
    unit cube, positions outside clamped to it, entries of fp32 or bf16."""
    known = isinstance(grid, HashGrid) and grid.grid.ops is OPS and grid.outside == "clamp"
    if not known or getattr(grid, "_boxed", False) or not native(like) or by_tinycudann():
        return False
    stored = grid.stored()
    return stored is None or stored.dtype == torch.bfloat16


def field_arguments(grid: HashGrid, network: MLP, like: torch.Tensor, beside: int = 0) -> dict:
    """The arguments FIELD, for tensors where `like` is. beside: inputs of the network besides the features. Raises
    `BadInput` where the network has others."""
    if network.layers.inputs != grid.channels + beside:
        rule = f"the grid's {grid.channels} channels" + (f" and {beside} more" if beside else "")
        raise BadInput(f"grid_mlp: the network has {network.layers.inputs} inputs; the rule: {rule}")
    stored = grid.stored()
    kernel = kernel_of(network.config, like)
    return {
        "table": grid.table.detach() if stored is None else stored,
        **grid.grid.tables(like.device),
        "kernel": kernel,
        **_Call(network.layers, kernel, torch.float32, 0, None).arguments(network.weights),
    }
