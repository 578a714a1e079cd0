"""The backend "gsplat", with a package in the place of gsplat that notes what is asked and is made of the stand-in."""

import inspect
import sys
import types
from types import SimpleNamespace

import pytest
import torch

from radfield import backend, compat
from radfield.compat import gsplat as stand_in
from radfield.errors import BadInput, RadfieldWarning
from radfield.gaussians.scene import GaussianScene, see
from radfield.renderers.gaussian_camera import Camera
from radfield.renderers.gaussian_projection import project

NAMES = ("rasterization", "rasterization_2dgs", "fully_fused_projection", "spherical_harmonics", "isect_tiles")
NAMES += ("isect_offset_encode", "rasterize_to_pixels")


@pytest.fixture
def calls(monkeypatch):
    """The names and arguments of what is asked of the package. Its signatures are the stand-in's, which are those of
    gsplat 1.5.3 (test_gsplat_install.py)."""
    noted, package = [], types.ModuleType("gsplat")

    def noting(name):
        function = getattr(stand_in, name)
        signature = inspect.signature(function)

        def call(*positional, **named):
            bound = signature.bind(*positional, **named)
            bound.apply_defaults()
            noted.append((name, SimpleNamespace(**bound.arguments)))
            with backend.unforced():
                return function(*positional, **named)

        return call

    for name in NAMES:
        setattr(package, name, noting(name))
    wrapper = types.ModuleType("gsplat.cuda._wrapper")
    wrapper.RollingShutterType = stand_in.RollingShutterType
    for module in (package, types.ModuleType("gsplat.cuda"), wrapper):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return noted


def gaussians(count=30):
    """A scene before the camera of `camera`."""
    generator = torch.Generator().manual_seed(0)
    values = {
        "means": torch.randn(3, count, generator=generator) * 0.4,
        "quaternions": torch.randn(4, count, generator=generator),
        "log_scales": torch.randn(3, count, generator=generator) * 0.3 - 2,
        "opacity_logits": torch.randn(count, generator=generator),
        "base": torch.randn(3, count, generator=generator) * 0.5,
        "rest": torch.randn(9, count, generator=generator) * 0.1,
    }
    return GaussianScene(**{name: value.requires_grad_() for name, value in values.items()})


def camera(**options):
    pose = torch.eye(4)
    pose[2, 3] = 3.0
    return Camera(pose, (40.0, 42.0), (17.0, 15.0), 33, 30, near=0.02, far=50.0, **options)


def drawn_by(name, antialiased):
    """The picture, and the gradients of its parameters and of the sums of absolute values."""
    scene, absolute = gaussians(), torch.zeros(2, 30)
    background = torch.tensor([0.2, 0.4, 0.6])
    with backend.use(name):
        found = see(scene, camera(), background, antialiased=antialiased, max_alpha=0.999, absolute=absolute).image
        weights = torch.rand(found.color.shape, generator=torch.Generator().manual_seed(1))
        ((found.color * weights).sum() + found.alpha.sum()).backward()
    parameters = (scene.means, scene.quaternions, scene.log_scales, scene.opacity_logits, scene.base, scene.rest)
    return [found.color.detach(), found.alpha.detach(), absolute, *(v.grad for v in parameters)]


@pytest.mark.parametrize("antialiased", [False, True])
def test_a_picture_is_that_of_its_functions(calls, antialiased):
    ours, theirs = drawn_by("cpu", antialiased), drawn_by("gsplat", antialiased)
    names = ["fully_fused_projection", "spherical_harmonics", "isect_tiles", "isect_offset_encode"]
    assert [name for name, _ in calls] == [*names, "rasterize_to_pixels"]
    projection, harmonics, tiles, _, pixels = (asked for _, asked in calls)
    assert projection.means.shape == (30, 3) and projection.viewmats.shape == (1, 4, 4) and not projection.packed
    assert (projection.width, projection.height, projection.near_plane, projection.far_plane) == (33, 30, 0.02, 50.0)
    assert projection.Ks[0].tolist() == [[40, 0, 17], [0, 42, 15], [0, 0, 1]] and projection.eps2d == 0.3
    assert projection.calc_compensations is antialiased and projection.covars is None
    assert harmonics.degrees_to_use == 1 and harmonics.coeffs.shape == (30, 4, 3)
    assert (tiles.tile_size, tiles.tile_width, tiles.tile_height) == (16, 3, 2) and tiles.radii.dtype == torch.int32
    assert pixels.backgrounds.shape == (1, 3) and pixels.absgrad and pixels.isect_offsets.shape == (1, 2, 3)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(a.abs().max()))


def test_the_stand_ins_rasterization_is_handed_over(calls):
    geometry = torch.zeros(3, 3), torch.eye(4)[:3], torch.full((3, 3), 0.1)
    view, K = torch.eye(4)[None], torch.tensor([[[20.0, 0, 8], [0, 20, 8], [0, 0, 1]]])
    given = *geometry, torch.full((3,), 0.5), torch.rand(3, 3), view, K, 16, 16
    with backend.use("gsplat"):
        image, _, meta = stand_in.rasterization(*given, render_mode="RGB+D", packed=False, absgrad=True)
        stand_in.rasterization_2dgs(*given, near_plane=0.5)
    (first, asked), (second, surfels) = calls
    assert (first, second) == ("rasterization", "rasterization_2dgs")
    assert image.shape == (1, 16, 16, 4) and meta["width"] == 16
    assert asked.means is given[0] and asked.Ks is K and surfels.near_plane == 0.5
    assert (asked.render_mode, asked.packed, asked.absgrad, asked.sh_degree) == ("RGB+D", False, True, None)


def test_what_it_has_not_is_refused_or_announced(calls):
    values = torch.zeros(2, 3), torch.ones(2, 4), torch.ones(2, 3), torch.ones(2)
    with backend.use("gsplat"):
        with pytest.raises(BadInput, match=r"the camera is fisheye .*the rule: perspective, without"):
            project(*values, camera(model="fisheye"))
        moving = Camera(torch.eye(4), torch.ones(2, requires_grad=True), (1.0, 1.0), 2, 2)
        with pytest.raises(BadInput, match="focal or center requires a gradient"):
            project(*values, moving)
        with pytest.warns(RadfieldWarning, match="alpha is at most 0.999 there, not 0.99"):
            see(gaussians(), camera())


def test_without_the_package_or_a_gpu_it_cannot_be_used(monkeypatch):
    def refused(match):
        with pytest.raises(BadInput, match=f"backend is 'gsplat': {match}"), backend.use("gsplat"):
            pass

    monkeypatch.setitem(sys.modules, "gsplat", types.ModuleType("gsplat"))
    refused("torch has no CUDA GPU here")  # conftest.py sees to that
    monkeypatch.delitem(sys.modules, "gsplat")
    with monkeypatch.context() as without:
        without.setattr("importlib.util.find_spec", lambda name: None)
        refused("gsplat is not installed")
    compat.install(replace=True)
    try:
        refused("`gsplat` is radfield's own stand-in")
    finally:
        compat.uninstall()
