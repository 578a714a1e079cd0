"""Rays through nested grids of occupied cells: which steps of each ray are samples.

A ray's *events* are where it enters and leaves each grid, sorted. Between two events the grid entered last is in force;
after leaving a grid, the one that ends next. Cell by cell, a step is a sample where its middle lies in an occupied one:

    step > 0, cone = 0   step k goes from near + k step to near + (k + 1) step
    step > 0, cone > 0   a step that begins at t is max(t cone, step) long; over an empty cell all steps have the length
                         that they have at its beginning
    step <= 0            a sample is what a ray has of an occupied cell

`near` <= t < `far` for the middles; at most `limit` samples a ray (none below 1). The walk is in float64: a cell's
border is where it is, not where sums of float32 have drifted to. Samples that touch share an edge.

Letters: N rays, K grids, E = 2 K events of a ray, X Y Z cells of a grid, M samples, A edges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...backend import native
from ...cuda.plan import Launch, blocks
from ...errors import BadInput, warn
from ...op import In, Op, Out, Scalar

_SCENE = (
    In("origins", "f32", "N 3"),
    In("directions", "f32", "N 3"),
    In("near", "f32", "N"),
    In("far", "f32", "N"),
    In("mask", "u8", "N", "0: the ray has no samples", optional=True),
    In("t_sorted", "f32", "N E", "distances of the events, rising"),
    In("t_indices", "i64", "N E", "of each: k for entering grid k, K + k for leaving it"),
    In("hits", "u8", "N K", "whether a ray meets a grid"),
    In("occupied", "u8", "K X Y Z"),
    In("aabbs", "f32", "K 6", "lower and upper corner of each grid"),
    Scalar("step", "float"),
    Scalar("cone", "float"),
    Scalar("limit", "int"),
)
COUNT = Op(
    "grid_traverse_count",
    Out("edges", "i64", "N"),
    Out("samples", "i64", "N"),
    Out("reached", "f32", "N", "where the next step would begin"),
    Out("runs", "f64", "N 16", "for grid_traverse_fill: traversal.h says what; so is run_count"),
    Out("run_count", "i64", "N"),
    *_SCENE,
)
FILL = Op(
    "grid_traverse_fill",
    Out("t_start", "f32", "M"),
    Out("t_end", "f32", "M"),
    Out("ray_index", "i64", "M"),
    Out("edge", "f32", "A", "and what follows: absent together", optional=True),
    Out("edge_ray", "i64", "A", optional=True),
    Out("is_left", "u8", "A", "a sample begins here; is_right: one ends here", optional=True),
    Out("is_right", "u8", "A", optional=True),
    In("edge_start", "i64", "N+1"),
    In("sample_start", "i64", "N+1"),
    In("runs", "f64", "N 16"),
    In("run_count", "i64", "N"),
    *_SCENE,
)
_THREADS = 128  # rays of a block on CUDA
MOST_STEPS, MOST_EDGES = 1 << 22, (1 << 31) - 1  # along one ray, and of all: bounds on work and memory


@COUNT.cuda
def _(a):
    return Launch("grid_traverse_count", blocks(a.N, threads=_THREADS), (_THREADS,))


@FILL.cuda
def _(a):
    return Launch("grid_traverse_fill", blocks(a.N, threads=_THREADS), (_THREADS,))


@dataclass
class Traversed:
    """Samples and, where asked for, their edges; all packed ray after ray, counts beside them."""

    t_start: Tensor  # [M]
    t_end: Tensor  # [M]
    ray_index: Tensor  # [M] int64
    sample_start: Tensor  # [N + 1] int64
    reached: Tensor  # [N]
    edge: Tensor | None  # [A]
    edge_ray: Tensor | None  # [A] int64
    is_left: Tensor | None  # [A] bool
    is_right: Tensor | None  # [A] bool
    edge_start: Tensor  # [N + 1] int64


def traverse(scene: dict, *, edges: bool) -> Traversed:
    """The samples of rays; `scene`: tensors and scalars by the names of the declaration above. Tensors on a GPU without
    kernels are worked on by the CPU, announced once. Raises `BadInput` where a ray has more than 2^22 steps."""
    if native(scene["origins"]):
        _check_steps(scene)
        return _native(scene, edges)
    device = scene["origins"].device
    if device.type != "cpu":
        warn(f"nerfacc: grids are traversed on the CPU, and these rays are on {device}")
        scene = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in scene.items()}
    _check_steps(scene)
    found = _reference(scene, edges)
    moved = {name: value if value is None else value.to(device) for name, value in vars(found).items()}
    return Traversed(**moved)


def _check_steps(scene: dict) -> None:
    if scene["step"] <= 0 or scene["limit"] > 0 or not len(scene["origins"]):
        return
    inside = scene["t_sorted"].isfinite()
    first = torch.where(inside, scene["t_sorted"], math.inf).amin(1).maximum(scene["near"])
    last = torch.where(inside, scene["t_sorted"], -math.inf).amax(1).minimum(scene["far"])
    longest = float((last - first).nan_to_num(0.0).amax())
    if longest > MOST_STEPS * scene["step"]:
        raise BadInput(
            f"nerfacc: step_size is {scene['step']:g} and a ray is {longest:g} long within the grids; the rule: at "
            f"most {MOST_STEPS} steps on a ray"
        )


def _native(scene: dict, edges: bool) -> Traversed:
    rays, device = len(scene["origins"]), scene["origins"].device
    whole, flags = {"dtype": torch.int64, "device": device}, {"dtype": torch.bool, "device": device}
    counts, reached = torch.empty(2, rays, **whole), torch.empty(rays, device=device)
    kept = torch.empty(rays, 16, dtype=torch.float64, device=device)
    runs = {"runs": kept, "run_count": torch.empty(rays, **whole)}
    COUNT(edges=counts[0], samples=counts[1], reached=reached, **runs, **scene)
    starts = torch.zeros(2, rays + 1, **whole)
    torch.cumsum(counts, 1, out=starts[:, 1:])
    a, m = starts[:, -1].tolist()
    if a > MOST_EDGES:
        raise BadInput(
            f"nerfacc: step_size is {scene['step']:g}, {m} samples; the rule: so long that below 2^31 are met"
        )
    t_start, t_end, ray_index = torch.empty(m, device=device), torch.empty(m, device=device), torch.empty(m, **whole)
    edge = edge_ray = is_left = is_right = None
    if edges:
        edge, edge_ray = torch.empty(a, device=device), torch.empty(a, **whole)
        is_left, is_right = torch.empty(2, a, **flags)
    FILL(
        t_start=t_start,
        t_end=t_end,
        ray_index=ray_index,
        edge=edge,
        edge_ray=edge_ray,
        is_left=None if is_left is None else is_left.view(torch.uint8),
        is_right=None if is_right is None else is_right.view(torch.uint8),
        edge_start=starts[0],
        sample_start=starts[1],
        **runs,
        **scene,
    )
    return Traversed(t_start, t_end, ray_index, starts[1], reached, edge, edge_ray, is_left, is_right, starts[0])


def _reference(scene: dict, edges: bool) -> Traversed:
    """The specification: ray by ray, in Python's floats."""
    samples, marks, counts, reached = [], [], [], []
    for i in range(len(scene["origins"])):
        found, end = steps_of_ray(scene, i)
        before = len(marks)
        for t_start, t_end, joined in found:
            if joined:
                marks[-1][2] = True
            else:
                marks.append([t_start, i, True, False])
            marks.append([t_end, i, False, True])
            samples.append((t_start, t_end, i))
        counts.append((len(marks) - before, len(found)))
        reached.append(end)
    starts = torch.zeros(2, len(counts) + 1, dtype=torch.int64)
    starts[:, 1:] = torch.tensor(counts, dtype=torch.int64).view(-1, 2).T.cumsum(1)
    values = torch.tensor(samples, dtype=torch.float64).view(-1, 3)
    columns = torch.tensor(marks, dtype=torch.float64).view(-1, 4).T if edges else (None,) * 4
    kinds = (torch.float32, torch.int64, torch.bool, torch.bool)
    edge = [None if column is None else column.to(kind) for column, kind in zip(columns, kinds, strict=True)]
    t_start, t_end, ray_index = values[:, 0].float(), values[:, 1].float(), values[:, 2].long()
    return Traversed(t_start, t_end, ray_index, starts[1], torch.tensor(reached), *edge, starts[0])


