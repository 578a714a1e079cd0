"""Camera paths made by hand: keyframes in the capture's world, a smooth way through them, and the JSON file.

    {"radfield_camera_path": 1, "seconds": 5.0, "fps": 30, "closed": false, "size": [800, 800],
     "keyframes": [{"camera_to_world": [[...4] x4], "fov": 0.7}, ...]}

Poses are camera-to-world with OpenCV axes, in the capture's own units, so that a path fits every run of the capture;
fov is the vertical field of view in radians. The way is a Catmull-Rom spline (Catmull and Rom 1974), evenly in time
from keyframe to keyframe: of positions, of the logarithm of tan(fov / 2), and of unit quaternions with neighbours on
one side, brought back to length 1.

Letters: K keyframes, T frames.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..atomic import write_json
from ..cameras import Cameras
from ..errors import BadInput
from ..geometry import SceneTransform

MARK = "radfield_camera_path"
_MOST_BYTES, _MOST_KEYFRAMES, _MOST_FRAMES = 1 << 22, 10_000, 100_000


@dataclass(frozen=True)
class CameraPath:
    """camera_to_world: [K, 4, 4] float64 rigid, fov: [K] radians; closed: whether the way returns to the first
    keyframe; size: (width, height) of its pictures."""

    camera_to_world: Tensor
    fov: Tensor
    seconds: float = 5.0
    fps: float = 30.0
    closed: bool = False
    size: tuple[int, int] = (800, 800)

    def __post_init__(self):
        poses, fov, count = self.camera_to_world, self.fov, len(self.fov)
        if not 2 <= count <= _MOST_KEYFRAMES or poses.shape != (count, 4, 4):
            raise BadInput(f"camera path: has {count} keyframes; the rule: from 2 to {_MOST_KEYFRAMES}")
        turn = poses[:, :3, :3]
        rigid = torch.allclose(turn @ turn.mT, torch.eye(3, dtype=poses.dtype), atol=1e-4)
        last = poses.new_tensor([0, 0, 0, 1]).expand(count, 4)
        if not (bool(poses.isfinite().all()) and rigid and torch.equal(poses[:, 3], last)):
            raise BadInput(
                "camera path: camera_to_world of a keyframe is no rigid pose; the rule: rotation and position"
            )
        if bool((torch.linalg.det(turn) < 0).any()):
            raise BadInput("camera path: a keyframe mirrors; the rule: rotation and position")
        if not bool(((fov > 0.01) & (fov < 3.1)).all()):
            raise BadInput("camera path: fov of a keyframe is out of range; the rule: radians from 0.01 to 3.1")
        rules = [
            ("seconds", self.seconds, 0 < self.seconds <= 3600, "above 0, at most 3600"),
            ("fps", self.fps, 0 < self.fps <= 240, "above 0, at most 240"),
            ("size", self.size, len(self.size) == 2 and all(8 <= s <= 16384 for s in self.size), "8 to 16384 pixels"),
        ]
        for name, value, holds, rule in rules:
            if not holds:
                raise BadInput(f"camera path: {name} is {value}; the rule: {rule}")

    @property
    def frames(self) -> int:
        """How many frames its video has."""
        return min(max(round(self.seconds * self.fps), 2), _MOST_FRAMES)

    def poses(self, frames: int | None = None) -> tuple[Tensor, Tensor]:
        """(camera_to_world [T, 4, 4], fov [T]), float64. An open way ends with the last keyframe; after the last frame
        of a closed one comes the first again."""
        frames, count = frames or self.frames, len(self.fov)
        span = count if self.closed else count - 1
        time = torch.arange(frames, dtype=torch.float64) * (span / (frames if self.closed else max(frames - 1, 1)))
        quaternions = _quaternions(self.camera_to_world[:, :3, :3])
        keys = torch.cat((self.camera_to_world[:, :3, 3], (self.fov / 2).tan().log()[:, None], quaternions), 1)
        values = _catmull_rom(keys, time, self.closed)
        poses = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
        poses[:, :3, :3], poses[:, :3, 3] = _rotations(values[:, 4:]), values[:, :3]
        return poses, 2 * values[:, 3].exp().atan()

    def cameras(self, transform: SceneTransform, frames: int | None = None) -> Cameras:
        """The frames as cameras in the scene to which `transform` leads."""
        poses, fov = self.poses(frames)
        size = torch.tensor(self.size).expand(len(poses), 2)
        focal = (0.5 * self.size[1] / (fov / 2).tan())[:, None].expand(-1, 2).float().contiguous()
        pose = transform.poses(poses).float()
        return Cameras(pose, focal, size.float() / 2, size.contiguous(), torch.zeros(len(poses), 9))

    def save(self, path: Path) -> None:
        """Writes the file, atomically."""
        write_json(path, self.to_dict())

    def to_dict(self) -> dict:
        """What the file holds."""
        keys = [
            {"camera_to_world": pose.tolist(), "fov": float(fov)}
            for pose, fov in zip(self.camera_to_world, self.fov, strict=True)
        ]
        options = {"seconds": self.seconds, "fps": self.fps, "closed": self.closed, "size": list(self.size)}
        return {MARK: 1, **options, "keyframes": keys}


def read_path(path: Path) -> CameraPath:
    """The camera path of a file. Raises `BadInput`, in one line, where it is none."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadInput(f"{path}: has more than {_MOST_BYTES} bytes; the rule: a camera path")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: could not be read: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: is not JSON: {error!s:.80}") from None
    if not isinstance(values, dict) or values.get(MARK) != 1:
        raise BadInput(f"{path}: is no camera path; the rule: a file that `radfield view` saved")
    try:
        keys = values["keyframes"]
        poses = torch.tensor([key["camera_to_world"] for key in keys], dtype=torch.float64)
        fov = torch.tensor([float(key["fov"]) for key in keys], dtype=torch.float64)
        size = tuple(int(v) for v in values["size"])
        options = {"seconds": float(values["seconds"]), "fps": float(values["fps"]), "closed": bool(values["closed"])}
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise BadInput(f"{path}: is no whole camera path: {error!r:.80}") from None
    try:
        return CameraPath(poses, fov, size=size, **options)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def _catmull_rom(keys: Tensor, time: Tensor, closed: bool) -> Tensor:
    """[T, C] at `time` [T] in intervals of `keys` [K, C]. Tangents are half the way between the two neighbours; at the
    ends of an open way the end is its own neighbour. Columns from 4 on are quaternions: signs follow the neighbours,
    once around a closed way too, where q and -q are the same turn."""
    count = len(keys)
    interval = time.floor().long().clamp(0, count - 1 if closed else count - 2)
    u = (time - interval)[:, None]
    index = interval[:, None] + torch.arange(-1, 3)
    index = index % count if closed else index.clamp(0, count - 1)
    p = keys[index].clone()  # [T, 4, C]
    for k in (1, 0), (1, 2), (2, 3):
        opposite = (p[:, k[0], 4:] * p[:, k[1], 4:]).sum(1) < 0
        p[opposite, k[1], 4:] *= -1
    before, start, end, after = p.unbind(1)
    a, b = (end - before) / 2, (after - start) / 2
    value = (2 * u**3 - 3 * u**2 + 1) * start + (u**3 - 2 * u**2 + u) * a
    return value + (3 * u**2 - 2 * u**3) * end + (u**3 - u**2) * b


