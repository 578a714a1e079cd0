"""How near two surfaces are to each other: Chamfer distance and F-score, and the overlap of what is inside.

    d(A -> B) = mean over points a of A, even by area, of min over b in B |a - b|
    Chamfer = (d(A -> B) + d(B -> A)) / 2
    precision, recall = share of the points of A, of B, within tau of the other;  F = their harmonic mean

The distances are those to the other's triangles, not to points on them, so that they do not have the spacing of points
in them (Jensen et al. 2014 for DTU and Knapitsch et al. 2017 for Tanks and Temples compare with scanned points).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..tracing.surface import Surface

SAMPLES = 200_000


def compare(
    a: Surface,
    b: Surface,
    threshold: float,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict:
    """Figures of `a` (what was made) against `b` (the truth), in their unit; threshold: tau; device: where distances
    are asked for."""
    generator = torch.Generator().manual_seed(seed)
    of_a, of_b = (each.sample(samples, generator).to(device) for each in (a, b))
    to_b, to_a = b.distance(of_a), a.distance(of_b)
    accuracy, completeness = float(to_b.double().mean()), float(to_a.double().mean())
    precision, recall = (float((d <= threshold).double().mean()) for d in (to_b, to_a))
    return {
        "chamfer": 0.5 * (accuracy + completeness),
        "accuracy": accuracy,
        "completeness": completeness,
        "largest": max(float(to_a.max()), float(to_b.max())),
        "threshold": threshold,
        "precision": precision,
        "recall": recall,
        "f_score": 2 * precision * recall / max(precision + recall, 1e-12),
    }


def overlap(inside_a: Tensor, inside_b: Tensor) -> float:
    """Intersection over union of two sets of points, given as masks over the same ones; 1 where both are empty."""
    both, either = int((inside_a & inside_b).sum()), int((inside_a | inside_b).sum())
    return both / either if either else 1.0
