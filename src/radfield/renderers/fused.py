"""Rendering in one pass, for inference: each ray is marched, and each of its samples encoded, asked of both networks
and composited, without anything but the rays' results being in memory (after Mueller et al. 2022, Instant-NGP,
appendix E.2). For the radiance field with a hash, dense or tiled grid; on CUDA also with a simplex encoding, a
learned probe, planes and lines.

On CUDA it is one kernel. A block holds 32 rays, one per lane of its first warp, and asks the networks for one sample of
each at a time, 32 being a tile of the MLP's kernels; a ray that has ended gives its lane to the next that nobody has
taken. So tiles stay full until no rays are left. On a CPU a task is a tile of rays, of which a few samples at a time
are asked for together; those behind the point where their ray ends get no colour. Either way a ray's result depends on
that ray alone. What is computed is what `volume.render_rays` computes op by op; a ray ends at the first sample where
its transmittance is below `stop`.

Letters: N rays; F features of L levels of a table of E entries; P, Q and I, J: parameters and packed weights of the
density and colour networks, of A and K layers; B words of the bitfield, S of near blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..backend import by_tinycudann, on_cuda
from ..cuda.plan import Launch, flag
from ..encodings.dense_grid import DenseGrid
from ..encodings.encoding import Encoding
from ..encodings.factored import CP, VM, Triplane
from ..encodings.hash_grid import HashGrid, entry_bytes
from ..encodings.learned_probe import LearnedProbe
from ..encodings.simplex import Simplex
from ..fields.radiance import RadianceField
from ..networks.grid_mlp import takes
from ..networks.mlp import ACTIVATIONS, MLP, kernel_of, products, tiles
from ..op import In, InOut, Op, Out, Scalar
from ..rays import Rays, check_width
from ..sampling.occupancy import OccupancyGrid
from ..tensors import feature_major, on_device

RENDER = Op(
    "render_fused",
    Out("color", "f32", "3 N", "nothing behind it"),
    Out("opacity", "f32", "N"),
    Out("depth", "f32", "N", "sum of w t"),
    InOut("taken", "i64", "1", "CUDA: 0 before; rays that blocks have taken", optional=True),
    InOut("nanoseconds", "i64", "3", "CPU time of all threads: grid, networks, altogether", optional=True),
    In("origins", "f32", "3 N"),
    In("directions", "f32", "3 N", "unit vectors"),
    In("near", "f32", "N", optional=True),
    In("far", "f32", "N", optional=True),
    In("bitfield", "i32", "B"),
    In("near_blocks", "i32", "S"),
    In("table", "f32 bf16 f16", "E F", "its dtype is that of what goes from one network to the next"),
    In("levels", "i64", "L 4"),
    In("scales", "f32", "L", optional=True),
    In("maps", "f32", "L W", "CUDA, of a simplex encoding: in the place of scales", optional=True),
    In("choices", "u8", "U", "CUDA, of a learned probe", optional=True),
    In("box", "f32", "2 3", "CUDA: the part of space that the encoding spans", optional=True),
    In("density_parameters", "f32", "P"),
    In("density_layers", "i64", "A 4"),
    InOut("density_packed", "f32", "Q", "scratch"),
    In("color_parameters", "f32", "I"),
    In("color_layers", "i64", "K 4"),
    InOut("color_packed", "f32", "J", "scratch"),
    Scalar("smoothstep", "int"),
    Scalar("encoding", "int", "CUDA: of _ENCODINGS"),
    Scalar("log2_codebook", "int", "of a learned probe; so the next"),
    Scalar("log2_probes", "int"),
    Scalar("activation", "int", "of both networks' hidden layers"),
    Scalar("bias", "int"),
    Scalar("widest", "int", "the most inputs or outputs of a layer of both, padded to 16"),
    Scalar("features", "int", "outputs of the density network: the logit, and with it inputs of the colour network"),
    Scalar("degree", "int", "of the harmonics of the direction"),
    Scalar("kernel", "int", "as of mlp_forward"),
    Scalar("width", "int", "CPU: of the image whose pixels, row by row, the rays are; 0: of none"),
    Scalar("resolution", "int"),
    Scalar("cascades", "int"),
    Scalar("step", "float"),
    Scalar("cone", "float"),
    Scalar("max_step", "float"),
    Scalar("stop", "float"),
)
TILE_ROWS = 32  # of an image that a CPU's tasks take at a time
_BLOCKS = 2048  # at most: enough to fill any GPU, few enough to reuse the weights that each has in its cache


class _OnCuda(NamedTuple):
    """An encoding as CUDA takes it (networks/encodings_device.h): its type, to which F is added, and how many rows of
    `levels` a group of F features has."""

    module: type[Encoding]
    kernel: str
    rows: int = 1


_ENCODINGS = (
    _OnCuda(HashGrid, "GridEncoding<"),
    _OnCuda(DenseGrid, "GridEncoding<"),
    _OnCuda(Simplex, "SimplexEncoding<"),
    _OnCuda(LearnedProbe, "ProbeEncoding<"),
    _OnCuda(Triplane, "FactoredEncoding<radfield::TriplaneKind, ", 3),
    _OnCuda(VM, "FactoredEncoding<radfield::VMKind, ", 2),
    _OnCuda(CP, "FactoredEncoding<radfield::CPKind, ", 3),
)


@RENDER.cuda
def _(a):
    a.aligned("table", entry_bytes(a, "table"))
    mma, known = products(a.kernel), _ENCODINGS[a.encoding]
    encoding = f"radfield::{known.kernel}{a.F}>"
    kinds = f"{mma}, {flag(a.cone > 0)}, {flag(a.cascades > 1)}, {encoding}, {a.degree}, {a.cxx('table')}"
    inputs = a.L // known.rows * a.F, a.features + a.degree**2
    rows = sum(-(-size // 16) * 16 for size in inputs) + 2 * a.widest
    pack = Launch(f"render_fused_pack<{mma}>", (-(-max(a.P, a.I) // 256) if a.N else 0,))
    return pack, tiles(f"render_fused<{kinds}>", rows, min(-(-a.N // 32), _BLOCKS))


def applies(field, origins: Tensor) -> bool:
    """Whether `field` is rendered in one pass: a radiance field as it is, of an encoding that the op takes, without
    appearance."""
    if type(field) is not RadianceField or field.config.appearance or by_tinycudann():
        return False
    networks = (field.density_network.config, field.color_network.config)
    plain = all(n.skip is None and n.output_activation == "none" for n in networks)
    same = networks[0].activation == networks[1].activation and networks[0].bias == networks[1].bias
    if on_cuda(origins):
        return plain and same and _encoding(field.grid) is not None
    return plain and same and takes(field.grid, origins)


def _encoding(grid: Encoding) -> int | None:
    """Which of `_ENCODINGS` it is; None: of none, or with a window or a policy that kernels do not know."""
    if grid.outside != "clamp" or getattr(grid, "window", None) is not None:
        return None
    return next((i for i, known in enumerate(_ENCODINGS) if type(grid) is known.module), None)


def _tables(grid: Encoding, device: torch.device) -> dict:
    """The encoding's arguments."""
    stored, tables = grid.stored(), grid.grid.tables(device)
    return {
        "table": grid.table.detach() if stored is None else stored,
        "levels": tables["levels"],
        "scales": tables.get("scales"),
        "maps": tables.get("maps"),
        "choices": grid.choices() if isinstance(grid, LearnedProbe) else None,
        "box": grid.box if getattr(grid, "_boxed", False) else None,
        "smoothstep": tables.get("smoothstep", 0),
        "encoding": _encoding(grid) or 0,
        "log2_codebook": tables.get("log2_codebook", 0),
        "log2_probes": tables.get("log2_probes", 0),
    }


