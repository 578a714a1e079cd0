"""`radfield data synth`: a capture of a known scene or a textured mesh, to try everything without photographs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Options:
    """Write a capture with exact geometry: of the scene solids, carved, wires, glossy, glass or courtyard, or of a
    textured mesh (.obj, .ply, .glb)."""

    scene: Annotated[str, tyro.conf.Positional]  # name of the scene, or a mesh's file
    folder: Annotated[Path, tyro.conf.Positional]  # the new folder to write to
    # files to write; photographs are bare JPEG files with EXIF, without poses
    format: Literal["nerf-synthetic", "nerfstudio", "instant-ngp", "photographs"] = "nerf-synthetic"
    views: int = 60  # training views, or photographs
    val_views: int = 6  # held-out views; photographs have none
    size: str | None = None  # pixels, WIDTHxHEIGHT or one number for both; 200, photographs 640x480
    lens: Literal["pinhole", "distorted", "fisheye"] = "pinhole"  # nerf-synthetic captures are pinhole
    seed: int = 0  # chooses the cameras
    up: Literal["y", "z"] = "y"  # the axis of a mesh that points upwards
    truth: bool = False  # also write truth/: depth, normals, masks, poses
    overwrite: bool = False  # replace an older synthetic capture in the folder
    json: bool = False  # print the figures as one JSON object


def run(options: Options) -> dict:
    """Writes the capture; returns what was written."""
    from ...data.synthetic import synthetic_scene, write_synthetic_capture
    from ...training.progress import Progress

    photographs = options.format == "photographs"
    size = _size(options.size or ("640x480" if photographs else "200"))
    val_views = 0 if photographs else options.val_views
    scene = synthetic_scene(options.scene, up=options.up)
    began = time.perf_counter()
    with Progress(f"data synth {scene.name}", steps=max(options.views + val_views, 1)) as progress:
        folder = write_synthetic_capture(
            options.folder,
            scene,
            views=options.views,
            val_views=val_views,
            size=size,
            seed=options.seed,
            format=options.format,
            lens=options.lens,
            truth=options.truth,
            overwrite=options.overwrite,
            progress=progress.update,
        )
    seconds = time.perf_counter() - began
    return {
        "folder": str(folder),
        "scene": scene.name,
        "format": options.format,
        "views": options.views,
        "val_views": val_views,
        "size": f"{size[0]} x {size[1]}",
        "seconds": seconds,
    }


def _size(text: str) -> tuple[int, int]:
    from ...errors import BadInput

    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts) or len(text) > 20:
        raise BadInput(f"--size is {text[:40]!r}; the rule: WIDTHxHEIGHT or one number, as 640x480 or 200")
    return int(parts[0]), int(parts[-1])
