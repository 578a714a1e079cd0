"""Exact models of one scene, torn apart and put together again."""

import numpy as np
import pytest
from checks import require_pycolmap

require_pycolmap()

import pycolmap  # noqa: E402

from radfield.data.photographs import mapping  # noqa: E402
from radfield.data.photographs.merging import joined, merge_models, similarity  # noqa: E402

FOCAL, SIZE = 300.0, (320, 240)


def exact(count: int = 12, points: int = 240, first: int = 1) -> pycolmap.Reconstruction:
    """Cameras on an arc around a cloud of points, each of which all see at its exact place; numbered from `first`."""
    rng = np.random.default_rng(0)
    cloud = rng.uniform(-1, 1, (points, 3))
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_RADIAL", FOCAL, *SIZE)
    model.add_camera_with_trivial_rig(camera)
    for i in range(count):
        angle = 0.15 * i
        rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        translation = np.array([0, 0.1 * np.sin(i), 4.0 + 0.2 * np.cos(2 * i)])
        pixels = np.array(camera.img_from_cam(cloud @ rotation.T + translation))
        image = pycolmap.Image(f"{i + first:06d}.png", pixels, 1, i + first)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(np.concatenate((rotation, translation[:, None]), 1)))
    for k, xyz in enumerate(cloud):
        model.add_point3D(xyz, pycolmap.Track([pycolmap.TrackElement(i + first, k) for i in range(count)]))
    return model


def part(whole: pycolmap.Reconstruction, images, moved: pycolmap.Sim3d | None = None) -> pycolmap.Reconstruction:
    """The model of these photographs alone (numbers from 0), in a world of its own."""
    model = pycolmap.Reconstruction(whole)
    for i in range(whole.num_reg_images()):
        if i not in images:
            model.deregister_frame(i + 1)
    if moved is not None:
        model.transform(moved)
    return model


def world(seed: int) -> pycolmap.Sim3d:
    rng = np.random.default_rng(seed)
    q = rng.normal(size=4)
    return pycolmap.Sim3d(rng.uniform(0.3, 3), pycolmap.Rotation3d(q / np.linalg.norm(q)), rng.normal(size=3))


def centres(model: pycolmap.Reconstruction) -> np.ndarray:
    return np.array([model.images[i].projection_center() for i in sorted(model.reg_image_ids())])


def test_the_similarity_between_two_worlds_is_exact():
    whole, moved = exact(), world(1)
    found = similarity(part(whole, range(5, 12), moved), part(whole, range(8)))
    assert np.allclose(found.matrix(), moved.inverse().matrix(), atol=1e-8)


def test_joining_gives_back_what_was_torn_apart():
    whole, moved = exact(), world(2)
    model = joined(part(whole, range(8)), part(whole, range(6, 12), moved), moved.inverse(), 1)
    assert model.num_reg_images() == 12 and model.num_points3D() == whole.num_points3D()
    assert model.compute_num_observations() == whole.compute_num_observations()
    assert {element.image_id for element in next(iter(model.points3D.values())).track.elements} == set(range(1, 13))
    # Bundle adjustment leaves the frame free: cameras agree up to a similarity, which is nearly none.
    a, b = centres(model), centres(whole)
    back = pycolmap.estimate_sim3d(a, b)
    assert np.abs(a @ back.matrix()[:, :3].T + back.matrix()[:, 3] - b).max() < 1e-6
    model.update_point_3d_errors()
    assert max(point.error for point in model.points3D.values()) < 1e-4


def test_a_chain_of_models_becomes_one():
    # The first and the last share nothing, and meet through the middle one, which is the smallest.
    whole = exact()
    models = [part(whole, r, world(i)) for i, r in enumerate((range(6), range(4, 8), range(6, 12)))]
    ((model, parts),) = merge_models(models, 1)
    assert parts == 3 and model.num_reg_images() == 12


@pytest.mark.parametrize("second", [range(8, 12), range(7, 12)])
def test_models_that_share_too_little_stay_apart(second):
    whole = exact()
    found = merge_models([part(whole, second, world(1)), part(whole, range(8))], 1)
    assert [(model.num_reg_images(), parts) for model, parts in found] == [(8, 1), (len(second), 1)]


def test_models_that_disagree_about_what_they_share_stay_apart():
    # The second model's points are another scene's: no similarity brings them to the first one's.
    whole = exact()
    other, rng = part(whole, range(5, 12)), np.random.default_rng(5)
    for point in other.points3D.values():
        point.xyz = rng.uniform(-1, 1, 3)
    assert similarity(other, part(whole, range(8))) is None
    assert len(merge_models([other, part(whole, range(8))], 1)) == 2


def test_a_third_of_wrong_points_does_not_matter():
    whole, moved, rng = exact(), world(3), np.random.default_rng(6)
    other = part(whole, range(5, 12), moved)
    for number in list(other.point3D_ids())[::3]:
        other.points3D[number].xyz = other.points3D[number].xyz + rng.normal(size=3)
    found = similarity(other, part(whole, range(8)))
    assert np.allclose(found.matrix(), moved.inverse().matrix(), atol=1e-6)


def test_what_is_left_out_counts_photographs_that_are_nowhere_else():
    whole, lonely = exact(), exact(4, first=21)
    models = [part(whole, range(8), world(1)), part(whole, range(6, 12)), lonely]
    found = mapping.best_of(models, "incremental", 1)
    assert found.model.num_reg_images() == 12 and found.merged == 2 and found.others == [4]
