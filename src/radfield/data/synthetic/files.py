"""Writes captures of synthetic scenes, in the forms that people have.

- nerf-synthetic: transforms_train.json, transforms_val.json, RGBA images in train/ and val/. Pinhole lenses.
- nerfstudio: transforms.json with lens, distortion and the names of training and held-out views; images/.
- instant-ngp: transforms.json with lens, distortion and scene box; images/. It has no held-out views: all are listed,
  and whoever loads them holds some out.
- photographs: photo_0001.jpg and on, with EXIF (camera, focal length), and nothing else: no pose, no list.

With `truth`, truth/NAME.npz (train_r_000, train_0000 or photo_0001) has what was known of each view: depth [H, W]
float32 along the ray through the pixel's centre, inf for nothing; normal [H, W, 3] float32 in the world; shape [H, W]
int32; mask [H, W] uint8 (0 nothing, 1 opaque, 2 transparent); and truth/cameras.json poses and lens, whatever the form.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...atomic import filling, foreign
from ...camera_rays import camera_rays
from ...cameras import Cameras
from ...cpu.library import one_torch_thread
from ...errors import BadInput
from ..images import write_png
from ..lens import Lens
from ..transforms_writer import Frame, lens_entries, write_transforms
from .cameras import LENSES, synthetic_cameras
from .catalog import for_photographs, synthetic_scene
from .scene import SyntheticScene, synthetic_image

FORMATS = ("nerf-synthetic", "nerfstudio", "instant-ngp", "photographs")
PHOTOGRAPH_QUALITY = 92
FILM_DIAGONAL = math.hypot(36, 24)  # mm; what "35 mm equivalent" refers to
SENSOR_WIDTH = 23.5  # mm, an ordinary camera's
# What this program writes: an older folder of ours may be replaced, any other one may not.
_OURS = re.compile(r"(photo_\d+\.jpg|(train|val|images|truth)|transforms(_train|_val)?\.json)")


@dataclass(frozen=True)
class _View:
    """A view to write: its split, its name without ending, and its place among the split's cameras."""

    split: str
    name: str
    cameras: Cameras
    i: int


