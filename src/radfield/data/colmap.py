"""Reader of COLMAP models: cameras, images and points3D, binary or text (`colmap_model.py` has the files).

A folder holds the model itself, or in sparse/0, sparse, colmap/sparse/0, dense/sparse. Of several models (sparse/0,
sparse/1, ...) the one with most images is taken, with a warning. Images lie in images/ of the capture's folder or
beside the model; COLMAP's pixel coordinates are ours (the first pixel's centre is (0.5, 0.5)), and so are its camera
axes. Masks: `masks.py`. The world's axes mean nothing, so that the scene is turned upright (`scene_box.py`).
"""

import math
from pathlib import Path

import numpy as np

from ..errors import BadInput, warn
from . import colmap_model
from .capture import ALL, Capture, PosedImage, fit_to_file
from .images import read_header
from .lens import Lens
from .masks import find_mask
from .paths import Missing, tidy
from .poses import rigid_inverse

LOOKS_FOR = "sparse/0 with cameras.bin, images.bin, points3D.bin (or .txt) (COLMAP)"
_PLACES = ("sparse", "colmap/sparse", "dense/sparse", "dense/0/sparse", "colmap", ".")
#: model -> the names of its parameters in COLMAP's order; those of one focal length have it as "f"
PARAMETERS = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 d1 d2 d3",
    "OPENCV_FISHEYE": "fx fy cx cy k1 k2 k3 k4",
    "SIMPLE_RADIAL_FISHEYE": "f cx cy k1",
    "RADIAL_FISHEYE": "f cx cy k1 k2",
}


def find(path: Path) -> bool:
    """Whether the folder holds a COLMAP model, or parts of one."""
    return path.is_dir() and bool(_models(path))


def read(path: Path) -> Capture:
    """The capture at a folder with a model; BadInput, in one line, for what is wrong with it."""
    folder = _largest(_models(path))
    cameras, images = colmap_model.read_cameras(folder), colmap_model.read_images(folder)
    if not images:
        raise BadInput(f"{folder} has no images; a COLMAP model must have registered at least two")
    lenses = {i: lens_of(camera, f"{folder}: camera {i}") for i, camera in cameras.items()}
    root, pictures = _image_folder(path, folder, [image.name for image in images])
    missing, found = Missing(), []
    for image in images:
        where = f"{folder}: image {image.name!r}"
        if image.camera not in lenses:
            raise BadInput(f"{where} has camera {image.camera}, which the model lacks")
        pose = camera_to_world(image.rotation, image.translation, where)
        file = missing.find(pictures, image.name, where)
        if file is not None:
            posed = PosedImage(tidy(image.name), file, pose, lenses[image.camera], read_header(file))
            found.append(fit_to_file(posed, find_mask(root, tidy(image.name))))
    missing.refuse_all(str(folder))
    missing.announce()
    return Capture(path, {ALL: found}, None, colmap_model.read_points(folder, images), upright=False)


def lens_of(camera: colmap_model.ColmapCamera, where: str) -> Lens:
    """A camera's lens; BadInput for models that there is no equal of here."""
    if camera.model not in PARAMETERS:
        raise BadInput(f"{where} has the model {camera.model}; it must be one of {', '.join(PARAMETERS)}")
    values = dict(zip(PARAMETERS[camera.model].split(), camera.params, strict=True))
    if not all(map(math.isfinite, camera.params)):
        raise BadInput(f"{where} has NaN or infinite parameters; they must be finite")
    if not all(1 <= side <= 1 << 20 for side in camera.size):
        raise BadInput(f"{where} is {camera.size[0]}x{camera.size[1]} pixels; sides must be from 1 to 2^20")
    focal = (values.get("fx", values.get("f")), values.get("fy", values.get("f")))
    if min(focal) <= 0:
        raise BadInput(f"{where} has the focal length {min(focal):g}; it must be positive")
    distortion = tuple(values.get(k, 0.0) for k in ("k1", "k2", "k3", "k4", "p1", "p2", "d1", "d2", "d3"))
    model = "fisheye" if camera.model.endswith("FISHEYE") else "perspective"
    return Lens(focal, (values["cx"], values["cy"]), camera.size, distortion, model)


def camera_to_world(quaternion, translation, where: str) -> np.ndarray:
    """[4, 4] from COLMAP's world-to-camera (qw, qx, qy, qz) and translation."""
    q, t = np.array(quaternion, dtype=np.float64), np.array(translation, dtype=np.float64)
    if not (np.isfinite(q).all() and np.isfinite(t).all()):
        raise BadInput(f"{where}: its pose has NaN or infinite entries; a pose must be finite")
    length = np.linalg.norm(q)
    if not 0.5 < length < 2:
        raise BadInput(f"{where}: its quaternion has the length {length:.3g}; it must be 1")
    w, x, y, z = q / length
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    return rigid_inverse(rotation, t)


def _models(path: Path) -> list[Path]:
    # the folders with parts of a model, of the first place that has any
    for place in _PLACES:
        folder = path / place
        numbered = sorted(d for d in folder.iterdir() if d.name.isdigit()) if folder.is_dir() else []
        models = [d for d in (*numbered, folder) if _is_model(d)]
        if models:
            return models
    return []


def _is_model(folder: Path) -> bool:
    names = [f"{part}.{e}" for part in colmap_model.PARTS for e in ("bin", "txt")]
    return sum((folder / name).is_file() for name in names) >= 2


def _largest(models: list[Path]) -> Path:
    if len(models) == 1:
        return models[0]
    sizes = [len(colmap_model.read_images(model)) for model in models]
    best = max(range(len(models)), key=lambda i: (sizes[i], -i))
    others = ", ".join(f"{m.name}: {n}" for m, n in zip(models, sizes, strict=True) if m != models[best])
    warn(f"of {len(models)} models the one with most images is taken, {models[best].name}: {sizes[best]} ({others})")
    return models[best]


def _image_folder(path: Path, model: Path, names: list[str]) -> tuple[Path, Path]:
    # (the capture's folder, that of the images): the first of the usual places that has one of the images
    # A model's path that was given itself (.../sparse/0) has its images two levels above, at most.
    places = dict.fromkeys([path, *([model.parent, model.parent.parent] if _is_model(path) else [])])
    for root in places:
        for pictures in (root / "images", root / "dense" / "images", root / "input", root):
            if pictures.is_dir() and any(_exists(pictures, name) for name in names):
                return root, pictures
    return path, path / "images"


def _exists(folder: Path, name: str) -> bool:
    return ".." not in Path(name).parts and not Path(name).is_absolute() and (folder / name).is_file()
