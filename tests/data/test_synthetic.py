"""The synthetic capture: what is written, read and asked for agree."""

import hashlib

import pytest
import torch

from radfield.data import load
from radfield.data.synthetic import (
    SOLIDS,
    synthetic_cameras,
    synthetic_color,
    synthetic_depth,
    synthetic_image,
    write_synthetic_capture,
)
from radfield.errors import BadInput
from radfield.rays import Rays


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_synthetic_capture(tmp_path_factory.mktemp("synthetic"), views=8, val_views=3, size=40)


def inside_any_solid(x: torch.Tensor, margin: float) -> torch.Tensor:
    """Membership by the solids' own definition: independent of how rays are traced."""
    inside = torch.zeros_like(x[:, 0], dtype=torch.bool)
    for solid in SOLIDS:
        p = x - x.new_tensor(solid.centre)
        if isinstance(solid.half, float):
            inside |= p.norm(dim=-1) < solid.half - margin
            continue
        yaw = torch.tensor(solid.yaw)
        along = p[:, 0] * yaw.cos() + p[:, 1] * yaw.sin()
        across = p[:, 1] * yaw.cos() - p[:, 0] * yaw.sin()
        q = torch.stack((along, across, p[:, 2]), -1).abs()
        inside |= (q < x.new_tensor(solid.half) - margin).all(-1)
    return inside


def test_depth_is_where_the_first_solid_begins():
    cameras = synthetic_cameras(3, 40)
    rays = cameras.image_rays(1)
    depth = synthetic_depth(rays)
    hit = depth.isfinite()
    assert 0.1 < hit.float().mean() < 0.6
    for t in torch.linspace(2.0, 6.0, 200):
        inside = inside_any_solid(rays.at(torch.full_like(depth, t)), margin=1e-4)
        assert not (inside & (t < depth)).any(), "nothing lies before the depth"
    just_behind = inside_any_solid(rays[hit].at(depth[hit] + 1e-3), margin=0)
    assert just_behind.float().mean() > 0.98  # the rest grazes an edge


def test_depth_known_from_above():
    origins = torch.tensor([[0.85, 0.85, 3.0], [0.31, -0.36, 3.0], [2.0, 0.0, 3.0]])
    rays = Rays(origins, torch.tensor([[0.0, 0, -1]]).repeat(3, 1))
    slab_top, sphere_top = -0.40 + 0.08, -0.04 + 0.28
    expected = torch.tensor([3 - slab_top, 3 - sphere_top, torch.inf])
    torch.testing.assert_close(synthetic_depth(rays), expected)


def test_solids_lie_inside_the_published_box():
    x = 3 * torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0)) - 1.5
    inside = inside_any_solid(x, margin=0)
    assert inside.any() and x[inside].abs().max() <= 1.0


def test_written_capture_is_an_object_in_the_unit_cube(folder):
    scene = load(folder)
    assert (len(scene.train), len(scene.val)) == (8, 3)
    assert (scene.cascades, scene.background, scene.has_alpha) == (1, "white", True)
    assert scene.transform.scale == pytest.approx(0.5 / (0.375 * 4.031), rel=2e-3)


def test_written_images_show_what_the_cameras_see(folder):
    scene = load(folder)
    for i in (0, 5):
        assert torch.equal(scene.train.images[i], synthetic_image(synthetic_cameras(8, 40), i))
        rays = scene.train.cameras.image_rays(i)
        alpha = scene.train.images[i][..., 3].reshape(-1)
        color, hit = synthetic_color(rays, scene.transform)
        assert hit[alpha == 255].float().mean() > 0.999 and not hit[alpha == 0].any()
        shown = scene.train.images[i][..., :3].reshape(-1, 3)[alpha == 255] / 255
        assert (shown - color[alpha == 255]).abs().mean() < 0.05


def test_depth_in_scene_units(folder):
    scene = load(folder, split=())
    rays = scene.val.cameras.image_rays(0)
    depth = synthetic_depth(rays, scene.transform)
    back = scene.transform.inverse()
    world = synthetic_depth(Rays(back.points(rays.origins), back.directions(rays.directions)))
    torch.testing.assert_close(depth, world * scene.transform.scale)


def test_colour_depends_on_the_view():
    """One point of the large sphere, seen in the sun's mirror direction and from the side."""
    solid = SOLIDS[1]
    centre = torch.tensor(solid.centre)
    sun = torch.nn.functional.normalize(torch.tensor([0.45, -0.35, 0.82]), dim=0)
    point = centre + solid.half * sun
    side = torch.nn.functional.normalize(torch.linalg.cross(sun, torch.tensor([0.0, 0, 1])) + sun, dim=0)
    origins = torch.stack((point + sun, point + side))
    color, hit = synthetic_color(Rays(origins, -torch.stack((sun, side))))
    assert hit.all() and (color[0] - color[1]).max() > 0.05


def test_the_same_arguments_give_the_same_files(folder, tmp_path):
    def digest(root):
        files = sorted(p for p in root.rglob("*") if p.is_file())
        return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    again = write_synthetic_capture(tmp_path / "again", views=8, val_views=3, size=40)
    other = write_synthetic_capture(tmp_path / "other", views=8, val_views=3, size=40, seed=1)
    assert digest(again) == digest(folder) and len(digest(again)) == 13
    assert digest(other) != digest(folder)


def test_bad_arguments(tmp_path):
    with pytest.raises(BadInput, match="views, val_views, size are 0, 6, 200; at least"):
        write_synthetic_capture(tmp_path, views=0)
