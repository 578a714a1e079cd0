"""Self-organising Gaussians (Morgenstern et al. 2023): trained so that neighbours on a grid are alike, and their images
are small.

Once their number is fixed Gaussians are sorted onto a grid (plas.py), again and again while they go on training, and
the loss has a term that draws each towards the mean of its neighbours on the grid (sec. 3.3):

    weight  sum over parameters v of  mean Huber(v - mean of the 5 x 5 cells around)

with the neighbours' mean held fixed. Centres and colours by direction are left alone: they carry the picture.

Letter: G Gaussians.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .optimizer import GaussianAdam
from .order import grid_width
from .plas import blurred, plas_sort, sort_features
from .scene import GaussianScene

RESORT_RADIUS = 8  # of the sorts after the first one: what is far apart stays so
_AROUND = 2  # cells on each side that count as neighbours
_HUBER = 1.0  # differences beyond this pull no harder
#: how much each parameter is drawn; quaternions have about length 1
_DRAWN = {"quaternions": 4.0, "log_scales": 1.0, "opacity_logits": 1.0, "base": 1.0}


def organise(scene: GaussianScene, adam: GaussianAdam, *, first: bool) -> GaussianScene:
    """The scene in the grid's order; `adam` follows. Where it is not the `first` sort it begins with the order there
    is. Of a quaternion and its negative, which turn alike, it keeps that with w >= 0, at length 1."""
    length = scene.quaternions.norm(dim=0).clamp_min(1e-12)
    sign = torch.where(scene.quaternions[0] < 0, -1.0, 1.0)
    scene.quaternions.mul_(sign / length)
    adam.m["quaternions"].mul_(sign)
    width = grid_width(len(scene))
    kept = {} if first else {"order": torch.arange(len(scene)), "radius": RESORT_RADIUS}
    order = plas_sort(sort_features(scene), width, **kept)
    adam.select(order, 0)
    return scene.select(order)


def regularise(grads: dict[str, Tensor], scene: GaussianScene, weight: float) -> float:
    """Adds the term's gradients; returns its value. The scene is in the grid's order."""
    values = [getattr(scene, name).detach().reshape(-1, len(scene)) for name in _DRAWN]
    cells = torch.cat(values).T
    off = (cells - blurred(cells, grid_width(len(scene)), _AROUND)).T
    total = 0.0
    for (name, drawn), part in zip(_DRAWN.items(), off.split([len(v) for v in values]), strict=True):
        share = weight * drawn / part.numel()
        grads[name] += (share * part.clamp(-_HUBER, _HUBER)).view_as(grads[name])
        total += share * float(torch.nn.functional.huber_loss(part, torch.zeros_like(part), reduction="sum"))
    return total
