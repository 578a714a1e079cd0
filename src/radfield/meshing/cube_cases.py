"""The cases of marching cubes (Lorensen and Cline 1987), found by walking around the cube's faces.

Corner k of a cell lies at (k & 1, k >> 1 & 1, k >> 2 & 1). An edge is named by its lower corner and its axis. On each
face, walked counter-clockwise as seen from outside, the surface cuts off every run of corners that are inside by a
segment from where the run is entered to where it is left. So a face gets the same segments, the other way round, from
both of its cells, and the surface has no holes; where two inside corners are opposite, they stay apart. The segments
of a cell join to loops, and a loop is filled by a fan of triangles.

An open sheet has no inside: each of its cells says by itself which corners are on one side and which on the other, and
a neighbour may have the two exchanged. Of two sides that are opposite on a face, its lowest and highest corner stay
apart there, whichever side they are on, so that the segments do not depend on that.
"""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor

#: the corners of each face in turn, counter-clockwise as seen from outside
FACES = ((0, 4, 6, 2), (1, 3, 7, 5), (0, 1, 5, 4), (2, 6, 7, 3), (0, 2, 3, 1), (4, 5, 7, 6))
#: (lower corner, axis) of the 12 edges
EDGES = tuple((k, axis) for axis in range(3) for k in range(8) if not k >> axis & 1)
MOST = 5  # triangles of a cell
MOST_OF_SHEET = 6

Edge = tuple[int, int]


def _edge(a: int, b: int) -> Edge:
    return min(a, b), (a ^ b).bit_length() - 1


def _segments(case: int, sheet: bool) -> dict[Edge, Edge]:
    """From edge to edge on each face, so that loops turn counter-clockwise seen from outside of the surface."""
    found = {}
    for face in FACES:
        ring = [(a, b) for a, b in zip(face, face[1:] + face[:1], strict=True) if (case >> a ^ case >> b) & 1]
        apart = -1 if not sheet or case >> min(face) & 1 else 1 - len(ring)  # crossings to where the inside was entered
        for i, (a, b) in enumerate(ring):
            if case >> a & 1:  # leaves the inside here, and came in at the crossing before; or comes in at the next
                found[_edge(*ring[i + apart])] = _edge(a, b)
    return found


def loops(case: int, sheet: bool = False) -> list[list[Edge]]:
    """The closed lines in which the surface cuts the cell whose corners in the bits of `case` are inside. sheet: of a
    surface without an inside."""
    segments, found = _segments(case, sheet), []
    while segments:
        loop = [next(iter(segments))]
        while (following := segments.pop(loop[-1])) != loop[0]:
            loop.append(following)
        found.append(loop)
    return found


def _on_one_face(a: Edge, b: Edge) -> bool:
    ends = {a[0], a[0] | 1 << a[1], b[0], b[0] | 1 << b[1]}
    return any(ends <= set(face) for face in FACES)


def _fan(loop: list[Edge]) -> list[Edge]:
    """The loop from where its fan has the fewest diagonals within a face: those could meet the neighbour's."""
    turned = [loop[i:] + loop[:i] for i in range(len(loop))]
    return min(turned, key=lambda one: sum(_on_one_face(one[0], other) for other in one[2:-1]))


@functools.cache
def table(sheet: bool = False) -> Tensor:
    """[256, n, 3] int64: the edges (numbers in `EDGES`) of each case's triangles, at most n = `MOST`, or of a sheet
    `MOST_OF_SHEET`, which turn counter-clockwise as seen from outside; -1 where there is none."""
    cases = torch.full((256, MOST_OF_SHEET if sheet else MOST, 3), -1)
    for case in range(256):
        fans = [_fan(loop) for loop in loops(case, sheet)]
        triangles = [(fan[0], a, b) for fan in fans for a, b in itertools.pairwise(fan[1:])]
        for i, triangle in enumerate(triangles):
            cases[case, i] = torch.tensor([EDGES.index(edge) for edge in triangle])
    return cases
