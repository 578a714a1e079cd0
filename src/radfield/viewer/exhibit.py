"""What is looked at: the sources of a run or two, Gaussians, a mesh, sparse points, a capture's cameras.

Everything stands in one frame, the scene coordinates of the first (for files: their own). Nothing here knows of viser.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..cameras import Cameras, look_at
from ..data.scene import Scene
from ..errors import BadInput, warn
from ..geometry import SceneTransform
from ..srgb import encode_srgb
from . import crop

#: the longer side of photographs in the viewer, and how many there may be before they are halved
PHOTOGRAPH, MANY = 640, 150


@dataclass
class Exhibit:
    """source: what the server draws, None for meshes, points and captures; other: a second run beside it. folder: of
    the run. scene: the capture with its cameras. gaussians: for the browser's own drawing, in scene coordinates.
    mesh: a trimesh object. upward: the axis that points up where no camera tells. splits: [(split, index)] of the
    `cameras`, in order."""

    title: str
    about: str
    source: object | None = None
    other: object | None = None
    other_title: str = ""
    folder: Path | None = None
    scene: Scene | None = None
    mesh: object | None = None
    points: object | None = None
    transform: SceneTransform = field(default_factory=SceneTransform)
    box: crop.Box | None = None
    upward: str = "z"
    splits: list[tuple[str, int]] = field(default_factory=list)
    cameras: Cameras | None = None
    reading: dict = field(default_factory=dict)  # options of `data.load` for the photographs
    _photographs: Scene | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self):
        if self.scene is not None and self.cameras is None:
            splits = {name: views for name in ("train", "val", "test") if (views := getattr(self.scene, name))}
            self.splits = [(name, i) for name, views in splits.items() for i in range(len(views))]
            parts = [views.cameras for views in splits.values()]
            values = {f: torch.cat([getattr(p, f) for p in parts]) for f in ("camera_to_world", "focal", "principal")}
            values |= {f: torch.cat([getattr(p, f) for p in parts]) for f in ("size", "distortion")}
            self.cameras = Cameras(**values, model=parts[0].model)

    @property
    def gaussians(self):
        """The Gaussians of the first source, None where it has none."""
        return getattr(getattr(self.source, "model", None), "gaussians", None)

    def photograph(self, index: int) -> tuple[Cameras, int, Tensor]:
        """(cameras of a split, view, image [H, W, 3]) of the camera `index`: reads the photographs when first asked."""
        from ..data import load

        with self._lock:
            if self._photographs is None:
                side = PHOTOGRAPH if len(self.splits) <= MANY else PHOTOGRAPH // 2
                most = self.reading.get("max_size")
                options = {**self.reading, "max_size": side if most is None else min(side, most)}
                self._photographs = load(self.scene.path, **options)
            split, view = self.splits[index]
            views = getattr(self._photographs, split)
        background = [1.0 if self.scene.background == "white" else 0.0] * 3
        return views.cameras, view, views.images.composited(view, background)

    def name_of(self, index: int) -> str:
        """A camera's split and file."""
        split, view = self.splits[index]
        return f"{split}: {Path(getattr(self.scene, split).names[view]).name}"

    def focus(self) -> Tensor:
        """The point [3], float64, that cameras look at first."""
        if self.cameras is not None:
            from ..apps.camera_paths import target

            return target(self.cameras.camera_to_world)
        low, high = self.bounds()
        return (low + high) / 2

    def up(self) -> Tensor:
        """The scene's up [3], float64; `upward` where cameras have none in common."""
        from ..data import scene_box

        up = None if self.cameras is None else scene_box.up_axis(self.cameras.camera_to_world)
        return torch.eye(3, dtype=torch.float64)["xyz".index(self.upward)] if up is None else up.double()

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Two corners [3], float64, that hold most of what there is; of Gaussians and points without the outermost."""
        x = None
        if self.gaussians is not None:
            x = self.gaussians.means.T.cpu()
        elif self.points is not None:
            x = torch.from_numpy(self.points.position)
        if self.mesh is not None:
            low, high = (torch.tensor(v, dtype=torch.float64) for v in self.mesh.bounds)
        elif x is not None and len(x):
            x = x[:: max(1, len(x) // 50_000)].double()
            low, high = torch.quantile(x, torch.tensor([0.02, 0.98], dtype=x.dtype), dim=0)
        else:
            low, high = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        return low, high.maximum(low + 1e-6)

    def first_view(self) -> tuple[Tensor, Tensor, float]:
        """(position [3], point looked at [3], vertical field of view) of a new client: at the first camera, which looks
        at the focus as well as it can; else outside the bounds."""
        focus = self.focus()
        if self.cameras is not None:
            pose = self.cameras.camera_to_world[0].double()
            distance = (focus - pose[:3, 3]).norm().clamp(min=0.1)
            fov = 2 * torch.atan(0.5 * self.cameras.size[0, 1] / self.cameras.focal[0, 1]).item()
            fov = min(max(fov, 0.2), 1.8) if self.cameras.model == "perspective" else 1.0
            return pose[:3, 3], pose[:3, 3] + pose[:3, 2] * distance, fov
        low, high = self.bounds()
        away = torch.tensor([0.8, -1.1, 0.6], dtype=torch.float64)
        return focus + away * (high - low).norm(), focus, 0.8

    def at(self, turn=0.0, tilt=0.0, zoom=0.0, x=0.0, y=0.0, width=800, height=600) -> Cameras:
        """A camera that began at the first view and was turned around the focus (radians), brought nearer (a factor
        exp(zoom)) and moved along its image (shares of its height)."""
        position, aim, fov = self.first_view()
        up = self.up()
        offset = position - aim
        distance = offset.norm() * torch.tensor(min(max(zoom, -8.0), 8.0)).exp()
        side = torch.nn.functional.normalize(torch.linalg.cross(up, offset), dim=0)
        flat = torch.linalg.cross(side, up)
        level = torch.atan2(offset @ up, offset @ flat) + tilt
        level = level.clamp(-1.5, 1.5)
        angle = torch.tensor(turn, dtype=torch.float64)
        ahead = flat * angle.cos() + torch.linalg.cross(up, flat) * angle.sin()
        direction = ahead * level.cos() + up * level.sin()
        pose = look_at(aim + direction * distance, aim, up)
        pose[:3, 3] += distance * 2 * torch.tan(torch.tensor(fov / 2)) * (x * pose[:3, 0] + y * pose[:3, 1])
        return perspective(pose, fov, width, height)


def perspective(pose: Tensor, fov: float, width: int, height: int) -> Cameras:
    """One camera without distortion: pose [4, 4], vertical field of view in radians, size in pixels."""
    focal = 0.5 * height / torch.tan(torch.tensor(fov / 2)).item()
    size = torch.tensor([[width, height]])
    return Cameras(pose[None].float(), torch.full((1, 2), focal), size / 2, size, torch.zeros(1, 9))


def of_run(path: Path, *, capture: Path | None, device) -> Exhibit:
    """A run: its model, and its capture where that is still there (a warning says where not). Raises `BadInput` for
    what is no whole run."""
    from ..apps.methods import load as load_model
    from ..apps.runs import open_run, saved_options
    from ..training.run_folder import RunFolder
    from .sources import source_of

    folder = RunFolder.open(path)
    if not folder.checkpoint_path.exists():
        raise BadInput(f"{path}: is a run still empty: it has no checkpoint yet; the rule: wait for its first one")
    if folder.read_config()["app"] == "sdf":
        return _of_distances(folder, device)
    options = saved_options(folder)
    place = capture or options["capture"]
    if place.exists():
        _, model, scene = open_run(path, None, capture=capture, device=device)
    else:
        if capture is not None or place.name != "none":
            warn(f"{place}: the run's capture is not there: no cameras and photographs; --capture says where it is")
        model, scene = load_model(path, device), None
    reading = {name: options[name] for name in ("holdout", "max_size")} | {"masks": options.get("masks", "auto")}
    method = folder.read_config()["app"]
    box = crop.load(folder.path, model.transform)
    return Exhibit(
        folder.path.resolve().name,
        f"method {method}",
        source_of(model),
        folder=folder.path,
        scene=scene,
        transform=model.transform,
        box=box,
        reading=reading,
    )


def of_sequence(path: Path, *, capture: Path | None, device) -> Exhibit:
    """The frames of `radfield train-frames`: the first one's run, with a source that has them all."""
    from .sequence import SequenceSource, frames_of

    runs = frames_of(path)
    shown = of_run(runs[0], capture=capture, device=device)
    about, source = f"a moving surface, {len(runs)} frames", SequenceSource(runs, device)
    return replace(shown, title=path.resolve().name, about=about, source=source, folder=None, box=None)


