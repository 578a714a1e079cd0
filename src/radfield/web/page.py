"""The folder of a page: index.html draws what stands beside it in data.js, opened from the disk or from anywhere.

What is large is in data.js as base64 of gzip, since a page opened from the disk may read scripts alone.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..atomic import filling, finite, foreign
from ..errors import BadInput

FILES = ("index.html", "data.js", "common.js")
KINDS = {"light-field": "light_field.js", "mesh": "baked_mesh.js"}


def packed(values: Tensor | np.ndarray) -> str:
    """The bytes of an array, as `common.js: bytes` reads them."""
    array = values.contiguous().numpy() if isinstance(values, Tensor) else np.ascontiguousarray(values)
    return base64.b64encode(gzip.compress(array.tobytes(), 6, mtime=0)).decode()


def check_vacant(folder: Path) -> None:
    """Raises `BadInput` where the folder holds anything but a page written before."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: is a file; the rule: a page is a folder")
    others = sorted(set(foreign(folder)) - {*FILES, *KINDS.values()})
    if others:
        raise BadInput(
            f"{folder}: holds {others[0]!r:.80}, which is no part of a page; the rule: a new or empty folder"
        )


def write_page(folder: Path, kind: str, title: str, data: dict) -> int:
    """Writes a page of `kind` with its data; returns the bytes of the folder."""
    script = KINDS[kind]
    parts = {name: resources.files(__package__).joinpath(name).read_text("utf-8") for name in ("common.js", script)}
    page = resources.files(__package__).joinpath("page.html").read_text("utf-8")
    shade = "#" + "".join(f"{round(255 * v):02x}" for v in data["background"])
    for mark, text in {"TITLE": html.escape(title), "BACKGROUND": shade, "KIND.js": script}.items():
        page = page.replace(mark, text)
    parts |= {"index.html": page, "data.js": f"const DATA = {json.dumps(finite(data), allow_nan=False)};\n"}
    with filling(folder, last="index.html", clear=True) as temporary:
        for name, text in parts.items():
            (temporary / name).write_text(text, encoding="utf-8")
    return sum(len(text.encode()) for text in parts.values())


def orbit_of(sampler, target: Tensor) -> dict:
    """Where the page's camera begins, and what it goes around: from the poses that a distillation would draw."""
    from ..data import scene_box

    poses = sampler.around.draw(64, torch.Generator().manual_seed(0)).double()
    up = scene_box.up_axis(poses)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64) if up is None else up
    side = torch.tensor([1.0, 0, 0] if abs(float(up[0])) < 0.9 else [0.0, 1, 0], dtype=torch.float64)
    x = torch.nn.functional.normalize(torch.linalg.cross(side, up), dim=0)
    y = torch.linalg.cross(up, x)
    out = poses[0, :3, 3] - target.double()
    level = torch.atan2(out @ y, out @ x)
    distance = (poses[:, :3, 3] - target).norm(dim=1).median()
    elevation = torch.asin(((poses[:, :3, 3] - target) @ up / (poses[:, :3, 3] - target).norm(dim=1)).median())
    angle = 2 * torch.atan(0.5 * sampler.size.double().min() / sampler.focal.double().max())
    return {
        "target": target.tolist(),
        "up": up.tolist(),
        "start": [float(level), float(elevation), float(distance)],
        "angle": float(angle),
    }


def camera_of(cameras, view: int) -> dict:
    """A camera as `common.js: pixels` takes it."""
    return {
        "pose": cameras.camera_to_world[view].flatten().tolist(),
        "focal": cameras.focal[view].tolist(),
        "principal": cameras.principal[view].tolist(),
        "size": cameras.size[view].tolist(),
    }
