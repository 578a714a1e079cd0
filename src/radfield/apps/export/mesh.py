"""The surface of a run as a mesh, in the units and axes of its capture or mesh: of a field with a distance where it is
0, of a radiance field where the density is a threshold, of any run (Gaussians too) in the depth of its rendered views.
What `radfield export` calls for these.

What a model must answer: meshing/level_set.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator

from torch import Tensor

from ...cameras import Cameras
from ...errors import BadInput, warn
from ...meshing import fusion, level_set, parts
from ...meshing.decimate import decimate
from ...meshing.mesh import Mesh
from ...meshing.texture import bake, unwrap
from ...meshing.unsigned import mesh_of_unsigned
from ...meshing.visibility import seen
from ...tracing.surface import count_open_edges
from ...training.progress import Progress
from ...training.run_folder import RunFolder
from ..runs import open_run
from .surface_colors import colors_of

FUSED_PIXELS = 640  # of the longer side of a view that is fused
TEXTURED_TRIANGLES = 50_000  # of a mesh with a texture, where nothing is said


def mesh_of(folder: RunFolder, options, device="cpu") -> tuple[Mesh, dict]:
    """(the mesh, figures about it). options: those of `radfield export`; device: where the run is asked, while meshes
    are made on the CPU. Raises `BadInput` where it has no surface."""
    from ..methods import load

    title = f"export {folder.path.resolve().name}"
    model = load(folder.path, device)
    if options.tsdf:
        mesh, color, hint = fused(folder, model, options, title)
        cameras = None
    else:
        cameras = cameras_of(folder, model, options)
        color = functools.partial(colors_of, model) if hasattr(model, "color") else None
        with _shown(title) as show:
            mesh, hint = extract(model, options, show)
    if not len(mesh.triangles):
        raise BadInput(f"{folder.path}: its surface is empty: {hint}")
    whole = options.visible == "auto" and is_photographed(model)
    mesh, figures = cleaned(_cropped(mesh, folder, model, options), options, cameras, whole)
    mesh = simplified(mesh, options)
    if options.colors and color is not None:
        mesh = colored(mesh, color, options.texture)
    mesh = mesh.transformed(model.transform.inverse())
    return mesh, figures | figures_of(mesh)


def _cropped(mesh: Mesh, folder: RunFolder, model, options) -> Mesh:
    """The triangles whose middles lie in the viewer's crop box of the run, all where it has none."""
    from ...viewer import crop

    box = crop.load(folder.path, model.transform) if options.crop == "saved" else None
    if box is None:
        return mesh
    inside = box.contains(mesh.vertices[mesh.triangles].mean(1))
    if not bool(inside.any()):
        raise BadInput(f"{folder.path / crop.NAME}: holds no surface; the rule: a box around some, or --crop none")
    print(f"crop {int(inside.sum())} of {len(inside)} triangles ({crop.NAME})", file=sys.stderr)
    return mesh.select(inside)


def fused(folder: RunFolder, model, options, title: str):
    """(the surface in what the training cameras see of a run of any method, what answers its colours, what to try where
    that is empty)."""
    cameras = open_run(folder.path, None, capture=options.capture)[2].train.cameras
    cameras = cameras.scaled(min(1.0, FUSED_PIXELS / float(cameras.size.max())))
    with _shown(f"{title}: views") as show:
        views = fusion.DepthViews.of(cameras, lambda *view: model.render_view(*view).cpu(), show)
    with _shown(f"{title}: surface") as show:
        mesh, truncation = fusion.fuse(views, min(options.cascades, model.cascades), options.resolution, show)
    hint = "no view sees anything; the rule: a longer training, or more --cascades"

    def color(x: Tensor, normals: Tensor) -> Tensor:
        return views.color_of(x.float(), normals.float(), truncation)

    return mesh, color, hint


def cameras_of(folder: RunFolder, model, options) -> Cameras | None:
    """The training cameras in scene coordinates where the mesh shall be what they see, else None. Where that was left
    to us and the capture is not there, everything stays, and it is said."""
    surroundings = not hasattr(model, "distance") and options.cascades > 1 and model.cascades > 1
    wanted = surroundings or is_photographed(model)
    if options.visible == "all" or (options.visible == "auto" and not wanted):
        return None
    try:
        return open_run(folder.path, None, capture=options.capture)[2].train.cameras
    except BadInput as error:
        if options.visible == "only" or options.capture is not None:
            raise
        warn(f"{error}; the mesh keeps what no camera sees")
        return None


