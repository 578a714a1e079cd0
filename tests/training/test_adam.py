"""Adam."""

import pytest
import torch

from radfield import backend
from radfield.errors import BadInput
from radfield.training.adam import Adam


def run(mode, size, dtype=torch.float32, steps=5, native=True, density=0.3):
    generator = torch.Generator().manual_seed(size)
    parameter = torch.randn(size, generator=generator).to(dtype)
    shadow = parameter.bfloat16() if native else None
    grad = torch.zeros(size, dtype=dtype)
    optimizer = Adam([{"parameter": parameter, "grad": grad, "shadow": shadow, "l2": 1e-3, "mode": mode}])
    for _ in range(steps):
        new = torch.randn(size, generator=generator)
        keep = torch.rand(size, generator=generator) < density
        grad.copy_((new * keep).to(dtype))
        assert optimizer.step(lr=1e-2) == 0
        assert (grad == 0).all()
    return parameter, shadow, optimizer


@pytest.mark.parametrize("mode", ["dense", "skip"])
@pytest.mark.parametrize("size", [0, 1, 17, 1000, 70_000])
@pytest.mark.parametrize("density", [0.3, 0.002])
def test_agrees_with_reference(each_backend_once, mode, size, density):
    size = size if each_backend_once == "cpu" else min(size, 3000)
    ours, shadow, optimizer = run(mode, size, density=density)
    with backend.use("reference"):
        theirs, _, expected = run(mode, size, torch.float64, native=False, density=density)
    assert torch.allclose(ours.double(), theirs, atol=1e-5, rtol=1e-5)
    assert torch.equal(shadow, ours.bfloat16())
    for name, value in expected.state_dict().items():
        assert torch.allclose(optimizer.state_dict()[name].double(), value.double(), atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("each_backend")
def test_is_torchs_adam():
    ours, _, _ = run("dense", 500, density=1.1)
    generator = torch.Generator().manual_seed(500)
    theirs = torch.nn.Parameter(torch.randn(500, generator=generator))
    optimizer = torch.optim.Adam([theirs], lr=1e-2, betas=(0.9, 0.99), eps=1e-15, weight_decay=1e-3)
    for _ in range(5):
        theirs.grad = torch.randn(500, generator=generator)
        torch.rand(500, generator=generator)
        optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.usefixtures("each_backend")
def test_skip_leaves_untouched_entries():
    parameter, grad = torch.ones(100), torch.zeros(100)
    grad[10] = 1.0
    optimizer = Adam([{"parameter": parameter, "grad": grad, "mode": "skip"}])
    optimizer.step(lr=0.1)
    assert parameter[10] != 1 and (torch.cat([parameter[:10], parameter[11:]]) == 1).all()


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("mode", ["dense", "skip"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_counts_what_is_not_finite_and_leaves_it(value, mode):
    parameter, grad = torch.ones(100), torch.ones(100)
    grad[[3, 40]] = value
    optimizer = Adam([{"parameter": parameter, "grad": grad, "mode": mode}])
    assert optimizer.step(lr=0.1) == 2
    assert parameter.isfinite().all() and (parameter[[3, 40]] == 1).all() and (parameter[:3] != 1).all()


def test_state_continues_where_it_was():
    whole, _, _ = run("skip", 200, steps=6)
    part, _, first = run("skip", 200, steps=3)
    state = {k: v.clone() for k, v in first.state_dict().items()}
    grad = torch.zeros(200)
    second = Adam([{"parameter": part, "grad": grad, "l2": 1e-3, "mode": "skip"}])
    second.load_state_dict(state)
    generator = torch.Generator().manual_seed(200)
    torch.randn(200, generator=generator)
    for step in range(6):
        new = torch.randn(200, generator=generator) * (torch.rand(200, generator=generator) < 0.3)
        if step >= 3:
            grad.copy_(new)
            second.step(lr=1e-2)
    assert torch.equal(part, whole)


@pytest.mark.parametrize("mode", ["dense", "skip"])
def test_same_bits_with_any_number_of_threads(threads, mode):
    for ours, expected in threads(lambda: run(mode, 100_000, steps=2)[:2]):
        assert torch.equal(ours, expected)


def test_refuses_unknown_mode():
    with pytest.raises(BadInput, match="mode"):
        Adam([{"parameter": torch.zeros(1), "grad": torch.zeros(1), "mode": "lazy"}])
