"""Where a field's surface is, as a mesh: the zero level of a distance, or a level of a density over nested cubes.

A *field with a distance* is what has

    distance(x)     f [M] at scene positions x [M, 3]: negative inside, 0 on the surface, its slope about 1
    box             (low, high), [3] float64 each, on the CPU: where it may be asked
    device          where x must be
    transform       the similarity that leads into scene coordinates

and, where it knows colours, color(x, d) -> sRGB [M, 3]; where f is nowhere below 0, unsigned = True (its mesher is in
unsigned.py). Letters: M points, B blocks, K cascades of G^3 cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..geometry import cascade_box
from ..sampling import occupancy_reference
from .marching_cubes import Lattice, marching_cubes
from .mesh import Mesh
from .parts import open_edges

#: what the slope of a trained distance is trusted not to exceed over a block; the next where that leaves holes
SLOPES = (1.2, 3.0, math.inf)
MARGIN = 1 / 512  # what a trained distance may be off by where blocks are left out, in scene units
PER_CALL = 1 << 17
_NOTHING = 1e-10  # density of empty space, whose logarithm is asked for

Answer = Callable[[Tensor], Tensor]
Progress = Callable[[int, int], object] | None


def asked(answer: Answer, x: Tensor, per_call: int = PER_CALL) -> Tensor:
    """`answer` at x [M, 3], in parts that fit the memory."""
    return torch.cat([answer(part).float() for part in x.split(per_call)]) if len(x) else x.new_empty(0)


def from_host(answer: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """`answer`, which takes tensors on `device`, for those of the host: meshers keep their lattice there, and ask for
    many points at a time."""
    return lambda *given: answer(*(each.to(device) for each in given)).cpu()


def mesh_of_distance(distance: Answer, box: tuple[Tensor, Tensor], resolution: int, progress: Progress = None) -> Mesh:
    """The surface in scene coordinates, with `resolution` cells along the longest side of the box. Where the distance's
    slope is not to be trusted, blocks that were left out leave holes: then fewer are."""
    lattice = Lattice.of(*box, resolution)
    cell = float((box[1] - box[0]).max()) / resolution
    for slope in SLOPES:

        def near(centres: Tensor, radius: float, slope: float = slope) -> Tensor:
            return asked(distance, centres).abs() <= slope * radius + MARGIN

        mesh = marching_cubes(lambda x: asked(distance, x), lattice, near, progress)
        if not _has_holes(mesh, box, cell):
            break
    return mesh


def _has_holes(mesh: Mesh, box: tuple[Tensor, Tensor], cell: float) -> bool:
    """Whether an edge that one triangle alone has lies off the faces of the box."""
    ends = mesh.vertices[open_edges(mesh.triangles)]  # [E, 2, 3]
    low, high = (side.to(ends) for side in box)
    return bool(((ends > low + 0.5 * cell) & (ends < high - 0.5 * cell)).all(-1).any())


def mesh_of_density(density: Answer, cells: Tensor, level: float, resolution: int, progress: Progress = None) -> Mesh:
    """The surface where `density` (of scene positions) is `level`, in the outermost of the cascades whose occupied
    `cells` [K, G, G, G] are given; `resolution` cells along its side. Space without occupied cells is not looked at.
    Beyond the innermost cube the level falls with the distance from its middle, as what is far off is seen, and
    marched, in longer steps. The logarithm of the density is what is interpolated: it is what networks answer, and
    close to linear."""
    low, high = (torch.full((3,), side, dtype=torch.float64) for side in cascade_box(len(cells) - 1))

    def value(x: Tensor) -> Tensor:
        distance = (2 * (x - 0.5).abs().amax(-1)).clamp_min(1.0)  # 1 in the innermost cube, 2 on the next one's faces
        return math.log(level) - (distance * asked(density, x).clamp_min(_NOTHING)).log()

    return marching_cubes(value, Lattice.of(low, high, resolution), lambda c, r: near_cells(cells, c, r), progress)


def occupied_cells(grid, cascades: int) -> Tensor:
    """[K, G, G, G] bool, x first: the cells of the `cascades` innermost cubes that an occupancy grid has as occupied;
    of a cell's volume, what lies in a finer cascade too counts there."""
    side = grid.config.resolution
    bits = (grid.bitfield.cpu()[:, None] >> torch.arange(8)) & 1
    cells = bits.flatten()[: cascades * side**3].nonzero()[:, 0]
    cascade, place = occupancy_reference.coordinates_of(cells, side)
    occupied = torch.zeros(cascades, side, side, side, dtype=torch.bool)
    occupied[(cascade, *place.long().T)] = True
    occupied[1:, side // 4 : 3 * side // 4, side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = False
    return occupied


def near_cells(cells: Tensor, centres: Tensor, radius: float) -> Tensor:
    """[B]: whether an occupied cell of `cells` [K, G, G, G] may meet the ball of that radius around each of centres
    [B, 3]. (A cube around the ball is what is looked at.)"""
    found = torch.zeros(len(centres), dtype=torch.bool)
    side = cells.shape[1]
    for cascade, each in enumerate(cells):
        low, high = cascade_box(cascade)
        place = (centres - low) / (high - low) * side
        reach = min(math.ceil(radius / (high - low) * side), side)
        inside = ((place > -reach) & (place < side + reach)).all(-1)
        found |= grown(each, reach)[tuple(place.long().clamp(0, side - 1).T)] & inside
    return found


def grown(cells: Tensor, reach: int) -> Tensor:
    """The cells within `reach` of one along each axis, by sums along the axes."""
    side = cells.shape[0]
    up, down = (torch.arange(side) + reach).clamp_max(side - 1), torch.arange(side) - reach - 1
    for axis in range(3):
        total = cells.cumsum(axis, dtype=torch.int32)
        before = total.index_select(axis, down.clamp_min(0)).movedim(axis, -1) * (down >= 0)
        cells = total.index_select(axis, up) > before.movedim(-1, axis)
    return cells
