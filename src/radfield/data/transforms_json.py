"""Reader of transforms.json: the forms of instant-ngp, nerfstudio and NeRF-synthetic.

A folder holds either transforms_train.json (with _val and _test as far as they exist: these are the splits) or
transforms.json (splits by nerfstudio's train_filenames, val_filenames, test_filenames, or else left to the
loader). A path to one .json file reads that file alone as a transforms.json.

- Poses: `transform_matrix`, camera to world with OpenGL axes (`data/poses.py`). Intrinsics: `data/lens.py`.
- The world is the file's: nerfstudio's applied_transform and applied_scale, which say how the file's world came
  from an earlier one, are not undone, and orientation_override is a wish for another program.
- Upright: the world's z axis is taken to point up unless the file says `"upright": false`, radfield's own key, which
  its writers give to worlds whose axes mean nothing (structure from motion).
- Scene box of instant-ngp: `scale` (0.33), `offset` (0.5), `aabb_scale` (1), or `aabb`, where any is present.
- Images: file_path relative to the file's folder, with or without extension. A path that leaves the folder (absolute,
  or through ..) is refused: a downloaded capture must not reach the user's other files. Images that do not
  exist are skipped with one warning.
- Masks: nerfstudio's mask_path, instant-ngp's dynamic_mask_<name>.png (`masks.py`). Points: ply_file_path.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BadInput, warn
from . import json_values
from .capture import ALL, Capture, PosedImage, fit_to_file
from .images import read_header
from .lens import declared_size, read_lens
from .masks import Mask, find_dynamic_mask
from .paths import Missing, find_image, tidy
from .ply_points import read_points
from .points import Points
from .poses import read_pose
from .scene import SPLITS
from .scene_box import NGP_OFFSET, NGP_SCALE, SceneBox, scale_and_offset

LOOKS_FOR = "transforms.json or transforms_train.json (instant-ngp, nerfstudio, NeRF-synthetic)"
LARGEST_AABB_SCALE = 128
# Keys that change what an image means; a capture that has them is read without, and told so.
NOT_USED = {
    "white_transparent": "transparency by white",
    "black_transparent": "transparency by black",
    "rolling_shutter": "rolling shutter",
}


@dataclass
class _Found:
    """What is gathered over a capture's files, to be announced once each."""

    missing: Missing = field(default_factory=Missing)
    resized: list[tuple[tuple[int, int], tuple[int, int]]] = field(default_factory=list)
    not_used: set[str] = field(default_factory=set)


def find(path: Path) -> bool:
    """Whether this is such a file (any .json but OpenSfM's), or a folder with one."""
    if path.is_file():
        return path.suffix.lower() == ".json" and not path.name.startswith("reconstruction")
    return any((path / name).is_file() for name in ("transforms.json", "transforms_train.json"))


def read(path: Path) -> Capture:
    """The capture at a folder or a .json file; BadInput, in one line, for what is wrong with it."""
    files = _find_files(path)
    found = _Found()
    contents = {split: json_values.read_object(file) for split, file in files.items()}
    splits = {split: _read_frames(files[split], contents[split], found) for split in files}
    first = next(iter(files))  # train, or all
    if not splits[first]:
        found.missing.refuse_all(files[first].name)
        raise BadInput(f"none of the images in {files[first].name} exists (first: {found.missing.names[0]})")
    if first == ALL:
        splits = _listed_splits(contents[ALL], splits[ALL], str(files[ALL])) or splits
    _announce(found)
    folder = path if path.is_dir() else path.parent
    points = _read_points(contents[first], files[first])
    box = _read_box(contents[first], str(files[first]))
    return Capture(folder, splits, box, points, _read_upright(contents[first], str(files[first])))


def _read_points(content: dict, file: Path) -> Points | None:
    # nerfstudio's ply_file_path; a file that is not there is no loss for training
    if content.get("ply_file_path") is None:
        return None
    path = find_image(file.parent, json_values.file_path(content, "ply_file_path", str(file)), str(file))
    return None if path is None else read_points(path)


def _read_upright(content: dict, where: str) -> bool:
    upright = content.get("upright", True)
    if not isinstance(upright, bool):
        raise BadInput(f"{where}: upright is {str(upright)[:40]}; it must be true or false")
    return upright


