"""Adam: agreement with its reference and with torch.optim.Adam, the rule of skipping, rejected gradients, state."""

import pytest
import torch

from radfield import backend
from radfield.encodings.hash_grid import Config, HashGrid
from radfield.errors import BadInput
from radfield.training.adam import Adam, adam_reference

SIZES = (0, 1, 15, 16, 33, 1000, 40_000)


def sparse_gradient(size, density):
    return torch.randn(size) * (torch.rand(size) < density)


def run(size, steps, name, density=1.0, seed=3, **options):
    """Parameters after some steps on backend `name`, with the optimiser and the copy."""
    torch.manual_seed(seed)
    p = torch.nn.Parameter(torch.randn(size))
    buffer, shadow = torch.zeros(size), p.detach().bfloat16()
    optimiser = Adam([{"params": [p], "grads": [buffer], "shadows": [shadow]}], **options)
    with backend.use(name):
        for _ in range(steps):
            buffer += sparse_gradient(size, density)
            assert optimiser.step(scale=0.5) == 0
            assert (buffer == 0).all()
    return p.detach(), shadow, optimiser


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("mode", "density"), [("dense", 1.0), ("dense", 0.3), ("skip", 0.3), ("skip", 0.002)])
def test_agrees_with_reference(size, mode, density):
    options = {"density": density, "mode": mode, "l2": 0.01}
    ours, shadow, optimiser = run(size, 4, "cpu", **options)
    expected, _, reference = run(size, 4, "reference", **options)
    assert torch.allclose(ours, expected, rtol=1e-5, atol=1e-6)
    for name, value in optimiser.state_dict().items():
        assert torch.allclose(value, reference.state_dict()[name], rtol=1e-5, atol=1e-7)
    assert torch.equal(shadow, ours.bfloat16())


@pytest.mark.parametrize("eps", [1e-15, 1e-3])
def test_reference_is_the_formula_of_torch(eps):
    p = torch.randn(100, dtype=torch.float64).requires_grad_()
    theirs = torch.optim.Adam([p], lr=0.02, betas=(0.8, 0.95), eps=eps, weight_decay=0.1)
    ours, m, v = p.detach().clone(), torch.zeros_like(p), torch.zeros_like(p)
    for step in range(1, 6):
        p.grad = torch.randn_like(p)
        options = {"lr": 0.02, "betas": (0.8, 0.95), "eps": eps, "l2": 0.1}
        ours, m, v, _ = adam_reference(ours, p.grad, m.detach(), v.detach(), step=step, **options)
        theirs.step()
        assert torch.allclose(ours, p, rtol=1e-12)


def test_native_is_the_formula_of_torch():
    p = torch.nn.Parameter(torch.randn(777))
    q = torch.nn.Parameter(p.detach().double())
    ours = Adam([p], lr=0.03, l2=1e-3)
    theirs = torch.optim.Adam([q], lr=0.03, betas=(0.9, 0.99), eps=1e-15, weight_decay=1e-3)
    for _ in range(10):
        p.grad = torch.randn(777)
        q.grad = p.grad.double()
        ours.step(), theirs.step()
    assert torch.allclose(p.double(), q, rtol=1e-5, atol=1e-6)
    assert p.grad is None


def test_skipped_entries_do_not_change():
    before = torch.randn(5000)
    p = torch.nn.Parameter(before.clone())
    optimiser = Adam([p], mode="skip", l2=0.1)
    p.grad = torch.randn(5000)
    optimiser.step()
    after = p.detach().clone()
    state = {k: v.clone() for k, v in optimiser.state_dict().items()}
    p.grad = gradient = sparse_gradient(5000, 0.01)
    optimiser.step(clear=False)
    still = gradient == 0
    assert torch.equal(p[still], after[still]) and (p[~still] != after[~still]).all()
    for name in ("m.0", "v.0"):
        assert torch.equal(optimiser.state_dict()[name][still], state[name][still])
    assert p.grad is gradient and (gradient != 0).any()


@pytest.mark.parametrize("mode", ["dense", "skip"])
@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_gradients_that_are_not_finite_are_counted_and_not_applied(mode, name):
    p = torch.nn.Parameter(torch.ones(100))
    optimiser = Adam([p], mode=mode)
    p.grad = torch.ones(100)
    p.grad[[3, 50, 51, 99]] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30])
    with backend.use(name):
        assert optimiser.step() == 4
    changed = p != 1
    assert changed.sum() == 96 and not changed[[3, 50, 51, 99]].any()
    assert all(v.isfinite().all() for v in optimiser.state_dict().values())


