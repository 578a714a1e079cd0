"""A run as a page for browsers, which needs no server: what `radfield export RUN FOLDER` makes. The page draws a light
form of the scene that is distilled from the run's own views (web/)."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from ...cameras import Cameras
from ...data.scene import Images
from ...distillation.rendered import check_not_empty, drawn, rendered
from ...errors import BadInput
from ...meshing.mesh import Mesh
from ...metrics import psnr
from ...rays import Rays
from ...training.progress import Progress
from ...training.run_folder import RunFolder
from ...web import baked_mesh, light_field
from ...web.network_texels import layer_sizes, texels
from ...web.page import check_vacant, orbit_of, packed, write_page
from ..run_files import BACKGROUNDS
from ..runs import check, saved_options

GROWN = 1.05  # a ball, beyond where rays end
HELD_OUT = 4  # views of the run that are measured, not trained on


@dataclass(frozen=True)
class Config:
    """The options of a page."""

    # what the page draws: a mesh with a texture of features and a tiny network, or a network asked once per pixel,
    # which is blurred unless it is distilled for long; auto: a mesh, but of Gaussians the network
    kind: Literal["auto", "mesh", "light-field"] = "auto"
    seconds: float = 120.0  # of distilling the run into it; rendering the run's views not counted
    steps: int | None = None  # or so many steps of distilling
    views: int = 100  # views of the run that it is distilled from
    size: int = 200  # longer side of these in pixels
    seed: int = 0  # of poses and of what is trained
    light_field: light_field.Config = field(default_factory=light_field.Config)  # of the kind light-field
    mesh: baked_mesh.Config = field(default_factory=baked_mesh.Config)  # of the kind mesh


def export_page(options, folder: RunFolder) -> dict:
    """Distils and writes the page; returns what was measured. options: those of `radfield export`."""
    web = options.web
    _check(web)
    check_vacant(options.file)
    from ..distill.training import Active, sampler_of
    from ..methods import METHODS, method_of

    if method_of(folder) not in METHODS.values():
        raise BadInput(f"{folder.path}: is of another method; the rule: a page is of a run of {' or '.join(METHODS)}")
    model = method_of(folder).load(folder.path)
    if web.kind == "auto":
        web = replace(web, kind="mesh" if hasattr(model, "color") else "light-field")
    sampler = sampler_of(_cameras_scene(folder, model), model, "auto", web.seed, Active())
    cameras = drawn(sampler, web.views + HELD_OUT, web.size)
    check_not_empty(model, cameras)
    with Progress("render the run's views", steps=len(cameras)) as progress:
        images = rendered(model, cameras, progress.update)
    began = time.perf_counter()
    if web.kind == "mesh":
        made = _baked_mesh(web, model, surface_of(options, folder, model), cameras, images)
    else:
        made = _light_field(web, model, cameras, images)
    data = {
        "background": [BACKGROUNDS[model.background]] * 3,
        **orbit_of(sampler, made.pop("target")),
        **made.pop("data"),
    }
    size = write_page(options.file, web.kind, folder.path.resolve().name, data)
    print(f"export {folder.path.resolve().name}: {options.file / 'index.html'}", file=sys.stderr)
    seconds = time.perf_counter() - began
    return {"page": str(options.file / "index.html"), "kind": web.kind, **made, "seconds": seconds, "bytes": size}


def _light_field(web: Config, model, cameras: Cameras, images: Images) -> dict:
    """The light field's data for the page, and what was measured of it."""
    centre, radius = ball_around(model, cameras, web.seed)
    found = light_field.LightField(web.light_field, centre, radius, web.seed)
    rows = _Pixels(cameras, images, web.views, web.seed)
    with _budget(web, "distil a light field") as (used, each):
        steps = light_field.fit(found, rows.batch, used, each)
    background = BACKGROUNDS[model.background]

    def seen(view: int) -> Tensor:
        with torch.no_grad():
            parts = [found(part, exact=True) for part in _split(cameras.image_rays(view), light_field.BATCH)]
        color = torch.cat(parts)
        return color[:, :3] + background * (1 - color[:, 3:])

    data = {
        "layers": layer_sizes(found.network),
        "weights": packed(texels(found.network)),
        "centre": centre.tolist(),
        "radius": radius,
        "points": web.light_field.points,
        "frequencies": web.light_field.frequencies,
    }
    parameters = found.network.weights.numel()
    measured = {"psnr_to_run": _psnr(seen, images, web.views, background), "steps": steps, "parameters": parameters}
    return {"target": centre, "data": data, **measured}


def surface_of(options, folder: RunFolder, model) -> Mesh:
    """The run's surface in scene coordinates. Raises `BadInput` where it has none."""
    from .mesh import mesh_of

    if not hasattr(model, "color"):
        raise BadInput(f"{folder.path}: has no colours at points of a surface; the rule: --web.kind light-field")
    mesh, _ = mesh_of(folder, replace(options, resolution=options.web.mesh.resolution, colors=False))
    return mesh.transformed(model.transform)


