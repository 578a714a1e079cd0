"""`radfield fit-sdf`: a signed distance field of a triangle mesh, measured against it."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...errors import BadInput
from ...training.run_folder import RunFolder
from ..runs import write_picture
from . import sdf
from .program import Fit, FitOptions

REPORT_VIEWS, REPORT_PIXELS = 4, 800


@dataclass(frozen=True)
class Options(FitOptions):
    """Fit a signed distance field to a triangle mesh and write a run: config, checkpoint, metrics, renders, report.
    Without --seconds and --steps: 60 seconds."""

    mesh: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[MESH]")] = None  # .obj, .ply or .glb
    up: Literal["y", "z"] = "y"  # the mesh's axis that points upwards in pictures
    sdf: sdf.Config = field(default_factory=sdf.Config)  # options of the field and its training


class FitSdf(Fit):
    command, name, method, options = "fit-sdf", "sdf", sdf, Options
    source = noun = "mesh"
    kept = Fit.kept | {"up": (str,)}
    shown = ("loss",)

    def saved_options(self, folder: RunFolder) -> dict:
        options = super().saved_options(folder)
        if options["up"] not in ("y", "z"):
            raise BadInput(f"{folder.config_path}: up is {options['up']!r:.80}; the rule: y or z")
        return options

    def open(self, options, folder: RunFolder):
        """(the mesh's surface in scene coordinates, the similarity that leads there)."""
        return open_surface(Path(options.mesh))

    def scene_of(self, target) -> dict:
        surface, transform = target
        size = sdf.size_of(surface).tolist()
        return {"transform": transform.to_dict(), "cascades": 1, "background": "white", "size": size}

    def training_of(self, options, target):
        surface, transform = target
        model = sdf.build(options.sdf, transform=transform, size=sdf.size_of(surface), seed=options.seed)
        return sdf.Training(model, surface, options.seed)

    def described(self, target) -> str:
        signs = {"pseudonormal": "signs by pseudonormals", "winding": "signs by winding numbers"}
        return f"{len(target[0].triangles)} triangles, {signs[target[0].rule]}"

    def evaluate(self, folder, model, target, figures, stages):
        return evaluate(folder, model, target[0], self.saved_options(folder)["up"], figures, stages)


def run(options: Options) -> dict:
    """Fits, and returns the figures of the run."""
    return FitSdf().run(options)


def open_surface(path: Path):
    """(the mesh's surface in scene coordinates, the similarity that leads there). Says what is unusual about the mesh.
    BadInput, in one line, where it is none."""
    import torch

    from ...data.synthetic.mesh import read_mesh
    from ...tracing.surface import Surface

    vertices, triangles = read_mesh(path, torch.float64)[:2]
    try:
        surface = Surface.of(vertices, triangles)
        transform = sdf.scene_of(surface)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    surface.announce(path.name)
    return dataclasses.replace(surface, vertices=transform.points(surface.vertices)), transform


def evaluate(folder: RunFolder, model, surface, up: str, figures: dict, stages: dict) -> dict:
    """Measures, writes pictures and the report, and returns what was found."""
    from ...metrics import psnr
    from ...tracing.bvh import Bvh
    from ..report.page import write_report
    from . import sdf_views

    found = sdf_views.measure(model, surface)
    cameras = sdf_views.cameras_around(model.size, up, REPORT_VIEWS, REPORT_PIXELS)
    bvh = Bvh.of(surface.vertices, surface.triangles)
    assert model.space is not None  # made once, before frames are timed
    views, seconds = [], []
    for i in range(REPORT_VIEWS):
        began = time.perf_counter()
        picture = model.render_view(cameras, i).color
        seconds.append(time.perf_counter() - began)
        views.append((f"view {i}", picture, sdf_views.mesh_picture(bvh, cameras, i)))
        write_picture(folder.renders / f"{i:03d}.png", picture)
    found |= {"views": REPORT_VIEWS, "resolution": f"{REPORT_PIXELS} x {REPORT_PIXELS}", "background": "white"}
    found["seconds_per_view"] = sum(seconds) / len(seconds)
    shown = {"psnr": sum(float(psnr(ours, mesh)) for _, ours, mesh in views) / len(views)}
    summary = {"name": folder.path.resolve().name, **figures, **found, **shown}
    report = write_report(folder, folder.read_metrics(), views, summary, stages)
    return {**found, "report": str(report)}
