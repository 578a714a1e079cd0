"""gsplat's low-level functions: against the published formulas in float64, and against each other."""

import gsplat_reference as reference
import pytest
import torch
from gsplat_reference import HEIGHT, WIDTH, leaves, scene

from radfield.compat import gsplat
from radfield.compat.gsplat import utils
from radfield.compat.gsplat.checks import WrongCall


def projected(values, **options):
    quats, scales = values["quats"], values["scales"]
    return gsplat.fully_fused_projection(
        values["means"], None, quats, scales, values["viewmats"], values["Ks"], WIDTH, HEIGHT, **options
    )


def listed(values, tile_size=16, packed=False):
    """(radii, means2d, depths, conics, compensations) and the lists of tiles."""
    found = projected(values, opacities=values["opacities"], packed=packed)
    numbers, found = (found[:3], found[3:]) if packed else ((None,) * 3, found)
    tiles = -(-WIDTH // tile_size), -(-HEIGHT // tile_size)
    options = {"packed": packed}
    if packed:
        options |= {"n_images": 2, "image_ids": numbers[1], "gaussian_ids": numbers[2]}
    per, keys, ids = gsplat.isect_tiles(found[1].detach(), found[0], found[2].detach(), tile_size, *tiles, **options)
    return found, numbers, per, keys, ids, gsplat.isect_offset_encode(keys, 2, *tiles)


def test_covariances_and_their_inverses():
    values = scene(N=7)
    covars, precis = gsplat.quat_scale_to_covar_preci(values["quats"], values["scales"])
    assert torch.allclose(covars, reference.covariances(values["quats"], values["scales"]))
    assert torch.allclose(covars @ precis, torch.eye(3, dtype=torch.float64).expand(7, 3, 3), atol=1e-8)
    upper, nothing = gsplat.quat_scale_to_covar_preci(values["quats"], values["scales"], True, False, triu=True)
    assert nothing is None
    assert torch.equal(upper, torch.stack([covars[:, i, j] for i in range(3) for j in range(i, 3)], 1))


@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
def test_projection_of_any_float_type(model):
    values = leaves(scene(N=12), torch.float64)
    if model == "ortho":
        values["Ks"] = values["Ks"] * torch.tensor([0.3, 0.3, 1.0], dtype=torch.float64)[:, None]
        values["Ks"][:, [0, 1], [2, 2]] = torch.tensor([20.0, 15.0], dtype=torch.float64)
    radii, means2d, depths, conics, compensations = projected(values, camera_model=model, calc_compensations=True)
    drawn = (radii > 0).all(-1)
    assert radii.dtype == torch.int32 and drawn.double().mean() > 0.6
    assert not any(v[~drawn].any() for v in (radii, means2d, depths, conics, compensations))
    covars = reference.covariances(values["quats"], values["scales"])
    for c in range(2):
        at, right, z, compensation = reference.project(
            values["means"], covars, values["viewmats"][c], values["Ks"][c], WIDTH, HEIGHT, model
        )
        right, box = right[:, [0, 0, 1], [0, 1, 1]], torch.linalg.inv(right)[:, [0, 1], [0, 1]]
        box = (3.33 * box.sqrt()).ceil().int()
        pairs = (means2d, at), (depths, z), (compensations, compensation), (conics, right)
        for found, wanted in pairs:
            assert torch.allclose(found[c][drawn[c]], wanted[drawn[c]])
        inside = (at + box > 0).all(1) & (at - box < torch.tensor([WIDTH, HEIGHT])).all(1)
        assert torch.equal(drawn[c], inside) and torch.equal(radii[c][inside], box[inside])


def test_opacities_make_boxes_tight():
    values = scene(N=30)
    values["opacities"][0] = 0.0039  # below 1/255
    loose, tight = projected(values)[0], projected(values, opacities=values["opacities"])[0]
    assert not tight[:, 0].any() and (tight <= loose).all() and (tight < loose).any()


def test_packed_projection_is_the_dense_one_without_what_is_left_out():
    values = leaves(scene(N=30), torch.float64)
    with torch.no_grad():
        values["means"][::3, 2] = -9
    dense = projected(values, calc_compensations=True)
    batch, camera, gaussian, *packed = projected(values, calc_compensations=True, packed=True)
    drawn = (dense[0] > 0).all(-1)
    assert torch.equal(torch.stack([camera, gaussian], 1), drawn.nonzero()) and not batch.any()
    for a, b in zip(dense, packed, strict=True):
        assert torch.equal(a[drawn], b)
    values["means"].grad = None
    packed[1].sum().backward()
    assert values["means"].grad.isfinite().all() and not values["means"].grad[::3].any()


def test_world_to_cam_and_proj_are_the_steps_of_the_projection():
    values = scene(N=9)
    covars, _ = gsplat.quat_scale_to_covar_preci(values["quats"], values["scales"])
    with pytest.warns(DeprecationWarning):
        local, turned = gsplat.world_to_cam(values["means"], covars, values["viewmats"])
    at, cov = gsplat.proj(local, turned, values["Ks"], WIDTH, HEIGHT)
    radii, means2d, depths, conics, _ = projected(values)
    drawn = (radii > 0).all(-1)
    blurred = cov + 0.3 * torch.eye(2, dtype=torch.float64)
    right = torch.linalg.inv(blurred)[..., [0, 0, 1], [0, 1, 1]]
    for found, wanted in ((at, means2d), (local[..., 2], depths), (right, conics)):
        assert torch.allclose(found[drawn], wanted[drawn])


def test_lists_of_tiles_name_each_box_and_tile_once():
    values = {k: v.float() for k, v in scene(N=25).items()}
    (radii, means2d, depths, _, _), _, per, keys, ids, offsets = listed(values)
    wanted = []
    for i in range(2):
        for g in range(25):
            if not (radii[i, g] > 0).all():
                continue
            low, high = means2d[i, g] - radii[i, g], means2d[i, g] + radii[i, g]
            for row in range(2):
                for column in range(3):
                    inside = (low < 16 * (torch.tensor([column, row]) + 1)) & (high > 16 * torch.tensor([column, row]))
                    if inside.all():
                        depth = depths[i, g].view(torch.int32).item()
                        wanted.append(((i << 35) | ((row * 3 + column) << 32) | depth, i * 25 + g))
    wanted.sort()
    assert [tuple(pair) for pair in zip(keys.tolist(), ids.tolist(), strict=True)] == wanted
    assert per.sum() == len(wanted) and per.shape == (2, 25) and per.dtype == torch.int32
    counts = [sum(key >> 32 == i * 8 + t for key, _ in wanted) for i in range(2) for t in range(6)]
    starts = torch.tensor([0, *counts]).cumsum(0)[:-1]
    assert torch.equal(offsets.flatten(), starts.int())


def test_packed_lists_are_the_dense_ones_with_other_numbers():
    values = {k: v.float() for k, v in scene(N=25).items()}
    values["means"][:6, 2] = -9
    _, _, _, keys, ids, offsets = listed(values)
    _, numbers, _, packed_keys, packed_ids, packed_offsets = listed(values, packed=True)
    assert torch.equal(keys, packed_keys) and torch.equal(offsets, packed_offsets)
    rows = numbers[1] * 25 + numbers[2]
    assert torch.equal(rows[packed_ids.long()].int(), ids)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("channels", [3, 6])
def test_lists_drawn_natively_are_what_rasterization_draws(channels, packed):
    values = {k: v.float().requires_grad_(k in ("means", "colors")) for k, v in scene(channels=channels).items()}
    (_, means2d, _, conics, _), numbers, _, _, ids, offsets = listed(values, packed=packed)
    if packed:
        colors, opacities = values["colors"][numbers[2]], values["opacities"][numbers[2]]
    else:
        colors, opacities = values["colors"].expand(2, 40, channels), values["opacities"].expand(2, 40)
    background = torch.rand(2, channels)
    image, alpha = gsplat.rasterize_to_pixels(
        means2d, conics, colors, opacities, WIDTH, HEIGHT, 16, offsets, ids, backgrounds=background, packed=packed
    )
    right, right_alpha, _ = gsplat.rasterization(**values, width=WIDTH, height=HEIGHT, backgrounds=background)
    assert image.shape == right.shape and alpha.shape == right_alpha.shape
    assert torch.isclose(image, right, atol=2e-4).float().mean() > 0.999
    grads = [torch.autograd.grad((i - 0.3).square().sum(), [values["means"], values["colors"]]) for i in (image, right)]
    for found, wanted in zip(*grads, strict=True):
        assert (found - wanted).norm() / wanted.norm() < 5e-3


def test_lists_blended_in_torch_are_those_drawn_natively():
    values = {k: v.float() for k, v in scene(N=20).items()}
    images = []
    for size in (16, 8):
        (_, means2d, _, conics, _), _, _, _, ids, offsets = listed(values, size)
        leaf = means2d.detach().requires_grad_()
        colors, opacities = values["colors"].expand(2, 20, 3), values["opacities"].expand(2, 20)
        image, _ = gsplat.rasterize_to_pixels(leaf, conics, colors, opacities, WIDTH, HEIGHT, size, offsets, ids)
        image.square().sum().backward()
        images.append((image, leaf.grad))
    assert torch.isclose(images[0][0], images[1][0], atol=1e-4).float().mean() > 0.999
    assert (images[0][1] - images[1][1]).norm() / images[1][1].norm() < 5e-3


def test_masked_tiles_show_the_background_alone():
    values = {k: v.float() for k, v in scene().items()}
    (_, means2d, _, conics, _), _, _, _, ids, offsets = listed(values)
    masks = torch.ones(2, 2, 3, dtype=torch.bool)
    masks[1, 0, 1] = False
    colors, opacities = values["colors"].expand(2, 40, 3), values["opacities"].expand(2, 40)
    background = torch.full((2, 3), 0.25)
    arguments = means2d, conics, colors, opacities, WIDTH, HEIGHT, 16, offsets, ids, background
    image, alpha = gsplat.rasterize_to_pixels(*arguments, masks=masks)
    whole, _ = gsplat.rasterize_to_pixels(*arguments)
    assert (image[1, :16, 16:32] == 0.25).all() and not alpha[1, :16, 16:32].any()
    assert torch.equal(image[0], whole[0]) and torch.equal(image[1, 16:], whole[1, 16:])


def test_indices_and_their_accumulation_are_the_published_compositing():
    values = leaves(scene(N=15), torch.float64)
    (radii, means2d, depths, conics, _), _, _, _, ids, offsets = listed(values)
    opacities, colors = values["opacities"].expand(2, 15), values["colors"].expand(2, 15, 3)
    light = torch.ones(2, HEIGHT, WIDTH, dtype=torch.float64)
    geometry = means2d, conics, opacities
    found = gsplat.rasterize_to_indices_in_range(0, 10**10, light, *geometry, WIDTH, HEIGHT, 16, offsets, ids)
    image, alpha = gsplat.accumulate(*geometry, colors, *found, WIDTH, HEIGHT)
    for c in range(2):
        drawn = (radii[c] > 0).all(1)
        full = torch.stack([conics[c][:, [0, 1]], conics[c][:, [1, 2]]], 1)
        values_of = (v[drawn] for v in (means2d[c], full, depths[c], opacities[c], colors[c]))
        right = reference.blend(*values_of, WIDTH, HEIGHT)
        assert torch.allclose(image[c], right[0]) and torch.allclose(alpha[c, ..., 0], right[1])
    gaussian, pixel, camera = found
    key = camera * WIDTH * HEIGHT + pixel
    assert (key.diff() >= 0).all()
    same = key.diff() == 0
    z = depths[camera, gaussian]
    assert (z.diff()[same] >= 0).all()


def test_ranges_of_lists_add_up():
    values = {k: v.float() for k, v in scene(N=40).items()}
    (_, means2d, _, conics, _), _, _, _, ids, offsets = listed(values, 4)  # batches of 16 entries
    opacities = values["opacities"].expand(2, 40)
    light, total = torch.ones(2, HEIGHT, WIDTH), 0
    arguments = means2d, conics, opacities, WIDTH, HEIGHT, 4, offsets, ids
    for step in range(3):
        gaussian, pixel, camera = gsplat.rasterize_to_indices_in_range(step, step + 1, light, *arguments)
        colors = opacities[..., None]
        _, alpha = gsplat.accumulate(means2d, conics, opacities, colors, gaussian, pixel, camera, WIDTH, HEIGHT)
        light, total = light * (1 - alpha[..., 0]), total + len(gaussian)
    whole = gsplat.rasterize_to_indices_in_range(0, 3, torch.ones(2, HEIGHT, WIDTH), *arguments)
    assert total == len(whole[0]) > 0


def test_spherical_harmonics():
    generator = torch.Generator().manual_seed(0)
    dirs = 3 * torch.randn(2, 11, 3, dtype=torch.float64, generator=generator)
    coeffs = torch.randn(2, 11, 16, 3, dtype=torch.float64, generator=generator)
    masks = torch.rand(2, 11, generator=generator) > 0.3
    found = gsplat.spherical_harmonics(2, dirs, coeffs, masks)
    unit = torch.nn.functional.normalize(dirs, dim=-1)
    right = reference.harmonics(unit.flatten(0, 1), coeffs[..., :9, :].flatten(0, 1)).view(2, 11, 3)
    assert torch.allclose(found[masks], right[masks]) and not found[~masks].any()
    inputs = dirs[0, :3].clone().requires_grad_(), coeffs[0, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda d, c: gsplat.spherical_harmonics(3, d, c), inputs)
    with pytest.raises(WrongCall, match="at least 25 for degree 4"):
        gsplat.spherical_harmonics(4, dirs, coeffs)


def test_gradients_of_the_projection_by_differences():
    values = scene(N=3)
    names = ("means", "quats", "scales", "viewmats")

    def run(means, quats, scales, viewmats):
        found = projected({**values, "means": means, "quats": quats, "scales": scales, "viewmats": viewmats},
                          camera_model="fisheye", calc_compensations=True)  # fmt: skip
        return found[1:]

    assert torch.autograd.gradcheck(run, [values[name].requires_grad_() for name in names])


def test_points_and_normals_of_a_slanted_plane():
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, -1.0]), dim=0)
    K = torch.tensor([[20.0, 0, 8], [0, 20.0, 6], [0, 0, 1]])
    pose = torch.eye(4)
    pose[:3, :3] = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    y, x = torch.meshgrid(torch.arange(12) + 0.5, torch.arange(16) + 0.5, indexing="ij")
    rays = torch.stack([(x - 8) / 20, (y - 6) / 20, torch.ones_like(x)], -1)
    depth = (normal[2] * 2 / (rays @ normal))[..., None]  # through (0, 0, 2)
    points = utils.depth_to_points(depth, pose, K)
    assert torch.allclose(
        (points - pose[:3, :3] @ torch.tensor([0.0, 0, 2])) @ (pose[:3, :3] @ normal), torch.zeros(1), atol=1e-5
    )
    found = utils.depth_to_normal(depth[None], pose[None], K[None])[0]
    assert torch.allclose(found[1:-1, 1:-1], (pose[:3, :3] @ normal).expand(10, 14, 3), atol=1e-4)
    assert not found[0].any() and not found[:, -1].any()
    x = torch.linspace(-5, 5, 11)
    assert torch.allclose(utils.inverse_log_transform(utils.log_transform(x)), x, atol=1e-6)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda v: projected({**v, "scales": v["scales"][:, :2]}), "scales has shape [9, 2]; the rule: [9, 3]"),
        (lambda v: projected(v, sparse_grad=True), "only where packed is True"),
        (lambda v: projected(v, camera_model="ftheta"), "camera_model is 'ftheta'; the rule: one of pinhole"),
        (lambda v: gsplat.isect_tiles(v["means"][:, :2], v["means"], v["means"][:, 0], 16, 2, 2), "radii has shape"),
        (lambda v: gsplat.proj(v["means"][None], v["means"][None], v["Ks"], 4, 4), "covars has shape [1, 9, 3]"),
    ],
)
def test_wrong_arguments(call, words):
    with pytest.raises(WrongCall) as caught:
        call({k: v.float() for k, v in scene(N=9).items()})
    assert words in str(caught.value) and "\n" not in str(caught.value)