def _of_distances(folder, device) -> Exhibit:
    """A run of `radfield fit-sdf`."""
    from ..apps.fit import sdf
    from ..apps.fit.fit_sdf import FitSdf
    from .sources import source_of

    model = sdf.load(folder.path, device)
    shown = {"transform": model.transform, "upward": FitSdf().saved_options(folder)["up"]}
    box = crop.load(folder.path, model.transform)
    title = folder.path.resolve().name
    about = "unsigned distance field" if model.unsigned else "signed distance field"
    return Exhibit(title, about, source_of(model), folder=folder.path, box=box, **shown)


def of_capture(path: Path, **reading) -> Exhibit:
    """A capture: cameras, photographs, sparse points, scene box."""
    from ..data import load

    scene = load(path, split=(), **reading)
    return Exhibit(scene.name, "capture", scene=scene, transform=scene.transform, points=scene.points, reading=reading)


def of_file(path: Path, device="cpu") -> Exhibit:
    """A file: Gaussians (gaussians/files.py), drawn on `device`, a mesh, or points (.ply). Raises `BadInput` for
    anything else."""
    kind = path.suffix.lower()
    if kind == ".ply":
        what = ply_kind(path)
        if what == "gaussians":
            return _of_gaussians(path, device)
        if what == "points":
            from ..data.ply_points import read_points

            points = read_points(path)
            return Exhibit(path.name, f"{len(points)} points", points=points)
    if kind in (".splat", ".spz", ".sog", ".ksplat"):
        return _of_gaussians(path, device)
    if kind in (".ply", ".obj", ".glb"):
        mesh = _mesh(path)
        return Exhibit(path.name, f"mesh, {len(mesh.faces)} triangles", mesh=mesh)
    rule = ".ply (Gaussians, points, mesh), .splat, .spz, .sog, .ksplat (Gaussians), .obj or .glb (meshes)"
    raise BadInput(f"{path}: ends in {path.suffix!r}; the rule: {rule}")


