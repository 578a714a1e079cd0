"""Lens models and a last bundle adjustment of everything.

Mapping uses one focal length and one radial coefficient, which any capture determines. More is added a step at a time:
a second coefficient, the principal point, tangential terms; a step stays where the median reprojection error falls by
`WORTHWHILE` or more and the principal point stays near the middle. On a ring of 19 photographs that determines no
principal point none of them stays; on a phone's capture two do, and the cameras' centres get four times closer to
those of a full-size reconstruction.
"""

from __future__ import annotations

import numpy as np
import pycolmap

from .matching import LENS

WORTHWHILE = 0.005
# Measured: 3 % for one phone's photographs, 4 % for a walk's, 0 % for a ring's; 19 % where two zooms were mixed.
DIFFERENT = 0.1
# How far the principal point may lie from the middle, in parts of the longer side.
PRINCIPAL_RANGE = 0.05
#: lens model, and whether the principal point is found too; in order
STEPS = (("RADIAL", False), ("RADIAL", True), ("OPENCV", True))
# The adjustment ends where a step gains less: the same lens within 0.1 px in a third of the time that COLMAP's 0 takes.
TOLERANCE, MOST_STEPS = 1e-5, 50
FEWEST_IMAGES = 8  # per camera, for more parameters than mapping has


def refine(model: pycolmap.Reconstruction, threads: int) -> tuple[pycolmap.Reconstruction, list[dict]]:
    """The model with the richest lens that its photographs determine; and what was tried: lens, whether its principal
    point was found too, the median reprojection error in pixels of the copies, and whether it was kept."""
    tried = [_tried("as mapped", False, model, True)]
    model = adjusted(model, None, False, threads)
    cameras = {model.images[i].camera_id for i in model.reg_image_ids()}
    tried.append(_tried(LENS, False, model, True))
    if model.num_reg_images() < FEWEST_IMAGES * len(cameras):
        return model, tried
    error = tried[-1]["error_px"]
    for lens, principal in STEPS:
        richer = adjusted(model, lens, principal, threads)
        tried.append(_tried(lens, principal, richer, False))
        if tried[-1]["error_px"] < (1 - WORTHWHILE) * error and _is_centred(richer):
            model, error = richer, tried[-1]["error_px"]
            tried[-1]["kept"] = True
    return model, tried


def _tried(lens: str, principal: bool, model: pycolmap.Reconstruction, kept: bool) -> dict:
    error = float(np.median(reprojection_errors(model)))
    return {"lens": lens, "principal_point": principal, "error_px": error, "kept": kept}


def lenses_differ(model: pycolmap.Reconstruction, threads: int) -> bool:
    """Whether lenses of their own differ by `DIFFERENT` in focal length and lower the median reprojection error by as
    much, as where photographs of several zooms were taken for one camera's."""
    if len({model.images[i].camera_id for i in model.reg_image_ids()}) == model.num_reg_images():
        return False
    shared, own = (adjusted(each, None, False, threads) for each in (model, _with_own_lenses(model)))
    focal = [camera.mean_focal_length() for camera in own.cameras.values()]
    better = np.median(reprojection_errors(own)) < (1 - DIFFERENT) * np.median(reprojection_errors(shared))
    return bool(better and max(focal) > (1 + DIFFERENT) * min(focal))


def _with_own_lenses(model: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    own = pycolmap.Reconstruction()
    for i in model.reg_image_ids():
        image = model.images[i]
        lens = pycolmap.Camera(model.cameras[image.camera_id].todict())
        lens.camera_id = i
        own.add_camera_with_trivial_rig(lens)
        pixels = np.array([point.xy for point in image.points2D]).reshape(-1, 2)
        own.add_image_with_trivial_frame(pycolmap.Image(image.name, pixels, i, i), image.cam_from_world())
    for point in model.points3D.values():
        own.add_point3D(point.xyz, point.track, point.color)
    return own


def reprojection_errors(model: pycolmap.Reconstruction) -> np.ndarray:
    """Of every observation: the distance from the point's projection, in pixels. One inf where there is none."""
    errors = [_errors_of(model, model.images[i]) for i in model.reg_image_ids()]
    return np.concatenate(errors) if errors else np.array([np.inf])


def _errors_of(model: pycolmap.Reconstruction, image: pycolmap.Image) -> np.ndarray:
    seen = image.get_observation_points2D()
    if not seen:
        return np.empty(0)
    pose = image.cam_from_world().matrix()
    world = np.array([model.points3D[point.point3D_id].xyz for point in seen])
    pixels = np.array([point.xy for point in seen])
    projected = np.array(model.cameras[image.camera_id].img_from_cam(world @ pose[:, :3].T + pose[:, 3]))
    return np.nan_to_num(np.linalg.norm(projected - pixels, axis=1), nan=np.inf)


def adjusted(
    model: pycolmap.Reconstruction, lens: str | None, principal: bool, threads: int
) -> pycolmap.Reconstruction:
    """A copy after a bundle adjustment of everything. lens: the model that its lenses become first, None for what they
    are; principal: whether principal points are found too."""
    model = pycolmap.Reconstruction(model)
    for camera in model.cameras.values():
        if lens is not None:
            _change_lens(camera, lens)
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_principal_point = principal
    options.print_summary = False
    solver = options.ceres.solver_options
    solver.num_threads, solver.function_tolerance, solver.max_num_iterations = threads, TOLERANCE, MOST_STEPS
    pycolmap.bundle_adjustment(model, options)
    return model


def _change_lens(camera: pycolmap.Camera, lens: str) -> None:
    fx, fy, cx, cy, *distortion = opencv_parameters(camera)
    k1, k2, p1, p2 = distortion
    camera.model = getattr(pycolmap.CameraModelId, lens)
    camera.params = [fx, cx, cy, k1, k2] if lens == "RADIAL" else [fx, fy, cx, cy, k1, k2, p1, p2]


def opencv_parameters(camera: pycolmap.Camera) -> list[float]:
    """fx, fy, cx, cy, k1, k2, p1, p2 of the models used here, all of which OPENCV contains."""
    p = list(camera.params)
    match camera.model_name:
        case "SIMPLE_RADIAL":
            return [p[0], p[0], p[1], p[2], p[3], 0.0, 0.0, 0.0]
        case "RADIAL":
            return [p[0], p[0], p[1], p[2], p[3], p[4], 0.0, 0.0]
        case "OPENCV":
            return p
    raise ValueError(f"lens model {camera.model_name} is not used here")


def _is_centred(model: pycolmap.Reconstruction) -> bool:
    used = {model.images[i].camera_id for i in model.reg_image_ids()}
    for camera in (model.cameras[i] for i in used):
        off = (camera.principal_point_x - camera.width / 2, camera.principal_point_y - camera.height / 2)
        if np.hypot(*off) > PRINCIPAL_RANGE * max(camera.width, camera.height):
            return False
    return True