def steps_of_ray(scene: dict, i: int) -> tuple[list[tuple[float, float, bool]], float]:
    """(the samples (t_start, t_end, joined) of ray i, where its next step would begin)."""
    near, step, cone, limit = float(scene["near"][i]), scene["step"], scene["cone"], scene["limit"]
    t, k, joined, last, found = near, 0, False, near, []

    def length() -> float:
        return max(t * cone, step)

    def skip_to(target: float) -> None:
        nonlocal t, k
        if step <= 0:
            t = target
        elif cone > 0:
            t += max(math.ceil((target - t) / length() - 0.5), 0) * length()
        else:
            k = max(k, math.ceil((target - near) / step - 0.5))
            t = near + k * step

    def before(end: float) -> bool:  # the middle of the next step
        if cone > 0:
            return t + 0.5 * length() < end
        return k < math.ceil((end - near) / step - 0.5)

    for begin, end, occupied in cells_of_ray(scene, i):
        if begin > last:
            joined = False
        if not joined:
            skip_to(begin)
        last = end
        if not occupied:
            joined = False
            skip_to(end)
            continue
        while before(end) if step > 0 else t < end:
            k, start = k + 1, t
            t = end if step <= 0 else t + length() if cone > 0 else near + k * step
            found.append((start, t, joined))
            joined = True
            if len(found) == limit:
                return found, t
    if not joined:
        skip_to(last)
    return found, t


