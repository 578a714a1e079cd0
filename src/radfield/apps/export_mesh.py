"""The surface of a run as a mesh, in the units and axes of its capture or mesh: of a signed distance field where it is
0, of a radiance field where the density is a threshold. What `radfield export` calls for these."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import torch
from torch import Tensor

from ..errors import BadInput
from ..meshing.marching_cubes import Lattice, marching_cubes
from ..meshing.mesh import Mesh
from ..sampling import occupancy_reference
from ..tracing.surface import count_open_edges
from ..training.progress import Progress
from ..training.run_folder import RunFolder
from . import neus2, sdf, sdf_views

_PER_CALL = 1 << 17
_NOTHING = 1e-10  # density of empty space, whose logarithm is asked for


def mesh_of(folder: RunFolder, options) -> tuple[Mesh, dict]:
    """(the mesh, figures about it). options: those of `radfield export`. Raises `BadInput` where it has no surface."""
    app = folder.read_config()["app"]
    with contextlib.ExitStack() as stack:
        show = _shown(stack, f"export {folder.path.resolve().name}")
        if app in ("sdf", "neus2"):
            model = (sdf if app == "sdf" else neus2).load(folder.path)
            mesh = sdf_views.extract(model, options.resolution, show)
            hint = getattr(model, "empty", "the field is nowhere 0; the rule: a run that was fitted for longer")
        else:
            model, mesh = _of_density(folder, options, show)
            hint = f"no density is above {options.density:g}; the rule: a lower --density, or a longer training"
    if not len(mesh.triangles):
        raise BadInput(f"{folder.path}: its surface is empty: {hint}")
    components = len(mesh.components().unique())
    if options.largest:
        mesh = mesh.largest()
    if options.colors and app != "sdf":
        mesh = dataclasses.replace(mesh, colors=_colors(model, mesh))
    mesh = mesh.transformed(model.transform.inverse())
    return mesh, {
        "vertices": len(mesh.vertices),
        "triangles": len(mesh.triangles),
        "components": components,
        "open_edges": count_open_edges(mesh.triangles, len(mesh.vertices)),
    }


def _shown(stack: contextlib.ExitStack, title: str):
    """Shows blocks that are done, from when it is known how many there are."""
    opened = []

    def show(done: int, blocks: int) -> None:
        if not opened:
            opened.append(stack.enter_context(Progress(title, steps=blocks)))
        opened[0].update(done)

    return show


def _of_density(folder: RunFolder, options, show) -> tuple:
    from . import ngp

    model = ngp.load(folder.path)
    occupied = occupied_cells(model.grid)
    level = math.log(options.density)

    def value(x: Tensor) -> Tensor:
        parts = [level - model.density(part).float().clamp_min(_NOTHING).log() for part in x.split(_PER_CALL)]
        return torch.cat(parts) if parts else x.new_empty(0)

    def near(centres: Tensor, radius: float) -> Tensor:
        cells = occupied.shape[0]
        reach = min(math.ceil(radius * cells), cells)
        grown = _grown(occupied, reach)
        return grown[tuple((centres * cells).long().clamp(0, cells - 1).T)]

    lattice = Lattice.of(torch.zeros(3), torch.ones(3), options.resolution)
    return model, marching_cubes(value, lattice, near, show)


def occupied_cells(grid) -> Tensor:
    """[R, R, R] bool: the cells of the innermost cascade, x first, that an occupancy grid has as occupied."""
    side = grid.config.resolution
    bits = (grid.bitfield[:, None] >> torch.arange(8)) & 1
    cells = bits.flatten()[: side**3].nonzero()[:, 0]
    _, place = occupancy_reference.coordinates_of(cells, side)
    occupied = torch.zeros(side, side, side, dtype=torch.bool)
    occupied[tuple(place.long().T)] = True
    return occupied


def _grown(cells: Tensor, reach: int) -> Tensor:
    """The cells within `reach` of one along each axis, by sums along the axes."""
    side = cells.shape[0]
    up, down = (torch.arange(side) + reach).clamp_max(side - 1), torch.arange(side) - reach - 1
    for axis in range(3):
        total = cells.cumsum(axis, dtype=torch.int32)
        before = total.index_select(axis, down.clamp_min(0)).movedim(axis, -1) * (down >= 0)
        cells = total.index_select(axis, up) > before.movedim(-1, axis)
    return cells


def _colors(model, mesh: Mesh) -> Tensor:
    """[P, 3] sRGB, each as seen from straight in front of the surface: colours along other directions, or along one for
    all, are those of reflections and of the inside, and come out dark."""
    x, towards = mesh.vertices.float(), -mesh.normals().float()
    towards[towards.norm(dim=-1) < 0.5] = torch.tensor([0.0, 0, -1])
    parts = zip(x.split(_PER_CALL), towards.split(_PER_CALL), strict=True)
    return torch.cat([model.color(a, b).float() for a, b in parts])
