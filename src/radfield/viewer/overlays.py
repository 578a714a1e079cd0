"""What stands in a client's scene beside the server's picture: cameras, photographs, points, boxes, a mesh, Gaussians.

viser's splat primitive takes one colour per Gaussian and draws it from all sides alike: colours by direction (spherical
harmonics of degree 1 and more) are lost, and only the server shows them. Letter: G Gaussians.
"""

from __future__ import annotations

import numpy as np
import torch

from ..geometry import cascade_box
from .crop import Box
from .exhibit import Exhibit

MOST_POINTS, MOST_FRUSTA = 100_000, 500
THUMBNAIL = 160  # pixels of a photograph's longer side in its frustum
_SH0 = 0.28209479177387814  # the constant harmonic, 1 / (2 sqrt(pi))
_COLORS = {"train": (60, 110, 220), "val": (230, 120, 30), "test": (40, 160, 70)}


def add_cameras(scene, exhibit: Exhibit, photographs: bool):
    """The capture's cameras as frusta, with their photographs where wanted; returns the handles."""
    import viser.transforms

    cameras, handles = exhibit.cameras, []
    step = -(-len(cameras) // MOST_FRUSTA)
    scale = _frustum_size(cameras.camera_to_world)
    for i in range(0, len(cameras), step):
        pose = cameras.camera_to_world[i].double().numpy()
        width, height = cameras.size[i].tolist()
        fov = 2 * np.arctan(0.5 * height / float(cameras.focal[i, 1])) if cameras.model == "perspective" else 1.2
        image = thumbnail(exhibit, i) if photographs else None
        handles.append(
            scene.add_camera_frustum(
                f"/cameras/{i:05d}",
                fov=float(min(fov, 2.5)),
                aspect=width / height,
                scale=scale,
                thickness=0.03 * scale,
                color=_COLORS[exhibit.splits[i][0]],
                image=image,
                wxyz=viser.transforms.SO3.from_matrix(pose[:3, :3]).wxyz,
                position=pose[:3, 3],
                cast_shadow=False,
                receive_shadow=False,
            )
        )
    return handles


def thumbnail(exhibit: Exhibit, index: int) -> np.ndarray:
    """A photograph at THUMBNAIL pixels, [H, W, 3] uint8."""
    _, _, image = exhibit.photograph(index)
    step = max(1, -(-max(image.shape[:2]) // THUMBNAIL))
    planes = torch.nn.functional.avg_pool2d(image.permute(2, 0, 1)[None], step, ceil_mode=True)[0]
    return (planes.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()


def _frustum_size(poses: torch.Tensor) -> float:
    """A twentieth of the cameras' spread."""
    centres = poses[:, :3, 3]
    return max(0.05 * float((centres - centres.mean(0)).norm(dim=1).median()), 0.01)


def add_points(scene, points, name: str = "/points"):
    """Sparse points in their colours, at most MOST_POINTS of them."""
    step = -(-len(points) // MOST_POINTS)
    position = points.position[::step].astype(np.float32)
    extent = float(np.median(np.abs(position - np.median(position, 0)).max(1))) if len(position) else 1.0
    size = max(0.004 * extent, 1e-4)
    return scene.add_point_cloud(name, position, points.color[::step], point_size=size, precision="float32")


def add_box(scene, box: Box, name: str, color: tuple[int, int, int]):
    """The edges of a box."""
    corner = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    pairs = [(a, b) for a in range(8) for b in range(a) if np.abs(corner[a] - corner[b]).sum() == 1]
    low, high = np.array(box.low), np.array(box.high)
    lines = np.array([[low + corner[a] * (high - low), low + corner[b] * (high - low)] for a, b in pairs])
    size = 0.002 * float(np.linalg.norm(high - low))
    return scene.add_line_segments(name, lines.astype(np.float32), color, thickness=size)


def scene_box(cascades: int) -> list[Box]:
    """The cubes of the cascades."""
    return [Box((low,) * 3, (high,) * 3) for low, high in map(cascade_box, range(cascades))]


def splat_arrays(gaussians) -> dict[str, np.ndarray]:
    """What viser's primitive takes: centers [G, 3], covariances [G, 3, 3], rgbs [G, 3], opacities [G, 1], and `scale`.

    Covariances travel in 16 bits, which hold nothing below 6e-8: everything is enlarged by 1 / scale, so that the
    median Gaussian has size 1, as far as the largest stays below 200.
    """
    from ..gaussians.scene import covariances

    gaussians = gaussians.to("cpu")
    size = gaussians.log_scales.exp().amax(0)
    enlarge = min(1 / float(size.median().clamp(min=1e-9)), 200 / float(size.max().clamp(min=1e-9)))
    return {
        "centers": (gaussians.means.T * enlarge).contiguous().numpy(),
        "covariances": (covariances(gaussians) * enlarge**2).contiguous().numpy(),
        "rgbs": (0.5 + _SH0 * gaussians.base.T).clamp(0, 1).contiguous().numpy(),
        "opacities": gaussians.opacity_logits.sigmoid()[:, None].contiguous().numpy(),
        "scale": 1 / enlarge,
    }
