"""`radfield export`: what other programs read of a run, in the capture's own units and axes: the Gaussians, or the
surface as a mesh; or a page for browsers (web.py)."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...errors import BadInput
from ...training.run_folder import RunFolder
from ..runs import check, device_rules, use_device
from . import web as export_web
from .gaussians import check_output, write_scene

MOST_TEXTURED = 500_000  # triangles that are laid out for a texture


@dataclass(frozen=True)
class Options:
    """Write the mesh or the Gaussians of a run to a file that other programs read, or a page that shows it."""

    run: Annotated[Path, tyro.conf.Positional]  # folder of the run
    # the file to write: its ending says the format. Gaussians: .ply, .compressed.ply, .splat, .spz, .sog, .glb or
    # .gltf; a mesh: .ply, .obj or .glb; without an ending: a folder with a page that shows the scene in a browser
    file: Annotated[Path, tyro.conf.Positional]
    crop: Literal["saved", "none"] = "saved"  # "saved": only what lies in the viewer's crop box, if any
    resolution: int = 512  # of a mesh: cells along the longest side of what it covers
    # of a mesh: how many of the run's nested cubes it covers; 1: where cameras look, 2: as far again, 8: all
    cascades: int = 2
    density: float = 20.0  # of a mesh of a radiance field: its surface is where the density is this
    # a mesh of any run, Gaussians too, from depth that is rendered for its training cameras (TSDF fusion)
    tsdf: bool = False
    # of a mesh: "only" what a training camera sees, or "all"; "auto": only that where the scene has surroundings that
    # the mesh covers, since behind its surfaces a radiance field has any density; of a surface (neus2) whole parts
    visible: Literal["auto", "only", "all"] = "auto"
    capture: Path | None = None  # where the run's capture is now, if it moved
    # of a mesh: connected parts with less than this part of the largest one's area are left out
    smallest: float = 0.001
    largest: bool = False  # of a mesh: only the connected part with the most triangles
    triangles: int | None = None  # of a mesh: simplified to about so many
    colors: bool = True  # of a mesh: colours, where the run has some
    # of a mesh: colours as an image of about so many texels a side, instead of at its points; in .glb, or beside .obj
    texture: int | None = None
    version: int | None = None  # of Gaussians' format: 2, 3 or 4 of .spz, 1 or 2 of .sog
    # of Gaussians: as they are, along a Morton curve, or so that neighbours in a SOG's images are alike (PLAS); auto:
    # morton for .compressed.ply and, unless neighbours are alike already (self-organised), for a SOG
    order: Literal["auto", "keep", "morton", "plas"] = "auto"
    # where a mesh's run is asked; auto: on the GPU where there is one; Gaussians and pages stay on the CPU
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None  # threads to use; all by default
    json: bool = False  # print the figures as one JSON object
    web: export_web.Config = field(default_factory=export_web.Config)  # options of a page


def run(options: Options) -> dict:
    """Exports, and returns what was written."""
    check(
        [
            ("resolution", options.resolution, 8 <= options.resolution <= 2048, "from 8 to 2048"),
            ("cascades", options.cascades, 1 <= options.cascades <= 8, "from 1 to 8"),
            ("smallest", options.smallest, 0 <= options.smallest <= 1, "from 0 to 1"),
            ("density", options.density, 0 < options.density < math.inf, "positive"),
            ("triangles", options.triangles, options.triangles is None or options.triangles >= 4, "4 or more"),
            ("texture", options.texture, options.texture is None or 16 <= options.texture <= 8192, "from 16 to 8192"),
            (
                "texture",
                options.texture,
                options.texture is None or (options.triangles or 0) <= MOST_TEXTURED,
                f"at most {MOST_TEXTURED} --triangles with it",
            ),
            *device_rules(options.device, options.threads),
        ]
    )
    folder = RunFolder.open(options.run)
    from .. import splat
    from ..methods import method_of

    page = not options.file.suffix
    of_mesh = not page and (options.tsdf or method_of(folder) is not splat)
    if options.device == "cuda" and not of_mesh:
        what = "a page is" if page else "Gaussians are"
        raise BadInput(f"--device is cuda; the rule: auto or cpu where {what} written, which the CPU does")
    device, about = use_device(options.device if of_mesh else "cpu", options.threads)
    if page:
        return export_web.export_page(options, folder)
    if not of_mesh:
        return _gaussians(options, folder)
    return _mesh(options, folder, device, about)


def _mesh(options: Options, folder: RunFolder, device, about: str) -> dict:
    from ...meshing.files import check_ending, write_mesh
    from .mesh import mesh_of

    check_ending(options.file, textured=options.texture is not None and options.colors)
    _need_packages(options)
    mesh, figures = mesh_of(folder, options, device)
    print(f"export {folder.path.resolve().name}: {figures['triangles']} triangles, {about}", file=sys.stderr)
    write_mesh(options.file, mesh)
    return {"file": str(options.file), **figures, "bytes": options.file.stat().st_size}


def _need_packages(options: Options) -> None:
    """Raises `BadInput` for a package that will be missing, before anything takes time."""
    from ...meshing.optional import optional

    if options.triangles is not None or options.texture is not None:
        optional("fast_simplification", "--triangles" if options.texture is None else "--texture")
    if options.texture is not None:
        optional("xatlas", "--texture")


def _gaussians(options: Options, folder: RunFolder) -> dict:
    from .. import splat

    check_output(options.file, options.order, options.version)
    model = splat.load(folder.path)
    gaussians = _cropped(options, folder, model)
    figures = write_scene(
        options.file, gaussians.transformed(model.transform.inverse()), options.order, options.version
    )
    print(f"export {folder.path.resolve().name}: {figures['gaussians']} Gaussians", file=sys.stderr)
    return figures


def _cropped(options: Options, folder: RunFolder, model):
    """The Gaussians whose centres lie in the run's crop box, all where there is none."""
    from ...viewer import crop

    box = crop.load(folder.path, model.transform) if options.crop == "saved" else None
    if box is None:
        return model.gaussians
    inside = box.contains(model.gaussians.means.T)
    if not bool(inside.any()):
        raise BadInput(f"{folder.path / crop.NAME}: holds no Gaussian; the rule: a box around some, or --crop none")
    print(f"crop {int(inside.sum())} of {len(inside)} Gaussians ({crop.NAME})", file=sys.stderr)
    return model.gaussians.select(inside)