def cells_of_ray(scene: dict, i: int) -> Iterator[tuple[float, float, bool]]:
    """(from, to, occupied) of the cells along ray i, in order, within near and far."""
    rows = {name: scene[name][i].tolist() for name in ("origins", "directions", "near", "far", "t_sorted", "t_indices")}
    finite = all(map(math.isfinite, [*rows["origins"], *rows["directions"], rows["near"]]))
    if not finite or (scene["mask"] is not None and not scene["mask"][i]):
        return
    hits, grids = scene["hits"][i].tolist(), scene["hits"].shape[1]
    for e, (event, t) in enumerate(zip(rows["t_indices"][:-1], rows["t_sorted"][:-1], strict=True)):
        grid = event
        if event >= grids:
            following = rows["t_indices"][e + 1]
            if not hits[event - grids] or following < grids:
                continue
            grid = following - grids
        then, near, far = rows["t_sorted"][e + 1], rows["near"], rows["far"]
        begin, end = t if t > near else near, then if then < far else far  # max and min, but for NaN as in traversal.h
        if hits[grid] and begin < end < 1e30:
            yield from _cells_of_grid(rows, scene["occupied"][grid], scene["aabbs"][grid].tolist(), begin, end)


def _cells_of_grid(rows, occupied, aabb, begin, end) -> Iterator[tuple[float, float, bool]]:
    o, d, cells = rows["origins"], rows["directions"], occupied.shape
    size = [(aabb[k + 3] - aabb[k]) / cells[k] for k in range(3)]
    cell = [min(max((o[k] + begin * d[k] - aabb[k]) / size[k], 0), cells[k] - 1) // 1 for k in range(3)]
    cell = [int(c) for c in cell]

    def leaves(k: int) -> float:
        return (aabb[k] + (cell[k] + (d[k] > 0)) * size[k] - o[k]) * (1 / d[k]) if d[k] else 1e300

    def advance(k: int) -> bool:
        following = cell[k] + (1 if d[k] > 0 else -1)
        if not d[k] or not 0 <= following < cells[k]:
            return False
        cell[k] = following
        return True

    for k in range(3):
        while leaves(k) <= begin and advance(k):
            pass
    while True:
        axis = min(range(3), key=leaves)
        to = min(leaves(axis), end)
        yield begin, to, bool(occupied[tuple(cell)])
        if to >= end or not advance(axis):
            return
        begin = to
