"""Features, matches and two-view geometry, by pycolmap, in batches so that there is progress to tell.

The database holds copy i of the job as image `names[i]`; ids are pycolmap's. Pixels are those of the working copies,
in COLMAP's convention (the first pixel's centre is (0.5, 0.5)), which is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pycolmap

from .pairs import Features, Pairs

LENS = "SIMPLE_RADIAL"
# Where EXIF says nothing: in units of the longer side (COLMAP's own guess).
GUESSED_FOCAL = 1.2
FEATURE_BATCH, PAIR_BATCH = 8, 128
SEED = 0

Progress = Callable[[int, int], None]


class Matches:
    """The database of one job, and its images in order."""

    def __init__(self, path: Path, images: Path, names: Sequence[str], threads: int):
        self.path, self.images, self.names, self.threads = path, images, list(names), threads
        self.matched: set[tuple[int, int]] = set()

    def find_features(self, cameras: Sequence[dict], most: int, progress: Progress) -> None:
        """cameras: per camera its `size`, `focal` (pixels of the copies, or None) and `members` (indices)."""
        options = pycolmap.FeatureExtractionOptions()
        options.num_threads, options.sift.max_num_features = self.threads, most
        done, total = 0, sum(len(camera["members"]) for camera in cameras)
        for camera in cameras:
            reader = pycolmap.ImageReaderOptions()
            reader.existing_camera_id = self._add_camera(camera)
            for batch in _batches(camera["members"], FEATURE_BATCH):
                pycolmap.extract_features(
                    self.path,
                    self.images,
                    image_names=[self.names[i] for i in batch],
                    reader_options=reader,
                    extraction_options=options,
                    device=pycolmap.Device.cpu,
                )
                done += len(batch)
                progress(done, total)

    def _add_camera(self, camera: dict) -> int:
        width, height = camera["size"]
        focal = camera["focal"] or GUESSED_FOCAL * max(width, height)
        lens = pycolmap.Camera.create_from_model_name(0, LENS, focal, width, height)
        lens.has_prior_focal_length = camera["focal"] is not None
        with pycolmap.Database.open(self.path) as database:
            return database.write_camera(lens)

    def features(self) -> Features:
        """Descriptors [K, 128] uint8 and scales [K] of every image, in order."""
        with pycolmap.Database.open(self.path) as database:
            found = []
            for i in self.ids(database):
                shape = database.read_keypoints(i).reshape(-1, 6)  # x, y and a 2x2 affine shape
                scale = np.hypot(shape[:, 2], shape[:, 4])
                found.append((np.asarray(database.read_descriptors(i).data).reshape(-1, 128), scale))
        return found

    def ids(self, database) -> list[int]:
        by_name = {image.name: image.image_id for image in database.read_all_images()}
        return [by_name[name] for name in self.names]

    def match(self, pairs: Pairs, progress: Progress) -> None:
        """Matches the pairs that are not matched yet, and finds their two-view geometry."""
        pairs = [pair for pair in pairs if pair not in self.matched]
        matching, verification = pycolmap.FeatureMatchingOptions(), pycolmap.TwoViewGeometryOptions()
        matching.num_threads = self.threads
        verification.ransac.random_seed = SEED
        listing = self.path.with_name("pairs.txt")
        pairing = pycolmap.ImportedPairingOptions()
        pairing.match_list_path = listing
        for batch in _batches(pairs, PAIR_BATCH * self.threads):
            listing.write_text("".join(f"{self.names[i]} {self.names[j]}\n" for i, j in batch))
            pycolmap.match_image_pairs(
                self.path,
                matching_options=matching,
                pairing_options=pairing,
                verification_options=verification,
                device=pycolmap.Device.cpu,
            )
            self.matched |= set(batch)
            progress(len(self.matched), len(pairs))

    def two_views(self) -> dict[tuple[int, int], tuple[int, str, float]]:
        """Per verified pair: inliers, the kind of geometry, and the median shift of the inliers in parts of the longer
        side."""
        found = {}
        with pycolmap.Database.open(self.path) as database:
            ids, points, cameras = self.ids(database), {}, {c.camera_id: c for c in database.read_all_cameras()}
            of = {image.image_id: cameras[image.camera_id] for image in database.read_all_images()}
            for i, j in sorted(self.matched):
                geometry = database.read_two_view_geometry(ids[i], ids[j])
                inliers = np.asarray(geometry.inlier_matches).reshape(-1, 2)
                if not len(inliers):
                    continue
                for k in (i, j):
                    if k not in points:
                        points[k] = database.read_keypoints(ids[k])[:, :2]
                shift = np.linalg.norm(points[i][inliers[:, 0]] - points[j][inliers[:, 1]], axis=1)
                side = max(of[ids[i]].width, of[ids[i]].height)
                kind = pycolmap.TwoViewGeometryConfiguration(geometry.config).name
                found[i, j] = (len(inliers), kind, float(np.median(shift)) / side)
        return found


def _batches(items: Sequence, size: int) -> list:
    return [items[start : start + size] for start in range(0, len(items), size)]
