"""The neural surface: its passes on native kernels against automatic differentiation in float64, and its start."""

import pytest
import torch
from checks import NATIVE_BACKENDS

from radfield import backend
from radfield.encodings import hash_grid, registry
from radfield.encodings.slope_gradients import SlopeGradients
from radfield.errors import BadInput
from radfield.fields import neural_surface, surface_passes
from radfield.fields.neural_surface import Config, NeuralSurface
from radfield.networks.mlp import mlp_reference


def surface(encoding="hash", seed=0, **options):
    sizes = {"levels": 4, "features": 2, "log2_size": 10, "base_resolution": 4, "finest_resolution": 40}
    config = Config(grid=registry.config_of(encoding, **sizes), **options)
    generator = torch.Generator().manual_seed(seed)
    made = NeuralSurface(config, generator)
    made.grid.grad_into = SlopeGradients(made.grid.grid)
    if made.color_grid is not None:
        made.color_grid.adam_groups()
    with torch.no_grad():  # as after some training: every path carries something
        for grid in made.grids:
            grid.table.uniform_(-0.3, 0.3, generator=generator)
        for network in made.networks:
            network.weights += 0.1 * torch.randn(network.weights.shape, generator=generator)
            network.grad_into = torch.zeros_like(network.weights)
        keep_shared(made)
    return made


def keep_shared(made):
    """Makes the two parts of the position's weights equal again."""
    if made.position == 6:
        fan_in, fan_out = made.sdf_network.layers.table[0, :2].tolist()
        first = made.sdf_network.weights[: fan_in * fan_out].view(fan_out, fan_in)
        first[:, made.grid.channels + 3 :] = first[:, made.grid.channels : made.grid.channels + 3]


def points(count, generator):
    x = torch.rand(count, 3, generator=generator)
    d = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return x, d


def weights(count, generator):
    return tuple(torch.randn(size, count, generator=generator) for size in (1, 3, 3))


def both(made, count, device="cpu"):
    """Answers and gradients of both ways, of a random combination of all answers and of the eikonal term."""
    generator = torch.Generator().manual_seed(3)
    x, d = (each.to(device) for each in points(count, generator))
    by_f, by_normal, by_logits = (each.to(device) for each in weights(count, generator))
    tape = surface_passes.forward(made, x, d)
    length = tape.normal.norm(dim=0)
    eikonal = 2 * (length - 1) * tape.normal / length
    surface_passes.backward(made, tape, by_f[0], by_normal + eikonal, by_logits)
    ours = {"table": made.grid.grad_into.gradient(made.grid.table)}
    ours |= {"sdf": made.sdf_network.grad_into, "color": made.color_network.grad_into}

    leaves = {"table": made.grid.table, "sdf": made.sdf_network.weights, "color": made.color_network.weights}
    if made.color_grid is not None:
        ours["color_table"], leaves["color_table"] = color_table_gradient(made), made.color_grid.table
    leaves = {k: v.detach().double().requires_grad_() for k, v in leaves.items()}
    at = x.double().requires_grad_()
    with backend.use("reference"):
        answer = neural_surface.reference(made, at, d.double(), leaves)
    loss = (answer.f * by_f[0].double()).sum() + (answer.normal * by_normal.T.double()).sum()
    loss = loss + (answer.logits * by_logits.T.double()).sum() + (answer.normal.norm(dim=1) - 1).square().sum()
    theirs = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    return tape.answer, answer, ours, theirs


def color_table_gradient(made):
    """[E, F]: what Adam is given, by the step that it takes from nothing: (1 - beta1) of the gradient is its mean."""
    table, m = made.color_grid.table, torch.zeros_like(made.color_grid.table)
    state = {"parameter": table.detach().clone(), "m": m, "v": torch.zeros_like(m), "shadow": None}
    rates = {"rate": 0.0, "beta1": 0.0, "beta2": 0.0, "epsilon": 1.0, "correction2": 1.0, "l2": 0.0, "skip": 0}
    made.color_grid.grad_into.adam_step(**state, bad=torch.zeros(1, dtype=torch.int64), **rates)
    return m


