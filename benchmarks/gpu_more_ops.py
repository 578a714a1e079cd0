"""Workloads of gpu_ops.py besides trainings and encodings: frames in one pass, known geometry, sorting onto a grid, and
what the stand-ins for nerfacc and gsplat add. `size` is a gpu_ops.Size."""

from __future__ import annotations

import torch

from radfield.compat import gsplat, nerfacc
from radfield.compat.nerfacc.segments import segment_scan
from radfield.encodings import registry
from radfield.fields import distance, values
from radfield.gaussians.plas import plas_sort
from radfield.rays import Rays
from radfield.renderers import media, sphere_tracing
from radfield.renderers.picture_frame import picture_frame
from radfield.tracing import shading, solids, texture
from radfield.tracing.surface import Surface

BOX = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])


def rays_into_the_box(side: int, device: torch.device) -> Rays:
    """side x side parallel rays through the unit cube, from above."""
    across = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(across, across, indexing="ij")
    origins = torch.stack((x, y, torch.full_like(x, 2.0)), -1).view(-1, 3)
    down = torch.tensor([0.0, 0.0, -1.0]).expand_as(origins).contiguous()
    return Rays(origins.to(device), down.to(device))


def height_field(cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(vertices, triangles) of waves over the unit square."""
    y, x = torch.meshgrid(*(torch.linspace(0, 1, cells),) * 2, indexing="ij")
    vertices = torch.stack((x, y, 0.1 * (9 * x).sin() * (7 * y).cos()), -1).view(-1, 3)
    corner = (torch.arange(cells - 1)[:, None] * cells + torch.arange(cells - 1)).flatten()
    quads = torch.stack((corner, corner + 1, corner + cells, corner + cells + 1), 1)
    return vertices, torch.cat((quads[:, [0, 1, 2]], quads[:, [1, 3, 2]]))


def frames(device: torch.device, size) -> None:
    """A picture, a distance field and a volume, each in one pass."""
    grid = registry.config_of("hash", **size.grid)
    across = (torch.arange(size.side, device=device) + 0.5) / size.side
    with torch.no_grad():
        picture = values.ValueField(2, values.Config(grid=grid)).to(device)
        picture_frame(picture.grid, picture.network, across, across, torch.uint8, 1.0)
        shown = distance.DistanceField(distance.Config(grid, precision="bf16")).to(device)
        field, box, rays = sphere_tracing.FieldDistance(shown), BOX.to(device), rays_into_the_box(size.side, device)
        space = sphere_tracing.FreeSpace.of(field, device)
        sphere_tracing.render_rays(field, space, rays, tuple(box), box[1])
        medium = values.ValueField(3, values.Config(grid=grid, channels=4)).to(device)
        steps = {"steps": 8, "light_directions": 2, "light_steps": 4}
        media.march(media.FieldMedium(medium), box, rays, media.Environment(), **steps)


def known_geometry(device: torch.device, size) -> None:
    """Distances to a mesh and winding numbers; solids met by rays, their texture and light."""
    surface = Surface.of(*height_field(max(size.side // 4, 4)))
    x = torch.rand(size.samples, 3).to(device)
    surface.distance(x)
    surface.winding(x)
    shapes = solids.Solids.of([solids.Shape("sphere", (0.3,))])
    rays = rays_into_the_box(size.side, device)
    rays = Rays(rays.origins - 0.5, rays.directions)
    hits = solids.trace_solids(shapes, rays)
    textures, light = texture.Textures.of([texture.Material()], shapes.placement), shading.Light().table()
    index, width = hits.index.clamp_min(0), torch.full_like(hits.depth, 1e-3)
    albedo = texture.texture(textures, rays.origins, width, index)
    shading.shade(albedo, hits.normal, rays.directions, torch.ones_like(hits.depth), index, textures.gloss, light)
    shading.sky(rays.directions, light)


def sorting(device: torch.device, size) -> None:
    """PLAS on a square of Gaussians, in its last rounds."""
    side = int(size.gaussians**0.5)
    plas_sort(torch.rand(side * side, 14, device=device), side, radius=2)


def stand_in(device: torch.device, size) -> None:
    """nerfacc's sums and products along rays with gradients, and its traversal of grids."""
    per_ray = 32
    x = torch.rand(size.samples, device=device, requires_grad=True)
    start = torch.arange(size.samples // per_ray + 1, device=device) * per_ray
    for product in (False, True):
        segment_scan(x, start, product=product, exclusive=True).sum().backward()
    estimator = nerfacc.OccGridEstimator([0.0, 0.0, 0.0, 1.0, 1.0, 1.0], resolution=32).to(device)
    estimator.binaries = torch.ones_like(estimator.binaries)
    rays = rays_into_the_box(size.side, device)
    estimator.sampling(rays.origins, rays.directions, render_step_size=0.02)


def gaussians_by_rows(device: torch.device, size) -> None:
    """gsplat's: Gaussians that lie one after another, of which one camera sees a part, by harmonics and by colours."""
    random, n, side = torch.Generator().manual_seed(0), size.gaussians, size.side
    pose, lens = torch.eye(4, device=device)[None], torch.tensor([[[1.1, 0, 0.5], [0, 1.1, 0.5], [0, 0, 1]]]) * side
    pose[0, 2, 3], lens[0, 2, 2] = 2.0, 1.0
    shapes = {"means": (n, 3), "quats": (n, 4), "scales": (n, 3), "opacities": (n,)}
    values = {k: torch.randn(shape, generator=random) for k, shape in shapes.items()}
    values["scales"], values["opacities"] = 0.01 * values["scales"].exp(), values["opacities"].sigmoid()
    for degree, shape in ((3, (n, 16, 3)), (None, (n, 3))):
        leaves = {k: v.to(device).requires_grad_() for k, v in values.items()}
        colors = torch.rand(shape, generator=random).to(device).requires_grad_()
        seen = gsplat.rasterization(
            **leaves, colors=colors, viewmats=pose, Ks=lens.to(device), width=side, height=side, sh_degree=degree
        )
        seen[0].sum().backward()


MORE = {"frames": frames, "known geometry": known_geometry, "sorting": sorting}
MORE |= {"nerfacc's": stand_in, "gsplat's": gaussians_by_rows}
