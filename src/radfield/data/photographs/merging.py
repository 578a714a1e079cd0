"""Models that share photographs become one.

Where a model cannot grow further the mapper starts another, which may register photographs of the first as well. A
photograph in both has the same keypoints in both, and a keypoint that sees a point of each says that these are one
point. From such pairs follows the similarity between the models' worlds (Umeyama 1991, in a RANSAC); it is believed
where the pairs' points, moved by it, are seen at their keypoints again, in both models. Models that share no
photographs, or that disagree about those they share (as where a scene repeats itself), stay apart.

Letters: K pairs of points. An observation is (image id, number of the keypoint).
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pycolmap

from .matching import SEED
from .refine import adjusted

LEAST_SHARED = 2  # photographs
LEAST_PAIRS = 30
# How far the two points of a pair may lie apart, in parts of their distance from the camera.
APART = 0.03
# Pixels of the copies within which a moved point is seen again, and the part of the pairs of which this must hold.
SEEN_AGAIN, AGREEING = 8.0, 0.5
# Observations further off than this after the merged model's adjustment are dropped: COLMAP's filter_max_reproj_error.
WORST_OBSERVATION = 4.0


def merge_models(models: list[pycolmap.Reconstruction], threads: int) -> list[tuple[pycolmap.Reconstruction, int]]:
    """(model, of how many of the given it was made), the largest first."""
    waiting, merged = sorted(models, key=_size), []
    while waiting:
        whole, parts = waiting.pop(), 1
        while (found := _next_part(whole, waiting)) is not None:
            other, whole_from_other = found
            whole, parts = joined(whole, waiting.pop(other), whole_from_other, threads), parts + 1
        merged.append((whole, parts))
    return sorted(merged, key=lambda each: _size(each[0]), reverse=True)


def _size(model: pycolmap.Reconstruction) -> tuple[int, int]:
    return model.num_reg_images(), model.compute_num_observations()


def _next_part(whole: pycolmap.Reconstruction, waiting: list) -> tuple[int, pycolmap.Sim3d] | None:
    # The largest that belongs to it: its place in `waiting`, and how it is moved.
    for i in reversed(range(len(waiting))):
        if (moved := similarity(waiting[i], whole)) is not None:
            return i, moved
    return None


def similarity(source: pycolmap.Reconstruction, target: pycolmap.Reconstruction) -> pycolmap.Sim3d | None:
    """The target's world from the source's; None where they share too little, or disagree."""
    shared = sorted(set(source.reg_image_ids()) & set(target.reg_image_ids()))
    pairs = [(i, each) for i in shared if len(each := _pairs(source.images[i], target.images[i]))]
    if len(pairs) < LEAST_SHARED or sum(len(each) for _, each in pairs) < LEAST_PAIRS:
        return None
    a = np.concatenate([_points(source, each[:, 1]) for _, each in pairs])
    b = np.concatenate([_points(target, each[:, 2]) for _, each in pairs])
    away = [_points(target, each[:, 2]) - target.images[i].projection_center() for i, each in pairs]
    options = pycolmap.RANSACOptions()
    options.random_seed = SEED
    options.max_error = APART * float(np.median(np.linalg.norm(np.concatenate(away), axis=1)))
    found = pycolmap.estimate_sim3d_robust(a, b, options)
    if found is None:
        return None
    moved = found["tgt_from_src"]
    there = np.concatenate([_errors(target, i, each[:, 0], moved, _points(source, each[:, 1])) for i, each in pairs])
    back = moved.inverse()
    here = np.concatenate([_errors(source, i, each[:, 0], back, _points(target, each[:, 2])) for i, each in pairs])
    return moved if np.mean(np.maximum(there, here) < SEEN_AGAIN) >= AGREEING else None


def _pairs(source: pycolmap.Image, target: pycolmap.Image) -> np.ndarray:
    # [K, 3]: a keypoint, its point in the source, its point in the target.
    both = zip(source.points2D, target.points2D, strict=True)
    rows = [(k, p.point3D_id, q.point3D_id) for k, (p, q) in enumerate(both) if p.has_point3D() and q.has_point3D()]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def _points(model: pycolmap.Reconstruction, numbers: np.ndarray) -> np.ndarray:
    return np.array([model.points3D[int(i)].xyz for i in numbers]).reshape(-1, 3)


def _errors(model: pycolmap.Reconstruction, i: int, keypoints: np.ndarray, moved: pycolmap.Sim3d, points: np.ndarray):
    # [K] pixels between image i's keypoints and where its camera sees the points [K, 3] of the other world.
    image, similar = model.images[i], moved.matrix()
    pose = image.cam_from_world().matrix()
    local = (points @ similar[:, :3].T + similar[:, 3]) @ pose[:, :3].T + pose[:, 3]
    pixels = np.array([image.points2D[int(k)].xy for k in keypoints])
    errors = np.linalg.norm(np.array(model.cameras[image.camera_id].img_from_cam(local)) - pixels, axis=1)
    return np.where(np.isfinite(errors) & (local[:, 2] > 0), errors, np.inf)


def joined(
    target: pycolmap.Reconstruction, source: pycolmap.Reconstruction, moved: pycolmap.Sim3d, threads: int
) -> pycolmap.Reconstruction:
    """One model in the target's world, adjusted as a whole. What both have starts from the target's values."""
    source = pycolmap.Reconstruction(source)
    source.transform(moved)
    model = pycolmap.Reconstruction()
    for each in (target, source):
        for i in each.reg_image_ids():
            image = each.images[i]
            if not model.exists_camera(image.camera_id):
                model.add_camera_with_trivial_rig(pycolmap.Camera(each.cameras[image.camera_id].todict()))
            if not model.exists_image(i):
                pixels = np.array([point.xy for point in image.points2D]).reshape(-1, 2)
                bare = pycolmap.Image(image.name, pixels, image.camera_id, i)
                model.add_image_with_trivial_frame(bare, image.cam_from_world())
    for point in target.points3D.values():
        model.add_point3D(point.xyz, point.track, point.color)
    for point in source.points3D.values():
        _add_point(model, point)
    model = adjusted(model, None, False, threads)
    observations = pycolmap.ObservationManager(model)
    if observations.filter_points3D_with_large_reprojection_error(WORST_OBSERVATION, set(model.point3D_ids())):
        model = adjusted(model, None, False, threads)
    return model


def _add_point(model: pycolmap.Reconstruction, point: pycolmap.Point3D) -> None:
    # Its observations go to the point that most of them belong to already, once per photograph; or to a new point.
    free, owners = [], Counter()
    for element in point.track.elements:
        seen = model.images[element.image_id].points2D[element.point2D_idx]
        if seen.has_point3D():
            owners[seen.point3D_id] += 1
        else:
            free.append(element)
    if not owners:
        model.add_point3D(point.xyz, point.track, point.color)
        return
    owner = owners.most_common(1)[0][0]
    there = {element.image_id for element in model.points3D[owner].track.elements}
    for element in free:
        if element.image_id not in there:
            model.add_observation(owner, element)
            there.add(element.image_id)
