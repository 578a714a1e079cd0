"""Distorted lenses, rolling shutters, the unscented transform and responses in space, as gsplat has them."""

import pytest
import torch
from gsplat_reference import HEIGHT, WIDTH, covariances, leaves, project, rotations, scene

from radfield.compat import gsplat
from radfield.compat.gsplat import RollingShutterType
from radfield.compat.gsplat.checks import WrongCall
from radfield.compat.gsplat.lenses import Lens, Shutter

SIZE = {"width": WIDTH, "height": HEIGHT, "packed": False}


def lens(model="pinhole", **options):
    K = scene(N=1)["Ks"][0]
    return Lens(model, (WIDTH, HEIGHT), K[[0, 1], [0, 1]], K[[0, 1], [2, 2]], **options)


DISTORTED = {
    "radial": torch.tensor([0.2, -0.03, 0.01, 0.02, 0.01, 0.0], dtype=torch.float64),
    "tangential": torch.tensor([0.01, -0.02], dtype=torch.float64),
    "prism": torch.tensor([0.005, 0.001, -0.004, 0.002], dtype=torch.float64),
}


@pytest.mark.parametrize(
    "seen",
    [
        lens(),
        lens(**DISTORTED),
        lens("fisheye"),
        lens("fisheye", radial=torch.tensor([0.05, -0.02, 0.01, 0.001], dtype=torch.float64)),
    ],
)
def test_rays_go_back_to_their_pixels(seen):
    pixels = torch.rand(50, 2, dtype=torch.float64) * torch.tensor([WIDTH, HEIGHT])
    rays, there = seen.rays(pixels)
    found, inside = seen.pixels(rays * torch.rand(50, 1) * 9 + rays, 0.0)
    assert there.all() and inside.all() and torch.allclose(found, pixels, atol=1e-6)
    assert torch.allclose(rays.norm(dim=1), torch.ones(50, dtype=torch.float64))


def test_distortion_is_opencv_s():
    """At (u, v) = (0.3, -0.2), r^2 = 0.13, by hand."""
    found, _ = lens(**DISTORTED).pixels(torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64), 9.0)
    r2 = 0.13
    factor = (1 + 0.2 * r2 - 0.03 * r2**2 + 0.01 * r2**3) / (1 + 0.02 * r2 + 0.01 * r2**2)
    x = 0.3 * factor + 2 * 0.01 * 0.3 * -0.2 - 0.02 * (r2 + 2 * 0.09) + 0.005 * r2 + 0.001 * r2**2
    y = -0.2 * factor + 0.01 * (r2 + 2 * 0.04) + 2 * -0.02 * 0.3 * -0.2 - 0.004 * r2 + 0.002 * r2**2
    assert torch.allclose(found, torch.tensor([40 * x + 21, 38 * y + 14], dtype=torch.float64))


def test_what_is_behind_or_turned_back_is_not_seen():
    assert not lens().pixels(torch.tensor([0.0, 0, -1], dtype=torch.float64), 0.1)[1]
    back = lens(radial=torch.tensor([-1.0, 0, 0, 0, 0, 0], dtype=torch.float64))
    assert not back.pixels(torch.tensor([0.5, 0, 1], dtype=torch.float64), 9.0)[1]  # factor 0.75


