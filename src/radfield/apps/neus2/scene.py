"""Where the method `neus2` has its unit cube, in which the surface is."""

from __future__ import annotations

import torch

from ...data.scene import Scene
from ...geometry import SceneTransform
from .config import Config
from .model import with_outside
from .motion import composed, in_transform

FREE = 0.9  # of the way from the middle to the nearest cameras, the cube takes
NEAREST = 0.1  # part of the cameras that may be nearer
LARGEST = 2.0  # no cube becomes larger than this, in sides of the one before


def arranged(scene: Scene, config: Config) -> Scene:
    """The scene in coordinates in which the unit cube reaches out nearly to the cameras, where there is a field around
    it. A capture without masks does not say how large the object is, and what sticks out of the cube is no surface:
    rays see it behind the cube alone. Other scenes stay as they are."""
    if not with_outside(config, scene.cascades):
        return scene
    reach = (scene.train.cameras.camera_to_world[:, :3, 3] - 0.5).abs().amax(-1)
    zoom = min(2 * FREE * float(reach.quantile(NEAREST)), LARGEST)
    if not zoom > 1.01:  # cameras stand within the cube already, or next to it
        return scene
    middle = torch.full((3,), 0.5, dtype=torch.float64)
    shrink = SceneTransform(1 / zoom, offset=tuple((middle * (1 - 1 / zoom)).tolist()))
    return in_transform(scene, composed(shrink, scene.transform))
