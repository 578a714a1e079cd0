"""A mesh's colours as an image: its triangles laid out side by side in the plane (xatlas), and a colour per texel.

Texel (column i, row j) of an image [H, W] has its centre at u = (i + 1/2) / W, v = 1 - (j + 1/2) / H. Texels that no
triangle covers get the colour of those beside them: viewers read between texels, and from smaller copies of the image.
Letters: P points, T triangles, M texels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ..rays import Rays
from ..tracing.bvh import Bvh, trace_triangles
from .mesh import Mesh
from .optional import optional

PADDING = 4  # texels between charts


def unwrap(mesh: Mesh, size: int) -> tuple[Mesh, Tensor, tuple[int, int]]:
    """(the mesh with uv, [P] which point each of its points was, (width, height) of the image in texels): points on
    seams are there once per side. size: of the image, which comes out about as large."""
    xatlas = optional("xatlas", "--texture")
    atlas = xatlas.Atlas()
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    points = ((mesh.vertices - low) / (high - low).max()).float()
    atlas.add_mesh(points.numpy(), mesh.triangles.numpy().astype("uint32"))
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = size, PADDING, True
    atlas.generate(xatlas.ChartOptions(), packing, False)
    which, triangles, uv = (torch.from_numpy(each.astype(kind)) for each, kind in zip(atlas[0], "iif", strict=True))
    unwrapped = Mesh(mesh.vertices[which.long()], triangles.long(), uv=uv.float())
    return unwrapped, which.long(), (atlas.width, atlas.height)


def bake(mesh: Mesh, normals: Tensor, size: tuple[int, int], color: Callable[[Tensor, Tensor], Tensor]) -> Mesh:
    """The mesh with the texture that `color` (of positions [M, 3] float64 and unit normals [M, 3]: sRGB [M, 3]) has on
    it. normals: [P, 3]; size: (width, height)."""
    width, height = size
    triangle, weights, texel = covered(mesh, width, height)
    corner = mesh.triangles[triangle]
    x, normal = ((values[corner] * weights[..., None]).sum(1) for values in (mesh.vertices, normals))
    image = torch.zeros(height * width, 3)
    image[texel] = color(x, torch.nn.functional.normalize(normal, dim=-1)).float().clamp(0, 1)
    known = torch.zeros(height * width, dtype=torch.bool)
    known[texel] = True
    image = padded(image.view(height, width, 3), known.view(height, width))
    return dataclasses.replace(mesh, image=(image * 255).round().byte())


def covered(mesh: Mesh, width: int, height: int) -> tuple[Tensor, Tensor, Tensor]:
    """(triangle [M], weights [M, 3] of its corners, texel [M] row by row) of the texels whose centre a triangle covers,
    found by rays that fall on the image."""
    flat = torch.cat((mesh.uv * torch.tensor([width, height]), torch.zeros(len(mesh.uv), 1)), -1)
    bvh = Bvh.of(flat, mesh.triangles)
    i, j = torch.arange(width) + 0.5, height - torch.arange(height) - 0.5
    found = []
    for rows in j.split(max(1, (1 << 20) // width)):
        x, y = i.repeat(len(rows)), rows.repeat_interleave(width)
        down = torch.tensor([0.0, 0.0, -1.0]).repeat(len(x), 1)
        found.append(trace_triangles(bvh, Rays(torch.stack((x, y, torch.ones_like(x)), -1), down)))
    index = torch.cat([hits.index for hits in found]).long()
    texel = (index >= 0).nonzero()[:, 0]
    second = torch.cat([hits.weights for hits in found])[texel].double()
    return index[texel], torch.cat((1 - second.sum(-1, keepdim=True), second), -1), texel


def padded(image: Tensor, known: Tensor, times: int = 2 * PADDING) -> Tensor:
    """The image [H, W, 3] with the texels beside known ones [H, W] filled by the mean of their known neighbours,
    `times` times, and all others by the mean of all."""
    mean = image[known].mean(0) if bool(known.any()) else image.new_zeros(3)
    sums = torch.cat((image * known[..., None], known[..., None].float()), -1).permute(2, 0, 1)[None]
    for _ in range(times):
        around = torch.nn.functional.avg_pool2d(sums, 3, 1, 1)
        grown = torch.cat((around[:, :3] / around[:, 3:].clamp_min(1e-9), (around[:, 3:] > 0).float()), 1)
        sums = torch.where(sums[:, 3:] > 0, sums, grown * grown[:, 3:])
    color, there = sums[0, :3].permute(1, 2, 0), sums[0, 3] > 0
    return torch.where(there[..., None], color, mean)
