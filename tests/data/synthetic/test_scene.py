"""Synthetic scenes: what is seen agrees with what is there."""

import math

import pytest
import torch

from radfield.data.synthetic import (
    LENSES,
    SCENES,
    SyntheticScene,
    synthetic_cameras,
    synthetic_image,
    synthetic_scene,
)
from radfield.data.synthetic.catalog import for_photographs
from radfield.data.synthetic.scene import Medium
from radfield.errors import BadInput
from radfield.geometry import SceneTransform
from radfield.rays import Rays
from radfield.srgb import decode_srgb, encode_srgb
from radfield.tracing.solids import Shape
from radfield.tracing.texture import Material

WHITE = Material(colors=((0.5,) * 3,) * 2, highlight=0.0)


def down(*points) -> Rays:
    """Rays that fall on the points (x, y) from height 3."""
    origins = torch.tensor([[x, y, 3.0] for x, y in points])
    return Rays(origins, torch.tensor([[0.0, 0, -1]]).repeat(len(points), 1))


@pytest.mark.parametrize("name", SCENES)
def test_every_scene_is_seen_by_its_cameras_and_fits_its_box(name):
    scene = synthetic_scene(name)
    cameras = synthetic_cameras(scene, 3, 48)
    rays = cameras.image_rays(1)
    seen = scene.surface(rays)
    hit = seen.depth.isfinite()
    assert hit.float().mean() > 0.1
    torch.testing.assert_close(seen.normal[hit].norm(dim=-1), torch.ones(int(hit.sum())), atol=1e-5, rtol=0)
    assert torch.equal(hit, seen.index >= 0) and (seen.normal[~hit] == 0).all()
    color, alpha = scene.color(rays)
    assert color.std() > 0.05 and 0 <= color.min() <= color.max() <= 1 + 1e-5
    if scene.open_sky:
        assert (alpha == 1).all()
    else:
        assert rays.at(seen.depth)[hit].norm(dim=-1).max() < 1.5 and not hit.all()
        assert torch.equal(alpha > 0, hit)
        assert torch.equal(alpha == 1, hit & ~seen.clear) or bool(seen.clear.any())


def test_depth_known_from_above():
    seen = synthetic_scene("solids").surface(down((0.85, 0.85), (0.31, -0.36), (2.0, 0.0)))
    slab_top, sphere_top = -0.40 + 0.08, -0.04 + 0.28
    torch.testing.assert_close(seen.depth, torch.tensor([3 - slab_top, 3 - sphere_top, torch.inf]))


def test_depth_and_normal_in_other_coordinates():
    turn = ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    transform = SceneTransform(0.3, turn, (0.5, 0.4, 0.3))
    scene = synthetic_scene("carved")
    rays = synthetic_cameras(scene, 1, 32).image_rays(0)
    moved = Rays(transform.points(rays.origins), transform.directions(rays.directions))
    world, other = scene.surface(rays), scene.surface(moved, transform)
    same = world.index == other.index
    assert same.float().mean() > 0.99
    hit = same & world.depth.isfinite()
    torch.testing.assert_close(other.depth[hit], 0.3 * world.depth[hit], atol=1e-4, rtol=0)
    assert (other.normal - transform.directions(world.normal))[hit].norm(dim=-1).median() < 1e-5
    for a, b in zip(scene.color(rays), scene.color(moved, transform), strict=True):
        assert (a - b).abs().mean() < 1e-3


def test_a_medium_shows_what_its_equation_says():
    """c (1 - T) + T behind along a known path, and no more than the clear solid's own glints."""
    medium = Medium((0.2, 0.4, 0.6), 1.5, highlight=0.0, reflection=0.0)
    floor = Shape("box", (2.0, 2.0, 0.1), (0, 0, -1.1), material=WHITE)
    scene = SyntheticScene("test", (floor,), (Shape("box", (0.3, 0.3, 0.4), material=medium),))
    without = SyntheticScene("test", (floor,))
    rays = down((0.1, 0.1), (-0.1, 0.2))
    through = math.exp(-1.5 * 0.8)
    behind, _ = without.color(rays)
    lit, alpha = scene.color(rays)
    shadowed = decode_srgb(behind)  # the sun's way to the floor leads through the box for some
    own = torch.tensor(medium.color) * (1 - through)
    assert (alpha == 1).all() and scene.surface(rays).clear.all()
    assert (lit <= own + through * encode_srgb(shadowed) + 1e-5).all() and (lit >= own).all()
    _, alpha = SyntheticScene("test", (), scene.clear).color(rays)
    torch.testing.assert_close(alpha, torch.full((2,), 1 - through), atol=1e-5, rtol=0)


