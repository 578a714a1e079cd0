"""The gradient of a table from features and slopes: Adam's step on it in one pass is that of the whole gradient."""

import pytest
import torch
from checks import NATIVE_BACKENDS, SCHEDULES, emulator

from radfield import backend
from radfield.encodings import registry
from radfield.encodings.slope_gradients import SlopeGradients
from radfield.training.adam import Adam

SIZES = {"levels": 4, "features": 4, "log2_size": 9, "base_resolution": 4, "finest_resolution": 60}


def noted(module, count, generator):
    """A gradient of `count` samples, which often lie in the cell of the one before, as those of rays."""
    x = (torch.rand(3, count // 8 + 1, generator=generator).repeat_interleave(8, 1)[:, :count]).contiguous()
    x = (x + 0.01 * torch.rand(3, count, generator=generator)).clamp(0, 1)
    shape = module.grid.channels, count
    gradients = SlopeGradients(module.grid)
    both = (torch.randn(shape, generator=generator) for _ in range(2))
    gradients.add_slopes(module.grid, *both, x, torch.randn(3, count, generator=generator))
    return gradients


def made(encoding="hash"):
    return registry.build(3, registry.config_of(encoding, **SIZES), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("count", [0, 1, 33, 5000])
def test_step_is_that_of_the_whole_gradient(count):
    tables = []
    for whole in (False, True):
        module = made()
        gradients = noted(module, count, torch.Generator().manual_seed(1))
        grad = gradients.gradient(module.table) if whole else gradients
        optimizer = Adam([{"parameter": module.table.data, "grad": grad, "mode": "skip"}], epsilon=1e-3)
        optimizer.step(lr=0.1)
        tables.append((module.table.detach().clone(), optimizer.groups[0]["m"]))
    (ours, our_mean), (theirs, their_mean) = tables
    assert torch.allclose(our_mean, their_mean, rtol=1e-4, atol=1e-5)
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NATIVE_BACKENDS[1:])
@pytest.mark.parametrize(("dtype", "mode"), [(torch.float32, "skip"), (torch.bfloat16, "dense")])
def test_cuda_kernels_step_as_the_cpu_does(name, dtype, mode):
    def run(device):
        module = made()
        gradients = noted(module, 60, torch.Generator().manual_seed(1))
        levels, *streams, _ = gradients._noted
        streams = [each.to(device, dtype if i < 2 else None) for i, each in enumerate(streams)]
        gradients.add_slopes(levels, *streams)
        table = module.table.data.to(device)
        optimizer = Adam([{"parameter": table, "grad": gradients, "mode": mode}], epsilon=1e-3)
        optimizer.step(lr=0.1)
        return [each.cpu() for each in (table, *(optimizer.groups[0][moment] for moment in "mv"))]

    expected = run("cpu")
    with backend.use(name):
        for emulator.order in SCHEDULES if name == backend.EMULATED else (0,):
            for ours, theirs in zip(run("cuda" if name == "cuda" else "cpu"), expected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("encoding", ["hash", "simplex"])
def test_gradient_is_that_of_automatic_differentiation(encoding):
    module = made(encoding)
    gradients = noted(module, 40, torch.Generator().manual_seed(1))
    levels, by_features, slopes, x, tangent, _ = gradients._noted
    table = module.table.detach().double().requires_grad_()
    at = x.T.double().requires_grad_()
    features = levels.ops.reference(at, table, levels)
    (slope,) = torch.autograd.grad((features * slopes.T.double()).sum(), at, create_graph=True)
    loss = (features * by_features.T.double()).sum() + (slope * tangent.T.double()).sum()
    (expected,) = torch.autograd.grad(loss, table)
    ours = gradients.gradient(module.table).double()
    assert float((ours - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_a_step_without_samples_leaves_the_table():
    module = made()
    before = module.table.detach().clone()
    Adam([{"parameter": module.table.data, "grad": SlopeGradients(module.grid), "mode": "skip"}]).step(lr=0.1)
    assert torch.equal(module.table, before)
