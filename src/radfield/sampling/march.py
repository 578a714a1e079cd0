"""Ray marching: the steps of rays that lie in occupied cells, packed (Mueller et al. 2022, Instant NGP, appendix E.1).

Step i of a ray covers time(i + jitter) to time(i + 1 + jitter) and is a sample where its middle lies in an occupied
cell. Constant steps: time(s) = near + s step. Cone steps grow with distance: their length is t * cone, clamped to
[step, max_step], in closed form (`march.h`: Stepping), so that any step is found without those before it.
A ray runs from `near` to `far`, within the box of the outermost cascade. The cell is that of the finest cascade that
contains the point and whose cells are at least twice as long as the step (instant-ngp's rule).

Letters: N rays, M samples, K cascades, G cells along an axis, B = K G^3 / 32 words of the bitfield, S words of near
blocks, P entries of `chunks`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..backend import native, on_cuda
from ..cuda.plan import Launch, blocks, flag
from ..errors import BadInput
from ..op import In, Op, Out, Scalar
from ..rays import Rays, Samples
from ..tensors import feature_major
from . import march_reference
from .occupancy import MIN_STEP, OccupancyGrid

_RAYS = (
    In("origins", "f32", "3 N"),
    In("directions", "f32", "3 N", "unit vectors"),
    In("near", "f32", "N", optional=True),
    In("far", "f32", "N", optional=True),
)
_STEPS = (
    In("schedule", "f64", "4", "CUDA only: step, cone, max_step and seed, in the place of the scalars", optional=True),
    Scalar("cascades", "int", "K"),
    Scalar("step", "float", "length of a step, with a cone the smallest"),
    Scalar("cone", "float", "growth of a step per unit of distance, 0 for constant steps"),
    Scalar("max_step", "float"),
    Scalar("jitter", "int", "whether rays start at a random part of their first step"),
    Scalar("seed", "int"),
)
COUNT = Op(
    "march_count",
    Out("ray_start", "i32", "N+1", "where each ray's samples start; rays that no longer fit have none"),
    Out("totals", "i64", "2", "rays kept, samples M"),
    Out("chunks", "i32", "P", "for march_fill: march.h says what; most_steps / 16 + 2 a ray"),
    *_RAYS,
    In("bitfield", "i32", "B", "32 cells a word"),
    In("near_blocks", "i32", "S"),
    Scalar("resolution", "int", "G"),
    *_STEPS,
    Scalar("max_per_ray", "int"),
    Scalar("max_samples", "int"),
    Scalar("most_steps", "int", "no ray has more steps, empty ones included"),
    Scalar("skip", "int", "whether empty space is skipped; the samples are the same"),
)
FILL = Op(
    "march_fill",
    Out("x", "f32", "3 M", "middle of each step"),
    Out("directions_out", "f32", "3 M", optional=True),
    Out("t_start", "f32", "M"),
    Out("t_end", "f32", "M"),
    Out("ray_index", "i32", "M", optional=True),
    In("ray_start", "i32", "N+1"),
    In("chunks", "i32", "P"),
    *_RAYS,
    *_STEPS,
)


@COUNT.cuda
def _(a):
    count = Launch(f"march_count<{flag(a.cone > 0)}, {flag(a.cascades > 1)}>", blocks(32 * a.N))
    return count, Launch("march_starts", (1,), (1024,))


@FILL.cuda
def _(a):
    return Launch(f"march_fill<{flag(a.cone > 0)}>", blocks(32 * a.N if a.M else 0))


MOST_SAMPLES = 2**31 - 1
MOST_STEPS = 2**19  # what an entry of `chunks` can number


class SampleBuffers:
    """Memory for the samples of a training step, kept between steps: each march overwrites what the last one returned.

    capacity: M at most; `march` leaves out the rays that do not fit.
    """

    def __init__(self, capacity: int):
        if not 1 <= capacity <= MOST_SAMPLES:
            raise BadInput(f"capacity is {capacity}; the rule: from 1 to {MOST_SAMPLES}")
        self.capacity = capacity
        self._memory: dict[str, Tensor] = {}

    def take(self, name: str, size: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        """[size], uninitialised, the same memory for the same name. Pages never written take no memory."""
        memory = self._memory.get(name)
        if memory is None or len(memory) < size or memory.device != device:
            memory = self._memory[name] = torch.empty(max(size, self.capacity), dtype=dtype, device=device)
        return memory[:size]


class _FreshBuffers:
    capacity = MOST_SAMPLES

    def take(self, name: str, size: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(size, dtype=dtype, device=device)


def march(
    rays: Rays,
    grid: OccupancyGrid,
    *,
    step: float = MIN_STEP,
    cone: float = 0.0,
    max_step: float = math.inf,
    jitter_seed: int | None = None,
    max_samples: int | None = None,
    max_per_ray: int = 1024,
    directions: bool = True,
    buffers: SampleBuffers | None = None,
    skip: bool = True,
) -> Samples:
    """The samples of `rays` in the occupied cells of `grid`.

    step: length of constant steps, or the smallest with a cone. cone: growth per unit of distance, such as 1/256; 0 for
    constant steps. jitter_seed: each ray starts at a random part of its first step; None for none (rendering).
    max_per_ray: the samples beyond are left out. max_samples: rays from the first that no longer fits on are left out
    whole; then `Samples.ray_count` is smaller than `len(rays)`. directions: False leaves `Samples.directions` None.
    buffers: memory to use, valid until their next use; their capacity bounds max_samples.
    Raises `BadInput` for a step that is not positive, a negative cone, a max_step below step, or a limit below 1.
    """
    _check(step, cone, max_step, max_samples, max_per_ray)
    buffers = buffers or _FreshBuffers()
    shared = _rays(rays) | _steps(grid, step, cone, max_step, jitter_seed)
    limits = {"max_per_ray": max_per_ray, "max_samples": min(max_samples or MOST_SAMPLES, buffers.capacity)}
    ray_start, totals, chunks = _count(rays, grid, shared, buffers, skip=skip, **limits)
    kept, m = totals.tolist()
    x, along, t_start, t_end = _fill(ray_start, chunks, grid, shared, buffers, m, directions)
    return Samples(x.T, along.T if directions else None, t_start, t_end, ray_start[: kept + 1])


def march_budget(
    rays: Rays,
    grid: OccupancyGrid,
    *,
    step: float,
    cone: float,
    max_step: float,
    schedule: Tensor,
    jitter: bool,
    max_per_ray: int,
    buffers: SampleBuffers,
) -> tuple[Samples, Tensor]:
    """`march` on a device with a fixed budget, without the host waiting for anything: all of `buffers` is returned, and
    `totals` [2] int64 on the device, the rays kept and the samples M found. The first M samples are the answer, the
    others undefined; the rays from the first that no longer fits on have none.

    schedule: [4] float64 on the device, the step, cone, max_step and jitter's seed in use; `step`, `cone` and
    `max_step` are the smallest that it will ever hold. Raises `BadInput` on the CPU.
    """
    if not on_cuda(rays.origins):
        raise BadInput("march_budget: the rays are on the cpu; the rule: on a device, elsewhere march")
    _check(step, cone, max_step, None, max_per_ray)
    shared = _rays(rays) | _steps(grid, step, cone, max_step, 0 if jitter else None) | {"schedule": schedule}
    limits = {"max_per_ray": max_per_ray, "max_samples": buffers.capacity}
    ray_start, totals, chunks = _count(rays, grid, shared, buffers, skip=True, **limits)
    x, along, t_start, t_end = _fill(ray_start, chunks, grid, shared, buffers, buffers.capacity, True)
    return Samples(x.T, along.T, t_start, t_end, ray_start), totals


def _count(rays, grid, shared, buffers, **options) -> tuple[Tensor, Tensor, Tensor]:
    """`ray_start`, `totals` and `chunks` of the rays."""
    on_native, device = native(rays.origins), rays.origins.device
    most_steps = _most_steps(shared["step"], shared["cone"], shared["max_step"], grid.config.cascades)
    ray_start = torch.empty(len(rays) + 1, dtype=torch.int32, device=device)
    totals = torch.empty(2, dtype=torch.int64, device=device)
    chunks = buffers.take("chunks", len(rays) * (most_steps // 16 + 2) if on_native else 0, device, torch.int32)
    (COUNT if on_native else march_reference.count)(
        ray_start=ray_start,
        totals=totals,
        chunks=chunks,
        **shared,
        **_grid(grid),
        **options,
        most_steps=most_steps,
    )
    return ray_start, totals, chunks


def _fill(ray_start, chunks, grid, shared, buffers, m: int, directions: bool):
    """The streams x [3, m], directions [3, m] or None, t_start [m], t_end [m]."""
    device = ray_start.device
    x = buffers.take("x", 3 * m, device).view(3, m)
    t_start, t_end = buffers.take("t_start", m, device), buffers.take("t_end", m, device)
    along = buffers.take("directions", 3 * m, device).view(3, m) if directions else None
    out = dict(x=x, directions_out=along, t_start=t_start, t_end=t_end, ray_index=None)
    if native(ray_start):
        FILL(**out, ray_start=ray_start, chunks=chunks, **shared)
    else:
        march_reference.fill(**out, ray_start=ray_start, **shared, **_grid(grid))
    return x, along, t_start, t_end


def _rays(rays: Rays) -> dict:
    return dict(
        origins=feature_major(rays.origins),
        directions=feature_major(rays.directions),
        near=None if rays.near is None else rays.near.detach().contiguous(),
        far=None if rays.far is None else rays.far.detach().contiguous(),
    )


def _grid(grid: OccupancyGrid) -> dict:
    return dict(
        bitfield=grid.bitfield.view(torch.int32), near_blocks=grid.near_blocks, resolution=grid.config.resolution
    )


def _steps(grid: OccupancyGrid, step: float, cone: float, max_step: float, jitter_seed: int | None) -> dict:
    return dict(
        cascades=grid.config.cascades,
        step=step,
        cone=cone,
        max_step=min(max_step, 1e30),  # finite, since its logarithm is needed
        jitter=jitter_seed is not None,
        seed=(jitter_seed or 0) & 0xFFFFFFFF,
    )


def _most_steps(step: float, cone: float, max_step: float, cascades: int) -> int:
    # Of the longest ray in the box; with a cone, steps are shortest on a ray that starts at its camera.
    length = math.sqrt(3) * 2 ** (cascades - 1)
    steps = length / step
    if cone > 0:
        span = torch.tensor([0.0, length], dtype=torch.float64, device="cpu")
        ends = march_reference.stepping_space(span, step, cone, max_step)
        steps = float(ends[1] - ends[0])
    if steps > MOST_STEPS - 8:
        raise BadInput(
            f"step is {step}; the rule: at most {MOST_STEPS} steps along the diagonal of {cascades} cascades"
        )
    return int(steps * 1.001) + 4


def _check(step, cone, max_step, max_samples, max_per_ray):
    if not 0 < step < math.inf:
        raise BadInput(f"step is {step}; the rule: positive")
    if not 0 <= cone < 1:
        raise BadInput(f"cone is {cone}; the rule: from 0 to below 1")
    if not max_step >= step:
        raise BadInput(f"max_step is {max_step}; the rule: at least step, {step}")
    if max_samples is not None and not 1 <= max_samples <= MOST_SAMPLES:
        raise BadInput(f"max_samples is {max_samples}; the rule: from 1 to {MOST_SAMPLES}")
    if not 1 <= max_per_ray <= MOST_SAMPLES:
        raise BadInput(f"max_per_ray is {max_per_ray}; the rule: from 1 to {MOST_SAMPLES}")
