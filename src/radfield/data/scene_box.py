"""Where the scene is and how large: the similarity from a capture's units to scene coordinates.

Scene coordinates put the part worth the finest detail into the unit cube; K cascades reach out to the cube
of side 2^(K - 1) with the same centre. Letters: V cameras, P sparse points.

Axes stay as they are in a capture whose axes mean something (`Capture.upright`); others, as structure from motion makes
them, are turned first so that up (`up_axis`) is +z. Then three rules, the first that applies:

1. The capture says it itself, in instant-ngp's keys: `scale_and_offset`.
2. An object capture (images with alpha, cameras that look inward at a focus): the unit cube is centred at the
   focus, its half side 0.375 r, with r the median distance of the cameras to the focus (`object_box`).
   For NeRF-synthetic (r = 4.03) that is +-1.51 around the origin; the published box is +-1.5. Where the field
   of view is wider than theirs, so is the cube: half side 1.04 r tan(angle / 2), at most 0.75 r. One cascade.
3. Any other capture: the centre is the focus, or where the cameras do not look inward at one, their
   centroid; the mean distance of the cameras to it becomes 1.32 scene units (the 4.0 units times
   scale 0.33 to which instant-ngp's COLMAP converter leads), and there are 5 cascades (`aabb_scale` 16). Where the
   capture has sparse points, there are as many cascades, 2 to 8, as hold POINTS_INSIDE of them and all cameras.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import warn
from ..geometry import SceneTransform

NGP_SCALE, NGP_OFFSET = 0.33, 0.5
OBJECT_HALF_SIDE, OBJECT_WIDEST, OBJECT_MARGIN = 0.375, 0.75, 1.04
CAMERA_DISTANCE, SURROUNDING_CASCADES = 1.32, 5
# Optical axes that spread less than about 2 degrees (the smallest eigenvalue is the mean of sin^2) give no focus.
LEAST_SPREAD = 1e-3
LOOKING_INWARD = 0.75
# Points of structure from motion have outliers, and some of the true ones are far hills.
POINTS_INSIDE, FEWEST_POINTS, FEWEST_CASCADES, MOST_CASCADES = 0.98, 50, 2, 8


@dataclass(frozen=True)
class SceneBox:
    """World-to-scene transform, and the number of cascades."""

    transform: SceneTransform
    cascades: int


def scale_and_offset(scale: float, offset: tuple[float, float, float], cascades: int) -> SceneBox:
    """Rule 1: x_scene = scale x + offset. Axes stay as they are (instant-ngp also permutes them)."""
    return SceneBox(SceneTransform(scale=scale, offset=offset), cascades)


def find_box(
    camera_to_world: Tensor, tangent: float, is_object: bool, *, upright: bool = True, points: Tensor | None = None
) -> SceneBox:
    """Rules 2 and 3. camera_to_world: [V, 4, 4] float64; tangent: of half the field of view's wider angle; upright:
    keep the axes; points: [P, 3] float64 sparse points."""
    if not upright:
        return _turned_upright(camera_to_world, tangent, is_object, points)
    focus = focus_point(camera_to_world)
    if is_object and focus is not None:
        return object_box(camera_to_world, focus, tangent)
    centre = camera_to_world[:, :3, 3].mean(0) if focus is None else focus
    box = surrounding_box(camera_to_world, centre)
    if points is None or len(points) < FEWEST_POINTS:
        return box
    return SceneBox(box.transform, _cascades_around(box.transform, points, camera_to_world[:, :3, 3]))


def upright_box(box: SceneBox, camera_to_world: Tensor) -> SceneBox:
    """A box along the world's axes turned around the unit cube's centre, so that up is +z; where there is an up."""
    up = up_axis(camera_to_world)
    if up is None:
        return box
    middle = box.transform.inverse().points(torch.full((3,), 0.5, dtype=torch.float64))
    turn = frame_of(up)
    offset = (0.5 - box.transform.scale * (turn @ middle)).tolist()
    rotation = tuple(tuple(row) for row in turn.tolist())
    return SceneBox(SceneTransform(box.transform.scale, rotation, tuple(offset)), box.cascades)


def _turned_upright(camera_to_world: Tensor, tangent: float, is_object: bool, points: Tensor | None) -> SceneBox:
    # The box in axes of which the third is up, and the turn to them before it.
    up = up_axis(camera_to_world)
    turn = torch.eye(3, dtype=torch.float64) if up is None else frame_of(up)
    turned = camera_to_world.clone()
    turned[:, :3] = turn @ camera_to_world[:, :3]
    box = find_box(turned, tangent, is_object, points=None if points is None else points @ turn.T)
    rotation = tuple(tuple(row) for row in turn.tolist())
    return SceneBox(SceneTransform(box.transform.scale, rotation, box.transform.offset), box.cascades)


def _cascades_around(transform: SceneTransform, points: Tensor, cameras: Tensor) -> int:
    reach = (transform.points(points) - 0.5).abs().amax(-1)
    reach = reach[reach.isfinite()].quantile(POINTS_INSIDE) if len(reach) < 1 << 24 else reach.median() * 4
    reach = max(float(reach), float((transform.points(cameras) - 0.5).abs().max()))
    needed = 1 + math.ceil(math.log2(max(2 * reach, 1.0)))
    return min(max(needed, FEWEST_CASCADES), MOST_CASCADES)


def up_axis(camera_to_world: Tensor) -> Tensor | None:
    """The world's up [3], float64: the cameras' mean up, less what lies along their right axes, for those are level in
    photographs taken upright, while the mean up leans wherever all cameras look down from one side. None where the
    cameras have no common up."""
    poses = camera_to_world.double()
    right, up = poses[:, :3, 0], -poses[:, :3, 1].mean(0)
    if up.norm() < 1e-3:
        return None
    level = right.T @ right / len(right)
    solved = torch.linalg.solve(level + 0.05 * torch.eye(3, dtype=torch.float64), up)
    return torch.nn.functional.normalize(solved, dim=0)


def frame_of(up: Tensor) -> Tensor:
    """A right-handed orthonormal frame [3, 3], one axis per row, whose third is `up`."""
    helper = torch.zeros(3, dtype=up.dtype)
    helper[up.abs().argmin()] = 1.0
    first = torch.nn.functional.normalize(torch.linalg.cross(helper, up), dim=0)
    return torch.stack([first, torch.linalg.cross(up, first), up])


def object_box(camera_to_world: Tensor, focus: Tensor, tangent: float) -> SceneBox:
    """Rule 2: the unit cube around the object, one cascade."""
    r = (camera_to_world[:, :3, 3] - focus).norm(dim=-1).median().item()
    half_side = r * min(max(OBJECT_HALF_SIDE, OBJECT_MARGIN * tangent), OBJECT_WIDEST)
    return _around(focus, 0.5 / half_side, 1)


def surrounding_box(camera_to_world: Tensor, centre: Tensor) -> SceneBox:
    """Rule 3: cameras at a mean distance of 1.32 from the unit cube's centre, five cascades."""
    distance = (camera_to_world[:, :3, 3] - centre).norm(dim=-1).mean().item()
    if distance < 1e-6 * max(1.0, centre.norm().item()):
        warn("all cameras stand at one point, from which no depth can be found; world units are taken as they are")
        distance = 1.0
    return _around(centre, CAMERA_DISTANCE / distance, SURROUNDING_CASCADES)


