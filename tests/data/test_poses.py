"""Poses: OpenGL axes turned to OpenCV's, and what is no pose refused."""

import numpy as np
import pytest

from radfield.data.poses import read_pose
from radfield.errors import BadInput

IDENTITY = np.eye(4)


def changed(row: int, column: int, value) -> list:
    matrix = IDENTITY.tolist()
    matrix[row][column] = value
    return matrix


def test_an_opengl_camera_looks_along_minus_z():
    pose = read_pose(IDENTITY.tolist(), "here")
    assert pose[:3, 2].tolist() == [0, 0, -1] and pose[:3, 1].tolist() == [0, -1, 0]
    assert pose[:3, 0].tolist() == [1, 0, 0]


def test_position_stays():
    assert read_pose(changed(1, 3, 5.0), "here")[:3, 3].tolist() == [0, 5, 0]


def test_rounded_rotations_become_exact():
    angle = 0.3
    matrix = IDENTITY.copy()
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose = read_pose(matrix.round(3).tolist(), "here")
    np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-14)
    np.testing.assert_allclose(pose[:3, :3] * (1, -1, -1), matrix[:3, :3], atol=1e-3)


@pytest.mark.parametrize(
    "matrix, rule",
    [
        (IDENTITY[:3].tolist(), "transform_matrix is 3x4; it must be 4x4"),
        ([[1, 0], [0]], "is no table of numbers; it must be 4x4"),
        (7, "is a number; it must be 4x4"),
        ("pose", "is no table of numbers"),
        (None, "it must be 4x4"),
        (changed(0, 0, "a"), "is no table of numbers"),
        (changed(0, 3, float("nan")), "has NaN or infinite entries"),
        (changed(2, 2, float("inf")), "has NaN or infinite entries"),
        (changed(3, 0, 0.5), "it must be 0 0 0 1"),
        ((np.diag([2.0, 2, 2, 1])).tolist(), "scales by 2; a pose must be rigid"),
        (changed(0, 0, 1.5), "stretches by 1 to 1.5; a pose must be rigid"),
        (changed(0, 0, -1.0), "mirrors"),
        (np.diag([0.0, 0, 0, 1]).tolist(), "a pose must be rigid"),
    ],
)
def test_what_is_no_pose(matrix, rule):
    with pytest.raises(BadInput, match=rule):
        read_pose(matrix, "here")
