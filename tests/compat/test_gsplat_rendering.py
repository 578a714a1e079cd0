"""`gsplat.rendering.rasterization` against the published formulas in float64, and its dictionary."""

import gsplat_reference as reference
import pytest
import torch
from checks import EMULATES
from cuda_emulator.backend import emulator
from gsplat_reference import HEIGHT, NAMES, WIDTH, leaves, scene

from radfield import backend
from radfield.compat.gsplat import rasterization
from radfield.compat.gsplat.checks import WrongCall
from radfield.errors import BadInput


def expected(values, mode="RGB", antialiased=False, background=None, degree=None, **options):
    """(colours, alphas) of all cameras."""
    images = []
    for c, (view, K) in enumerate(zip(values["viewmats"], values["Ks"], strict=True)):
        covars = values.get("covars")
        if covars is None:
            covars = reference.covariances(values["quats"], values["scales"])
        at, conics, depths, compensation = reference.project(values["means"], covars, view, K, WIDTH, HEIGHT, **options)
        opacities = values["opacities"] * compensation if antialiased else values["opacities"]
        colors = values["colors"]
        if degree is not None:
            eye = torch.linalg.inv(view)[:3, 3]
            directions = torch.nn.functional.normalize(values["means"] - eye, dim=1)
            colors = (reference.harmonics(directions, colors) + 0.5).clamp_min(0)
        elif colors.ndim == 3:
            colors = colors[c]
        behind = None if background is None else background[c]
        if mode != "RGB":
            colors = torch.cat([colors, depths[:, None]], 1) if mode.startswith("RGB") else depths[:, None]
            if behind is not None:
                zero = torch.zeros(1, dtype=torch.float64)
                behind = torch.cat([behind, zero]) if mode.startswith("RGB") else zero
        color, alpha = reference.blend(at, conics, depths, opacities, colors, WIDTH, HEIGHT, behind)
        if mode.endswith("ED"):
            color = torch.cat([color[..., :-1], color[..., -1:] / alpha[..., None].clamp_min(1e-10)], -1)
        images.append((color, alpha[..., None]))
    return tuple(torch.stack(parts) for parts in zip(*images, strict=True))


def compare(values, reference_options=None, tolerance=2e-3, **options):
    """Images and gradients of both; where few pixels sit on a threshold a small part may differ."""
    background = options.get("backgrounds")
    ours, theirs = leaves(values, torch.float32), leaves(values, torch.float64)
    images = rasterization(**{k: v for k, v in ours.items()}, width=WIDTH, height=HEIGHT, **options)
    wanted = expected(
        theirs, background=None if background is None else background.double(), **(reference_options or {})
    )
    generator = torch.Generator().manual_seed(1)
    for found, right in zip(images[:2], wanted, strict=True):
        assert found.shape == right.shape and found.dtype == torch.float32
        close = torch.isclose(found.double(), right, rtol=1e-4, atol=1e-4)
        assert close.double().mean() > 0.999
    weights = [torch.randn(right.shape, generator=generator, dtype=torch.float64) for right in wanted]
    sum((w.float() * f).sum() for w, f in zip(weights, images[:2], strict=True)).backward()
    sum((w * f).sum() for w, f in zip(weights, wanted, strict=True)).backward()
    for name in NAMES:
        if name not in ours or theirs[name].grad is None:
            continue
        found, right = ours[name].grad, theirs[name].grad
        if name == "viewmats":
            found, right = found[:, :3], right[:, :3]
        error = (found.double() - right).norm() / right.norm()
        assert error < tolerance, f"gradient of {name}: {error}"
    return images


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "D", "ED", "RGB+D", "RGB+ED"])
def test_all_modes_are_the_published_formulas(mode, packed):
    background = torch.rand(2, 3, generator=torch.Generator().manual_seed(3))
    compare(scene(), {"mode": mode}, render_mode=mode, packed=packed, backgrounds=background)


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
@pytest.mark.parametrize("packed", [False, True])
def test_rows_are_read_by_cuda_kernels(packed):
    """Parameters lie Gaussian by Gaussian here: no op makes streams of them."""
    values, ran = scene(N=25, C=1), set()
    values["colors"] = torch.randn(25, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) * 0.3
    with backend.use(backend.EMULATED), pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "emulator", lambda op, *given: (ran.add(op.name), emulator(op, *given)))
        compare(values, {"degree": 2}, sh_degree=2, packed=packed)
    rows = {f"gaussian_{name}_rows_{way}" for name in ("project", "color") for way in ("forward", "backward")}
    assert ran >= rows and not any(name.startswith(("gaussian_project_f", "gaussian_color_f")) for name in ran)


