"""Which way triangles turn: those that share an edge alike, as far as that is possible, and outwards.

Two triangles turn alike where they run through their common edge in opposite directions. Parts are joined at such
edges round by round, each to a neighbour of lesser number, with the parity of what was turned (Shiloach and Vishkin
1982, as in `mesh.connected`). Letters: T triangles, E edges that exactly two triangles have.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .mesh import Mesh


def turned_alike(mesh: Mesh) -> Tensor:
    """[T, 3] the triangles of a mesh, turned. Of a connected part those that face away from its middle are outside,
    by volume; in a part with one side alone (a Moebius strip) a seam stays."""
    root, turn = _parts(mesh.triangles)
    corners = mesh.vertices[torch.where(turn[:, None], mesh.triangles.flip(-1), mesh.triangles)]
    names, part = root.unique(return_inverse=True)
    middle = torch.zeros(len(names), 3, dtype=torch.float64).index_add_(0, part, corners.mean(1))
    middle = (middle / part.bincount(minlength=len(names))[:, None])[part]
    a, b, c = (corners - middle[:, None]).unbind(1)
    volume = torch.zeros(len(names), dtype=torch.float64).index_add_(0, part, (a * torch.linalg.cross(b, c)).sum(-1))
    turn = turn ^ (volume < 0)[part]
    return torch.where(turn[:, None], mesh.triangles.flip(-1), mesh.triangles)


def _parts(triangles: Tensor) -> tuple[Tensor, Tensor]:
    """(root [T], whether it must be turned to turn as the root does [T]) of each triangle."""
    one, two, differ = _neighbours(triangles)
    root, turn = torch.arange(len(triangles)), torch.zeros(len(triangles), dtype=torch.bool)
    while True:
        a, b = root[one], root[two]
        apart = (a != b).nonzero()[:, 0]
        if not len(apart):
            return root, turn
        a, b, parity = a[apart], b[apart], (turn[one] ^ turn[two] ^ differ)[apart]
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        parent, flip = torch.arange(len(triangles)), torch.zeros(len(triangles), dtype=torch.bool)
        # of each root the least neighbour, by the first of the edges that lead there
        best = torch.full((len(triangles),), torch.iinfo(torch.int64).max)
        best.scatter_reduce_(0, high, low * len(apart) + torch.arange(len(apart)), "amin")
        hooked = best.ne(torch.iinfo(torch.int64).max).nonzero()[:, 0]
        parent[hooked], flip[hooked] = best[hooked] // len(apart), parity[best[hooked] % len(apart)]
        while not torch.equal(beyond := parent[parent], parent):
            flip = flip ^ flip[parent]
            parent = beyond
        turn, root = turn ^ flip[root], parent[root]


def _neighbours(triangles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """([E], [E], [E] bool): the two triangles of each edge that has two, and whether they turn differently."""
    start, end = triangles.reshape(-1), triangles.roll(-1, 1).reshape(-1)
    points = int(triangles.max()) + 1 if len(triangles) else 1
    name = torch.minimum(start, end) * points + torch.maximum(start, end)
    order = name.argsort(stable=True)
    _, count = name[order].unique_consecutive(return_counts=True)
    first = (count.cumsum(0) - count)[count == 2]
    one, two = order[first], order[first + 1]
    return one // 3, two // 3, (start < end)[one] == (start < end)[two]
