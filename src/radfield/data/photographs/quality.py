"""How well it worked: figures, warnings, and the reasons why it did not. Letters: N photographs.

A two-view kind is COLMAP's: PANORAMIC and PLANAR_OR_PANORAMIC pairs are explained by a homography, PANORAMIC ones by a
rotation alone, from which no depth can be found.
"""

from __future__ import annotations

import numpy as np
import pycolmap

FEWEST_FEATURES = 60
FEWEST_POINTS = 100
LEAST_ANGLE = 2.0  # degrees between the rays of a point, in the median
STANDING_STILL = 0.004  # of the longer side: how far features move between most pairs
WORST_ERROR = 2.0  # pixels of the photographs, in the median
LEAST_PART = 1 / 3
# Where so many of the pairs are explained by a homography, depth is not determined; of pairs with enough inliers.
FLAT_PART, FLAT_INLIERS = 0.9, 30
SAMPLED_POINTS = 2000
FEW_PHOTOGRAPHS = 12
SHOWN = 3

TwoViews = dict[tuple[int, int], tuple[int, str, float]]


class StageFailed(Exception):
    """A stage cannot go on: its name, why, and what to try."""

    def __init__(self, stage: str, why: str, advice: str):
        super().__init__(why)
        self.stage, self.why, self.advice = stage, why, advice


def check_features(counts: list[int]) -> None:
    median = int(np.median(counts))
    if median < FEWEST_FEATURES:
        raise StageFailed(
            "features",
            f"the photographs have {median} features in the median; the rule: at least {FEWEST_FEATURES}",
            "photographs that are sharp, larger, and show texture (an even wall has none)",
        )


def check_matches(two_views: TwoViews, count: int) -> None:
    """Raises where no three photographs hang together, or where the camera stood still or only turned."""
    largest = max(map(len, components(two_views, count)))
    if largest < 3:
        raise StageFailed(
            "matching",
            f"no three of the {count} photographs have anything in common",
            "photographs of one scene, each showing at least two thirds of what the one before shows",
        )
    if float(np.median([shift for _, _, shift in two_views.values()])) < STANDING_STILL:
        raise StageFailed(
            "matching",
            "the photographs were taken from one place: nothing moves between them",
            "walking around the scene, half a step between photographs",
        )
    if (flat := flat_part(two_views)) >= FLAT_PART:
        raise StageFailed(
            "matching",
            f"{100 * flat:.0f} % of the pairs look like a camera that turns in place, or faces a plane (pure rotation)",
            "walking around the scene instead of turning, and photographs of things at different depths",
        )


def flat_part(two_views: TwoViews) -> float:
    """The part of the pairs that a homography explains: a camera that turned in place, or faces a plane."""
    kinds = [kind for inliers, kind, _ in two_views.values() if inliers >= FLAT_INLIERS]
    return sum(kind in ("PLANAR", "PANORAMIC", "PLANAR_OR_PANORAMIC") for kind in kinds) / max(1, len(kinds))


def check_mapped(model: pycolmap.Reconstruction | None, two_views: TwoViews, count: int) -> None:
    """Raises where there are no cameras, or of too few photographs to be worth anything."""
    registered = model.num_reg_images() if model else 0
    if registered >= max(3, LEAST_PART * count):
        return
    found = f"cameras were found for {registered} of {count} photographs" if registered else "no cameras were found"
    parts = [len(part) for part in components(two_views, count)]
    advice = "more photographs, each showing at least two thirds of what the one before shows, around the scene"
    if max(parts) < LEAST_PART * count:
        found += f"; they fall into {len(parts)} groups with nothing in common, the largest of {max(parts)}"
        advice = "photographs between the groups"
    raise StageFailed("mapping", found, advice)


def components(two_views: TwoViews, count: int) -> list[list[int]]:
    """The groups of photographs that pairs connect."""
    group = list(range(count))
    for i, j in two_views:
        a, b = group[i], group[j]
        group = [a if g == b else g for g in group]
    return [[i for i, g in enumerate(group) if g == each] for each in sorted(set(group))]


def others_left_out(counts: list[int]) -> str:
    """What is said of the models beside the one that is kept; counts: of their photographs."""
    if len(counts) == 1:
        return f"a separate model of {counts[0]} photographs was left out"
    listed = ", ".join(map(str, counts[:-1])) + f" and {counts[-1]}"
    return f"{len(counts)} separate models were left out, of {listed} photographs"


def warnings(model: pycolmap.Reconstruction, errors: np.ndarray) -> list[str]:
    """What may spoil a scene made from the model, one line each; errors: pixels, of every observation."""
    said = []
    if (count := model.num_reg_images()) < FEW_PHOTOGRAPHS:
        said.append(f"few photographs: {count}; a scene that holds from new places takes 20 to 100")
    points = float(np.median([model.images[i].num_points3D for i in model.reg_image_ids()]))
    if points < FEWEST_POINTS:
        said.append(f"few matches: half of the photographs see fewer than {points:.0f} points; more overlap would help")
    angle = median_angle(model)
    if angle < LEAST_ANGLE:
        said.append(
            f"nearly pure rotation or forward motion: points are seen under {angle:.1f} degrees in the median, so that "
            "depths are uncertain; moving sideways would help"
        )
    if (error := float(np.median(errors))) > WORST_ERROR:
        said.append(f"the median reprojection error is {error:.1f} px; something moved, or the lens is unusual")
    return said


def median_angle(model: pycolmap.Reconstruction) -> float:
    """The median over points of the angle, in degrees, between the first and last ray that see it."""
    centre = {i: model.images[i].projection_center() for i in model.reg_image_ids()}
    points = list(model.points3D.values())
    angles = []
    for point in points[:: max(1, len(points) // SAMPLED_POINTS)]:
        seen = sorted({element.image_id for element in point.track.elements} & centre.keys())
        if len(seen) >= 2:
            a, b = (centre[i] - point.xyz for i in (seen[0], seen[-1]))
            cosine = a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-300)
            angles.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return float(np.median(angles)) if angles else 0.0


def names_of(names: list[str]) -> str:
    """The first few names, for a line of text."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
