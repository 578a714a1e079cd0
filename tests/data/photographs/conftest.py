"""Photographs of a room with noise on its walls: cheap to render, with texture at every scale, and poses known."""

import contextlib
import io
import math
from pathlib import Path

import numpy as np
import pytest
from checks import require_pycolmap
from PIL import Image

HALF = np.array([2.0, 2.0, 1.5])  # the room is the box of these half sides around the origin
SIZE, FOCAL = (320, 240), 270.0


def look_at(centre, target) -> np.ndarray:
    """[4, 4] camera to world, OpenCV axes, the world's z up."""
    z = np.subtract(target, centre) / np.linalg.norm(np.subtract(target, centre))
    x = np.cross(z, (0, 0, 1))
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3] = np.stack((x, np.cross(z, x), z, centre), 1)
    return pose


def arc(count: int) -> list[np.ndarray]:
    """Poses on an arc that look at a corner of the room, with a parallax of 45 degrees in all."""
    angles = np.linspace(-0.4, 0.4, count) + math.pi * 1.25
    centres = [(1.9 + 2.3 * math.cos(a), 1.9 + 2.3 * math.sin(a), 0.3 * math.sin(5 * a)) for a in angles]
    return [look_at(c, (1.9, 1.9, 0.0)) for c in centres]


def panorama(count: int) -> list[np.ndarray]:
    """Poses that share a centre."""
    return [look_at((0, 0, 0), (math.cos(a), math.sin(a), 0.1 * math.sin(7 * a))) for a in np.linspace(0, 0.7, count)]


def render(pose: np.ndarray, seed: int = 0, size=SIZE, focal: float = FOCAL) -> np.ndarray:
    """[H, W, 3] uint8, with two by two rays per pixel."""
    width, height = size
    x, y = np.meshgrid((np.arange(2 * width) + 0.5) / 2, (np.arange(2 * height) + 0.5) / 2)
    focal = focal * width / SIZE[0]
    local = np.stack(((x - width / 2) / focal, (y - height / 2) / focal, np.ones_like(x)), -1)
    d = local @ pose[:3, :3].T
    with np.errstate(divide="ignore"):
        t = (np.sign(d) * HALF - pose[:3, 3]) / d
    axis = t.argmin(-1)
    hit = pose[:3, 3] + d * t.min(-1)[..., None]
    color = np.zeros_like(hit)
    for face in range(6):
        mine = (axis == face % 3) & ((np.take_along_axis(d, axis[..., None], -1)[..., 0] > 0) == (face < 3))
        u, v = (hit[mine][:, k] for k in range(3) if k != face % 3)
        color[mine] = _texture(seed * 6 + face)[(v * 110).astype(int) % 512, (u * 110).astype(int) % 512]
    return color.reshape(height, 2, width, 2, 3).mean((1, 3)).round().astype(np.uint8)


_TEXTURES: dict[int, np.ndarray] = {}


def _texture(seed: int) -> np.ndarray:
    # [512, 512, 3] in [0, 255]: the same amount of noise at scales from 2 to 32 texels.
    if seed not in _TEXTURES:
        rng = np.random.default_rng(seed)
        levels = [rng.standard_normal((512 // s, 512 // s, 3)).repeat(s, 0).repeat(s, 1) for s in (2, 4, 8, 16, 32)]
        _TEXTURES[seed] = np.clip(128 + 30 * sum(levels), 0, 255)
    return _TEXTURES[seed]


def write(folder: Path, images, names=None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        name = names[i] if names else f"photo {i:02d}.jpg"
        Image.fromarray(image).save(folder / name, quality=95)
    return folder


class Room:
    """What the tests use of this file."""

    arc, panorama, render, write = staticmethod(arc), staticmethod(panorama), staticmethod(render), staticmethod(write)
    size, focal = SIZE, FOCAL


@pytest.fixture(scope="session")
def room() -> Room:
    return Room()


@pytest.fixture(scope="session")
def photographed(room, tmp_path_factory) -> tuple[Path, list[np.ndarray]]:
    """(folder of 9 photographs whose names have spaces and Unicode, their poses in order of name)."""
    poses = room.arc(9)
    names = [f"Büro 東京 {i}.jpg" for i in range(len(poses))]
    return room.write(tmp_path_factory.mktemp("room"), map(room.render, poses), names), poses


@pytest.fixture(scope="session")
def found(photographed, tmp_path_factory):
    """(output folder, figures, what was said on standard error) of `find_cameras` on them."""
    require_pycolmap()
    from radfield.data.photographs import find_cameras

    output = tmp_path_factory.mktemp("found") / "out"
    with contextlib.redirect_stderr(io.StringIO()) as said:
        figures = find_cameras(photographed[0], output)
    return output, figures, said.getvalue()
