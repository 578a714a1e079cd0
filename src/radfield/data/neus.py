"""Reader of IDR and NeuS captures: cameras_sphere.npz (or cameras.npz), image/, mask/.

For image i, in order of file name: world_mat_i, 4x4, projects homogeneous world points to pixels, its first three rows
being K [R t]; scale_mat_i maps the unit sphere, in which the object lies, into the world. Sources: the data conventions
of IDR (Yariv et al. 2020, DATA_CONVENTION.md) and NeuS (Wang et al. 2021). There the first pixel's centre is (0, 0), so
half a pixel is added to the principal point. Skew is refused. mask/ says where the object is: outside, images become
transparent (`masks.py`), and the object's sphere fills the unit cube; without masks the surroundings are kept, in
cascades.
"""

from pathlib import Path

import numpy as np

from ..errors import BadInput
from .array_files import read_npz
from .capture import ALL, Capture, PosedImage, fit_to_file
from .images import read_header
from .lens import Lens
from .masks import Mask, find_mask
from .paths import images_in
from .poses import rigid_inverse
from .scene_box import SURROUNDING_CASCADES, SceneBox, scale_and_offset

LOOKS_FOR = "cameras_sphere.npz (IDR, NeuS)"
_NAMES = ("cameras_sphere.npz", "cameras.npz", "cameras_large.npz")
SKEW = 1e-3  # of the focal length: more would move a pixel at the edge by more than a quarter


def find(path: Path) -> bool:
    """Whether this is such a file, or a folder with it."""
    return path.name in _NAMES if path.is_file() else any((path / name).is_file() for name in _NAMES)


def read(path: Path) -> Capture:
    """The capture; BadInput, in one line, for what is wrong with it."""
    folder = path.parent if path.is_file() else path
    file = path if path.is_file() else next(path / name for name in _NAMES if (path / name).is_file())
    arrays = read_npz(file)
    images = next((found for name in ("image", "images", "rgb") if (found := images_in(folder / name))), [])
    stated = sum(name.startswith("world_mat_") and name[10:].isdigit() for name in arrays)
    if not images or stated < len(images):
        raise BadInput(f"{file} has {stated} world_mat but image/ has {len(images)} images; every image needs one")
    masks = images_in(folder / "mask")
    posed = []
    for i, image in enumerate(images):
        where = f"{file}: world_mat_{i}"
        focal, principal, pose = decompose(_matrix(arrays, f"world_mat_{i}", file), where)
        header = read_header(image)
        principal = (principal[0] + 0.5, principal[1] + 0.5)
        lens = Lens(focal, principal, header.size, (0.0,) * 6, "perspective")
        # mask/ is numbered as the images are, but often with fewer digits: by order where there are as many
        mask = Mask(masks[i], transparent=True) if len(masks) == len(images) else find_mask(folder, image.name)
        name = f"{image.parent.name}/{image.name}"
        posed.append(fit_to_file(PosedImage(name, image, pose, lens, header), mask))
    return Capture(
        folder, {ALL: posed}, _box(arrays, file, any(image.mask is not None for image in posed)), upright=False
    )


def decompose(projection: np.ndarray, where: str) -> tuple[tuple[float, float], tuple[float, float], np.ndarray]:
    """(focal, principal, camera to world) of a [3, 4] projection matrix K [R t], in its own pixel coordinates.

    K is upper triangular with a positive diagonal: an RQ decomposition (Hartley and Zisserman, section 6.2.4).
    """
    if not np.isfinite(projection).all():
        raise BadInput(f"{where} has NaN or infinite entries; a projection must be finite")
    flip = np.eye(3)[::-1]
    q, r = np.linalg.qr((flip @ projection[:, :3]).T)
    k, rotation = flip @ r.T @ flip, flip @ q.T
    if abs(k[2, 2]) < 1e-12 or abs(np.linalg.det(k)) < 1e-12 * abs(k[2, 2]) ** 3:
        raise BadInput(f"{where} is singular; a projection must have a camera centre")
    signs = np.sign(np.diag(k))
    k, rotation = k * signs, signs[:, None] * rotation
    scale = k[2, 2]
    if np.linalg.det(rotation) < 0:  # the whole matrix may be negated: it is homogeneous
        rotation, scale = -rotation, -scale
    translation = np.linalg.solve(k, projection[:, 3]) * np.sign(scale)
    k = k / k[2, 2]
    if abs(k[0, 1]) > SKEW * k[0, 0]:
        raise BadInput(f"{where} has the skew {k[0, 1]:.3g}; pixels must be rectangular")
    return (k[0, 0], k[1, 1]), (k[0, 2], k[1, 2]), rigid_inverse(rotation, translation)


def _matrix(arrays: dict[str, np.ndarray], name: str, file: Path) -> np.ndarray:
    value = arrays.get(name)
    if value is None or value.shape not in ((4, 4), (3, 4)):
        what = "is missing" if value is None else f"is {'x'.join(map(str, value.shape))}"
        raise BadInput(f"{file}: {name} {what}; every image needs one of 4x4 numbers")
    return value[:3]


def _box(arrays: dict[str, np.ndarray], file: Path, masked: bool) -> SceneBox | None:
    if "scale_mat_0" not in arrays:
        return None
    matrix = _matrix(arrays, "scale_mat_0", file)
    radius = abs(np.linalg.det(matrix[:, :3])) ** (1 / 3)
    if not (np.isfinite(matrix).all() and radius > 0):
        raise BadInput(f"{file}: scale_mat_0 is singular or not finite; it must place the unit sphere")
    scale = 0.5 / radius
    offset = tuple((0.5 - scale * matrix[:, 3]).tolist())
    return scale_and_offset(scale, offset, 1 if masked else SURROUNDING_CASCADES)