@pytest.mark.parametrize("kind", [k for k in RollingShutterType if k is not RollingShutterType.GLOBAL])
def test_a_rolling_shutter_sees_each_point_from_where_it_is_then(kind):
    start = scene(N=1)["viewmats"][0]
    end = start.clone()
    end[:3, 3] += torch.tensor([0.1, -0.05, 0.1])
    cos, sin = torch.tensor(0.05).cos(), torch.tensor(0.05).sin()
    end[:3, :3] = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64) @ end[:3, :3]
    shutter = Shutter(start, end, kind)
    points = 0.5 * torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pixels, seen = shutter.seen(points, lens(), 0.1)
    times = shutter.times(pixels, (WIDTH, HEIGHT))
    turn, shift = shutter.poses(times)
    again, _ = lens().pixels((turn @ points[..., None])[..., 0] + shift, 0.1)
    assert seen.sum() > 15 and (again - pixels)[seen].abs().max() < 0.2  # rows are whole: a step of one may remain
    assert torch.allclose(turn.mT @ turn, torch.eye(3, dtype=torch.float64).expand(20, 3, 3))
    ends = shutter.poses(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert torch.allclose(ends[0], torch.stack([start, end])[:, :3, :3])
    assert torch.allclose(ends[1], torch.stack([start, end])[:, :3, 3])
    first, last = (0, -1) if "TOP_TO" in kind.name or "LEFT_TO" in kind.name else (-1, 0)
    axis = 0 if kind.name.endswith(("LEFT_TO_RIGHT", "RIGHT_TO_LEFT")) else 1
    line = torch.zeros((WIDTH, HEIGHT)[axis], 2, dtype=torch.float64)
    line[:, axis] = torch.arange(len(line)) + 0.5
    times = shutter.times(line, (WIDTH, HEIGHT))
    assert times[first] == 0 and times[last] == 1


def test_small_gaussians_project_as_by_the_derivative():
    values = scene(N=20)
    values["scales"] = values["scales"] * 0.1
    own = {k: v.float() for k, v in values.items()}
    found = gsplat.fully_fused_projection_with_ut(
        own["means"], own["quats"], own["scales"], None, own["viewmats"], own["Ks"], WIDTH, HEIGHT,
        calc_compensations=True,
    )  # fmt: skip
    covars = covariances(values["quats"], values["scales"])
    for c in range(2):
        right = project(values["means"], covars, values["viewmats"][c], values["Ks"][c], WIDTH, HEIGHT)
        kept = (found[0][c] > 0).all(-1)
        assert kept.sum() > 10
        conic = right[1][:, [0, 0, 1], [0, 1, 1]]
        for a, b, tolerance in ((found[1], right[0], 2e-2), (found[2], right[2], 1e-5), (found[3], conic, 3e-2)):
            assert torch.allclose(a[c][kept].double(), b[kept], rtol=tolerance, atol=1e-2)
        assert torch.allclose(found[4][c][kept].double(), right[3][kept], rtol=5e-2, atol=1e-2)


def response(values, c, size=(WIDTH, HEIGHT)):
    """alphas [N, H, W] by the distance of each pixel's ray, in the Gaussian's own axes, by minimising along the ray."""
    view, K = values["viewmats"][c], values["Ks"][c]
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) + 0.5 for n in size[::-1]), indexing="ij")
    local = torch.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], torch.ones_like(x)], -1)
    rays, eye = local @ view[:3, :3], -view[:3, :3].T @ view[:3, 3]
    inverse = torch.linalg.inv(covariances(values["quats"], values["scales"]))
    off = eye - values["means"]
    a = torch.einsum("hwi,nij,hwj->nhw", rays, inverse, rays)
    b = torch.einsum("hwi,nij,nj->nhw", rays, inverse, off)
    least = torch.einsum("ni,nij,nj->n", off, inverse, off)[:, None, None] - b * b / a
    return (values["opacities"][:, None, None] * torch.exp(-0.5 * least)).clamp_max(0.999)