@torch.no_grad()
def render_fused(
    field: RadianceField,
    grid: OccupancyGrid,
    rays: Rays,
    *,
    step: float,
    cone: float,
    max_step: float,
    stop: float,
    width: int = 0,
    nanoseconds: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour [N, 3] before any background, opacity [N], and the sum of weight times distance [N] of each ray.

    step, cone, max_step: as of `march`; stop: the transmittance at which a ray ends. width: of the image whose pixels,
    row by row, the rays are, which lets neighbours go together on a CPU; 0 is of none. nanoseconds: [3] int64, to which
    a CPU adds the time of grid, networks and all. Raises `BadInput` for another width."""
    check_width("render_fused", width, rays)
    n, device, cuda = len(rays), rays.origins.device, on_cuda(rays.origins)
    color, opacity, depth = (torch.empty(*shape, device=device) for shape in ((3, n), (n,), (n,)))
    networks, config = {"density": field.density_network, "color": field.color_network}, field.density_network.config
    RENDER(
        color=color,
        opacity=opacity,
        depth=depth,
        taken=torch.zeros(1, dtype=torch.int64, device=device) if cuda else None,
        nanoseconds=nanoseconds,
        origins=feature_major(rays.origins),
        directions=feature_major(rays.directions),
        near=None if rays.near is None else rays.near.contiguous(),
        far=None if rays.far is None else rays.far.contiguous(),
        bitfield=grid.bitfield.view(torch.int32),
        near_blocks=grid.near_blocks,
        **_tables(field.grid, device),
        **{f"{name}_{k}": v for name, network in networks.items() for k, v in _weights(network, device).items()},
        activation=ACTIVATIONS[config.activation][0],
        bias=config.bias,
        widest=max(network.layers.widest for network in networks.values()),
        features=field.config.features,
        degree=field.config.degree,
        kernel=kernel_of(config, rays.origins),
        width=width,
        resolution=grid.config.resolution,
        cascades=field.cascades,
        step=step,
        cone=cone,
        max_step=min(max_step, 1e30),
        stop=stop,
    )
    return color.T, opacity, depth


def _weights(network: MLP, device: torch.device) -> dict[str, Tensor]:
    layers = network.layers
    return {
        "parameters": network.weights.detach(),
        "layers": on_device((layers.table,), device, layers._copies)[0],
        "packed": torch.empty(layers.packed, device=device),
    }
