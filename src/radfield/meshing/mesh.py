"""A triangle mesh that was made, and its parts. Letters: P points, T triangles."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..geometry import SceneTransform


@dataclass(frozen=True)
class Mesh:
    """vertices: [P, 3] float64; triangles: [T, 3] int64, counter-clockwise seen from outside; colors: [P, 3] sRGB in
    [0, 1], or None. uv: [P, 2] in [0, 1], v upwards, and image: [H, W, 3] uint8 sRGB, the texture; or None both."""

    vertices: Tensor
    triangles: Tensor
    colors: Tensor | None = None
    uv: Tensor | None = None
    image: Tensor | None = None

    def transformed(self, transform: SceneTransform) -> Mesh:
        """The mesh after a similarity."""
        return replace(self, vertices=transform.points(self.vertices))

    def normals(self) -> Tensor:
        """[P, 3] unit normals: means of the triangles' by area; 0 for points without triangles."""
        a, b, c = self.vertices[self.triangles].unbind(1)
        normal = torch.linalg.cross(b - a, c - a)
        total = torch.zeros_like(self.vertices)
        for i in range(3):
            total.index_add_(0, self.triangles[:, i], normal)
        return torch.nn.functional.normalize(total, dim=-1)

    def components(self) -> Tensor:
        """[P]: the least number of the points that triangles connect with each one."""
        return connected(self.triangles, len(self.vertices))

    def largest(self) -> Mesh:
        """The component with the most triangles."""
        label = self.components()
        kept = label[self.triangles[:, 0]].bincount().argmax()
        return self.select(label[self.triangles[:, 0]] == kept)

    def select(self, kept: Tensor) -> Mesh:
        """Only the triangles that `kept` [T] marks, with their points."""
        used, triangles = self.triangles[kept].unique(return_inverse=True)
        colors, uv = (None if each is None else each[used] for each in (self.colors, self.uv))
        return Mesh(self.vertices[used], triangles, colors, uv, self.image)


def connected(groups: Tensor, points: int) -> Tensor:
    """[points]: the least number of the points that `groups` [T, k] connect with each one (labels hooked at their
    roots, and paths halved: Shiloach and Vishkin 1982)."""
    label = torch.arange(points)
    while True:
        of_corners = label[groups]
        least = of_corners.amin(1, keepdim=True).expand_as(of_corners)
        new = label.scatter_reduce(0, of_corners.reshape(-1), least.reshape(-1), "amin")
        while not torch.equal(halved := new[new], new):
            new = halved
        if torch.equal(new, label):
            return label
        label = new
