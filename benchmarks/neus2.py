"""NeuS2: the training step at 2^18 packed samples by stages; surfaces of synthetic captures against their exact
geometry; a masked capture.

step       8192 random rays through the first sphere's shell with 32 samples each: value, normal, colour, eikonal term,
           both backward passes, Adam over every parameter. Weights are random, so that nothing is zero.
synthetic  `radfield data synth` of a scene of solids, trained for --seconds or --steps. Chamfer distance, in parts of
           the diagonal of what the cameras see: from what they see of the truth to the mesh, and from what they see of
           the mesh to the truth. Normals: angles at the points they see.
sequence   --frames frames of the scene, each turned by 5 degrees and moved by 0.05 more: errors of the motions found,
           and each frame's time in parts of the first one's.
capture    a capture (--capture, a folder without splits of its own), with masks trained without the views --held-out:
           PSNR inside their masks; parts and open edges of the mesh that `radfield export` writes.

--pictures FOLDER writes a held-out view beside its photograph, and the mesh, also as a picture from four sides.

    python benchmarks/neus2.py step|synthetic|sequence|capture [--precision bf16|f32] [--json] [--save FILE]
        [--scene solids] [--views 60] [--size 200] [--seconds 300 | --steps 2000] [--capture FOLDER] [--pictures FOLDER]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import torch
from common import median_seconds, report
from torch import Tensor

from radfield.apps import neus2
from radfield.apps.evaluate import evaluate_views
from radfield.apps.export import program as export
from radfield.apps.fit import sdf_views
from radfield.apps.loop import take_steps
from radfield.apps.neus2 import sequence as neus2_sequence
from radfield.apps.runs import use_device, write_picture
from radfield.cpu import library
from radfield.data import load
from radfield.data.scene import Images, Views
from radfield.data.synthetic import synthetic_scene, write_synthetic_capture, write_synthetic_sequence
from radfield.encodings.slope_gradients import SlopeGradients
from radfield.geometry import SceneTransform
from radfield.losses import huber
from radfield.meshing import parts
from radfield.meshing.files import write_mesh
from radfield.meshing.level_set import mesh_of_distance
from radfield.meshing.visibility import seen
from radfield.rays import Rays, Samples
from radfield.renderers import surface_volume
from radfield.tracing.bvh import Bvh, trace_triangles
from radfield.tracing.solids_reference import solid_distance
from radfield.tracing.surface import Surface, count_open_edges
from radfield.training.adam import Adam
from radfield.training.run_folder import RunFolder
from radfield.training.stages import Stages

RAYS, PER_RAY = 8192, 32
RESOLUTION = 384  # of meshes
POINTS = 200_000


class Step:
    """A model with its optimiser, and one step of it."""

    def __init__(self, config: neus2.Config, rays: int = RAYS):
        self.generator, self.stages, self.rays = torch.Generator().manual_seed(0), Stages(), rays
        place = {"cascades": 1, "transform": SceneTransform(1.0, offset=(0.0, 0.0, 0.0)), "background": "white"}
        self.field = neus2.build(config, **place).field
        self.sharpness = torch.zeros(1)
        grid, own = self.field.grid, self.field.color_grid
        with torch.no_grad():
            for each in self.field.grids:
                each.table.uniform_(-0.01, 0.01, generator=self.generator)
            for network in self.field.networks:
                network.weights += 0.05 * torch.randn(network.weights.shape, generator=self.generator)
        grid.grad_into = SlopeGradients(grid.grid)
        table = {"parameter": grid.table.data, "grad": grid.grad_into, "shadow": grid.stored(), "mode": "skip"}
        groups = [table, {"parameter": self.field.log_sharpness.data, "grad": self.sharpness}]
        groups += [] if own is None else own.adam_groups()
        for network in self.field.networks:
            network.grad_into = torch.zeros_like(network.weights)
            groups.append({"parameter": network.weights.data, "grad": network.grad_into})
        self.optimizer = Adam(groups)
        self.samples = None

    def refresh(self):
        """Fresh rays; no part of the step's time, since they stand for what a march delivers."""
        origin = torch.nn.functional.normalize(torch.randn(self.rays, 3, generator=self.generator), dim=1)
        across = 0.3 * torch.randn(self.rays, 3, generator=self.generator)
        d = torch.nn.functional.normalize(across - origin, dim=1)
        t = 0.2 + torch.arange(PER_RAY) * (3**0.5 / 1024)
        x = (0.5 + 0.45 * origin.T[:, :, None] + d.T[:, :, None] * t).clamp(0, 1)
        starts = torch.arange(self.rays + 1, dtype=torch.int32) * PER_RAY
        along = d.T[:, :, None].expand(3, self.rays, PER_RAY).reshape(3, -1).T
        ends = t.repeat(self.rays)
        self.samples = Samples(x.reshape(3, -1).T, along, ends, ends + 3**0.5 / 1024, starts)
        self.wanted = torch.rand(self.rays, 3, generator=self.generator)

    def __call__(self):
        stages, field = self.stages, self.field
        with stages("forward"):
            seen = surface_volume.ask(field, None, self.samples)
        with stages("compositing and loss"):
            loss = huber(seen.composited(1e-4).color, self.wanted)
            loss.backward()
        with stages("backward"):
            by_sharpness = surface_volume.backward(field, seen, 0.05 / len(self.samples))
            self.sharpness.fill_(by_sharpness)
        with stages("optimiser"):
            self.optimizer.step(lr=1e-4)


