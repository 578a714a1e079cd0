"""Sparse points of a capture: what structure from motion found, for scene boxes and for Gaussians to start from.

Letters: P points, T observations (a point seen in an image).
"""

from dataclasses import dataclass, replace

import numpy as np

from ..geometry import SceneTransform


@dataclass(frozen=True)
class Points:
    """position: [P, 3] float64, in the world of a `Capture` and in scene coordinates of a `Scene`. color: [P, 3] uint8.

    Where it is known which images see a point: point i is seen by seen_by[seen_start[i]:seen_start[i + 1]], which are
    indices into image_names. seen_start: [P + 1] int64, seen_by: [T] int32; both None where it is not known.
    """

    position: np.ndarray
    color: np.ndarray
    seen_start: np.ndarray | None = None
    seen_by: np.ndarray | None = None
    image_names: tuple[str, ...] = ()

    def __post_init__(self):
        p = len(self.position)
        if self.position.shape != (p, 3) or self.color.shape != (p, 3):
            raise ValueError(f"Points: shapes {self.position.shape}, {self.color.shape}; they must be (P, 3)")
        if self.seen_start is not None and self.seen_start.shape != (p + 1,):
            raise ValueError(f"Points.seen_start has shape {self.seen_start.shape}; it must be ({p + 1},)")

    def __len__(self) -> int:
        return len(self.position)

    def transformed(self, transform: SceneTransform) -> "Points":
        """The same points in the coordinates to which `transform` leads."""
        turned = self.position @ np.asarray(transform.rotation, dtype=np.float64).T
        return replace(self, position=transform.scale * turned + np.asarray(transform.offset))

    def finite(self) -> "Points":
        """The points without those that are NaN or infinite."""
        good = np.isfinite(self.position).all(1)
        if good.all():
            return self
        if self.seen_start is None:
            return replace(self, position=self.position[good], color=self.color[good])
        counts = np.diff(self.seen_start)
        start = np.concatenate(([0], np.cumsum(counts[good])))
        return Points(
            self.position[good], self.color[good], start, self.seen_by[np.repeat(good, counts)], self.image_names
        )
