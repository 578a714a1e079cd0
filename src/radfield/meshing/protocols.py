"""A mesh compared with scanned points, as two benchmarks do it. Lengths are in the unit of the scan.

*DTU* (Jensen et al. 2014, in the form that papers report; millimetres): the mesh becomes points 0.2 apart; those in the
scan's box, a margin of 60 around it (120 above), count, and towards the scan only those that the observation mask has
seen. accuracy: mean of their distances to the scan that are below 20; completeness: the same from the scan's points
above the ground plane to the mesh's; chamfer: the mean of both.

*Tanks and Temples* (Knapitsch et al. 2017): mesh and scan are cut by a polygon along an axis, and both reduced to one
point per voxel of tau / 2; precision and recall are the shares of them within tau of the other's. The mesh must be
where the scan is (a 4x4 matrix takes it there): their registration, which moves it further, is left out.

Letters: N points, T triangles, V corners of the polygon. Nearest points are found by scipy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .optional import optional

SPACING, FARTHEST = 0.2, 20.0  # of DTU, in mm
MARGIN = 60.0
_FIRST = 100_000  # points that are thinned at first


@dataclass(frozen=True)
class Observed:
    """DTU's observation mask: seen [X, Y, Z] bool of voxels of side `size`, the first centred at low [3]; high: [3]."""

    seen: np.ndarray
    low: np.ndarray
    high: np.ndarray
    size: float

    def around(self, points: np.ndarray) -> np.ndarray:
        """[N] bool: in the box with its margin."""
        return ((points >= self.low - MARGIN) & (points < self.high + 2 * MARGIN)).all(-1)

    def sees(self, points: np.ndarray) -> np.ndarray:
        """[N] bool: in a voxel that was seen."""
        place = np.round((points - self.low) / self.size)
        inside = ((place >= 0) & (place < self.seen.shape)).all(-1)
        return inside & self.seen[tuple(np.where(inside[:, None], place, 0).astype(np.int64).T)]