def test_antialiased_opacities_are_compensated():
    compare(scene(), {"antialiased": True}, rasterize_mode="antialiased", packed=False)


def test_harmonics_of_less_than_the_degree_there_is():
    values = scene()
    values["colors"] = torch.randn(40, 16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) * 0.3
    with_less = {**values, "colors": values["colors"][:, :9]}
    ours, theirs = leaves(values, torch.float32), leaves(with_less, torch.float64)
    image = rasterization(**ours, width=WIDTH, height=HEIGHT, sh_degree=2)[0]
    right = expected(theirs, degree=2)[0]
    assert torch.isclose(image.double(), right, atol=1e-4).double().mean() > 0.999
    image.square().sum().backward()
    right.square().sum().backward()
    for name in NAMES:
        found, wanted = ours[name].grad, theirs[name].grad
        if name == "colors":
            assert not found[:, 9:].any()
            found = found[:, :9]
        elif name == "viewmats":
            found, wanted = found[:, :3], wanted[:, :3]
        assert (found.double() - wanted).norm() / wanted.norm() < 2e-3


@pytest.mark.parametrize("model", ["ortho", "fisheye"])
def test_other_cameras(model):
    values = scene(N=20)
    if model == "ortho":
        values["Ks"] = values["Ks"] * torch.tensor([0.4, 0.4, 1.0], dtype=torch.float64)[:, None]
        values["Ks"][:, [0, 1], [2, 2]] = torch.tensor([21.0, 14.0], dtype=torch.float64)
    compare(values, {"model": model}, camera_model=model, packed=False)


def test_other_eps2d_and_given_covariances():
    values = scene()
    compare(values, {"eps2d": 0.1}, eps2d=0.1)
    covars = reference.covariances(values["quats"], values["scales"])
    given = {k: v for k, v in values.items() if k not in ("quats", "scales")}
    own = leaves({**given, "covars": covars}, torch.float32)
    own["covars"].requires_grad_()
    image = rasterization(quats=None, scales=None, **own, width=WIDTH, height=HEIGHT)[0]
    theirs = leaves({**given, "covars": covars}, torch.float64)
    theirs["covars"].requires_grad_()
    right = expected(theirs)[0]
    image.square().sum().backward()
    right.square().sum().backward()
    assert torch.isclose(image.double(), right, atol=1e-4).double().mean() > 0.999
    # gradients of a symmetric matrix: only the sum of both halves is defined
    found, wanted = (v + v.mT for v in (own["covars"].grad.double(), theirs["covars"].grad))
    assert (found - wanted).norm() / wanted.norm() < 2e-3


@pytest.mark.parametrize("channels", [1, 7, 40])
def test_any_number_of_features(channels):
    compare(scene(channels=channels), packed=channels == 7)


