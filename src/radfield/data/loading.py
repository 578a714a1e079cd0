"""`load`: a capture's folder to a `Scene` in memory. Letters as in `data/scene.py`."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..cameras import DISTORTION, Cameras, distort_jacobian
from ..errors import BadInput, warn
from ..geometry import SceneTransform
from .capture import ALL, Capture, PosedImage
from .decoded_cache import Limits, cached, fitting_size, reduced
from .formats import read_capture
from .images import Decode, decode, decode_all
from .masks import MEANINGS, announce
from .scene import SPLITS, Scene, Views
from .scene_box import SceneBox, find_box, upright_box

# How far a pixel may come back from where it was after undistorting and distorting again.
LENS_TOLERANCE = 0.1


def load(
    path: str | os.PathLike,
    *,
    holdout: int = 8,
    split: str | Sequence[str] | None = None,
    max_size: int | None = None,
    masks: str = "auto",
    limits: Limits | None = None,
    progress: Callable[..., AbstractContextManager] | None = None,
) -> Scene:
    """Reads a posed capture in any format of `data/formats.py`: its folder, or the file that makes the format.

    holdout: where the capture has no splits of its own, every holdout-th existing image in order of file name,
    the first one included, becomes "val"; 0 holds out none. split: decode the images of these splits only (the
    other splits keep their cameras, and images=None); None decodes all. max_size: the longer side that larger images
    are reduced to, in pixels. limits: where images go that do not fit into memory. progress: the class
    `training.progress.Progress`, by which decoding to disk is shown.

    Cameras come in scene coordinates; `Scene.transform` leads there from the capture's own (`data/scene_box.py`
    has the rules). Anything wrong with the capture raises `BadInput`.
    """
    wanted = _check_options(holdout, split, max_size, masks)
    capture = with_masks(read_capture(Path(path)), masks)
    splits = _divide(capture, holdout)
    has_alpha = _has_alpha(splits["train"])
    box = _box(capture, splits["train"], has_alpha)
    channels = 4 if has_alpha else 3
    if limits is not None and not _fits(splits["train"], channels, max_size, limits.memory):
        max_size = max_size or _announced_size(_all_images(splits), channels, limits.disk)
    else:
        limits = None
    views = {
        name: _views(
            name, images, box.transform, channels, max_size, wanted is None or name in wanted, limits, progress
        )
        for name, images in splits.items()
        if images
    }
    for name in wanted or ():
        if name not in views:
            raise BadInput(f"{capture.path} has no {name} views; it has {', '.join(views)}")
    _warn_of_depth(splits.values())
    return Scene(
        name=capture.path.resolve().name,
        train=views["train"],
        val=views.get("val"),
        test=views.get("test"),
        transform=box.transform,
        cascades=box.cascades,
        background="white" if has_alpha else "black",
        has_alpha=has_alpha,
        path=capture.path,
        max_size=max_size,
        points=None if capture.points is None else capture.points.transformed(box.transform),
    )


def with_masks(capture: Capture, meaning: str) -> Capture:
    """The capture with its masks taken for "ignore", "transparent" or "none", or with "auto" as they are."""
    images = [image for split in capture.splits.values() for image in split]
    if meaning != "none":
        announce(sum(image.mask is not None for image in images), len(images))
    if meaning == "auto":
        return capture

    def changed(image: PosedImage) -> PosedImage:
        if image.mask is None or meaning == "none":
            return replace(image, mask=None)
        return replace(image, mask=replace(image.mask, transparent=meaning == "transparent"))

    return replace(capture, splits={name: [changed(i) for i in split] for name, split in capture.splits.items()})


def _box(capture: Capture, train: list[PosedImage], has_alpha: bool) -> SceneBox:
    points = None if capture.points is None else torch.from_numpy(capture.points.position)
    poses = _poses(_all_of(capture))
    if capture.box is not None:
        return capture.box if capture.upright else upright_box(capture.box, poses)
    return find_box(poses, _tangent(train), has_alpha, upright=capture.upright, points=points)


def _check_options(holdout: int, split, max_size: int | None, masks: str) -> tuple[str, ...] | None:
    if masks not in MEANINGS:
        raise BadInput(f"masks is {masks!r}; it must be one of {', '.join(MEANINGS)}")
    if holdout < 0 or holdout == 1:
        raise BadInput(f"holdout is {holdout}; it must be 0 (hold out none) or at least 2")
    if max_size is not None and max_size < 1:
        raise BadInput(f"max_size is {max_size}; it must be at least 1 pixel")
    if split is None:
        return None
    wanted = (split,) if isinstance(split, str) else tuple(split)
    for name in wanted:
        if name not in SPLITS:
            raise BadInput(f"split is {name!r}; it must be one of {', '.join(SPLITS)}")
    return wanted


def _divide(capture: Capture, holdout: int) -> dict[str, list[PosedImage]]:
    if sum(map(len, capture.splits.values())) < 2:
        raise BadInput(f"{capture.path} has one image; at least two are needed, one of them to train on")
    if ALL not in capture.splits:
        return capture.splits
    images = sorted(capture.splits[ALL], key=lambda image: image.name)
    held_out = images[::holdout] if holdout else []
    train = [image for i, image in enumerate(images) if not holdout or i % holdout]
    return {"train": train, "val": held_out}


def _all_of(capture: Capture) -> list[PosedImage]:
    # The views that the scene box is found from: whatever is held out, the box stays the same.
    return capture.splits.get(ALL) or capture.splits["train"]


def _has_alpha(images: list[PosedImage]) -> bool:
    # An alpha channel that is opaque everywhere says nothing; three views spread over the capture tell.
    if any(image.mask is not None and image.mask.transparent for image in images):
        return True
    with_alpha = [image for image in images if image.header.alpha]
    some = with_alpha[:: max(1, len(with_alpha) // 3)][:3]
    return any((decode(Decode(image.path, image.header.size), 4)[..., 3] < 255).any() for image in some)


def _poses(images: list[PosedImage]) -> Tensor:
    return torch.from_numpy(np.stack([image.camera_to_world for image in images]))


def _tangent(images: list[PosedImage]) -> float:
    # Of half the field of view along the wider side: the median over the views.
    tangents = [max(0.5 * s / f for s, f in zip(i.lens.size, i.lens.focal, strict=True)) for i in images]
    return float(np.median(tangents))


def _all_images(splits: dict[str, list[PosedImage]]) -> list[PosedImage]:
    return [image for images in splits.values() for image in images]


def _fits(images: list[PosedImage], channels: int, max_size: int | None, memory: int) -> bool:
    sizes = [reduced(image.lens.size, max_size) for image in images]
    return channels * sum(width * height for width, height in sizes) <= memory


def _announced_size(images: list[PosedImage], channels: int, disk: int) -> int:
    longest = fitting_size([image.lens.size for image in images], channels, disk)
    need = channels * sum(w * h for w, h in (reduced(image.lens.size, longest) for image in images))
    warn(
        f"the {len(images)} images do not fit into memory: they are kept decoded in the run's folder "
        f"({need / 1e9:.1f} GB), reduced to {longest} pixels along the longer side; "
        "--max-size, --memory-gb and --cache-gb say otherwise"
    )
    return longest


def _views(
    split: str,
    images: list[PosedImage],
    transform: SceneTransform,
    channels: int,
    max_size: int | None,
    pixels: bool,
    limits: Limits | None,
    progress: Callable[..., AbstractContextManager] | None,
) -> Views:
    sizes = [reduced(image.lens.size, max_size) for image in images]
    cameras = _cameras(images, sizes, transform)
    names = [image.name for image in images]
    if not pixels:
        return Views(cameras, None, names)
    jobs = [Decode(image.path, size, image.turned, image.mask) for image, size in zip(images, sizes, strict=True)]
    if limits is None:
        return Views(cameras, decode_all(jobs, channels), names)
    limits.folder.mkdir(parents=True, exist_ok=True)
    return Views(cameras, cached(jobs, channels, limits.folder / f"{split}.pixels", progress), names)


def _cameras(images: list[PosedImage], sizes: list[tuple[int, int]], transform: SceneTransform) -> Cameras:
    lenses = [image.lens.resized(size) for image, size in zip(images, sizes, strict=True)]
    cameras = Cameras(
        camera_to_world=transform.poses(_poses(images)),
        focal=torch.tensor([lens.focal for lens in lenses], dtype=torch.float64),
        principal=torch.tensor([lens.principal for lens in lenses], dtype=torch.float64),
        size=torch.tensor(sizes, dtype=torch.int64),
        distortion=torch.tensor([_padded(lens.distortion) for lens in lenses], dtype=torch.float64),
        model=tuple(lens.model for lens in lenses),
    )
    different = {lens: i for i, lens in enumerate(lenses)}
    _check_lenses(cameras[list(different.values())], [images[i].name for i in different.values()])
    cameras = cameras.to(torch.float32)
    finite = cameras.camera_to_world.isfinite().flatten(1).all(1) & cameras.focal.isfinite().all(1)
    if not finite.all():
        name = images[int(finite.long().argmin())].name
        raise BadInput(f"{name}: its camera is out of range in scene units; positions must fit float32")
    return cameras


def _padded(distortion: tuple[float, ...]) -> tuple[float, ...]:
    return distortion + (0.0,) * (len(DISTORTION) - len(distortion))


def _check_lenses(cameras: Cameras, names: list[str]) -> None:
    # A polynomial fitted to points near the centre may fold back before the image's edge: no direction then
    # reaches the pixels beyond, and their rays would be wrong without a sign.
    if not cameras.distorted:
        return
    edge = torch.linspace(0, 1, 33, dtype=torch.float64)
    zero, one = torch.zeros_like(edge), torch.ones_like(edge)
    sides = [(edge, zero), (edge, one), (zero, edge), (one, edge)]
    border = torch.cat([torch.stack(side, -1) for side in sides])
    for i, name in enumerate(names):
        view = torch.full((len(border),), i)
        pixel = border * cameras.size[i]
        rays = cameras.rays(view, pixel)
        back, depth = cameras.project(view, rays.at(torch.ones_like(pixel[:, 0])))
        lost = (back - pixel).norm(dim=-1) > LENS_TOLERANCE
        if cameras.model_of(i) == "perspective":
            lost |= (depth <= 0) | _folded(cameras, i, rays.directions)
        if lost.any():
            share = 100 * lost.double().mean().item()
            warn(f"{name}: no direction reaches {share:.0f} % of the image's border through its lens distortion")
            return


def _folded(cameras: Cameras, i: int, directions: Tensor) -> Tensor:
    local = directions @ cameras.camera_to_world[i, :3, :3]
    xx, xy, yy = distort_jacobian(local[:, :2] / local[:, 2:], cameras.distortion[i : i + 1])
    return xx * yy - xy * xy <= 0


def _warn_of_depth(splits) -> None:
    deep = [image.name for images in splits for image in images if image.header.deep]
    if deep:
        warn(f"{len(deep)} images have 16 bits per channel and are reduced to 8 (first: {deep[0]})")
