"""`radfield fit-sdf`: a distance field of a triangle mesh or of a cloud of points, measured against it."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...errors import BadInput
from ...tracing.cloud import Cloud
from ...tracing.surface import Surface
from ...training.run_folder import RunFolder
from ..runs import write_picture
from . import sdf
from .program import Fit, FitOptions

REPORT_VIEWS, REPORT_PIXELS = 4, 800


@dataclass(frozen=True)
class Options(FitOptions):
    """Fit a distance field to a triangle mesh, signed or unsigned, or to a cloud of points, unsigned, and write a run:
    config, checkpoint, metrics, renders, report. Without --seconds and --steps: 60 seconds."""

    # .obj, .ply or .glb; with --unsigned also a cloud of points without faces: .ply, .xyz or .npy
    mesh: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[MESH]")] = None
    unsigned: bool = False  # the distance has no sign: for open sheets, which have no inside, and clouds
    up: Literal["y", "z"] = "y"  # the mesh's axis that points upwards in pictures
    sdf: sdf.Config = field(default_factory=sdf.Config)  # options of the field and its training


class FitSdf(Fit):
    command, name, method, options = "fit-sdf", "sdf", sdf, Options
    source = noun = "mesh"
    kept = Fit.kept | {"up": (str,), "unsigned": (bool,)}
    before = {"unsigned": False}
    shown = ("loss",)

    def saved_options(self, folder: RunFolder) -> dict:
        options = super().saved_options(folder)
        if options["up"] not in ("y", "z"):
            raise BadInput(f"{folder.config_path}: up is {options['up']!r:.80}; the rule: y or z")
        return options

    def open(self, options, folder: RunFolder):
        """(the surface or cloud in scene coordinates, the similarity that leads there, whether distances are
        unsigned)."""
        return *open_surface(Path(options.mesh), options.unsigned), options.unsigned

    def scene_of(self, target) -> dict:
        surface, transform, unsigned = target
        size = sdf.size_of(surface).tolist()
        scene = {"transform": transform.to_dict(), "cascades": 1, "background": "white", "size": size}
        return scene | sdf.kind_of(surface, unsigned)

    def training_of(self, options, target, device="cpu"):
        surface, transform, unsigned = target
        scene = {"transform": transform, "size": sdf.size_of(surface), **sdf.kind_of(surface, unsigned)}
        model = sdf.build(options.sdf, **scene, seed=options.seed, device=device)
        return sdf.Training(model, surface, options.seed)

    def described(self, target) -> str:
        surface, transform, unsigned = target
        if isinstance(surface, Cloud):
            return f"{len(surface.points)} points, {surface.spacing / transform.scale:.3g} apart"
        if unsigned:
            return f"{len(surface.triangles)} triangles, unsigned"
        signs = {"pseudonormal": "signs by pseudonormals", "winding": "signs by winding numbers"}
        return f"{len(surface.triangles)} triangles, {signs[surface.rule]}"

    def evaluate(self, folder, model, target, figures, stages):
        return evaluate(folder, model, target[0], self.saved_options(folder)["up"], figures, stages)


def run(options: Options) -> dict:
    """Fits, and returns the figures of the run."""
    return FitSdf().run(options)


def open_surface(path: Path, unsigned: bool = False):
    """(the mesh's surface, or the cloud, in scene coordinates, the similarity that leads there). Says what is unusual
    about it. BadInput, in one line, where it is none, or has no signs that are wanted."""
    import torch

    from ...data.cloud_files import is_cloud, read_cloud
    from ...data.synthetic.mesh import read_mesh

    points = is_cloud(path)
    if points and not unsigned:
        raise BadInput(f"{path}: has points and no faces; the rule: a mesh, or --unsigned")
    try:
        if points:
            cloud = Cloud.of(torch.from_numpy(read_cloud(path)))
            cloud.announce(path.name)
            transform = sdf.scene_of(cloud)
            return Cloud(transform.points(cloud.points)), transform
        surface = Surface.of(*read_mesh(path, torch.float64)[:2])
        transform = sdf.scene_of(surface)
    except BadInput as error:
        named = str(error).startswith(str(path))
        raise BadInput(str(error) if named else f"{path}: {error}") from None
    surface.announce(path.name, signed=not unsigned)
    return dataclasses.replace(surface, vertices=transform.points(surface.vertices)), transform


def evaluate(folder: RunFolder, model, surface, up: str, figures: dict, stages: dict) -> dict:
    """Measures, writes pictures and the report, and returns what was found."""
    from ...metrics import psnr
    from ..report.page import write_report
    from . import sdf_views

    found = (sdf_views.measure_unsigned if model.unsigned else sdf_views.measure)(model, surface)
    cameras = sdf_views.cameras_around(model.size, up, REPORT_VIEWS, REPORT_PIXELS)
    truth = sdf_views.truth_of(model, surface)
    assert model.space is not None  # made once, before frames are timed
    views, seconds = [], []
    for i in range(REPORT_VIEWS):
        began = time.perf_counter()
        picture = model.render_view(cameras, i).color.cpu()  # waits for a GPU to be done
        seconds.append(time.perf_counter() - began)
        views.append((f"view {i}", picture, truth(cameras, i)))
        write_picture(folder.renders / f"{i:03d}.png", picture)
    found |= {"views": REPORT_VIEWS, "resolution": f"{REPORT_PIXELS} x {REPORT_PIXELS}", "background": "white"}
    found["seconds_per_view"] = sum(seconds) / len(seconds)
    shown = {"psnr": sum(float(psnr(ours, theirs)) for _, ours, theirs in views) / len(views)}
    summary = {"name": folder.path.resolve().name, **figures, **found, **shown}
    report = write_report(folder, folder.read_metrics(), views, summary, stages)
    return {**found, "report": str(report)}
