"""Slits in a mesh, closed where its surface goes on: a closed line of open edges gets a point in its middle, and a
triangle from each of its edges to that. Letters: P points, T triangles, E open edges, L lines of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .mesh import Mesh, connected


def mended(mesh: Mesh, longest: float, on_surface: Callable[[Tensor], Tensor]) -> Mesh:
    """The mesh without the slits along which it is at most `longest` open. A slit runs once through each of its points,
    has the mesh around it (the rim of a small sheet has it within), and lies on the surface: on_surface(x [M, 3]
    float32) -> [M] bool holds in its middle and in the middle of each triangle that would close it."""
    start, end, third = open_half_edges(mesh.triangles)
    points, edges = torch.stack((start, end), 1).unique(return_inverse=True)
    if not len(points):
        return mesh
    _, line = connected(edges, len(points))[edges[:, 0]].unique(return_inverse=True)
    count, at = int(line.max()) + 1, mesh.vertices

    def over_lines(values: Tensor) -> Tensor:
        return torch.zeros(count, *values.shape[1:], dtype=torch.float64).index_add_(0, line, values.double())

    size = line.bincount(minlength=count)
    middle = over_lines(at[start]) / size[:, None]
    between = 0.5 * (at[start] + at[end])
    around = over_lines(((middle[line] - between) * (at[third] - between)).sum(-1) < 0) > 0.7 * size
    once = torch.ones(count, dtype=torch.bool)
    for ends in edges.unbind(1):
        twice = ends.bincount(minlength=len(points))[ends] != 1
        once[line[twice]] = False
    there = ~on_surface(middle.float())
    there = over_lines(there[line] | ~on_surface(((at[start] + at[end] + middle[line]) / 3).float())) == 0
    closed = once & around & there & (over_lines((at[end] - at[start]).norm(dim=-1)) <= longest) & (size >= 3)
    number = len(at) + closed.cumsum(0) - 1
    kept = closed[line]
    fans = torch.stack((end[kept], start[kept], number[line[kept]]), 1)
    return replace(mesh, vertices=torch.cat((at, middle[closed])), triangles=torch.cat((mesh.triangles, fans)))


def open_half_edges(triangles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(start [E], end [E], the triangle's third point [E]) of the edges that one of triangles [T, 3] alone has, as that
    one runs through them."""
    start, end, third = (triangles.roll(-k, 1).reshape(-1) for k in range(3))
    points = int(triangles.max()) + 1 if len(triangles) else 1
    name = torch.minimum(start, end) * points + torch.maximum(start, end)
    _, number, count = name.unique(return_inverse=True, return_counts=True)
    alone = count[number] == 1
    return start[alone], end[alone], third[alone]
