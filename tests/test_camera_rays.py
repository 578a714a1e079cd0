"""Native camera rays: the values of `Cameras.rays`, for every lens."""

import pytest
import torch
from checks import OpCase, check_op

from radfield.camera_rays import camera_rays, image_rays
from radfield.cameras import Cameras, look_at
from radfield.errors import BadInput

LENSES = {
    "pinhole": ("perspective", [0, 0, 0, 0, 0, 0]),
    "opencv": ("perspective", [0.06, -0.07, 0.01, -0.002, 0.001, -0.0015]),
    "wide": ("perspective", [-0.25, 0.06, 0, 0, 0, 0]),
    "fisheye": ("fisheye", [0.05, -0.02, 0.003, -0.001, 0, 0]),
    "equidistant": ("fisheye", [0, 0, 0, 0, 0, 0]),
    "rational": ("perspective", [0.1, -0.05, 0.01, 0, 0.001, -0.0015, 0.15, -0.04, 0.01]),
    "equirectangular": ("equirectangular", [0, 0, 0, 0, 0, 0]),
}
MIXED = ("wide", "fisheye", "pinhole", "equirectangular", "equidistant")  # of the views in turn


def cameras_with(lens, views=5):
    names = [MIXED[i % len(MIXED)] if lens == "mixed" else lens for i in range(views)]
    models, distortion = zip(*(LENSES[name] for name in names), strict=True)
    generator = torch.Generator().manual_seed(1)
    origin = torch.nn.functional.normalize(torch.randn(views, 3, generator=generator), dim=-1) * 2 + 0.5
    least = {"perspective": 240, "fisheye": 120, "equirectangular": 80}
    focal = torch.rand(views, 2, generator=generator) * 40 + torch.tensor([[least[model]] for model in models])
    scale = torch.rand(views, 1, generator=generator) + 0.5  # another lens for each view
    return Cameras(
        look_at(origin, torch.full((3,), 0.5), torch.tensor([0.0, 0.0, 1.0])),
        focal,
        torch.tensor([[160.0, 120.0]]) + torch.rand(views, 2, generator=generator) * 4,
        torch.tensor([[320, 240]]).expand(views, 2),
        torch.tensor([[*k, *(0.0,) * (9 - len(k))] for k in distortion]) * scale,
        models,
    )


@pytest.mark.parametrize("lens", (*LENSES, "mixed"))
def test_agrees_with_reference(lens):
    cameras = cameras_with(lens)

    def inputs(size, generator):
        view = torch.randint(5, (size,), generator=generator)
        return {"view": view, "pixel": torch.rand(size, 2, generator=generator) * torch.tensor([320.0, 240.0])}

    def outputs(rays):
        return rays.origins, rays.directions

    check_op(
        OpCase(
            lambda view, pixel: camera_rays(cameras, view, pixel),
            lambda view, pixel: cameras.to(torch.float64).rays(view, pixel),
            inputs,
            outputs=outputs,
            rtol=1e-6,
            atol=1e-6,
            wrong_dtype=("pixel",),
        )
    )


@pytest.mark.parametrize("lens", (*LENSES, "mixed"))
def test_rays_project_back_to_their_pixels(lens):
    cameras = cameras_with(lens)
    view = torch.arange(5).repeat(100)
    pixel = torch.rand(500, 2, generator=torch.Generator().manual_seed(3)) * torch.tensor([320.0, 240.0])
    rays = camera_rays(cameras, view, pixel)
    assert torch.allclose(rays.directions.norm(dim=-1), torch.ones(500), atol=1e-6)
    found, _ = cameras.project(view, rays.at(torch.full((500,), 1.7)))
    assert (found - pixel).abs().max() < 2e-3


def test_mixed_models_give_each_view_the_rays_of_its_own():
    cameras = cameras_with("mixed")
    assert set(cameras.models) == {"perspective", "fisheye", "equirectangular"}
    pixel = torch.rand(200, 2, generator=torch.Generator().manual_seed(4)) * torch.tensor([320.0, 240.0])
    view = torch.arange(200) % 5  # neighbours in a vector have different models
    rays = camera_rays(cameras, view, pixel)
    for i in range(5):
        alone, mine = cameras[i], view == i
        assert alone.model == cameras.model_of(i) == LENSES[MIXED[i]][0]
        own = camera_rays(alone, torch.zeros(int(mine.sum()), dtype=torch.int32), pixel[mine])
        assert torch.equal(own.directions, rays.directions[mine]) and torch.equal(own.origins, rays.origins[mine])


def test_optical_axis_of_a_fisheye():
    cameras = cameras_with("fisheye")
    rays = camera_rays(cameras, torch.tensor([2]).int(), cameras.principal[2:3])
    assert torch.allclose(rays.directions[0], cameras.camera_to_world[2, :3, 2], atol=1e-6)


@pytest.mark.parametrize("view", [-1, 5])
def test_refuses_views_that_there_are_not(view):
    with pytest.raises(BadInput, match="view"):
        camera_rays(cameras_with("pinhole"), torch.tensor([0, view]), torch.zeros(2, 2))


def test_all_pixels_of_a_view():
    cameras = cameras_with("mixed").scaled(0.05)
    for view in range(len(cameras)):
        ours, theirs = image_rays(cameras, view), cameras.image_rays(view)
        torch.testing.assert_close(ours.origins, theirs.origins)
        torch.testing.assert_close(ours.directions, theirs.directions)