def test_each_view_may_have_its_own_colours():
    values = scene()
    values["colors"] = torch.rand(2, 40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    for packed in (False, True):
        compare(values, packed=packed)


def test_batches_are_scenes_of_their_own():
    scenes = [{k: v.float() for k, v in scene(seed=seed).items()} for seed in range(3)]
    together = {k: torch.stack([s[k] for s in scenes]).unsqueeze(0) for k in scenes[0]}
    for packed in (False, True):
        image, alpha, meta = rasterization(**together, width=WIDTH, height=HEIGHT, packed=packed)
        assert image.shape == (1, 3, 2, HEIGHT, WIDTH, 3) and alpha.shape == (1, 3, 2, HEIGHT, WIDTH, 1)
        assert meta["n_batches"] == 3 and meta["n_cameras"] == 2
        for i, one in enumerate(scenes):
            assert torch.equal(image[0, i], rasterization(**one, width=WIDTH, height=HEIGHT)[0])
    assert meta["isect_offsets"].shape == (1, 3, 2, 2, 3)
    assert set(meta["batch_ids"].tolist()) == {0, 1, 2}


KEYS = [
    "batch_ids",
    "camera_ids",
    "gaussian_ids",
    "radii",
    "means2d",
    "depths",
    "conics",
    "opacities",
    "tile_width",
    "tile_height",
    "tiles_per_gauss",
    "isect_ids",
    "flatten_ids",
    "isect_offsets",
    "width",
    "height",
    "tile_size",
    "n_batches",
    "n_cameras",
]


@pytest.mark.parametrize("packed", [False, True])
def test_the_dictionary_has_the_keys_shapes_and_types_of_gsplat(packed):
    values = {k: v.float() for k, v in scene(N=30).items()}
    values["means"][:5, 2] = -9  # behind the cameras
    _, _, meta = rasterization(**values, width=WIDTH, height=HEIGHT, packed=packed)
    assert list(meta) == KEYS and isinstance(meta, dict)
    rows = meta["depths"].shape
    if packed:
        assert len(rows) == 1 and 0 < rows[0] <= 50
        for name in ("batch_ids", "camera_ids", "gaussian_ids"):
            assert meta[name].shape == rows and meta[name].dtype == torch.int64
        assert (meta["radii"] > 0).all() and set(meta["camera_ids"].tolist()) == {0, 1}
    else:
        assert rows == (2, 30) and meta["batch_ids"] is meta["camera_ids"] is meta["gaussian_ids"] is None
        assert not meta["radii"][:, :5].any()
    shapes = {"radii": (2,), "means2d": (2,), "conics": (3,), "opacities": (), "tiles_per_gauss": ()}
    types = {"radii": torch.int32, "tiles_per_gauss": torch.int32}
    for name, end in shapes.items():
        assert meta[name].shape == (*rows, *end) and meta[name].dtype == types.get(name, torch.float32)
    assert (meta["tile_width"], meta["tile_height"], meta["tile_size"]) == (3, 2, 16)
    assert meta["isect_ids"].dtype == torch.int64 and meta["flatten_ids"].dtype == torch.int32
    assert meta["isect_offsets"].shape == (2, 2, 3) and meta["isect_offsets"].dtype == torch.int32
    assert len(meta["flatten_ids"]) == int(meta["tiles_per_gauss"].sum()) > 0


def test_the_dictionary_can_be_copied_before_it_is_complete():
    values = {k: v.float() for k, v in scene(N=5).items()}
    _, _, meta = rasterization(**values, width=WIDTH, height=HEIGHT)
    assert {**meta}["isect_ids"] is not None and dict(meta)["conics"].shape[-1] == 3
    assert meta.get("nothing") is None and meta.pop("flatten_ids") is not None and "flatten_ids" not in meta
    assert all(v is not None for v in meta.copy().values())


def test_radius_clip_leaves_small_ones_out():
    values = {k: v.float() for k, v in scene().items()}
    _, _, whole = rasterization(**values, width=WIDTH, height=HEIGHT, packed=False)
    limit = float(whole["radii"].float().median())
    image, _, meta = rasterization(**values, width=WIDTH, height=HEIGHT, packed=False, radius_clip=limit)
    small = (whole["radii"] <= limit).all(-1)
    assert small.any() and not meta["radii"][small].any()
    assert torch.equal(meta["radii"][~small], whole["radii"][~small])
    assert not torch.equal(image, rasterization(**values, width=WIDTH, height=HEIGHT, packed=False)[0])


@pytest.mark.parametrize("packed", [False, True])
def test_gradients_on_the_image_and_their_absolute_sums(packed):
    values = leaves(scene(), torch.float32)
    image, _, meta = rasterization(**values, width=WIDTH, height=HEIGHT, packed=packed, absgrad=True)
    meta["means2d"].retain_grad()
    # what the left half does to a Gaussian, and what the right half does
    image[:, :, :20].sum().backward(retain_graph=True)
    left, left_absolute = meta["means2d"].grad.clone(), meta["means2d"].absgrad.clone()
    assert left_absolute.shape == left.shape == meta["means2d"].shape
    assert (left_absolute >= left.abs() - 1e-5).all() and (left_absolute > left.abs() + 1e-3).any()


def test_sparse_gradients_are_the_dense_ones():
    found = []
    for sparse in (False, True):
        values = leaves(scene(N=50), torch.float32)
        with torch.no_grad():
            values["means"][:20, 2] = -9
        rasterization(**values, width=WIDTH, height=HEIGHT, packed=True, sparse_grad=sparse)[0].sum().backward()
        found.append([values[name].grad for name in ("means", "quats", "scales")])
    for dense, sparse in zip(*found, strict=True):
        assert sparse.is_sparse and sparse._nnz() <= 30
        assert torch.equal(sparse.to_dense(), dense)


def test_no_step_keeps_its_graph():
    import gc
    import weakref

    gc.disable()
    try:
        values = leaves(scene(N=5), torch.float32)
        image, _, meta = rasterization(**values, width=WIDTH, height=HEIGHT, absgrad=True)
        image.sum().backward()
        kept = weakref.ref(meta["means2d"])
        del image, meta, _
        assert kept() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"quats": torch.zeros(40, 3)}, "quats has shape [40, 3]; the rule: [40, 4]"),
        ({"Ks": torch.zeros(3, 3)}, "Ks has shape [3, 3]; the rule: [2, 3, 3]"),
        ({"means": torch.zeros(40, 3, dtype=torch.float64)}, "means.dtype is torch.float64; the rule: torch.float32"),
        ({"render_mode": "RGBD"}, "render_mode is 'RGBD'; the rule: one of RGB, D, ED, RGB+D, RGB+ED"),
        ({"rasterize_mode": "soft"}, "rasterize_mode is 'soft'; the rule: one of classic, antialiased"),
        ({"camera_model": "ftheta"}, "camera_model is 'ftheta'"),
        ({"sh_degree": 3}, "colors has shape [40, 3]"),
        ({"sh_degree": 2, "colors": torch.zeros(40, 4, 3)}, "K is 4; the rule: at least 9 for degree 2"),
        ({"sparse_grad": True, "packed": False}, "sparse_grad is True; the rule: only where packed is True"),
        ({"distributed": True}, "distributed is True; the rule: False"),
        ({"backgrounds": torch.zeros(3)}, "backgrounds has shape [3]; the rule: [2, 3]"),
        ({"width": 0}, "width is 0; the rule: a whole number above 0"),
    ],
)
def test_wrong_arguments_are_one_line_that_says_the_rule(change, words):
    values = {k: v.float() for k, v in scene().items()} | {"width": WIDTH, "height": HEIGHT} | change
    with pytest.raises(WrongCall) as caught:
        rasterization(**values)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, AssertionError) and isinstance(caught.value, BadInput)


def test_no_gaussians_and_none_in_sight():
    values = {k: v.float() for k, v in scene(N=3).items()}
    values["means"][:, 2] = -9
    background = torch.rand(2, 3)
    for packed in (False, True):
        image, alpha, meta = rasterization(**values, width=WIDTH, height=HEIGHT, packed=packed, backgrounds=background)
        assert torch.equal(image, background[:, None, None].expand_as(image)) and not alpha.any()
        assert len(meta["flatten_ids"]) == 0 and not meta["isect_offsets"].any()
