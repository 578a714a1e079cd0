"""The surface of a distance field in one pass: what is exact, and what one stage after another gives."""

import pytest
import torch
from checks import EMULATES
from cuda_emulator.backend import SCHEDULES, emulator

from radfield import backend
from radfield.apps.fit.sdf_views import cameras_around
from radfield.encodings.dense_grid import Config as DenseConfig
from radfield.encodings.hash_grid import Config
from radfield.errors import BadInput
from radfield.fields import distance
from radfield.networks.mlp import MLP
from radfield.rays import Rays
from radfield.renderers import sphere_tracing
from radfield.renderers.sphere_tracing import HIT, FieldDistance, FreeSpace, render_rays

BOX = (torch.zeros(3), torch.ones(3))
WHITE = torch.ones(3)
GRIDS = {"hash": Config(4, 2, log2_size=10), "dense": DenseConfig(3, 4)}


@pytest.fixture(autouse=True)
def few_cells(monkeypatch):
    monkeypatch.setattr(sphere_tracing, "CELLS", 32)


def bumpy(kind="hash", precision="f32"):
    """About a sphere: 20 steps of Adam towards one, and noise."""
    field = distance.DistanceField(distance.Config(GRIDS[kind], 32, precision=precision))
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-2)
    for _ in range(40):
        x = torch.rand(2000, 3)
        loss = (field.distance(x) - ((x - 0.5).norm(dim=1) - 0.3)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        field.grid.table.add_(0.005 * torch.randn_like(field.grid.table))
    field.grid.loaded()
    return field


def plane(normal, offset):
    """f = normal (2 x - 1) + offset, exactly; the grid does not matter."""
    field = distance.DistanceField(distance.Config(GRIDS["hash"], layers=0))
    with torch.no_grad():
        field.grid.table.zero_()
        field.network.weights.zero_()
        field.network.weights[8:] = torch.tensor([*normal, offset])
    return field


def rays_around(pixels=90):
    return cameras_around(torch.full((3,), 0.8), "z", 1, pixels).image_rays(0)


def separately(shown, space, rays):
    """The specification on the same backend: a distance that is no FieldDistance."""
    return render_rays(lambda x: shown(x), space, rays, BOX, 0.5 * WHITE)


def in_one_pass(shown, space, rays, **options):
    return render_rays(shown, space, rays, BOX, 0.5 * WHITE, **options)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("kind", GRIDS)
def test_agrees_with_one_stage_after_another(kind, precision):
    shown, rays = FieldDistance(bumpy(kind, precision)), rays_around()
    space = FreeSpace.of(shown)
    (color, *ours), (their_color, *theirs) = (how(shown, space, rays) for how in (in_one_pass, separately))
    assert 0.1 < theirs[0].mean() < 0.9
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))  # opacity and depth
    torch.testing.assert_close(color, their_color, rtol=0, atol=1e-4)


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
@pytest.mark.parametrize(("order", "precision"), [*((order, "f32") for order in SCHEDULES), (0, "bf16")])
def test_on_cuda_it_agrees_with_one_stage_after_another(order, precision, monkeypatch):
    """Two blocks, whose lanes take more rays as theirs end; in one schedule a single one, in bf16 with its rows in
    scratch memory."""
    if order == SCHEDULES[-1]:
        monkeypatch.setattr("radfield.networks.mlp._MOST_BLOCKS", 1)
    if precision == "bf16":
        monkeypatch.setattr("radfield.networks.mlp._MOST_SHARED", 0)
    shown, rays = FieldDistance(bumpy("hash", precision), 0.01, ((0.1, 0.2, 0.3), (0.9, 0.9, 0.7))), rays_around(9)
    space = FreeSpace.of(shown)
    emulator.order = order
    with backend.use(backend.EMULATED):
        (color, *ours), (their_color, *theirs) = (how(shown, space, rays) for how in (in_one_pass, separately))
    assert 0.1 < theirs[0].mean() < 0.9
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))  # opacity and depth
    torch.testing.assert_close(color, their_color, rtol=0, atol=1e-4)


def test_agrees_with_plain_torch():
    """Rays that only just touch the surface may end elsewhere."""
    shown, rays = FieldDistance(bumpy()), rays_around(60)
    space = FreeSpace.of(shown)
    ours = in_one_pass(shown, space, rays)
    with backend.use("reference"):
        theirs = in_one_pass(shown, space, rays)
    assert (ours[1] != theirs[1]).float().mean() < 0.01
    both = (ours[1] * theirs[1]).bool()
    assert ((ours[2] - theirs[2])[both].abs() > 1e-3).float().mean() < 0.01
    assert ((ours[0] - theirs[0])[both].abs() > 1e-2).float().mean() < 0.01


def test_a_plane_is_met_where_it_is():
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.8]), dim=0)
    field = plane(0.5 * normal, 0.02)  # of slope 1 in x, since it sees 2 x - 1
    directions = torch.nn.functional.normalize(-normal + 0.2 * torch.randn(500, 3), dim=1)
    rays = Rays((0.5 + 0.3 * normal).expand(500, 3) + 0.05 * torch.randn(500, 3), directions)
    color, opacity, depth = in_one_pass(FieldDistance(field), FreeSpace.of(FieldDistance(field)), rays)
    towards = -(directions @ normal)
    expected = ((rays.origins - 0.5) @ normal + 0.02) / towards
    within = ((rays.origins + expected[:, None] * directions - 0.5).abs() < 0.49).all(1)
    assert within.float().mean() > 0.8 and bool(opacity[within].all())
    early = (expected - depth)[within] * towards[within]  # a ray ends where f < HIT, not behind the surface
    assert early.min() > -1e-5 and early.max() < HIT + 1e-5
    lit = torch.tensor(sphere_tracing.ALBEDO) * (0.1 + 0.9 * towards[within, None])
    torch.testing.assert_close(color[within], lit, rtol=0, atol=1e-3)


