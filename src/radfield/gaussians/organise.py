"""Self-organising Gaussians (Morgenstern et al. 2023): trained so that neighbours on a grid are alike, and their images
are small.

Once their number is fixed Gaussians are sorted onto a grid (plas.py), again and again while they go on training, and
the loss has a term that draws each towards the mean of its neighbours on the grid (sec. 3.3):

    weight  2 mean Huber(q - mean of the 5 x 5 cells around), of quaternions q

with the neighbours' mean held fixed. Quaternions alone are drawn, since they cost least: of the images of a small scene
(7,000 Gaussians, 400 steps of this loss) 0.5 bytes per Gaussian of quaternions cost 0.2 dB, 0.2 bytes of base colours
0.2 dB, 0.2 bytes of scales 0.5 dB, and 0.5 bytes of all three and opacities 1 dB. (In the authors' configuration
quaternions have the weight 10, which is 5 here, over 30,000 steps, opacities 1 and the others 0.)

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
_DRAWN = 2.0


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
    """Adds the term's gradient; returns its value. The scene is in the grid's order."""
    cells = scene.quaternions.detach().T
    off = (cells - blurred(cells, grid_width(len(scene)), _AROUND)).T
    share = weight * _DRAWN / off.numel()
    grads["quaternions"] += share * off.clamp(-_HUBER, _HUBER)
    return share * float(torch.nn.functional.huber_loss(off, torch.zeros_like(off), reduction="sum"))