def is_photographed(model) -> bool:
    """Whether the model is a surface that explains photographs: behind what they show, its distances are guesses, and
    may have surfaces of their own."""
    return hasattr(model, "distance") and getattr(model, "photographed", False)


def extract(model, options, progress=None) -> tuple[Mesh, str]:
    """(the model's surface in scene coordinates, what to try where that is empty)."""
    if hasattr(model, "distance"):
        hint = getattr(model, "empty", "the field is nowhere 0; the rule: a run that was trained for longer")
        mesher = mesh_of_unsigned if getattr(model, "unsigned", False) else level_set.mesh_of_distance
        resolution = min(options.resolution, getattr(model, "most_cells", None) or options.resolution)
        if resolution < options.resolution:
            print(f"export: {resolution} cells along its longest side: no smaller than between points", file=sys.stderr)
        return mesher(level_set.from_host(model.distance, model.device), model.box, resolution, progress), hint
    cells = level_set.occupied_cells(model.grid, min(options.cascades, model.cascades))
    hint = f"no density is above {options.density:g}; the rule: a lower --density, or a longer training"
    density = level_set.from_host(model.density, model.device)
    return level_set.mesh_of_density(density, cells, options.density, options.resolution, progress), hint


def cleaned(mesh: Mesh, options, cameras: Cameras | None = None, whole: bool = False) -> tuple[Mesh, dict]:
    """(the mesh without what none of `cameras` sees and the parts that are not wanted, how many parts there are and how
    many are left out). whole: parts that the cameras see some of stay as they are, closed."""
    before, unseen = len(mesh.components().unique()), 0
    if cameras is not None:
        visible = seen(mesh, cameras)
        print(f"export: {float(visible.float().mean()):.0%} of the triangles are seen by a camera", file=sys.stderr)
        if not bool(visible.any()):
            raise BadInput("no camera of the capture sees the surface; the rule: --visible all keeps it")
        mesh, unseen = parts.without_unseen_parts(mesh, visible) if whole else (mesh.select(visible), 0)
        before = before if whole else len(mesh.components().unique())
    if unseen:
        print(f"export: {unseen} of {before} connected parts left out (no camera sees them)", file=sys.stderr)
    if options.largest:
        mesh, left_out = mesh.largest(), before - unseen - 1
    else:
        mesh, left_out = parts.without_small_parts(mesh, options.smallest)
    if left_out:
        why = "all but the largest" if options.largest else f"smaller than {options.smallest:g} of the largest"
        print(f"export: {left_out} of {before} connected parts left out ({why})", file=sys.stderr)
    left_out += unseen
    return mesh, {"components": before - left_out, "left_out": left_out}


def simplified(mesh: Mesh, options) -> Mesh:
    """The mesh with about as many triangles as asked for; with a texture, no more than are laid out in a minute."""
    wanted = options.triangles
    if wanted is None and options.texture is not None and len(mesh.triangles) > TEXTURED_TRIANGLES:
        wanted = TEXTURED_TRIANGLES
        print(f"export: simplified to about {wanted} triangles for the texture (--triangles)", file=sys.stderr)
    return mesh if wanted is None else decimate(mesh, wanted)


def colored(mesh: Mesh, color: Callable[[Tensor, Tensor], Tensor], texture: int | None) -> Mesh:
    """The mesh (in scene coordinates) with colours at its points, or with a texture of about `texture` texels a side.
    color: sRGB [M, 3] of positions and unit normals, both [M, 3]."""
    normals = mesh.normals()
    if texture is None:
        return dataclasses.replace(mesh, colors=color(mesh.vertices, normals))
    unwrapped, which, size = unwrap(mesh, texture)
    return bake(unwrapped, normals[which], size, color)


def figures_of(mesh: Mesh) -> dict:
    """What is reported of a mesh; lengths in its unit. Points that a texture has twice count once."""
    _, place = mesh.vertices.unique(dim=0, return_inverse=True)
    return {
        "vertices": len(mesh.vertices),
        "triangles": len(mesh.triangles),
        "open_edges": count_open_edges(place[mesh.triangles], len(mesh.vertices)),
        **parts.hole_figures(mesh.vertices, mesh.triangles),
    }


@contextlib.contextmanager
def _shown(title: str) -> Iterator[Callable[[int, int], None]]:
    """Shows what is done, from when it is known how much there is."""
    with contextlib.ExitStack() as stack:
        opened = []

        def show(done: int, total: int) -> None:
            if not opened:
                opened.append(stack.enter_context(Progress(title, steps=total)))
            opened[0].update(done)

        yield show
