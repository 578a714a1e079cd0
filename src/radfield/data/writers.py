"""A `Capture` back to files: a COLMAP model or nerfstudio's transforms.json, with its images, masks and points.

The world, poses and lenses stay as they are, so that every pixel's ray does. Images are copied; where a mask makes part
of one transparent, they become RGBA PNG files, which both forms can say; masks to ignore are written as each form has
them. What the form cannot say is told once. Letters: V views, P points.
"""

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..cameras import Cameras
from ..errors import BadInput, warn
from . import ply_points
from .capture import ALL, Capture, PosedImage
from .colmap import PARAMETERS
from .colmap_model import MODELS
from .images import Decode, decode, write_png
from .lens import Lens
from .masks import decode_mask
from .scene import SPLITS
from .scene_box import SceneBox
from .transforms_writer import DISTORTION, Frame, lens_entries, write_transforms
from .transforms_writer import NAME as TRANSFORMS

#: the model and the distortion that each of our lenses becomes, the first that has all coefficients that are not 0
_PERSPECTIVE = (("PINHOLE", ()), ("OPENCV", ("k1", "k2", "p1", "p2")))
_RATIONAL = ("FULL_OPENCV", ("k1", "k2", "k3", "p1", "p2", "d1", "d2", "d3"))
_FISHEYE = ("OPENCV_FISHEYE", ("k1", "k2", "k3", "k4"))


def write_colmap(capture: Capture, folder: Path, progress: Callable[[int], None] = lambda done: None) -> None:
    """Writes images/, masks/ and sparse/0/ with cameras.bin, images.bin, points3D.bin into a folder that exists."""
    if ALL not in capture.splits:
        warn("COLMAP models have no splits; what the capture holds out is not marked as such")
    if capture.box is not None:
        warn("COLMAP models have no scene box; that of the capture is left out")
    images = _images(capture)
    lenses = list(dict.fromkeys(image.lens for image in images))
    cameras = [_camera_record(i, lens) for i, lens in enumerate(lenses)]  # refuses before anything is copied
    names = _copy_images(images, folder, progress)
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    (model / "cameras.bin").write_bytes(struct.pack("<Q", len(lenses)) + b"".join(cameras))
    seen = _seen_points(capture, images)
    number = {lens: i for i, lens in enumerate(lenses)}
    records = [_image_record(i, v, names[i], number[v.lens], capture, seen[i]) for i, v in enumerate(images)]
    (model / "images.bin").write_bytes(struct.pack("<Q", len(images)) + b"".join(records))
    (model / "points3D.bin").write_bytes(_point_records(capture, seen))


def write_nerfstudio(capture: Capture, folder: Path, progress: Callable[[int], None] = lambda done: None) -> None:
    """Writes transforms.json, images/, masks/ and sparse_pc.ply into a folder that exists."""
    images = _images(capture)
    lenses = {image.lens: lens_entries(image.lens) for image in images}  # refuses before anything is copied
    names = _copy_images(images, folder, progress)
    shared: dict = {} if capture.upright else {"upright": False}
    if capture.box is not None:
        shared |= _json_box(capture.box)
    if capture.points is not None:
        ply_points.write_points(folder / "sparse_pc.ply", capture.points)
        shared["ply_file_path"] = "sparse_pc.ply"
    frames = []
    for image, name in zip(images, names, strict=True):
        mask = f"masks/{name}.png" if image.mask is not None and not image.mask.transparent else None
        frames.append(Frame(f"images/{name}", image.camera_to_world, lenses[image.lens], mask))
    if ALL not in capture.splits:
        named = dict(zip((id(image) for image in images), names, strict=True))
        for split in SPLITS:
            if split in capture.splits:
                shared[f"{split}_filenames"] = [f"images/{named[id(i)]}" for i in capture.splits[split]]
    write_transforms(folder / TRANSFORMS, frames, **shared)


def _images(capture: Capture) -> list[PosedImage]:
    return [image for split in capture.splits.values() for image in split]


def _copy_images(images: list[PosedImage], folder: Path, progress: Callable[[int], None]) -> list[str]:
    # The names given, relative to images/: those of the capture without a leading images/, made different.
    names: list[str] = []
    taken: set[str] = set()
    for i, image in enumerate(images):
        name = image.name.removeprefix("images/")
        transparent = image.mask is not None and image.mask.transparent
        name = str(Path(name).with_suffix(".png" if transparent else image.path.suffix))
        while name.lower() in taken:  # file systems may not tell a.png from A.png
            name = str(Path(name).with_stem(f"{Path(name).stem}_{i}"))
        taken.add(name.lower())
        names.append(name)
        target = folder / "images" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if transparent:
            write_png(target, decode(Decode(image.path, image.header.size, False, image.mask), 4))
        else:
            shutil.copyfile(image.path, target)
        if image.mask is not None and not transparent:
            mask = folder / "masks" / f"{name}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            write_png(mask, decode_mask(image.mask, image.header.size, image.lens.size, image.turned))
        progress(i + 1)
    return names


