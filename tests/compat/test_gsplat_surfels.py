"""`rasterization_2dgs` and its parts against the equations of 2DGS, by intersecting rays and planes in space."""

import pytest
import torch
from gsplat_reference import HEIGHT, WIDTH, leaves, rotations, scene

from radfield.compat import gsplat
from radfield.compat.gsplat.checks import WrongCall


def drawn(values, width=WIDTH, height=HEIGHT):
    """(colours with the depth of the centre, alpha, normals in the world, distortion, median) of the first camera, in
    float64: every ray meets every disc's plane."""
    view, K = values["viewmats"][0], values["Ks"][0]
    eye = -view[:3, :3].T @ view[:3, 3]
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) + 0.5 for n in (height, width)), indexing="ij")
    local = torch.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], torch.ones_like(x)], -1)
    rays = local @ view[:3, :3]
    R = rotations(values["quats"])
    centers = values["means"] @ view[:3, :3].T + view[:3, 3]
    on_image = centers[:, :2] / centers[:, 2:] * K[[0, 1], [0, 1]] + K[[0, 1], [2, 2]]
    T, going = torch.ones_like(x), torch.ones_like(x, dtype=torch.bool)
    total, normals, distortion, median = torch.zeros(height, width, 4, dtype=torch.float64), 0, 0, torch.zeros_like(x)
    before = []
    for i in centers[:, 2].detach().argsort().tolist():
        axis = R[i, :, 2] * torch.where((R[i, :, 2] * (values["means"][i] - eye)).sum() > 0, -1.0, 1.0)
        t = ((values["means"][i] - eye) @ axis) / (rays @ axis)
        at = eye + t[..., None] * rays - values["means"][i]
        u, v = at @ R[i, :, 0] / values["scales"][i, 0], at @ R[i, :, 1] / values["scales"][i, 1]
        middle = on_image_center(values, i, view, K)
        filtered = 2 * ((x - middle[0]) ** 2 + (y - middle[1]) ** 2)
        alpha = (values["opacities"][i] * torch.exp(-0.5 * torch.minimum(u * u + v * v, filtered))).clamp_max(0.999)
        shown = going & (alpha >= 1 / 255)
        going = going & ~(shown & (T * (1 - alpha) <= 1e-4))
        alpha = torch.where(shown & going, alpha, 0.0)
        weight, z = alpha * T, centers[i, 2]
        total = total + weight[..., None] * torch.cat([values["colors"][i], z[None]])
        normals = normals + weight[..., None] * axis
        distortion = distortion + sum(2 * weight * w * (z - other) for w, other in before)
        median = torch.where((alpha > 0) & (T > 0.5), z, median)
        before.append((weight, z))
        T = T * (1 - alpha)
    return total, 1 - T, normals, distortion, median, on_image


def on_image_center(values, i, view, K):
    """The middle of the box around the image of the unit circle, by 100,000 of its points."""
    turn = torch.linspace(0, 2 * torch.pi, 100_001, dtype=torch.float64)[:-1, None]
    R, s = rotations(values["quats"])[i], values["scales"][i]
    circle = values["means"][i] + turn.cos() * R[:, 0] * s[0] + turn.sin() * R[:, 1] * s[1]
    local = circle @ view[:3, :3].T + view[:3, 3]
    pixels = local[:, :2] / local[:, 2:] * K[[0, 1], [0, 1]] + K[[0, 1], [2, 2]]
    return (pixels.amax(0) + pixels.amin(0)) / 2


def test_images_normals_depths_and_distortion():
    values = scene(N=12, C=1)
    own = {k: v.float() for k, v in values.items()}
    image, alpha, normals, surface, distortion, median, meta = gsplat.rasterization_2dgs(
        **own, width=WIDTH, height=HEIGHT, render_mode="RGB+D", distloss=True
    )
    right = drawn(values)
    assert image.shape == (1, HEIGHT, WIDTH, 4) and surface.shape == (HEIGHT, WIDTH, 3)
    parts = (image, right[0]), (alpha[..., 0], right[1]), (normals, right[2]), (distortion[..., 0], right[3])
    for found, wanted in (*parts, (median[..., 0], right[4])):
        assert torch.isclose(found[0].double(), wanted, rtol=1e-3, atol=1e-3).double().mean() > 0.995
    assert set(meta) >= {"ray_transforms", "normals", "gradient_2dgs", "render_distort", "isect_offsets", "n_cameras"}


