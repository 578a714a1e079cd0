"""The colours of a run's surface, as those who stand before it see them.

A field's colour is what light along one direction has at one place. Asked along a direction from which no photograph
was taken, or behind the place where rays end, it is whatever the network makes of that: dark, most often. So a point of
a surface has the colour of a short ray that meets it from straight in front: what `radfield render` would show there.
Letter: P points.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ...meshing.level_set import PER_CALL, from_host
from ...rays import Rays
from ...renderers import volume

BEFORE, BEHIND = 8, 24  # steps of the renderer that a ray begins before a point and ends behind it, at most


def colors_of(model, x: Tensor, normals: Tensor) -> Tensor:
    """[P, 3] sRGB at surface points x [P, 3] (scene positions) with unit normals [P, 3], 0 where there is none; on the
    CPU, whatever device the model is on."""
    towards = -normals.float()
    towards[towards.norm(dim=-1) < 0.5] = torch.tensor([0.0, 0, -1])
    of_ray = hasattr(model, "grid") and not hasattr(model, "distance")
    ask = from_host(functools.partial(_of_ray, model) if of_ray else model.color, model.device)
    parts = zip(x.float().split(PER_CALL), towards.split(PER_CALL), strict=True)
    found = [ask(a.contiguous(), b.contiguous()).float() for a, b in parts]
    return torch.cat(found) if found else x.new_zeros(0, 3).float()


def _of_ray(model, x: Tensor, towards: Tensor) -> Tensor:
    """Composited along the part of the ray around the surface. What light passes this part has the colour of the field
    at the point itself: a surface is closed in a mesh."""
    config = model.render
    before, behind = BEFORE * config.step, BEHIND * config.step
    far = torch.full_like(x[:, 0], before + behind)
    rays = Rays(x - before * towards, towards, torch.zeros_like(far), far)
    near = volume.Config(step=config.step, cone=0.0, near=0.0, stop=config.stop)
    with torch.no_grad():
        return volume.render_rays(model.field, model.grid, rays, model.color(x, towards), near)[0]