def test_groups_have_options_of_their_own():
    a, b = (torch.nn.Parameter(torch.ones(4)) for _ in range(2))
    optimiser = Adam([{"params": [a], "lr": 0.5}, {"params": [b], "mode": "skip"}], lr=0.1)
    for p in (a, b):
        p.grad = torch.tensor([1.0, -1.0, 0.0, 2.0])
    optimiser.step()
    assert torch.allclose(a, torch.tensor([0.5, 1.5, 1.0, 0.5]))
    assert torch.allclose(b, torch.tensor([0.9, 1.1, 1.0, 0.9]))
    optimiser.param_groups[0]["lr"] = 0.0
    a.grad = torch.ones(4)
    optimiser.step()
    assert torch.allclose(a, torch.tensor([0.5, 1.5, 1.0, 0.5]))


def test_copy_of_a_hash_grid_follows_without_conversion():
    grid = HashGrid(3, Config(4, 2, 10, precision="bf16"))
    grid.grad_into = torch.zeros_like(grid.table)
    group = {"params": [grid.table], "grads": [grid.grad_into], "shadows": [grid.stored()]}
    optimiser = Adam([group], mode="skip")
    version = grid.table._version
    x = torch.rand(100, 3)
    grid(x).float().sum().backward()
    before = grid.stored().clone()
    optimiser.step()
    assert grid.table._version == version
    assert torch.equal(grid.stored(), grid.table.bfloat16()) and not torch.equal(grid.stored(), before)


def test_torch_learns_of_the_change_where_there_is_no_copy():
    grid = HashGrid(3, Config(4, 2, 10, precision="bf16"))
    grid(torch.rand(100, 3)).float().sum().backward()
    Adam([grid.table]).step()
    assert torch.equal(grid.stored(), grid.table.bfloat16())


def test_state_continues_bit_for_bit():
    def steps(p, optimiser, seeds):
        for seed in seeds:
            p.grad = torch.randn(300, generator=torch.Generator().manual_seed(seed))
            optimiser.step()

    p = torch.nn.Parameter(torch.ones(300))
    whole = Adam([p])
    steps(p, whole, range(3))
    q = torch.nn.Parameter(p.detach().clone())
    resumed = Adam([q])
    resumed.load_state_dict({k: v.clone() for k, v in whole.state_dict().items()})
    steps(p, whole, range(3, 6)), steps(q, resumed, range(3, 6))
    assert torch.equal(p, q)


def test_zero_grad_forgets():
    p = torch.nn.Parameter(torch.ones(3))
    p.grad, buffer = torch.ones(3), torch.ones(3)
    Adam([{"params": [p], "grads": [buffer]}]).zero_grad()
    assert p.grad is None and (buffer == 0).all()


def test_same_bits_with_any_number_of_threads(threads):
    for ours, expected in threads(lambda: run(100_000, 3, "cpu", density=0.1, mode="skip")[:2]):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize(
    ("groups", "options", "words"),
    [
        ([torch.ones(3)], {"mode": "lazy"}, "mode is 'lazy'"),
        ([torch.ones(3)], {"betas": (0.9, 1.0)}, "betas"),
        ([torch.ones(3)], {"momentum": 1}, "momentum"),
        ([torch.ones(3).double()], {}, "a parameter is"),
        ([torch.ones(3, 2).T], {}, "a parameter is"),
        ([{"params": [torch.ones(3)], "grads": [torch.ones(4)]}], {}, "one of grads"),
        ([{"params": [torch.ones(3)], "shadows": [torch.ones(3)]}], {}, "one of shadows"),
        ([{"params": [torch.ones(3)], "grads": [None, None]}], {}, "grads has 2"),
    ],
)
def test_refuses(groups, options, words):
    with pytest.raises(BadInput, match=words):
        Adam(groups, **options)


@pytest.mark.parametrize("change", [{"m.0": torch.zeros(4)}, {"m.0": torch.zeros(3).double()}, {"m.7": torch.zeros(3)}])
def test_refuses_another_state(change):
    optimiser = Adam([torch.ones(3)])
    with pytest.raises(BadInput, match="state"):
        optimiser.load_state_dict({**optimiser.state_dict(), **change})