def measure_step(options) -> dict:
    """Samples per second of the whole step, and milliseconds of each stage."""
    config = neus2.Config(precision=options.precision, **options.set)
    neus2.check(config)
    step = Step(config)
    step.refresh()
    step()
    step.stages = Stages()
    repeats = 7
    with library.one_torch_thread():
        seconds = median_seconds(step, repeats)
    stages = {name: 1000 * s / (repeats + 1) for name, s in step.stages.seconds.items()}
    count = len(step.samples)
    return {
        "precision": options.precision,
        "color_levels": config.color_levels,
        "samples": count,
        "samples_per_s": count / seconds,
        "milliseconds": stages,
    }


def trained(options, scene) -> tuple[dict, neus2.Model]:
    """(figures, model) of a training on a scene's views, measured on those that it holds out. The model's scene
    coordinates are the scene's, where it has masks."""
    config = neus2.Config(precision=options.precision, **options.set)
    neus2.check(config)
    scene = neus2.arranged(scene, config)
    place = {"cascades": scene.cascades, "transform": scene.transform, "background": scene.background}
    training = neus2.Training(neus2.build(config, **place), scene, 0)
    budget = {"steps": options.steps, "seconds": None if options.steps else options.seconds}
    budget = argparse.Namespace(**budget, checkpoint_seconds=1e9)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run")
        run.start({"app": "neus2"})
        step = lambda progress: neus2.train_step(training, progress)  # noqa: E731
        take_steps(budget, training, run, f"train {scene.name}", step, shown=neus2.SHOWN)
    figures = {"steps": training.step, "training_seconds": training.seconds, **training.figures()}
    measured, views = evaluate_views(training.model, scene, "val")
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        write_picture(options.pictures / "view.png", torch.cat(views[0][1:], 1))
    return {**figures, **measured}, training.model


def holding_out(scene, numbers: list[int]):
    """The scene, all of whose views are for training, with some of them held out."""
    rest = [i for i in range(len(scene.train)) if i not in numbers]
    return dataclasses.replace(scene, train=_views(scene.train, rest), val=_views(scene.train, numbers))


def _views(views: Views, numbers: list[int]) -> Views:
    images = Images.allocate([tuple(views.images.size[i].tolist()) for i in numbers], views.images.channels)
    for k, i in enumerate(numbers):
        images[k].copy_(views.images[i])
    return Views(views.cameras[numbers], images, [views.names[i] for i in numbers])


