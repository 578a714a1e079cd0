"""Similarity transforms between a capture's own units and scene coordinates, and boxes met by rays.

Scene coordinates: the unit cube [0, 1]^3 is cascade 0; cascade k is the cube of side 2^k with the same
centre. World coordinates: those of the capture's files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import BadInput

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class SceneTransform:
    """World to scene: `x_scene = scale * (rotation x_world) + offset`.

    scale > 0 (scene units per world unit), rotation: 3x3 by rows, offset: 3, in scene units. Plain
    numbers, so that it compares, hashes and goes into JSON; arithmetic follows the tensors given.
    """

    scale: float = 1.0
    rotation: tuple[tuple[float, ...], ...] = IDENTITY
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)

    def __post_init__(self):
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise BadInput(f"scene transform: scale is {self.scale}; it must be a positive number")
        r = torch.tensor(self.rotation, dtype=torch.float64)
        if r.shape != (3, 3) or len(self.offset) != 3:
            raise BadInput("scene transform: rotation must be 3x3 and offset must have 3 numbers")
        if not all(map(math.isfinite, self.offset)):
            raise BadInput(f"scene transform: offset is {self.offset}; it must be finite")
        if not torch.allclose(r @ r.T, torch.eye(3, dtype=r.dtype), atol=1e-5) or torch.linalg.det(r) < 0:
            raise BadInput(f"scene transform: rotation is {self.rotation}; it must be a rotation")

    def points(self, x: Tensor) -> Tensor:
        """World points [..., 3] to scene points [..., 3]."""
        return self.scale * self.directions(x) + x.new_tensor(self.offset)

    def directions(self, d: Tensor) -> Tensor:
        """World directions [..., 3] to scene directions [..., 3]; lengths stay."""
        return d @ d.new_tensor(self.rotation).T

    def poses(self, camera_to_world: Tensor) -> Tensor:
        """Camera-to-world matrices [..., 4, 4] to camera-to-scene, still rigid."""
        out = camera_to_world.clone()
        out[..., :3, :3] = camera_to_world.new_tensor(self.rotation) @ camera_to_world[..., :3, :3]
        out[..., :3, 3] = self.points(camera_to_world[..., :3, 3])
        return out

    def cameras(self, cameras):
        """`Cameras` posed in the world to the same cameras posed in the scene."""
        return replace(cameras, camera_to_world=self.poses(cameras.camera_to_world))

    def inverse(self) -> "SceneTransform":
        """Scene to world."""
        r = self.rotation
        back = tuple(tuple(r[j][i] for j in range(3)) for i in range(3))
        turned = [sum(back[i][j] * self.offset[j] for j in range(3)) for i in range(3)]
        return SceneTransform(1 / self.scale, back, tuple(-v / self.scale for v in turned))

    def to_dict(self) -> dict:
        """Plain lists and numbers, for JSON."""
        return {"scale": self.scale, "rotation": [list(r) for r in self.rotation], "offset": list(self.offset)}

    @staticmethod
    def from_dict(values: dict) -> "SceneTransform":
        """The inverse of `to_dict`; BadInput when something is missing or not a similarity."""
        try:
            rotation = tuple(tuple(float(v) for v in row) for row in values["rotation"])
            return SceneTransform(float(values["scale"]), rotation, tuple(map(float, values["offset"])))
        except BadInput:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"scene transform: {error!r}; it needs scale, rotation (3x3), offset (3)") from None


def cascade_box(cascade: int) -> tuple[float, float]:
    """(low, high), the same for each axis: cascade k is the cube of side 2^k centred at 0.5."""
    half = 0.5 * 2**cascade
    return 0.5 - half, 0.5 + half


def intersect_box(
    origins: Tensor,
    directions: Tensor,
    low: float | Sequence[float] | Tensor,
    high: float | Sequence[float] | Tensor,
) -> tuple[Tensor, Tensor]:
    """(near, far), each [N]: the part of each ray inside the box, 0 <= near <= far.

    origins, directions: [N, 3]; low, high: the box's corners, one number or 3. A ray that misses the
    box, or only touches it in a point, or has it behind, gets near = far = 0: an interval of no length,
    which needs no mask. From inside the box, near is 0. (Slab method: Kay and Kajiya 1986.)
    """
    low, high = (torch.as_tensor(v, dtype=origins.dtype, device=origins.device) for v in (low, high))
    # A zero component never crosses its slab: the quotient would be 0/0 for an origin on the face, so
    # the slab's interval is set outright, everything when the origin lies in it and nothing otherwise.
    parallel = directions == 0
    inside = (origins >= low) & (origins <= high)
    divisor = torch.where(parallel, torch.ones_like(directions), directions)
    a, b = (low - origins) / divisor, (high - origins) / divisor
    inf = torch.inf
    enter = torch.where(parallel, torch.where(inside, -inf, inf).to(a), torch.minimum(a, b))
    leave = torch.where(parallel, torch.where(inside, inf, -inf).to(a), torch.maximum(a, b))
    near, far = enter.amax(-1).clamp_min(0), leave.amin(-1)
    hit = near < far
    return torch.where(hit, near, 0), torch.where(hit, far, 0)
