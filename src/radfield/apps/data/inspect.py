"""`radfield data inspect`: what a capture holds and how it is understood, as a picture and as figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...errors import BadInput

#: longer side of the images as they are decoded here: thumbnails are smaller
_DECODED = 200


@dataclass(frozen=True)
class Options:
    """Write a picture of a capture: cameras, points, scene box, thumbnails and the held-out split."""

    capture: Annotated[Path, tyro.conf.Positional]  # a capture in any format that `radfield train` reads
    output: Path  # the PNG file to write
    holdout: int = 8  # every so many-th image is held out, where the capture names no split
    masks: Literal["auto", "ignore", "transparent", "none"] = "auto"  # what masks mean; auto: what their place says
    json: bool = False  # print the figures as one JSON object


def run(options: Options) -> dict:
    """Writes the picture, and returns what there is to know about the capture."""
    if options.output.suffix.lower() != ".png":
        raise BadInput(f"--output is {options.output}; the rule: a file name that ends in .png")
    from ...atomic import replacing
    from ...data import load
    from .inspect_picture import draw

    scene = load(options.capture, holdout=options.holdout, max_size=_DECODED, masks=options.masks)
    figures = describe_scene(scene)
    lines = [
        f"{figures['images']} images; lens {figures['lens']}; {figures['points']} sparse points; "
        + ("images have alpha" if scene.has_alpha else "images without alpha")
        + f"; {100 * figures['ignored']:.1f} % of the training pixels ignored by masks",
        f"{scene.cascades} cascade(s), the outermost a cube of {2 ** (scene.cascades - 1)} scene units; "
        f"one scene unit is {1 / scene.transform.scale:.4g} of the capture's; background {scene.background}",
        f"cameras at a median distance of {figures['distance']:.2f} scene units from the unit cube's centre",
    ]
    picture = draw(scene, scene.name, lines)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(options.output) as temporary:
        picture.save(temporary, "PNG")
    return {"picture": str(options.output), **figures}


def describe_scene(scene) -> dict:
    """Figures of a scene whose images are decoded: counts, lens, box, share of the pixels that is ignored."""
    cameras, images = scene.train.cameras, scene.train.images
    spans = images.spans
    kept = len(images.pixels) if spans is None else int((spans[:, 1] - spans[:, 0]).sum())
    splits = {name: len(views) for name in ("train", "val", "test") if (views := getattr(scene, name)) is not None}
    return {
        "images": sum(splits.values()),
        **splits,
        "lens": " and ".join(cameras.models) + (" with distortion" if cameras.distorted else ""),
        "points": 0 if scene.points is None else len(scene.points),
        "alpha": scene.has_alpha,
        "ignored": 1 - kept / len(images.pixels),
        "cascades": scene.cascades,
        "units_per_scene_unit": 1 / scene.transform.scale,
        "distance": float((cameras.camera_to_world[:, :3, 3] - 0.5).norm(dim=-1).median()),
        "background": scene.background,
    }