def _baked_mesh(web: Config, model, surface: Mesh, cameras: Cameras, images: Images) -> dict:
    """The mesh's data for the page, and what was measured of it."""
    rays = [cameras.image_rays(view) for view in range(web.views)]
    joined = Rays(torch.cat([each.origins for each in rays]), torch.cat([each.directions for each in rays]))
    surface = baked_mesh.seen_part(surface, joined)
    corners = surface.vertices[surface.triangles].float()
    found = baked_mesh.BakedMesh(corners, web.mesh.texels, web.seed)
    found.paint(model.color)
    color = images.pixels[: images.offset[web.views]].float() / 255
    with _budget(web, "distil a mesh") as (used, each):
        steps = baked_mesh.fit(found, joined, color, used, each, web.seed)
    background = BACKGROUNDS[model.background]

    def seen(view: int) -> Tensor:
        with torch.no_grad():
            return found(cameras.image_rays(view), background)

    picture = found.picture().view(found.height, baked_mesh.WIDE, -1)
    bits = torch.nn.functional.pad(found.steps, (0, 1)).to(torch.uint16)
    data = {
        "layers": layer_sizes(found.network),
        "weights": packed(texels(found.network)),
        "corners": packed(bits),
        "first": packed(picture[..., :4]),
        "second": packed(picture[..., 4:]),
        "low": found.low.tolist(),
        "extent": found.size.tolist(),
        "texels": web.mesh.texels,
        "wide": baked_mesh.WIDE,
        "height": found.height,
    }
    measured = {"psnr_to_run": _psnr(seen, images, web.views, background), "steps": steps, "triangles": len(corners)}
    return {"target": (found.low + found.size / 2).float(), "data": data, **measured}


def ball_around(model, cameras: Cameras, seed: int) -> tuple[Tensor, float]:
    """(centre [3], radius) in scene coordinates of a ball about where rays of `cameras` end in the model, but for a few
    in a thousand; about the outermost cube where none loses half of its light."""
    from ..splat.initial import ends_in

    position, _ = ends_in(model, cameras, 5000, seed)
    if len(position) < 4:
        return torch.full((3,), 0.5), 2.0 ** (model.cascades - 1) * 0.75**0.5
    position = position.double()
    ends = torch.quantile(position, torch.tensor([0.001, 0.999], dtype=torch.float64), dim=0)
    centre = ends.mean(0)
    radius = torch.quantile((position - centre).norm(dim=1), 0.998)
    return centre.float(), max(GROWN * float(radius), 1e-3)


class _Pixels:
    """Random pixels of the first `views` views, and their rays."""

    def __init__(self, cameras: Cameras, images: Images, views: int, seed: int):
        self.cameras, self.images, self.seed = cameras, images, seed
        self.end = int(images.offset[views])

    def batch(self, step: int) -> tuple[Rays, Tensor]:
        """(rays, [BATCH, 4] colour times alpha, and alpha)."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        index = torch.randint(self.end, (light_field.BATCH,), generator=generator)
        view = torch.searchsorted(self.images.offset, index, right=True) - 1
        place, width = index - self.images.offset[view], self.images.size[view, 0]
        pixel = torch.stack((place % width, place.div(width, rounding_mode="floor")), 1) + 0.5
        return self.cameras.rays(view, pixel.float()), premultiplied(self.images.pixels[index])


def premultiplied(pixels: Tensor) -> Tensor:
    """[N, 4] float32, colour times alpha and alpha, of pixels [N, 4] uint8 with straight alpha."""
    values = pixels.float() / 255
    return torch.cat((values[:, :3] * values[:, 3:], values[:, 3:]), 1)


def _psnr(seen, images: Images, first: int, background: float) -> float:
    """The mean over the views from `first` on, on the background."""
    views = range(first, len(images))
    values = [float(psnr(seen(i), images.composited(i, [background] * 3).view(-1, 3))) for i in views]
    return sum(values) / len(values)


@contextlib.contextmanager
def _budget(web: Config, title: str):
    """Shows the progress of a distillation; gives used(steps), the part of the budget that is used, and
    each(steps, mean squared error)."""
    began = time.perf_counter()

    def used(step: int) -> float:
        return step / web.steps if web.steps else (time.perf_counter() - began) / web.seconds

    with Progress(title, steps=web.steps, seconds=None if web.steps else web.seconds) as bar:

        def each(step: int, loss: float) -> None:
            seconds = time.perf_counter() - began
            bar.update(step, seconds=seconds, psnr=-10 * math.log10(max(loss, 1e-10)))

        yield used, each


def _split(rays: Rays, count: int):
    for origins, directions in zip(rays.origins.split(count), rays.directions.split(count), strict=True):
        yield Rays(origins, directions)


def _cameras_scene(folder: RunFolder, model):
    """The run's capture with its cameras, None where it cannot be read: then poses follow from the scene box."""
    from ...data import load

    try:
        saved = saved_options(folder)
        if not saved["capture"].exists():
            return None
        reading = {name: saved[name] for name in ("holdout", "max_size")} | {"masks": saved.get("masks", "auto")}
        return load(saved["capture"], **reading, split=())
    except BadInput:
        return None


def _check(web: Config) -> None:
    net = web.light_field
    check(
        [
            ("web.seconds", web.seconds, 0 < web.seconds < math.inf, "positive"),
            ("web.steps", web.steps, web.steps is None or web.steps >= 1, "positive"),
            ("web.views", web.views, 1 <= web.views <= 10_000, "from 1 to 10000"),
            ("web.size", web.size, 16 <= web.size <= 2048, "from 16 to 2048"),
            ("web.seed", web.seed, 0 <= web.seed < 2**31, "from 0 to 2^31 - 1"),
            ("web.mesh.resolution", web.mesh.resolution, 8 <= web.mesh.resolution <= 512, "from 8 to 512"),
            ("web.mesh.texels", web.mesh.texels, 1 <= web.mesh.texels <= 64, "from 1 to 64"),
            ("web.light-field.width", net.width, net.width in range(16, 257, 16), "a multiple of 16, from 16 to 256"),
            ("web.light-field.layers", net.layers, 1 <= net.layers <= 15, "from 1 to 15"),
            ("web.light-field.points", net.points, 2 <= net.points <= 16, "from 2 to 16"),
            ("web.light-field.frequencies", net.frequencies, 1 <= net.frequencies <= 10, "from 1 to 10"),
        ]
    )