def _model_of(lens: Lens) -> tuple[str, dict[str, float]]:
    # (COLMAP's name of the model, the distortion by our names)
    values = dict(zip(DISTORTION, lens.distortion, strict=False))
    if lens.model == "equirectangular":
        raise BadInput("an equirectangular camera cannot be written as COLMAP; --to nerfstudio can")
    models = (_FISHEYE,) if lens.model == "fisheye" else (*_PERSPECTIVE, _RATIONAL)
    for name, keys in models:
        if all(value == 0 or key in keys for key, value in values.items()):
            return name, {key: values.get(key, 0.0) for key in keys}
    raise BadInput(f"a lens with k4 = {values['k4']:g} of nerfstudio's cannot be written as COLMAP")


def _camera_record(number: int, lens: Lens) -> bytes:
    name, distortion = _model_of(lens)
    (fx, fy), (cx, cy) = lens.focal, lens.principal
    values = {"fx": fx, "fy": fy, "cx": cx, "cy": cy, **distortion}
    code = next(i for i, (model, _) in MODELS.items() if model == name)
    params = [float(values[key]) for key in PARAMETERS[name].split()]
    return struct.pack(f"<IiQQ{len(params)}d", number + 1, code, *lens.size, *params)


def _image_record(i: int, image: PosedImage, name: str, lens: int, capture: Capture, seen: np.ndarray) -> bytes:
    rotation = image.camera_to_world[:3, :3].T
    translation = -rotation @ image.camera_to_world[:3, 3]
    head = struct.pack("<I7dI", i + 1, *quaternion_of(rotation), *translation, lens + 1)
    keypoints = np.empty(len(seen), np.dtype([("xy", "<f8", 2), ("point", "<u8")]))
    keypoints["point"] = seen + 1
    if len(seen):
        keypoints["xy"] = _projected(image, capture.points.position[seen])
    return head + os.fsencode(name) + b"\0" + struct.pack("<Q", len(seen)) + keypoints.tobytes()


def _projected(image: PosedImage, points: np.ndarray) -> np.ndarray:
    lens = image.lens
    values = [image.camera_to_world, lens.focal, lens.principal]
    pose, focal, principal = (torch.tensor(np.asarray(v), dtype=torch.float64)[None] for v in values)
    distortion = torch.zeros(1, 9, dtype=torch.float64)
    distortion[0, : len(lens.distortion)] = torch.tensor(lens.distortion, dtype=torch.float64)
    camera = Cameras(pose, focal, principal, torch.tensor([lens.size]), distortion, lens.model)
    return camera.project(torch.zeros(len(points), dtype=torch.int64), torch.from_numpy(points))[0].numpy()


def quaternion_of(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """(w, x, y, z) with w >= 0 of a rotation [3, 3]: the eigenvector of the largest eigenvalue (Bar-Itzhack 2000)."""
    r = rotation
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0], r[2, 1] - r[1, 2]],
            [r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1], r[0, 2] - r[2, 0]],
            [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 0] + r[1, 1] + r[2, 2]],
        ]
    )
    x, y, z, w = np.linalg.eigh(k)[1][:, 3]
    sign = -1.0 if w < 0 else 1.0
    return sign * w, sign * x, sign * y, sign * z


def _seen_points(capture: Capture, images: list[PosedImage]) -> list[np.ndarray]:
    # per image the points it sees, in rising order
    points = capture.points
    if points is None or points.seen_start is None:
        return [np.empty(0, np.int64) for _ in images]
    of_point = np.repeat(np.arange(len(points)), np.diff(points.seen_start))
    # Stable, so that the points of an image stay in order.
    order = np.argsort(points.seen_by, kind="stable")
    bounds = np.searchsorted(points.seen_by[order], np.arange(len(points.image_names) + 1))
    index = {name: i for i, name in enumerate(points.image_names)}
    found = []
    for image in images:
        i = index.get(image.name)
        found.append(np.empty(0, np.int64) if i is None else of_point[order[bounds[i] : bounds[i + 1]]])
    return found


def _point_records(capture: Capture, seen: list[np.ndarray]) -> bytes:
    points = capture.points
    if points is None:
        return struct.pack("<Q", 0)
    tracks: list[list[int]] = [[] for _ in range(len(points))]
    for image, indices in enumerate(seen):
        for keypoint, point in enumerate(indices.tolist()):
            tracks[point] += (image + 1, keypoint)
    records = [struct.pack("<Q", len(points))]
    for i, track in enumerate(tracks):
        head = struct.pack("<Q3d3BdQ", i + 1, *points.position[i], *points.color[i].tolist(), 0.0, len(track) // 2)
        records.append(head + struct.pack(f"<{len(track)}I", *track))
    return b"".join(records)


def _json_box(box: SceneBox) -> dict:
    if box.transform.rotation != ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)):
        warn("the capture's scene box is turned against its world, which transforms.json cannot say; it is left out")
        return {}
    offset = list(box.transform.offset)
    return {"aabb_scale": 2 ** (box.cascades - 1), "scale": box.transform.scale, "offset": offset}
