"""Camera poses as files state them, checked, and turned from OpenGL to OpenCV axes.

OpenGL (Blender, instant-ngp, nerfstudio): x right, y up, z backward. OpenCV: x right, y down, z forward. So the
second and third column of the camera-to-world matrix change sign; the world's axes stay.
"""

import numpy as np

from ..errors import BadInput

# Poses written with three or four decimals still pass; they are brought to the closest rotation.
RIGID_TOLERANCE = 1e-2


def read_pose(value, where: str) -> np.ndarray:
    """OpenGL camera-to-world nested list to [4, 4] float64 with OpenCV axes, exactly rigid."""
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = None
    if matrix is None or matrix.shape != (4, 4):
        found = "no table of numbers" if matrix is None else "x".join(map(str, matrix.shape)) or "a number"
        raise BadInput(f"{where}: transform_matrix is {found}; it must be 4x4 numbers")
    if not np.isfinite(matrix).all():
        raise BadInput(f"{where}: transform_matrix has NaN or infinite entries; a pose must be finite")
    if np.abs(matrix[3] - (0, 0, 0, 1)).max() > 1e-6:
        raise BadInput(f"{where}: transform_matrix ends in row {matrix[3].tolist()}; it must be 0 0 0 1")
    matrix[:3, :3] = _rotation(matrix[:3, :3], where) * (1, -1, -1)
    return matrix


def _rotation(block: np.ndarray, where: str) -> np.ndarray:
    # The closest rotation (polar decomposition), where `block` is one up to the tolerance.
    u, stretch, v = np.linalg.svd(block)
    low, high = stretch[2], stretch[0]
    if high - low <= RIGID_TOLERANCE * high and abs(high - 1) > RIGID_TOLERANCE:
        raise BadInput(
            f"{where}: transform_matrix scales by {high:.4g}; a pose must be rigid (divide its rotation block by it)"
        )
    if not (abs(high - 1) <= RIGID_TOLERANCE and abs(low - 1) <= RIGID_TOLERANCE):
        raise BadInput(f"{where}: transform_matrix stretches by {low:.4g} to {high:.4g}; a pose must be rigid")
    if np.linalg.det(u @ v) < 0:
        raise BadInput(f"{where}: transform_matrix mirrors (determinant -1); a pose must be a rotation and a shift")
    return u @ v


def rigid_inverse(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """[4, 4] camera to world from the rotation [3, 3] and translation [3] of world to camera."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation.T, -rotation.T @ translation
    return pose


def checked(pose: np.ndarray, where: str, *, opengl: bool = False) -> np.ndarray:
    """A [4, 4] or [3, 4] camera-to-world matrix as `read_pose` has it; from OpenGL axes where these are said so."""
    pose = np.asarray(pose, dtype=np.float64)
    if pose.shape == (3, 4):
        pose = np.vstack([pose, (0, 0, 0, 1)])
    return read_pose(pose if opengl else pose * (1, -1, -1, 1), where)
