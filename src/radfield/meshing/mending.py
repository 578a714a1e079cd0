"""Slits in a mesh, closed where its surface goes on: a closed line of open edges gets a point in its middle, and a
triangle from each of its edges to that. Letters: P points, T triangles, E open edges, L lines of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .mesh import Mesh, connected
from .parts import areas

LARGER = 2.0  # than a flat disc that the line could be the rim of, a part is whose slit it is


def mended(mesh: Mesh, longest: float, on_surface: Callable[[Tensor], Tensor]) -> Mesh:
    """The mesh without the slits along which it is at most `longest` open. A slit runs once through each of its points,
    belongs to a part of the mesh with more area than its line can be the rim of (by the isoperimetric inequality), and
    lies on the surface: on_surface(x [M, 3] float32) -> [M] bool holds in its middle and in the middle of each triangle
    that would close it."""
    start, end = open_half_edges(mesh.triangles)
    points, edges = torch.stack((start, end), 1).unique(return_inverse=True)
    if not len(points):
        return mesh
    _, line = connected(edges, len(points))[edges[:, 0]].unique(return_inverse=True)
    count, at = int(line.max()) + 1, mesh.vertices

    def over_lines(values: Tensor) -> Tensor:
        return torch.zeros(count, *values.shape[1:], dtype=torch.float64).index_add_(0, line, values.double())

    size = line.bincount(minlength=count)
    middle = over_lines(at[start]) / size[:, None]
    length, label = over_lines((at[end] - at[start]).norm(dim=-1)), mesh.components()
    area = torch.zeros(len(at), dtype=torch.float64).index_add_(0, label[mesh.triangles[:, 0]], areas(mesh))
    of_part = torch.zeros(count, dtype=torch.float64).index_copy_(0, line, area[label[start]])
    within = of_part > LARGER * length.square() / (4 * math.pi)
    once = torch.ones(count, dtype=torch.bool)
    for ends in edges.unbind(1):
        twice = ends.bincount(minlength=len(points))[ends] != 1
        once[line[twice]] = False
    there = ~on_surface(middle.float())
    there = over_lines(there[line] | ~on_surface(((at[start] + at[end] + middle[line]) / 3).float())) == 0
    closed = once & within & there & (length <= longest) & (size >= 3)
    number = len(at) + closed.cumsum(0) - 1
    kept = closed[line]
    fans = torch.stack((end[kept], start[kept], number[line[kept]]), 1)
    return replace(mesh, vertices=torch.cat((at, middle[closed])), triangles=torch.cat((mesh.triangles, fans)))


def open_half_edges(triangles: Tensor) -> tuple[Tensor, Tensor]:
    """(start [E], end [E]) of the edges that one of triangles [T, 3] alone has, as that one runs through them."""
    start, end = triangles.reshape(-1), triangles.roll(-1, 1).reshape(-1)
    points = int(triangles.max()) + 1 if len(triangles) else 1
    name = torch.minimum(start, end) * points + torch.maximum(start, end)
    _, number, count = name.unique(return_inverse=True, return_counts=True)
    alone = count[number] == 1
    return start[alone], end[alone]