def write_synthetic_capture(
    folder: str | os.PathLike,
    scene: str | SyntheticScene = "solids",
    *,
    views: int = 60,
    val_views: int = 6,
    size: int | tuple[int, int] = 200,
    seed: int = 0,
    format: str = "nerf-synthetic",
    lens: str = "pinhole",
    truth: bool = False,
    overwrite: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Writes a capture of `views` training and `val_views` held-out images; returns the folder.

    scene: one of `SCENES`, a mesh's file, or a scene. size: (width, height), or one number for both. format: one of
    `FORMATS`; for "photographs" the scene stands on the ground below the sky and there are no held-out views. truth:
    also depth, normals, masks and poses (see the module). overwrite: replaces an older synthetic capture there, and
    nothing else. progress: called with the number of views written so far.
    The folder appears when all is written. The same arguments give the same files.
    """
    folder = Path(folder)
    if format not in FORMATS:
        raise BadInput(f"format is {format!r}; the rule: one of {', '.join(FORMATS)}")
    if format == "photographs":
        val_views = 0
    if views < 1 or val_views < 0:
        raise BadInput(f"views, val_views are {views}, {val_views}; the rule: at least 1, 0")
    if format == "nerf-synthetic" and lens in LENSES and lens != "pinhole":
        raise BadInput(f"lens is {lens!r}; the rule: nerf-synthetic captures are pinhole (nerfstudio's are not)")
    _check_folder(folder, overwrite)
    scene = synthetic_scene(scene) if isinstance(scene, (str, os.PathLike)) else scene
    scene = for_photographs(scene) if format == "photographs" else scene
    walk = format == "photographs"
    cameras = {
        split: synthetic_cameras(scene, count, size, seed=2 * seed + i, lens=lens, walk=walk)
        for i, (split, count) in enumerate((("train", views), ("val", val_views)))
        if count
    }
    with filling(folder, clear=True) as temporary, one_torch_thread():
        _write(temporary, scene, _names(cameras, format), format, truth, progress)
    return folder


def _check_folder(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: is a file; the rule: a folder for the capture")
    found = foreign(folder)
    if not found:
        return
    if not overwrite:
        raise BadInput(f"{folder}: exists and is not empty; the rule: a new folder (or --overwrite)")
    others = [name for name in found if not _OURS.fullmatch(name)]
    if others:
        raise BadInput(f"{folder}: has {others[0]}, which no synthetic capture has; the rule: --overwrite keeps off it")


def _names(cameras: dict[str, Cameras], format: str) -> list[_View]:
    views = [_View(split, "", c, i) for split, c in cameras.items() for i in range(len(c))]
    named = []
    for number, view in enumerate(views, 1):
        name = {"photographs": f"photo_{number:04d}", "nerf-synthetic": f"{view.split}/r_{view.i:03d}"}.get(format)
        named.append(_View(view.split, name or f"images/{view.split}_{view.i:04d}", view.cameras, view.i))
    return named


def _write(folder: Path, scene: SyntheticScene, views: list[_View], format: str, truth: bool, progress) -> None:
    for done, view in enumerate(views, 1):
        image = synthetic_image(scene, view.cameras, view.i)
        path = folder / view.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if format == "photographs":
            _write_photograph(path.with_suffix(".jpg"), image, view)
        else:
            write_png(path.with_suffix(".png"), image[..., :3] if scene.open_sky else image)
        if truth:
            _write_truth(folder / "truth" / f"{_truth_name(view)}.npz", scene, view)
        if progress:
            progress(done)
    for name, (listed, shared) in _lists(scene, views, format).items():
        write_transforms(folder / name, listed, **shared)
    if truth:
        write_transforms(folder / "truth" / "cameras.json", [_frame(view, view.name) for view in views])


def _truth_name(view: _View) -> str:
    # photographs and images/ have names of their own; train/ and val/ repeat theirs
    return view.name.removeprefix("images/").replace("/", "_")


def _lists(scene: SyntheticScene, views: list[_View], format: str) -> dict[str, tuple[list[Frame], dict]]:
    # File name -> (frames, entries above them)
    if format == "photographs":
        return {}
    if format == "nerf-synthetic":
        angle = 2 * math.atan(0.5 * int(views[0].cameras.size[0, 0]) / float(views[0].cameras.focal[0, 0]))
        lens = {"camera_angle_x": angle}
        splits = {view.split: [] for view in views}
        for view in views:
            splits[view.split].append(replace(_frame(view, f"./{view.name}"), lens=lens))
        return {f"transforms_{split}.json": (frames, {}) for split, frames in splits.items()}
    shared = _box(scene) if format == "instant-ngp" else {}
    if format == "nerfstudio":
        for split in ("train", "val"):
            shared[f"{split}_filenames"] = [f"{view.name}.png" for view in views if view.split == split]
    return {"transforms.json": ([_frame(view, f"{view.name}.png") for view in views], shared)}


def _frame(view: _View, file_path: str) -> Frame:
    cameras, i = view.cameras, view.i
    focal, principal, size = (tuple(t[i].tolist()) for t in (cameras.focal, cameras.principal, cameras.size))
    lens = Lens(focal, principal, size, tuple(cameras.distortion[i].tolist()), cameras.model_of(i))
    return Frame(file_path, cameras.camera_to_world[i].numpy(), lens_entries(lens))


def _box(scene: SyntheticScene) -> dict:
    # instant-ngp's unit cube: all of an object; without bounds, the surroundings of what the cameras look at
    scale = 0.36 if scene.open_sky else 0.33
    return {
        "aabb_scale": 8 if scene.open_sky else 1,
        "scale": scale,
        "offset": [0.5 - scale * v for v in scene.target],
    }


def _write_photograph(path: Path, image: Tensor, view: _View) -> None:
    from PIL import Image, TiffImagePlugin

    width, height = view.cameras.size[view.i].tolist()
    focal = float(view.cameras.focal[view.i, 0])
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0131] = "radfield", "synthetic", "radfield"  # make, model, software
    details = exif.get_ifd(0x8769)
    details[0x9003] = f"2000:01:01 12:{view.i // 60 % 60:02d}:{view.i % 60:02d}"  # taken one second after another
    details[0x920A] = TiffImagePlugin.IFDRational(round(focal / width * SENSOR_WIDTH * 1000), 1000)  # focal length, mm
    details[0xA405] = max(1, round(focal / math.hypot(width, height) * FILM_DIAGONAL))  # 35 mm equivalent
    details[0xA002], details[0xA003] = width, height
    picture = Image.fromarray(np.ascontiguousarray(image[..., :3]))
    picture.save(path, "JPEG", quality=PHOTOGRAPH_QUALITY, subsampling=0, exif=exif)


def _write_truth(path: Path, scene: SyntheticScene, view: _View) -> None:
    path.parent.mkdir(exist_ok=True)
    width, height = view.cameras.size[view.i].tolist()
    pixel = view.cameras.pixel_centres(view.i)
    seen = scene.surface(camera_rays(view.cameras, torch.full((len(pixel),), view.i, dtype=torch.int32), pixel))
    mask = (seen.index >= 0).to(torch.uint8) + seen.clear.to(torch.uint8)
    np.savez_compressed(
        path,
        depth=seen.depth.view(height, width).numpy(),
        normal=seen.normal.reshape(height, width, 3).numpy(),
        shape=seen.index.view(height, width).numpy(),
        mask=mask.view(height, width).numpy(),
    )