def test_level_and_crop():
    field, rays = bumpy(), rays_around()
    seen = []
    for shown in (
        FieldDistance(field),
        FieldDistance(field, level=0.05),
        FieldDistance(field, crop=((0.1, 0.2, 0.3), (0.5, 0.9, 0.6))),
    ):
        space = FreeSpace.of(shown)
        ours, theirs = in_one_pass(shown, space, rays), separately(shown, space, rays)
        assert torch.equal(ours[1], theirs[1]) and torch.equal(ours[2], theirs[2])
        seen.append(float(ours[1].mean()))
    assert seen[1] > seen[0] > seen[2] > 0


def test_a_ray_does_not_depend_on_the_others(threads):
    shown, rays = FieldDistance(bumpy()), rays_around()
    space = FreeSpace.of(shown)
    whole = in_one_pass(shown, space, rays)
    for some in (in_one_pass(shown, space, rays, width=90), in_one_pass(shown, space, rays, width=4050)):
        assert all(torch.equal(a, b) for a, b in zip(some, whole, strict=True))
    order = torch.randperm(len(rays))[:1111]
    some = in_one_pass(shown, space, rays[order])
    assert all(torch.equal(a, b[order]) for a, b in zip(some, whole, strict=True))
    for ours, expected in threads(lambda: in_one_pass(shown, space, rays, width=90)):
        assert torch.equal(ours, expected)


def test_nothing_to_meet():
    shown = FieldDistance(plane((0, 0, 0), 1.0))
    space = FreeSpace.of(shown)
    away = Rays(torch.full((3, 3), 2.0), torch.nn.functional.normalize(torch.ones(3, 3), dim=1))
    for rays in (away, rays_around(20), away[:0]):
        color, opacity, depth = in_one_pass(shown, space, rays)
        assert torch.equal(color, torch.full((len(rays), 3), 0.5)) and not opacity.any() and not depth.any()


def test_rays_along_the_axes_and_from_within():
    shown = FieldDistance(plane((0, 0, 0.5), 0.0))
    space = FreeSpace.of(shown)
    origins = torch.tensor([[0.5, 0.5, 0.9], [0.5, 0.5, 2.0], [1.5, 0.5, 0.9], [0.2, 0.2, 0.2]])
    rays = Rays(origins, torch.tensor([[0.0, 0, -1]]).expand(4, 3))
    ours, theirs = in_one_pass(shown, space, rays), separately(shown, space, rays)
    assert torch.equal(ours[2], theirs[2])
    torch.testing.assert_close(ours[2], torch.tensor([0.4, 1.5, 0.0, 0.0]), rtol=0, atol=HIT)


def test_refuses_what_does_not_belong_together():
    shown, rays = FieldDistance(plane((0, 0, 0), 1.0)), rays_around(8)
    space = FreeSpace.of(shown)
    with pytest.raises(BadInput, match="background"):
        render_rays(shown, space, rays, BOX, torch.rand(64, 3))
    with pytest.raises(BadInput, match="width is 7"):
        in_one_pass(shown, space, rays, width=7)
    with pytest.raises(BadInput, match="free"):
        in_one_pass(shown, FreeSpace(space.free[1:]), rays)
    shown.field.network = MLP(12, 1)
    with pytest.raises(BadInput, match="8 channels and 3 more"):
        in_one_pass(shown, space, rays)


class Bowl:
    """The unsigned distance to the lower half of a sphere of radius 0.3, nowhere below `least`."""

    unsigned, least = True, 5e-4

    def __call__(self, x):
        x = x - 0.5
        rim = torch.hypot(torch.hypot(x[:, 0], x[:, 1]) - 0.3, x[:, 2])
        return torch.where(x[:, 2] <= 0, (x.norm(dim=-1) - 0.3).abs(), rim).clamp_min(self.least)


def test_rays_meet_both_sides_of_an_open_sheet_and_pass_where_it_ends():
    bowl = Bowl()
    space, slant = FreeSpace.of(bowl), torch.nn.functional.normalize(torch.tensor([0.3, 0.1, 1.0]), dim=0)
    origins = torch.tensor([[0.6, 0.5, 0.02], [0.6, 0.5, 0.98], [0.02, 0.5, 0.6], [0.05, 0.5, 0.4]])
    directions = torch.stack((torch.tensor([0.0, 0, 1]), -torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0]), slant))
    depth = sphere_tracing.trace(bowl, space, Rays(origins, directions), BOX)
    below = 0.5 - (0.3**2 - 0.1**2) ** 0.5
    exact = torch.tensor([below - 0.02, 0.98 - below, torch.inf, torch.inf])
    assert torch.equal(depth.isfinite(), exact.isfinite())
    assert ((exact - depth)[:2].abs() < 0.5 * sphere_tracing.HIT_UNSIGNED).all()
    color, opacity, _ = render_rays(bowl, space, Rays(origins, directions), BOX, WHITE)
    assert opacity.tolist() == [1, 1, 0, 0]
    facing = (0.3**2 - 0.1**2) ** 0.5 / 0.3  # of the sphere's normal, from either side
    normal = torch.tensor([[0.0, (1 - facing**2) ** 0.5, facing]])
    assert torch.allclose(color[:2], sphere_tracing.shade(normal, directions[:1]).expand(2, 3), atol=0.02)