def test_gradients_are_those_of_the_equations():
    values = scene(N=6, C=1)
    own, theirs = leaves(values, torch.float32), leaves(values, torch.float64)
    image, alpha, normals, _, distortion, _, meta = gsplat.rasterization_2dgs(
        **own, width=WIDTH, height=HEIGHT, render_mode="RGB+D", distloss=True
    )
    meta["gradient_2dgs"].retain_grad()
    right = drawn(theirs)
    loss = image.square().sum() + alpha.sum() + normals.square().sum() + 10 * distortion.sum()
    loss.backward()
    (right[0].square().sum() + right[1].sum() + right[2].square().sum() + 10 * right[3].sum()).backward()
    for name in ("means", "quats", "scales", "opacities", "colors"):
        found, wanted = own[name].grad.double(), theirs[name].grad
        if name == "scales":
            found, wanted = found[:, :2], wanted[:, :2]
        # the middle of the box, by points of the circle, has a gradient of a few digits
        assert (found - wanted).norm() / wanted.norm() < 0.03, name
    assert meta["gradient_2dgs"].grad.shape == (1, 6, 2) and meta["gradient_2dgs"].grad.any()


def test_the_densification_gradient_is_the_depth_times_that_of_the_transforms():
    values = {k: v.float() for k, v in scene(N=6, C=1).items()}
    found = gsplat.fully_fused_projection_2dgs(
        values["means"], values["quats"], values["scales"], values["viewmats"], values["Ks"], WIDTH, HEIGHT
    )
    radii, means2d, depths, M, normals = found
    M, densify = M.clone().requires_grad_(), torch.zeros(1, 6, 2, requires_grad=True)
    _, keys, ids = gsplat.isect_tiles(means2d, radii, depths, 16, 3, 2)
    offsets = gsplat.isect_offset_encode(keys, 1, 3, 2)
    arguments = values["colors"][None], values["opacities"][None], normals, densify, WIDTH, HEIGHT, 16, offsets, ids
    gsplat.rasterize_to_pixels_2dgs(means2d, M, *arguments)[0].square().sum().backward()
    assert torch.allclose(densify.grad, M.grad[..., :2, 2] * depths[..., None], rtol=1e-4)
    light = torch.ones(1, HEIGHT, WIDTH)
    pairs = gsplat.rasterize_to_indices_in_range_2dgs(
        0, 10, light, means2d, M.detach(), values["opacities"][None], WIDTH, HEIGHT, 16, offsets, ids
    )
    colors, opacities = values["colors"][None], values["opacities"][None]
    image = gsplat.accumulate_2dgs(means2d, M, opacities, colors, normals, *pairs, WIDTH, HEIGHT)
    right = gsplat.rasterize_to_pixels_2dgs(means2d, M, *arguments)
    for a, b in zip(image, right[:3], strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_packed_is_dense_and_harmonics_are_those_of_each_view():
    values = {k: v.float() for k, v in scene(N=20).items()}
    values["means"][:6, 2] = -9
    values["colors"] = torch.randn(20, 4, 3, generator=torch.Generator().manual_seed(0))
    options = {"width": WIDTH, "height": HEIGHT, "sh_degree": 1, "render_mode": "RGB+ED"}
    options["backgrounds"] = torch.rand(2, 3)
    dense, packed = (gsplat.rasterization_2dgs(**values, **options, packed=p) for p in (False, True))
    for a, b in zip(dense[:6], packed[:6], strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert packed[6]["radii"].ndim == 2 and (packed[6]["gaussian_ids"] >= 6).all()
    assert dense[3].shape == (2, HEIGHT, WIDTH, 3)


def test_wrong_arguments():
    values = {k: v.float() for k, v in scene(N=3).items()}
    with pytest.raises(WrongCall, match="render_mode with distloss is RGB"):
        gsplat.rasterization_2dgs(**values, width=WIDTH, height=HEIGHT, distloss=True)