def _quaternions(rotation: Tensor) -> Tensor:
    """(w, x, y, z) [K, 4] of rotations [K, 3, 3]: of the four ways to divide, the one by the largest component."""
    m = rotation
    xx, yy, zz = m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]
    x, y, z = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]
    xy, xz, yz = m[:, 0, 1] + m[:, 1, 0], m[:, 0, 2] + m[:, 2, 0], m[:, 1, 2] + m[:, 2, 1]
    rows = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, x, y, z], 1),
            torch.stack([x, 1 + xx - yy - zz, xy, xz], 1),
            torch.stack([y, xy, 1 - xx + yy - zz, yz], 1),
            torch.stack([z, xz, yz, 1 - xx - yy + zz], 1),
        ],
        1,
    )
    best = rows.norm(dim=2).argmax(1)
    return torch.nn.functional.normalize(rows[torch.arange(len(m)), best], dim=1)


def _rotations(quaternions: Tensor) -> Tensor:
    """[T, 3, 3] of quaternions [T, 4] of any length above 0."""
    from ..renderers.gaussian_projection import rotation_matrices

    return rotation_matrices(torch.nn.functional.normalize(quaternions, dim=1))


def fov_of(cameras: Cameras, view: int) -> float:
    """The vertical field of view, in radians, of a perspective camera with its principal point in the middle."""
    return 2 * math.atan(0.5 * float(cameras.size[view, 1]) / float(cameras.focal[view, 1]))
