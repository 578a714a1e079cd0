"""The connected parts of a mesh, and its holes.

A hole is a closed line of open edges, those that a single triangle has. Letters: P points, T triangles, E open edges.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .mesh import Mesh, connected


def without_small_parts(mesh: Mesh, share: float) -> tuple[Mesh, int]:
    """(the mesh without connected parts whose area is less than `share` of the largest one's, how many are gone)."""
    label = mesh.components()[mesh.triangles[:, 0]]
    names, part = label.unique(return_inverse=True)
    area = torch.zeros(len(names), dtype=torch.float64).index_add_(0, part, areas(mesh))
    kept = area >= share * area.max()
    return (mesh if bool(kept.all()) else mesh.select(kept[part])), int((~kept).sum())


def without_unseen_parts(mesh: Mesh, visible: Tensor, share: float = 0.1) -> tuple[Mesh, int]:
    """(the mesh without connected parts of which less than `share` of the triangles are visible [T], or none, how many
    are gone). The others stay whole, with what lies behind."""
    names, part = mesh.components()[mesh.triangles[:, 0]].unique(return_inverse=True)
    count, met = (torch.zeros(len(names), dtype=torch.float64) for _ in range(2))
    count.index_add_(0, part, torch.ones(len(part), dtype=torch.float64))
    met.index_add_(0, part, visible.double())
    kept = (met >= share * count) & (met > 0)
    return (mesh if bool(kept.all()) else mesh.select(kept[part])), int((~kept).sum())


def areas(mesh: Mesh) -> Tensor:
    """[T] of the triangles."""
    a, b, c = mesh.vertices[mesh.triangles].unbind(1)
    return 0.5 * torch.linalg.cross(b - a, c - a).norm(dim=-1)


def holes(vertices: Tensor, triangles: Tensor) -> Tensor:
    """[H] float64: the lengths of the lines of open edges, the longest first; lines that meet in a point are one.
    vertices: [P, 3], of which those in one place are one point; triangles: [T, 3]."""
    places, name = vertices.double().unique(dim=0, return_inverse=True)
    edges = open_edges(name[triangles])
    if not len(edges):
        return torch.zeros(0, dtype=torch.float64)
    points, edges = edges.unique(return_inverse=True)
    lengths = (places[points[edges[:, 0]]] - places[points[edges[:, 1]]]).norm(dim=-1)
    names, line = connected(edges, len(points))[edges[:, 0]].unique(return_inverse=True)
    return torch.zeros(len(names), dtype=torch.float64).index_add_(0, line, lengths).sort(descending=True).values


def open_edges(triangles: Tensor) -> Tensor:
    """[E, 2] the edges (points) that exactly one of triangles [T, 3] has."""
    edges = torch.cat([triangles[:, [i, (i + 1) % 3]] for i in range(3)])
    edges = edges[edges[:, 0] != edges[:, 1]].sort(-1).values
    distinct, count = edges.unique(dim=0, return_counts=True)
    return distinct[count == 1]


def hole_figures(vertices: Tensor, triangles: Tensor, prefix: str = "") -> dict:
    """What is reported of a mesh's holes, lengths in its unit."""
    lengths = holes(vertices, triangles)
    return {
        f"{prefix}holes": len(lengths),
        f"{prefix}hole_length": float(lengths.sum()),
        f"{prefix}longest_hole": float(lengths[0]) if len(lengths) else 0.0,
    }
