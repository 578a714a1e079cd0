"""Cameras and points from matches: several attempts, the best one kept.

The incremental mapper's defaults suit captures around something. A walk straight ahead has no pair of photographs that
passes as its first (at most 95 % of forward motion, 16 degrees between rays), and its points are seen under small
angles. So where photographs are missing afterwards, these rules are relaxed, and then the global mapper is asked,
which needs no first pair. Photographs still missing are matched against all others, and the mapping goes on from there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pycolmap

from .matching import SEED, Matches
from .merging import merge_models

# An attempt that registers this part is taken at once.
ENOUGH = 0.95
# A photograph that sees fewer points than this has no trustworthy pose.
LEAST_POINTS = 15
# In units of the longer side; a focal length outside is a sign of a degenerate model.
FOCAL_RANGE = (0.25, 8.0)
LEAST_IMAGES = 3


@dataclass
class Mapped:
    """model: the reconstruction. attempt: what found it. others: of each smaller model that was left out, how many
    photographs it alone has. merged: of how many models it was made."""

    model: pycolmap.Reconstruction
    attempt: str
    others: list[int]
    merged: int

    @property
    def score(self) -> tuple[int, int]:
        return self.model.num_reg_images(), self.model.compute_num_observations()


def map_cameras(matches: Matches, work: Path, progress: Callable[[int, int], None]) -> Mapped | None:
    """The best attempt, or None where no model of three photographs comes out."""
    best, total = None, len(matches.names)
    for attempt, run in ATTEMPTS.items():
        found = best_of(run(matches, _empty(work / "models"), progress), attempt, matches.threads)
        if found and (best is None or found.score > best.score):
            best = found
        if best and best.score[0] >= ENOUGH * total:
            break
    return best


def go_on(matches: Matches, mapped: Mapped, work: Path, progress: Callable[[int, int], None]) -> Mapped:
    """Tries to register what is missing, after more pairs were matched; `mapped` where nothing is won."""
    start = _empty(work / "start")
    mapped.model.write(start)
    options = _relaxed()
    models = _incremental(matches, _empty(work / "models"), progress, options, start)
    found = best_of(models, mapped.attempt, matches.threads)
    return found if found and found.score[0] > mapped.score[0] else mapped


def missing(matches: Matches, model: pycolmap.Reconstruction) -> list[int]:
    """Indices of the photographs without a camera."""
    registered = _names(model)
    return [i for i, name in enumerate(matches.names) if name not in registered]


def _strict() -> pycolmap.IncrementalPipelineOptions:
    options = pycolmap.IncrementalPipelineOptions()
    options.extract_colors = False
    options.min_model_size = LEAST_IMAGES
    options.max_num_models = 5
    options.random_seed = SEED
    # The whole is adjusted when it has grown by a quarter, not by a tenth: `refine.py` adjusts the end result anyway.
    options.ba_global_frames_ratio = options.ba_global_points_ratio = 1.25
    return options


def _relaxed() -> pycolmap.IncrementalPipelineOptions:
    options = _strict()
    options.mapper.init_max_forward_motion = 1.0
    options.mapper.init_min_tri_angle = 4.0
    options.mapper.init_min_num_inliers = 50
    options.mapper.filter_min_tri_angle = options.triangulation.min_angle = 0.5
    options.mapper.abs_pose_min_num_inliers = 15
    return options


def _incremental(matches: Matches, output: Path, progress, options, start: Path | None = None) -> list:
    options.num_threads = matches.threads
    total, done = len(matches.names), 0

    def count() -> None:
        nonlocal done
        done = min(done + 1, total)
        progress(done, total)

    # Its callbacks also keep Python's other thread alive, which ends this process when its parent has gone.
    found = pycolmap.incremental_mapping(
        matches.path,
        matches.images,
        output,
        options,
        input_path=start or "",
        initial_image_pair_callback=count,
        next_image_callback=count,
    )
    return list(found.values())


def _global(matches: Matches, output: Path, progress) -> list:
    options = pycolmap.GlobalPipelineOptions()
    options.num_threads, options.random_seed, options.min_model_size = matches.threads, SEED, LEAST_IMAGES
    progress(0, len(matches.names))
    return list(pycolmap.global_mapping(matches.path, matches.images, output, options).values())


#: name, and function(matches, output folder, progress) -> models; in the order they are tried
ATTEMPTS = {
    "incremental": lambda matches, output, progress: _incremental(matches, output, progress, _strict()),
    "incremental, forward motion": lambda matches, output, progress: _incremental(
        matches, output, progress, _relaxed()
    ),
    "global": _global,
}


def best_of(models: list, attempt: str, threads: int) -> Mapped | None:
    """The largest sound model, after those that share photographs were merged."""
    merged = merge_models([model for model in map(_without_weak, models) if _is_sound(model)], threads)
    sound = [(model, parts) for model, parts in merged if _is_sound(model)]
    if not sound:
        return None
    (model, parts), *others = sound
    names = _names(model)
    left_out = [count for other, _ in others if (count := len(_names(other) - names))]
    return Mapped(model, attempt, sorted(left_out), parts)


def _names(model: pycolmap.Reconstruction) -> set[str]:
    return {model.images[i].name for i in model.reg_image_ids()}


def _without_weak(model: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    for i in list(model.reg_image_ids()):
        if model.images[i].num_points3D < LEAST_POINTS:
            model.deregister_frame(model.images[i].frame_id)
    return model


def _is_sound(model: pycolmap.Reconstruction) -> bool:
    used = {model.images[i].camera_id for i in model.reg_image_ids()}
    lenses = [model.cameras[i] for i in used]
    parts = [lens.mean_focal_length() / max(lens.width, lens.height) for lens in lenses]
    return model.num_reg_images() >= LEAST_IMAGES and all(FOCAL_RANGE[0] < part < FOCAL_RANGE[1] for part in parts)


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
