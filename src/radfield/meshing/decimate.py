"""A mesh with fewer triangles: edges are collapsed where that moves the surface least, measured by quadrics (Garland
and Heckbert 1997, "Surface simplification using quadric error metrics"). The work is done by fast-simplification.
Letters: P points, T triangles."""

from __future__ import annotations

import torch

from .mesh import Mesh
from .optional import optional

FEWEST = 4  # a tetrahedron


def decimate(mesh: Mesh, triangles: int) -> Mesh:
    """The mesh with about `triangles` triangles, without colours: they are asked for afterwards. It is as it was where
    it has no more. Triangles that share a point before do so after."""
    if len(mesh.triangles) <= triangles:
        return mesh
    simplify = optional("fast_simplification", "--triangles").simplify
    # The library's thresholds are lengths: the unit cube makes the result the same in metres and in millimetres.
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    scale = float((high - low).max())
    points = ((mesh.vertices - low) / scale).numpy()
    vertices, faces = simplify(points, mesh.triangles.int().numpy(), target_count=triangles)[:2]
    made = Mesh(torch.from_numpy(vertices).double() * scale + low, torch.from_numpy(faces).long())
    a, b, c = made.triangles.unbind(1)
    return made.select((a != b) & (b != c) & (c != a))