def off(ours, theirs):
    return float((ours.double() - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("options", [{}, {"layers": 2, "color_layers": 1}, {"width": 32, "features": 8}])
@pytest.mark.parametrize("encoding", ["hash", "simplex"])
def test_values_and_gradients_equal_those_of_automatic_differentiation(encoding, options):
    answer, expected, ours, theirs = both(surface(encoding, **options), 700)
    for name in ("f", "normal", "logits"):
        assert off(getattr(answer, name), getattr(expected, name).detach()) < 1e-4, name
    for name, value in ours.items():
        assert off(value, theirs[name]) < 1e-4, name


COLOR_GRID = hash_grid.Config(levels=3, features=2, log2_size=9, base_resolution=8, growth=1.7)


def test_colors_have_a_grid_of_their_own_where_asked():
    made = surface(color_grid=COLOR_GRID)
    answer, expected, ours, theirs = both(made, 700)
    for name in ("f", "normal", "logits"):
        assert off(getattr(answer, name), getattr(expected, name).detach()) < 1e-4, name
    assert "color_table" in ours
    for name, value in ours.items():
        assert off(value, theirs[name]) < 1e-4, name


@pytest.mark.parametrize("color_grid", [None, COLOR_GRID])
def test_position_gradient_is_that_of_distance_and_color_with_the_normal_held(color_grid):
    made = surface(color_grid=color_grid)
    generator = torch.Generator().manual_seed(3)
    x, d = points(300, generator)
    by_f, _, by_logits = weights(300, generator)
    tape = surface_passes.forward(made, x, d)
    ours = surface_passes.position_gradient(made, tape, by_f[0], by_logits)
    seen = tape.seen.double()
    at, leaves = x.double().requires_grad_(), {}
    for name, part in (("table", made.grid.table), ("color_table", made.color_grid and made.color_grid.table)):
        leaves[name] = None if part is None else part.detach().double()
    with backend.use("reference"):
        encoded = hash_grid.hash_grid_reference(at, leaves["table"], made.grid.grid)
        given = made.sdf_network.weights.detach().double(), made.sdf_network.layers
        y = mlp_reference(encoded, at - 0.5, *given)
        own = []
        if color_grid is not None:
            own.append(hash_grid.hash_grid_reference(at, leaves["color_table"], made.color_grid.grid))
        harmonics = made.harmonics.channels
        held = seen.T[:, :harmonics], at - 0.5, seen.T[:, harmonics + 3 : harmonics + 6]
        given = made.color_network.weights.detach().double(), made.color_network.layers
        logits = mlp_reference(y, torch.cat((*held, *own), 1), *given)
    value = (y[:, 0] * by_f[0].double()).sum() + (logits * by_logits.T.double()).sum()
    (theirs,) = torch.autograd.grad(value, at)
    assert off(ours.T, theirs) < 1e-4


@pytest.mark.parametrize("name", NATIVE_BACKENDS[1:])
def test_cuda_kernels_agree_too(name):
    made = surface(layers=2, width=16, features=4, color_layers=1)
    made.levels = 3
    device = "cuda" if name == "cuda" else "cpu"
    with backend.use(name):
        for network in made.to(device).networks:
            network.grad_into = network.grad_into.to(device)
        answer, expected, ours, theirs = both(made, 40, device)
    for key in ("f", "normal", "logits"):
        assert off(getattr(answer, key), getattr(expected, key).detach()) < 1e-4, key
    for key, value in ours.items():
        assert off(value, theirs[key]) < 1e-4, key


@pytest.mark.parametrize("encoding", ["hash", "simplex"])
def test_levels_that_are_not_in_use_are_zero_and_get_no_gradient(encoding):
    made = surface(encoding)
    made.levels = 2
    answer, expected, ours, theirs = both(made, 300)
    assert off(answer.normal, expected.normal.detach()) < 1e-4
    assert off(ours["table"], theirs["table"]) < 1e-4
    assert float(ours["table"][int(made.grid.grid.levels[2, 0]) :].abs().max()) == 0


def test_bf16_stays_close():
    made = surface(precision="bf16")
    answer, expected, ours, theirs = both(made, 2000)
    assert off(answer.f, expected.f.detach()) < 2e-2
    normal = expected.normal.detach()
    assert float((answer.normal - normal).abs().mean()) < 0.02 * float(normal.abs().mean())
    # the reference has the position's second part at 0, and all of the gradient at the first
    fan_in, fan_out = made.sdf_network.layers.table[0, :2].tolist()
    ours["sdf"][: fan_in * fan_out].view(fan_out, fan_in)[:, made.grid.channels + 3 :] = 0
    for name, value in ours.items():
        assert float((value.double() - theirs[name]).norm() / theirs[name].norm()) < 0.05, name


def test_position_parts_share_their_weights():
    made = surface(precision="bf16")
    generator = torch.Generator().manual_seed(3)
    tape = surface_passes.forward(made, *points(500, generator))
    by_f, by_normal, by_logits = weights(500, generator)
    surface_passes.backward(made, tape, by_f[0], by_normal, by_logits)
    fan_in, fan_out = made.sdf_network.layers.table[0, :2].tolist()
    first = made.sdf_network.grad_into[: fan_in * fan_out].view(fan_out, fan_in)[:, made.grid.channels :]
    assert torch.equal(first[:, :3], first[:, 3:])
    assert float(first.abs().max()) > 0


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("layers", [1, 2])
def test_it_starts_as_a_sphere(precision, layers):
    made = NeuralSurface(Config(radius=0.15, precision=precision, layers=layers), torch.Generator().manual_seed(0))
    x, _ = points(4000, torch.Generator().manual_seed(1))
    tape = surface_passes.geometry(made, x)
    p = x - 0.5
    assert float((tape.f - (p.norm(dim=1) - 0.15)).abs().max()) < 0.02
    cosine = (tape.normal.T * p).sum(1) / (p.norm(dim=1) * tape.normal.norm(dim=0))
    assert float(cosine.median()) > 0.99
    assert float((tape.normal.norm(dim=0) - 1).abs().mean()) < 0.03


def test_bf16_keeps_the_position_finer_than_8_bits():
    made = NeuralSurface(Config(precision="bf16"), torch.Generator().manual_seed(0))
    x = torch.full((64, 3), 0.5)
    x[:, 2] = 0.95 + torch.arange(64) * 1e-4
    f = surface_passes.distance(made, x)
    assert float((f.diff() - 1e-4).abs().max()) < 2e-3  # 8 bits of 0.45 are 2e-3 apart: f would move in steps
    assert len(f.unique()) > 8


def test_bits_do_not_depend_on_threads(threads):
    def run():
        made = surface(precision="bf16")
        generator = torch.Generator().manual_seed(3)
        tape = surface_passes.forward(made, *points(3000, generator))
        by_f, by_normal, by_logits = weights(3000, generator)
        surface_passes.backward(made, tape, by_f[0], by_normal, by_logits)
        found = made.grid.grad_into.gradient(made.grid.table), made.sdf_network.grad_into
        return tape.f, tape.normal, tape.logits, *found

    for ours, theirs in threads(run):
        assert torch.equal(ours, theirs)


def test_encodings_without_second_derivatives_are_refused():
    with pytest.raises(BadInput, match="second derivatives"):
        NeuralSurface(Config(grid=registry.config_of("triplane")))
    with pytest.raises(BadInput, match="second derivatives"):
        NeuralSurface(Config(grid=hash_grid.Config(nearest=True)))