def _find_files(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {ALL: path}
    files = {s: path / f"transforms_{s}.json" for s in SPLITS if (path / f"transforms_{s}.json").is_file()}
    return files if "train" in files else {ALL: path / "transforms.json"}


def _read_frames(file: Path, content: dict, found: _Found) -> list[PosedImage]:
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames:
        raise BadInput(f"{file} has no frames; it must list at least two")
    if content.get("from_mitsuba"):
        raise BadInput(f"{file}: from_mitsuba is not supported; poses must have OpenGL axes")
    found.not_used |= {NOT_USED[key] for key in NOT_USED if _is_set(content.get(key))}
    images, shared_size = [], None
    for i, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise BadInput(f"{file}: frame {i} is a {type(frame).__name__}; it must be an object")
        image = _read_frame(file, frame, content, i, found)
        if image is None:
            continue
        images.append(image)
        if "w" not in frame:
            shared_size = shared_size or image
            _check_same_size(shared_size, image)
    return images


def _read_frame(file: Path, frame: dict, content: dict, i: int, found: _Found) -> PosedImage | None:
    where = f"{file}: frame {i}"
    name = json_values.file_path(frame, "file_path", where)
    where += f" ({name})"
    if "transform_matrix" not in frame:
        raise BadInput(f"{where} has no transform_matrix; every frame needs its pose")
    pose = read_pose(frame["transform_matrix"], where)
    path = found.missing.find(file.parent, name, where)
    if path is None:
        return None
    found.not_used |= {NOT_USED[key] for key in NOT_USED if _is_set(frame.get(key))}
    header = read_header(path)
    declared = declared_size(frame, content, where)
    lens = read_lens(frame, content, declared or header.size, where)
    mask = _read_mask(file, frame, where) or find_dynamic_mask(path)
    image = fit_to_file(PosedImage(tidy(name), path, pose, lens, header), mask)
    if declared and image.lens.size != declared:
        found.resized.append((declared, image.lens.size))
    return image


def _read_mask(file: Path, frame: dict, where: str) -> Mask | None:
    if frame.get("mask_path") is None:
        return None
    name = json_values.file_path(frame, "mask_path", where)
    path = find_image(file.parent, name, where)
    if path is None:
        raise BadInput(f"{where}: its mask {name} does not exist; a mask_path must name an image file")
    return Mask(path)


def _is_set(value) -> bool:
    return any(value) if isinstance(value, list) else bool(value)


def _check_same_size(first: PosedImage, image: PosedImage) -> None:
    if first.lens.size != image.lens.size:
        a, b = first.lens.size, image.lens.size
        raise BadInput(
            f"images differ in size: {first.name} is {a[0]}x{a[1]}, {image.name} is {b[0]}x{b[1]}; "
            "where they do, every frame must state its own w and h"
        )


def _listed_splits(content: dict, images: list[PosedImage], where: str) -> dict[str, list[PosedImage]] | None:
    # nerfstudio's lists of file paths; without train_filenames, what no other list names is for training.
    listed = {}
    for split in SPLITS:
        names = content.get(f"{split}_filenames")
        if names is None:
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadInput(f"{where}: {split}_filenames must be a list of file paths")
        listed[split] = {tidy(name) for name in names}
    if not listed:
        return None
    if "train" not in listed:
        listed["train"] = {image.name for image in images} - set().union(*listed.values())
    splits = {s: [image for image in images if image.name in listed[s]] for s in SPLITS if s in listed}
    if not splits["train"]:
        raise BadInput(f"{where}: no image that exists is in train_filenames; training needs at least one")
    return splits


def _read_box(content: dict, where: str) -> SceneBox | None:
    keys = ("aabb_scale", "scale", "offset", "aabb")
    if not any(content.get(key) is not None for key in keys):
        return None
    aabb_scale = json_values.number(content, "aabb_scale", where, 1.0)
    cascades = math.log2(aabb_scale) + 1 if 1 <= aabb_scale <= LARGEST_AABB_SCALE else 0.5
    if cascades != int(cascades):
        rule = f"it must be a power of two from 1 to {LARGEST_AABB_SCALE}"
        raise BadInput(f"{where}: aabb_scale is {aabb_scale:g}; {rule}")
    if content.get("aabb") is not None:
        return scale_and_offset(*_fit_aabb(content["aabb"], where), int(cascades))
    scale = json_values.positive(content, "scale", where)
    offset = content.get("offset", NGP_OFFSET)
    offset = offset if isinstance(offset, list) else [offset] * 3
    offset = json_values.numbers(offset, 3, f"{where}: offset")
    return scale_and_offset(NGP_SCALE if scale is None else scale, offset, int(cascades))


def _fit_aabb(value, where: str) -> tuple[float, tuple[float, float, float]]:
    # instant-ngp: a box [[low], [high]] in the world, fitted uniformly into the unit cube, its centre at 0.5.
    if not isinstance(value, list) or len(value) != 2:
        raise BadInput(f"{where}: aabb must be two corners of 3 numbers")
    low, high = (json_values.numbers(corner, 3, f"{where}: aabb") for corner in value)
    longest = max(b - a for a, b in zip(low, high, strict=True))
    if longest <= 0 or any(b < a for a, b in zip(low, high, strict=True)):
        raise BadInput(f"{where}: aabb is {value}; its second corner must lie above its first")
    scale = 1 / longest
    return scale, tuple(0.5 - scale * (a + b) / 2 for a, b in zip(low, high, strict=True))


def _announce(found: _Found) -> None:
    found.missing.announce()
    if found.resized:
        (w, h), (image_w, image_h) = found.resized[0]
        warn(
            f"{len(found.resized)} images are scaled against their declared size (first: {image_w}x{image_h} "
            f"for {w}x{h}); their intrinsics are scaled with them"
        )
    for what in sorted(found.not_used):
        warn(f"the capture states {what}, which this version does not use")