def test_two_media_one_behind_the_other():
    media = [Medium((0.5, 0.5, 0.5), density, highlight=0.0, reflection=0.0) for density in (0.7, 2.0)]
    balls = [Shape("sphere", (0.3,), (0, 0, z), material=m) for z, m in zip((0.5, -0.5), media, strict=True)]
    _, alpha = SyntheticScene("test", (), tuple(balls)).color(down((0.0, 0.0)))
    assert alpha.item() == pytest.approx(1 - math.exp(-0.6 * 0.7 - 0.6 * 2.0), abs=1e-5)


def test_shadows_lie_where_the_sun_does_not_reach():
    ball = Shape("sphere", (0.3,), (0, 0, 0.6), material=WHITE)
    scene = SyntheticScene("test", (Shape("plane", (), material=WHITE), ball))
    sun = scene.tables["light_table"][0]
    away = 0.6 * sun[:2] / sun[2]
    shadow, lit = -away.tolist()[0], -away.tolist()[1]
    color, _ = scene.color(down((shadow, lit), (1.0, 1.0)))
    assert (color[0] < 0.7 * color[1]).all()


def test_colour_depends_on_the_view():
    scene = synthetic_scene("glossy")
    cameras = synthetic_cameras(scene, 8, 64)
    rays = cameras.image_rays(0)
    seen = scene.surface(rays)
    hit = seen.depth.isfinite()
    x = rays.at(seen.depth)[hit]
    other = cameras.camera_to_world[1, :3, 3]
    back = Rays(other.expand_as(x), torch.nn.functional.normalize(x - other, dim=-1))
    same_point = (scene.surface(back).depth - (x - other).norm(dim=-1)).abs() < 1e-3
    difference = (scene.color(rays)[0][hit] - scene.color(back)[0]).abs().amax(-1)[same_point]
    assert same_point.sum() > 50 and difference.max() > 0.1


def test_an_image_is_the_mean_of_its_rays_and_does_not_depend_on_threads(threads):
    scene = synthetic_scene("wires")
    cameras = synthetic_cameras(scene, 2, (40, 24))
    image = synthetic_image(scene, cameras, 1)
    assert image.shape == (24, 40, 4) and image.dtype == torch.uint8
    _, alpha = scene.color(cameras[1].scaled(2).image_rays(0))
    mean = alpha.view(24, 2, 40, 2).mean((1, 3))
    assert (image[..., 3].float() / 255 - mean).abs().max() < 0.5 / 255 + 1e-6
    for a, b in threads(lambda: [synthetic_image(scene, cameras, 1)]):
        assert torch.equal(a, b)


@pytest.mark.parametrize("lens", LENSES)
def test_cameras_look_at_the_scene_and_spread(lens):
    scene = synthetic_scene("solids")
    for walk in (False, True):
        cameras = synthetic_cameras(scene, 12, (64, 48), lens=lens, walk=walk)
        pixel, depth = cameras.project(torch.arange(12), torch.tensor(scene.target).expand(12, 3))
        torch.testing.assert_close(pixel, cameras.principal, atol=1e-2, rtol=0)
        assert (depth > 1.2).all()
        centres = cameras.camera_to_world[:, :3, 3]
        assert (torch.cdist(centres, centres) + 9 * torch.eye(12)).min() > 0.1
    assert len(synthetic_cameras(scene, 0, 8)) == 0


@pytest.mark.parametrize("name", SCENES)
def test_photographs_have_ground_and_sky_everywhere(name):
    scene = for_photographs(synthetic_scene(name))
    cameras = synthetic_cameras(scene, 6, (32, 24), walk=True)
    color, alpha = scene.color(cameras.image_rays(2))
    assert (alpha == 1).all() and color.std() > 0.05
    assert (cameras.camera_to_world[:, 2, 3] > scene.floor + 0.2).all()


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((-1, 8), "views are -1; the rule: from 0"),
        ((2, 0), "size is 0x0; the rule: from 1 to 16384"),
        ((2, (8, 20000)), "size is 8x20000"),
        ((100_001, 8), "views are 100001"),
    ],
)
def test_bad_cameras_are_refused(arguments, rule):
    with pytest.raises(BadInput, match=rule):
        synthetic_cameras(synthetic_scene("solids"), *arguments)
    with pytest.raises(BadInput, match="lens is 'wide'; the rule: one of pinhole"):
        synthetic_cameras(synthetic_scene("solids"), 2, 8, lens="wide")


def test_an_unknown_scene_is_refused_with_the_names():
    with pytest.raises(BadInput, match="scene is 'solid'; did you mean 'solids'\\? the rule: one of solids, carved"):
        synthetic_scene("solid")