def focus_point(camera_to_world: Tensor) -> Tensor | None:
    """The point [3] that the cameras look inward at: closest to all optical axes, and in front of three quarters of the
    cameras or more; else None."""
    focus = nearest_to_axes(camera_to_world)
    if focus is None:
        return None
    o, d = camera_to_world[:, :3, 3], camera_to_world[:, :3, 2]
    in_front = ((focus - o) * d).sum(-1) > 0
    return focus if in_front.double().mean() >= LOOKING_INWARD else None


def nearest_to_axes(camera_to_world: Tensor) -> Tensor | None:
    """The point [3] closest to all optical axes, or None where they are parallel within 2 degrees.

    Least squares: with origins o and unit axes d, the minimiser of sum |(I - d d^T) (p - o)|^2.
    """
    o, d = camera_to_world[:, :3, 3], camera_to_world[:, :3, 2]
    across = torch.eye(3, dtype=o.dtype) - d[:, :, None] * d[:, None, :]
    normal = across.mean(0)
    if torch.linalg.eigvalsh(normal)[0] < LEAST_SPREAD:
        return None
    return torch.linalg.solve(normal, (across @ o[..., None]).mean(0)[:, 0])


def _around(centre: Tensor, scale: float, cascades: int) -> SceneBox:
    offset = (0.5 - scale * centre).tolist()
    return SceneBox(SceneTransform(scale=scale, offset=tuple(offset)), cascades)