@dataclass(frozen=True)
class Crop:
    """A polygon [V, 2] in the two axes beside `axis` (0, 1, 2; in rising order), between low and high along it."""

    axis: int
    low: float
    high: float
    polygon: np.ndarray

    def holds(self, points: np.ndarray) -> np.ndarray:
        """[N] bool: an odd number of the polygon's sides crosses the half-line from the point along its first axis."""
        x, y = np.delete(points, self.axis, 1).T
        inside = np.zeros(len(points), bool)
        for (ax, ay), (bx, by) in zip(self.polygon, np.roll(self.polygon, -1, 0), strict=True):
            if ay != by:
                inside ^= ((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
        return inside & (points[:, self.axis] >= self.low) & (points[:, self.axis] <= self.high)


def dtu(
    mesh: np.ndarray,
    scan: np.ndarray,
    *,
    observed: Observed | None = None,
    plane: np.ndarray | None = None,
    spacing: float = SPACING,
    farthest: float = FARTHEST,
    seed: int = 0,
) -> dict:
    """mesh: [N, 3] points of the mesh, at most `spacing` apart (`points_on`); scan: [N, 3]; plane: [4], what is above
    has plane . (x, y, z, 1) > 0. A mean of no distance is None."""
    mesh = thinned(mesh, spacing, seed)
    if observed is not None:
        mesh = mesh[observed.around(mesh)]
    seen = mesh if observed is None else mesh[observed.sees(mesh)]
    above = scan if plane is None else scan[scan @ plane[:3] + plane[3] > 0]
    parts = [_mean(d[d < farthest]) for d in (nearest(seen, scan), nearest(above, mesh))]
    whole = None if None in parts else 0.5 * sum(parts)
    counts = {"points": len(mesh), "points_seen": len(seen), "scan_points": len(scan), "scan_points_above": len(above)}
    return {"chamfer": whole, "accuracy": parts[0], "completeness": parts[1], **counts}


def tanks_and_temples(mesh: np.ndarray, scan: np.ndarray, tau: float, crop: Crop | None = None) -> dict:
    """mesh, scan: [N, 3] points, in one place. Shares of nothing are 0."""
    parts = [each if crop is None else each[crop.holds(each)] for each in (mesh, scan)]
    a, b = (one_per_voxel(each, tau / 2) for each in parts)
    precision, recall = (_mean(d < tau) or 0.0 for d in (nearest(a, b), nearest(b, a)))
    score = 2 * precision * recall / max(precision + recall, 1e-12)
    figures = {"f_score": score, "precision": precision, "recall": recall, "threshold": tau}
    return {**figures, "points": len(a), "scan_points": len(b)}


def points_on(vertices: np.ndarray, triangles: np.ndarray, spacing: float) -> np.ndarray:
    """[N, 3]: the corners of the triangles, and points of a lattice in each triangle, about `spacing` apart."""
    a, b, c = (vertices[triangles[:, i]].astype(np.float64) for i in range(3))
    u, v = b - a, c - a
    lengths = [np.linalg.norm(side, axis=-1) for side in (u, v)]
    double = np.linalg.norm(np.cross(u, v), axis=-1)
    # cells of the lattice have the area of a square of that spacing, whatever the angle
    step = spacing * np.sqrt(lengths[0] * lengths[1] / np.maximum(double, 1e-30))
    m, n = (np.where(double > 0, np.floor(length / step), 0).astype(np.int64) for length in lengths)
    of = np.repeat(np.arange(len(m)), m * n)
    i = np.arange(len(of)) - np.repeat(np.cumsum(m * n) - m * n, m * n)
    s, t = (i // n[of] + 0.5) / m[of], (i % n[of] + 0.5) / n[of]
    kept = s + t < 1
    of, s, t = of[kept], s[kept, None], t[kept, None]
    return np.concatenate((vertices[np.unique(triangles)].astype(np.float64), a[of] + s * u[of] + t * v[of]))


def thinned(points: np.ndarray, spacing: float, seed: int = 0) -> np.ndarray:
    """The points that stay where one after another, in random order, takes all others within `spacing` away. They are
    taken in blocks, each as large as what has stayed before: the result is that of one block."""
    tree = optional("scipy.spatial", "--protocol").cKDTree
    points = points[np.random.default_rng(seed).permutation(len(points))]
    kept, begin = points[:0], 0
    while begin < len(points):
        block = points[begin : begin + max(_FIRST, len(kept))]
        begin += len(block)
        if len(kept):
            block = block[tree(kept).query(block, distance_upper_bound=spacing)[0] > spacing]
        kept = np.concatenate(
            (kept, block[_first_of(tree(block).query_pairs(spacing, output_type="ndarray"), len(block))])
        )
    return kept


def _first_of(pairs: np.ndarray, count: int) -> np.ndarray:
    """[count] bool: which stay where each, in order, takes its later partners away. Whoever has no earlier partner that
    is undecided stays; a few rounds decide all."""
    early, late = pairs.min(1), pairs.max(1)
    stays, undecided = np.zeros(count, bool), np.ones(count, bool)
    while undecided.any():
        waiting = np.zeros(count, bool)
        waiting[late[undecided[early]]] = True
        fresh = undecided & ~waiting
        stays |= fresh
        undecided &= ~fresh
        undecided[late[fresh[early]]] = False
        open_pairs = undecided[late] & undecided[early]
        early, late = early[open_pairs], late[open_pairs]
    return stays


def one_per_voxel(points: np.ndarray, side: float) -> np.ndarray:
    """The means of the points in each voxel; the first voxel's centre is at the lowest coordinates."""
    if not len(points):
        return points
    place = np.floor((points - points.min(0)) / side + 0.5).astype(np.int64)
    _, voxel, count = np.unique(place, axis=0, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(voxel.reshape(-1), points[:, i], len(count)) for i in range(3)], 1)
    return sums / count[:, None]


def nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[N] distances of points to the nearest of others, inf where there is none."""
    tree = optional("scipy.spatial", "--protocol").cKDTree
    if not len(points) or not len(others):
        return np.full(len(points), np.inf)
    return tree(others).query(points)[0]


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