def seen_truth(synthetic, scene, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(points, normals), [N, 3] each, that random pixels of the training views see, in scene coordinates."""
    cameras, each = scene.train.cameras, -(-POINTS // len(scene.train))
    points, normals = [], []
    for view in range(len(cameras)):
        rays = cameras.image_rays(view)
        rays = rays[torch.randint(0, len(rays), (each,), generator=generator)]
        surface = synthetic.surface(rays, scene.transform)
        hit = surface.index >= 0
        points.append(rays.at(surface.depth.where(hit, 0))[hit]), normals.append(surface.normal[hit])
    return torch.cat(points), torch.cat(normals)


def seen_mesh(mesh, cameras, generator: torch.Generator) -> Tensor:
    """[N, 3] points of the mesh, even by area, that a training view sees."""
    x = Surface.of(mesh.vertices, mesh.triangles).sample(POINTS, generator)
    bvh, seen = Bvh.of(mesh.vertices.float(), mesh.triangles.int()), torch.zeros(len(x), dtype=torch.bool)
    for view in range(len(cameras)):
        rest = (~seen).nonzero()[:, 0]
        origin = cameras.camera_to_world[view, :3, 3]
        way = x[rest] - origin
        length = way.norm(dim=1)
        pixel, depth = cameras.project(torch.full((len(rest),), view), x[rest])
        inside = (depth > 0) & (pixel >= 0).all(1) & (pixel < cameras.size[view]).all(1)
        rays = Rays(origin.expand_as(way).contiguous(), (way / length[:, None]).contiguous())
        first = trace_triangles(bvh, rays).depth
        seen[rest[inside & (first > length - 2e-3)]] = True
    return x[seen]


def distance_to_solids(synthetic, scene, x: Tensor) -> Tensor:
    """[N] in scene units: exact outside of the solids, a lower bound inside."""
    world = scene.transform.inverse().points(x.double())
    solids = synthetic.tables["opaque"]
    ends = list(zip(solids.first.tolist()[:-1], solids.first.tolist()[1:], strict=True))
    every = [solid_distance(solids, range(a, b), world)[0] for a, b in ends]
    return torch.stack(every).amin(0).abs() * scene.transform.scale


def measure_synthetic(options) -> dict:
    """A synthetic capture's surface against the truth."""
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder, synthetic = Path(temporary) / "capture", synthetic_scene(options.scene)
        size = (options.size, options.size)
        write_synthetic_capture(folder, synthetic, views=options.views, val_views=4, size=size)
        scene = load(folder)
    figures, model = trained(options, scene)
    mesh = mesh_of_distance(model.distance, model.box, RESOLUTION)
    points, normals = seen_truth(synthetic, scene, generator)
    diagonal = float((points.amax(0) - points.amin(0)).norm())
    completeness = Surface.of(mesh.vertices, mesh.triangles).distance(points.contiguous())
    accuracy = distance_to_solids(synthetic, scene, seen_mesh(mesh, scene.train.cameras, generator))
    cosine = (model.normals(points.contiguous()) * normals).sum(1).clamp(-1, 1)
    angle = cosine.acos().rad2deg()
    if options.pictures:
        pictures_of(model, mesh, options.pictures)
    return {
        "scene": options.scene,
        "chamfer": (float(accuracy.mean()) + float(completeness.mean())) / 2 / diagonal,
        "accuracy": float(accuracy.mean()) / diagonal,
        "completeness": float(completeness.mean()) / diagonal,
        "normal_median": float(angle.median()),
        "normal_mean": float(angle.mean()),
        **kept(figures),
        **mesh_figures(mesh),
        "sharpness": model.field.sharpness,
    }


def measure_sequence(options) -> dict:
    """Motions of a synthetic sequence against the truth. Errors of places are those of the object's middle, in parts of
    the extent (1.8) of the solids."""
    size = (options.size, options.size)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "frames"
        shared = {"views": options.views, "val_views": 1, "size": size}
        motions = write_synthetic_sequence(folder, options.scene, options.frames, **shared)
        budget = {"steps": options.steps, "seconds": None if options.steps else options.seconds}
        chosen = {
            "neus2": neus2.Config(precision=options.precision, **options.set),
            "threads": options.threads,
            **budget,
        }
        found = neus2_sequence.run(neus2_sequence.Options(folder, Path(temporary) / "run", **chosen))["frames"]
    angles, places = [], []
    for frame, motion in zip(found, motions, strict=True):
        back = frame["to_first_frame"]
        r, t = (torch.tensor(back[name], dtype=torch.float64) for name in ("rotation", "translation"))
        total = r @ torch.tensor(motion.rotation, dtype=torch.float64)
        angles.append(float(((total.trace() - 1) / 2).clamp(-1, 1).acos().rad2deg()))
        places.append(float((r @ torch.tensor(motion.offset, dtype=torch.float64) + t).norm()) / 1.8)
    seconds = [frame["seconds"] for frame in found]
    return {
        "frames": len(found),
        "largest_angle": max(angles),
        "largest_place": max(places),
        "angles": angles,
        "places": places,
        "seconds": seconds,
        "slowest_later": max(seconds[1:]) / seconds[0] if len(seconds) > 1 else None,
    }


def measure_capture(options) -> dict:
    """A real capture with masks."""
    held_out = [int(number) for number in options.held_out.split(",")]
    scene = load(options.capture, holdout=0, max_size=options.max_size)
    scene = holding_out(scene, held_out) if scene.has_alpha else load(options.capture, max_size=options.max_size)
    figures, model = trained(options, scene)
    mesh = as_exported(
        mesh_of_distance(model.distance, model.box, RESOLUTION), neus2.arranged(scene, model.config).train.cameras
    )
    if options.pictures:
        pictures_of(model, mesh, options.pictures)
    return {**kept(figures), **mesh_figures(mesh), "sharpness": model.field.sharpness}


def as_exported(mesh, cameras):
    """The mesh without what `radfield export` leaves out by itself: parts that no camera sees, and tiny ones."""
    mesh, _ = parts.without_unseen_parts(mesh, seen(mesh, cameras))
    return parts.without_small_parts(mesh, export.Options.smallest)[0]


def kept(figures: dict) -> dict:
    """Those of a training's figures that say how good it is and what it took."""
    names = ("steps", "training_seconds", "samples_per_s", "psnr", "psnr_inside", "ssim")
    return {name: figures.get(name) for name in names}


def mesh_figures(mesh) -> dict:
    """How whole a mesh is."""
    parts = mesh.components()[mesh.triangles[:, 0]].unique(return_counts=True)[1]
    return {
        "triangles": len(mesh.triangles),
        "parts": len(parts),
        "largest_part": float(parts.max()) / len(mesh.triangles),
        "open_edges": count_open_edges(mesh.triangles, len(mesh.vertices)),
    }


def pictures_of(model, mesh, folder: Path) -> None:
    """The mesh, and a picture of it from four sides, beside one another."""
    folder.mkdir(parents=True, exist_ok=True)
    write_mesh(folder / "mesh.ply", mesh)
    bvh = Bvh.of(mesh.vertices.float(), mesh.triangles.int())
    size = mesh.vertices.amax(0) - mesh.vertices.amin(0)
    cameras = sdf_views.cameras_around(size, "z", 4, 400)
    sides = [sdf_views.mesh_picture(bvh, cameras, i) for i in range(4)]
    write_picture(folder / "mesh.png", torch.cat(sides, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("step", "synthetic", "sequence", "capture"))
    parser.add_argument("--precision", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--scene", default="solids")
    parser.add_argument("--views", type=int, default=60)
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--capture", type=Path)
    parser.add_argument("--max-size", type=int, help="of a capture's longer side, in pixels")
    parser.add_argument("--held-out", default="8,13,16,21,26,31,34", help="numbers of views")
    parser.add_argument("--set", type=json.loads, default={}, help="options of the method, as a JSON object")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    use_device("cpu", options.threads)
    if options.what == "capture" and options.capture is None:
        parser.error("--capture is not given")
    measures = {
        "step": measure_step,
        "synthetic": measure_synthetic,
        "sequence": measure_sequence,
        "capture": measure_capture,
    }
    figures = measures[options.what](options)
    report(figures, options.json, options.save)


if __name__ == "__main__":
    main()
