"""The whole path of Gaussians (projection, tiles, raster, and back) on what strains it, against the reference in
float64: image to 1e-5, gradients to 1e-4 of the largest, outside the pixels where rounding decides how a threshold
applies, which are counted: at most one in a thousand."""

import dataclasses

import pytest
import torch
from renderers_gaussians import agrees, camera, scene

from radfield.renderers.gaussian_camera import Camera


def test_needles_and_pancakes():
    values = scene(200, size=-2.0)
    values["scales"][:100, 1:] = 1e-6
    values["scales"][100:, 2] = 1e-6
    agrees(values, camera())


def test_needles_across_the_whole_image():
    values = scene(60, size=-2.0)
    values["scales"][:] = torch.tensor([3.0, 1e-3, 1e-3])
    agrees(values, camera())


def test_opaque_ones_and_the_ceiling():
    values = scene(150, size=-2.5)
    values["opacities"][:] = 1
    agrees(values, camera(), background=torch.rand(3), max_alpha=0.999)


def test_opacity_0_and_1():
    values = scene(300, size=-2.5)
    values["opacities"][::2], values["opacities"][1::2] = 0, 1
    agrees(values, camera(), background=torch.rand(3))


def test_thousands_on_one_pixel():
    values = scene(3000, size=-6.0, spread=1e-3)
    values["means"][:, 2] = torch.linspace(-0.5, 0.5, 3000)  # far enough apart for one order in every float type
    values["opacities"] = values["opacities"] * 0.02
    agrees(values, camera(64, 48), background=torch.rand(3))


def test_behind_and_beside_the_camera():
    """A shell all around: what is behind has no share, what straddles the border its part."""
    values = scene(600, size=-2.0)
    values["means"] = torch.nn.functional.normalize(values["means"], dim=1) * 2
    agrees(values, dataclasses.replace(camera(), world_to_camera=torch.eye(4)))


def test_on_the_near_plane():
    """Half of them a hair nearer than `near`, half a hair beyond: huge on the image, and never one too many."""
    values = scene(40, size=-5.0)
    values["means"] = values["means"] * 0.01
    values["means"][:, 2] = 0.05 + torch.linspace(-1e-3, 1e-3, 40)
    values["opacities"] = values["opacities"] * 0.1
    view = Camera(torch.eye(4), (80.0, 85.0), (37.0, 25.0), 75, 50, near=0.05)
    agrees(values, view, background=torch.rand(3), most_left_out=2e-3)


def garden(captures):
    """(the Gaussians, their cameras): gsplat's garden, every point a Gaussian of random shape."""
    import numpy as np

    path = captures / "gsplat_garden" / "test_garden.npz"
    if not path.exists():
        pytest.skip("no gsplat_garden here")
    data = np.load(path)
    means = torch.from_numpy(data["means3d"])
    generator = torch.Generator().manual_seed(0)
    values = {
        "means": means,
        "quaternions": torch.randn(len(means), 4, generator=generator),
        "scales": torch.rand(len(means), 3, generator=generator) * 0.02,
        "opacities": torch.rand(len(means), generator=generator),
        "colors": torch.from_numpy(data["colors"]).float() / 255,
    }
    lenses = [(pose, (float(k[0, 0]), float(k[1, 1])), (float(k[0, 2]), float(k[1, 2]))) for pose, k in
              zip(torch.from_numpy(data["viewmats"]), data["Ks"], strict=True)]  # fmt: skip
    return values, [Camera(*each, int(data["width"]), int(data["height"])) for each in lenses]


def test_a_part_of_the_garden(captures):
    values, cameras = garden(captures)
    view = cameras[0]
    part = dataclasses.replace(view, center=(view.center[0] - 200, view.center[1] - 150), width=48, height=48)
    agrees(values, part, most_left_out=5e-3)  # hundreds of Gaussians meet in a pixel


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_garden(captures, number):
    """All 138,766 points on a sixth of the camera's pixels in each direction."""
    values, cameras = garden(captures)
    agrees(values, cameras[number].scaled(108, 70), background=torch.rand(3), most_left_out=5e-3)