def ply_kind(path: Path) -> str:
    """ "gaussians", "mesh" or "points", by the header of a PLY file. Raises `BadInput` where there is none."""
    try:
        with open(path, "rb") as file:
            start = file.read(1 << 16)
    except OSError as error:
        raise BadInput(f"{path}: could not be read: {(error.strerror or str(error)).lower()}") from None
    header, end, _ = start.partition(b"end_header")
    if not start.startswith(b"ply") or not end:
        raise BadInput(f"{path}: has no header of a PLY file; the rule: Gaussians, points or a mesh")
    if b"f_dc_0" in header or b"packed_position" in header:
        return "gaussians"
    faces = [line.split() for line in header.splitlines() if line.startswith(b"element face")]
    return "mesh" if faces and faces[0][-1] != b"0" else "points"


def _of_gaussians(path: Path, device) -> Exhibit:
    from ..apps import splat
    from ..gaussians.files import read_gaussians
    from .sources import GaussianSource

    gaussians = read_gaussians(path).to(device)
    if not len(gaussians):
        raise BadInput(f"{path}: has no Gaussian; the rule: at least one")
    where = {"cascades": 1, "transform": SceneTransform(), "background": "black"}
    model = replace(splat.build(splat.Config(sh_degree=gaussians.degree), **where), gaussians=gaussians)
    return Exhibit(path.name, f"{len(gaussians)} Gaussians, degree {gaussians.degree}", GaussianSource(model))


def _mesh(path: Path):
    """A trimesh object of a mesh's file, with its texture where that lies beside it."""
    import trimesh

    from ..data.synthetic import mesh as reader

    vertices, triangles, uv, image, colors = reader.read_mesh(
        path
    )  # checks the file, and reads nothing outside its folder
    if not len(triangles) or not bool(vertices.isfinite().all()):
        raise BadInput(f"{path}: cannot be read as a mesh: no triangles, or vertices that are not finite")
    visual = None
    if uv is not None and image is not None:
        from PIL import Image

        pixels = (encode_srgb(image) * 255).round().byte().numpy()
        visual = trimesh.visual.TextureVisuals(uv=uv.numpy(), image=Image.fromarray(pixels))
    elif colors is not None:
        visual = trimesh.visual.ColorVisuals(vertex_colors=(encode_srgb(colors) * 255).round().byte().numpy())
    return trimesh.Trimesh(vertices.numpy(), triangles.numpy(), visual=visual, process=False)