@pytest.mark.parametrize("with_ut", [False, True])
def test_responses_in_space(with_ut):
    values = scene(N=8)
    values["scales"] = values["scales"] * 0.5
    own, theirs = leaves(values, torch.float32), leaves(values, torch.float64)
    background = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    image, _, meta = gsplat.rasterization(
        **own, **SIZE, with_ut=with_ut, with_eval3d=True, backgrounds=background, render_mode="RGB+ED"
    )
    assert image.shape == (2, HEIGHT, WIDTH, 4)
    images = []
    for c in range(2):
        depth = (values["means"] @ values["viewmats"][c, :3, :3].T + values["viewmats"][c, :3, 3])[:, 2]
        shown = (meta["radii"][c] > 0).all(-1)
        T, total = torch.ones(HEIGHT, WIDTH, dtype=torch.float64), 0
        alphas = response(theirs, c)
        for i in depth.argsort().tolist():
            if shown[i]:
                a = torch.where(alphas[i] >= 1 / 255, alphas[i], 0.0)
                total = total + (a * T)[..., None] * theirs["colors"][i]
                T = T * (1 - a)
        images.append(total + T[..., None] * background[c].double())
    right = torch.stack(images)
    # a Gaussian's box is that of its image by the derivative, or the sigma points: its faint rim may lie beyond it
    close = torch.isclose(image[..., :3].double(), right, atol=0.02)
    assert close.double().mean() > 0.99
    image[..., :3].square().sum().backward()
    right.square().sum().backward()
    for name in ("means", "quats", "scales", "opacities", "colors"):
        found, wanted = own[name].grad.double(), theirs[name].grad
        assert (found - wanted).norm() / wanted.norm() < 0.1, name


def test_a_lens_without_distortion_is_no_lens_and_a_distorted_one_is():
    values = {k: v.float() for k, v in scene(N=15).items()}
    plain = gsplat.rasterization(**values, **SIZE, with_ut=True)[0]
    zeros = gsplat.rasterization(**values, **SIZE, with_ut=True, radial_coeffs=torch.zeros(2, 6))[0]
    bend = torch.tensor([0.5, 0, 0, 0, 0, 0]).repeat(2, 1)
    bent = gsplat.rasterization(**values, **SIZE, with_ut=True, radial_coeffs=bend)[0]
    assert torch.allclose(plain, zeros, atol=1e-5) and (plain - bent).abs().max() > 0.05


def test_colours_and_opacities_have_gradients_through_the_unscented_transform_and_geometry_has_none():
    values = leaves(scene(N=15), torch.float32)
    image, _, meta = gsplat.rasterization(**values, **SIZE, with_ut=True)
    image.sum().backward()
    assert values["colors"].grad.any() and values["opacities"].grad.any() and values["means"].grad is None
    assert not meta["means2d"].requires_grad


def test_a_still_shutter_is_a_global_one():
    values = {k: v.float() for k, v in scene(N=15).items()}
    options = {"with_ut": True, "with_eval3d": True}
    still = gsplat.rasterization(
        **values, **SIZE, **options, rolling_shutter=RollingShutterType.ROLLING_TOP_TO_BOTTOM,
        viewmats_rs=values["viewmats"].clone(),
    )[0]  # fmt: skip
    assert torch.allclose(still, gsplat.rasterization(**values, **SIZE, **options)[0], atol=1e-4)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"radial_coeffs": torch.zeros(2, 6)}, "with_ut is False; the rule: True with distortion"),
        ({"with_ut": True, "packed": True}, "packed with with_ut or with_eval3d is True"),
        ({"with_ut": True, "radial_coeffs": torch.zeros(2, 4)}, "radial_coeffs has shape [2, 4]; the rule: [2, 6]"),
        ({"with_ut": True, "camera_model": "ftheta"}, "pinhole or fisheye, radfield has no f-theta lens"),
        ({"with_ut": True, "rolling_shutter": RollingShutterType.ROLLING_LEFT_TO_RIGHT}, "viewmats_rs with"),
    ],
)
def test_wrong_arguments(change, words):
    values = {k: v.float() for k, v in scene(N=3).items()}
    with pytest.raises(WrongCall) as caught:
        gsplat.rasterization(**values, **SIZE | change)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_rotations_of_the_reference_are_rotations():
    R = rotations(scene(N=5)["quats"])
    assert torch.allclose(R @ R.mT, torch.eye(3, dtype=torch.float64).expand(5, 3, 3))
