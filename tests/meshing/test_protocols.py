"""DTU's and Tanks and Temples' figures on surfaces whose distance is known."""

import numpy as np
import pytest
from tracing_meshes import cube, sphere

from radfield.meshing import protocols
from radfield.meshing.protocols import Crop, Observed


def ball(radius, level=5):
    vertices, triangles = sphere(level)
    return radius * vertices.double().numpy(), triangles.numpy()


def test_points_on_a_mesh_have_the_spacing_asked_for():
    vertices, triangles = (each.numpy() for each in cube())
    points = protocols.points_on(vertices, triangles, 0.05)
    assert np.abs(np.abs(points).max(-1) - 1).max() < 1e-12, "they lie on the cube"
    assert len(points) == pytest.approx(24 / 0.05**2, rel=0.1)
    kept = protocols.thinned(points, 0.1, seed=3)
    apart = protocols.optional("scipy.spatial", "").cKDTree(kept).query(kept, k=2)[0][:, 1]
    assert apart.min() > 0.1
    assert protocols.nearest(points, kept).max() <= 0.1, "each point that went has one that stayed beside it"


def test_blocks_thin_as_one_after_another_does(monkeypatch):
    points = np.random.default_rng(0).random((400, 3))
    kept = []
    for point in points[np.random.default_rng(5).permutation(len(points))]:
        if all(np.linalg.norm(point - other) > 0.2 for other in kept):
            kept.append(point)
    for first in (16, 1000):
        monkeypatch.setattr(protocols, "_FIRST", first)
        assert np.array_equal(protocols.thinned(points, 0.2, seed=5), np.array(kept))


def test_dtu_of_two_spheres_is_their_distance():
    r, d = 60.0, 1.5
    mesh, scan = (protocols.points_on(*ball(radius), 1.0) for radius in (r + d, r))
    found = protocols.dtu(mesh, scan, spacing=1.0)
    # to points about 1 apart instead of the sphere: sqrt(d^2 + s^2) with s of 0.4
    assert d < found["chamfer"] < 1.06 * d
    assert found["accuracy"] == pytest.approx(found["completeness"], rel=0.05)
    far = protocols.dtu(mesh, scan, spacing=1.0, farthest=1.0)
    assert far["chamfer"] is None and far["accuracy"] is None


def test_dtu_leaves_out_what_was_not_seen_and_the_ground():
    scan = protocols.points_on(*ball(30.0, 4), 1.0)
    low, high = np.full(3, -40.0), np.full(3, 40.0)
    seen = np.zeros((41, 41, 41), bool)
    seen[:, :, 21:] = True  # the upper half, z > 1
    observed = Observed(seen, low, high, 2.0)
    bump = np.array([[0.0, 0.0, -35.0], [500.0, 0, 0]])  # below, where nobody looked; and far off
    found = protocols.dtu(np.concatenate((scan, bump)), scan, observed=observed, spacing=0.5)
    assert found["accuracy"] == 0 and found["points_seen"] == pytest.approx(0.48 * found["points"], rel=0.05)
    half = scan[scan[:, 2] > 0]
    whole, above = (protocols.dtu(half, scan, plane=p, spacing=0.5) for p in (None, np.array([0.0, 0, 1, 0])))
    assert whole["completeness"] > 3 and above["completeness"] < 0.3
    assert above["scan_points_above"] == len(half)


def test_tanks_and_temples_of_two_spheres():
    mesh, scan = (protocols.points_on(*ball(radius), 0.02) for radius in (1.0, 1.1))
    assert protocols.tanks_and_temples(mesh, scan, 0.12)["f_score"] == 1
    assert protocols.tanks_and_temples(mesh, scan, 0.09)["f_score"] == 0
    half = mesh[mesh[:, 2] > 0]
    found = protocols.tanks_and_temples(half, mesh, 0.03)
    assert found["precision"] == 1 and found["recall"] == pytest.approx(0.515, abs=0.03)
    assert found["f_score"] == pytest.approx(2 * found["recall"] / (1 + found["recall"]))


def test_a_crop_holds_what_is_in_its_polygon():
    points = np.random.default_rng(0).uniform(-2, 2, (5000, 3))
    arrow = np.array([[-1.0, -1], [1, -1], [0, 0], [1, 1], [-1, 1]])  # a square with a notch from the right
    for axis in range(3):
        inside = Crop(axis, -0.5, 1.0, arrow).holds(points)
        x, y = np.delete(points, axis, 1).T
        wanted = (np.abs(x) < 1) & (np.abs(y) < 1) & ~((x > 0) & (np.abs(y) < x))
        assert np.array_equal(inside, wanted & (points[:, axis] >= -0.5) & (points[:, axis] <= 1))


def test_voxels_have_the_mean_of_their_points():
    points = np.array([[0.0, 0, 0], [0.2, 0, 0], [0.6, 0, 0], [5.0, 0, 0]])
    found = protocols.one_per_voxel(points, 1.0)
    assert sorted(found[:, 0].tolist()) == pytest.approx([0.1, 0.6, 5.0])
