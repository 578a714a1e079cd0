"""Closed meshes whose distances are known, for tests: (vertices [P, 3], triangles [T, 3])."""

import torch


def sphere(level: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """An octahedron whose triangles are divided in four `level` times, on the unit sphere."""
    vertices = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    triangles = torch.tensor([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    for _ in range(level):
        a, b, c = vertices[triangles].unbind(1)
        middle = [torch.nn.functional.normalize(p + q, dim=-1) for p, q in ((a, b), (b, c), (c, a))]
        points = torch.stack((a, b, c, *middle), 1).view(-1, 3)
        corners = torch.tensor([[0, 3, 5], [3, 1, 4], [5, 4, 2], [3, 4, 5]])
        triangles = (6 * torch.arange(len(triangles))[:, None, None] + corners).view(-1, 3)
        vertices, place = torch.unique(points, dim=0, return_inverse=True)
        triangles = place[triangles]
    return vertices, triangles


def cube() -> tuple[torch.Tensor, torch.Tensor]:
    """From -1 to 1 along each axis, two triangles per side."""
    vertices = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    return vertices, torch.tensor([t for a, b, c, d in quads for t in ([a, b, c], [a, c, d])])
