"""Clouds of points from files of anyone."""

import numpy as np
import pytest

from radfield.data.cloud_files import is_cloud, read_cloud
from radfield.errors import BadInput

POINTS = np.array([[0.5, 1.0, -2.0], [3.25, np.nan, 4.0], [1e6, 2.0, 3.0]])


def ply(body: str, faces: str = "") -> bytes:
    properties = "property float x\nproperty float y\nproperty float z\n"
    return f"ply\nformat ascii 1.0\nelement vertex 3\n{properties}{faces}end_header\n{body}".encode()


BODY = "0.5 1 -2\n3.25 nan 4\n1e6 2 3\n"
NO_FACES = "element face 0\nproperty list uchar int vertex_indices\n"
FACES = NO_FACES.replace("face 0", "face 1")


def test_the_same_points_from_every_format(tmp_path):
    np.save(tmp_path / "a.npy", np.hstack((POINTS, np.ones((3, 3)))).astype(np.float32))
    (tmp_path / "b.xyz").write_text("# a scan\n0.5 1 -2 0 0 1\n\n3.25,nan,4\n1e6\t2\t3\r\n")
    (tmp_path / "c.ply").write_bytes(ply(BODY))
    (tmp_path / "d.ply").write_bytes(ply(BODY, NO_FACES))
    for path in sorted(tmp_path.iterdir()):
        assert is_cloud(path)
        assert np.array_equal(read_cloud(path), POINTS, equal_nan=True), path.name
    (tmp_path / "mesh.ply").write_bytes(ply(BODY + "3 0 1 2\n", FACES))
    assert not is_cloud(tmp_path / "mesh.ply") and not is_cloud(tmp_path / "mesh.obj")


def test_what_is_no_cloud_is_one_line(tmp_path):
    (tmp_path / "a.xyz").write_text("1 2 3\n4 five 6\n")
    (tmp_path / "b.xyz").write_text("1 2 3\n4 5\n")
    (tmp_path / "c.ply").write_bytes(ply("1 2 3\n"))
    (tmp_path / "d.ply").write_bytes(b"no ply")
    (tmp_path / "e.npy").write_bytes(b"\x93NUMPY nothing")
    np.save(tmp_path / "f.npy", np.zeros(12))
    rules = [
        "the line '4 five 6'",
        "the line '4 5'",
        "states 3 points",
        "not a PLY",
        "not a .npy|damaged",
        "shape \\[12\\]",
    ]
    for path, rule in zip(sorted(tmp_path.iterdir()), rules, strict=True):
        with pytest.raises(BadInput, match=rule) as error:
            read_cloud(path)
        assert "\n" not in str(error.value) and path.name in str(error.value)
    with pytest.raises(BadInput, match="does not exist"):
        read_cloud(tmp_path / "none.xyz")
