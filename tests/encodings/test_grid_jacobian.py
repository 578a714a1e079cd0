"""Features with their derivatives by the position: agreement with automatic differentiation, and of both ways."""

import pytest
import torch
from checks import NATIVE_BACKENDS, SCHEDULES, emulator

from radfield import backend
from radfield.encodings import grid_jacobian, hash_grid, registry

SIZES = {"levels": 4, "features": 2, "log2_size": 9, "base_resolution": 4, "finest_resolution": 30}


def made(encoding="hash", **options):
    config = registry.config_of(encoding, **{**SIZES, **options})
    module = registry.build(3, config, torch.Generator().manual_seed(0))
    table = torch.randn(module.table.shape, generator=torch.Generator().manual_seed(1))
    return module.grid, table


def points(count):
    return torch.rand(3, count, generator=torch.Generator().manual_seed(2))


def encoded(levels, table, x, dtype=torch.float32):
    features = torch.empty(levels.channels, x.shape[1], dtype=dtype)
    return features, grid_jacobian.encode(levels, x, table, features)


@pytest.mark.parametrize("count", [0, 1, 33, 9000])
@pytest.mark.parametrize("options", [{}, {"smoothstep": True}, {"features": 1}, {"features": 4}, {"features": 8}])
def test_agrees_with_reference(options, count):
    levels, table = made(**options)
    x = points(count)
    features, jacobian = encoded(levels, table, x)
    expected, slopes = grid_jacobian.jacobian_reference(x.T.double(), table.double(), levels)
    assert torch.allclose(features.T.double(), expected, atol=1e-4)
    found = jacobian.stored.view(levels.channels, 3, count).permute(2, 0, 1).double()
    # near the edge of a cell float32 may find the other cell, whose slope is another
    off = (found - slopes).abs().amax((1, 2)) > 1e-3 * 30
    assert int(off.sum()) <= count // 1000


@pytest.mark.parametrize("encoding", ["hash", "simplex", "tiled"])
def test_pull_and_push_are_those_of_the_matrix(encoding):
    levels, table = made(encoding, finest_resolution=100)
    x = points(200)
    _, jacobian = encoded(levels, table, x)
    _, slopes = grid_jacobian.jacobian_reference(x.T.double(), table.double(), levels)
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(levels.channels, 200, generator=generator)
    tangent = torch.randn(3, 200, generator=generator)
    pulled, pushed = jacobian.pull(values), torch.empty_like(values)
    jacobian.push(tangent, pushed)
    assert torch.allclose(pulled.double(), torch.einsum("mcd,cm->dm", slopes, values.double()), rtol=1e-4, atol=1e-2)
    assert torch.allclose(pushed.double(), torch.einsum("mcd,dm->cm", slopes, tangent.double()), rtol=1e-4, atol=1e-2)


def test_what_is_stored_is_what_the_kernels_answer():
    levels, table = made()
    x = points(500)
    _, jacobian = encoded(levels, table, x)
    asked = grid_jacobian.Jacobian(levels, x, table, jacobian.features, None)
    values = torch.randn(levels.channels, 500, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(jacobian.pull(values), asked.pull(values), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", NATIVE_BACKENDS[1:])
@pytest.mark.parametrize(
    ("options", "dtype"),
    [({}, torch.float32), ({"features": 4, "smoothstep": True}, torch.float32), ({"features": 4}, torch.bfloat16)],
)
def test_cuda_kernels_give_what_the_cpu_gives(name, options, dtype):
    levels, table = made(**options)
    x = points(70) * 1.2 - 0.1
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(levels.channels, 70, generator=generator).to(dtype)
    tangent = torch.randn(3, 70, generator=generator)

    def run(device):
        at, given, along = (each.to(device) for each in (x, values, tangent))
        features = torch.empty_like(given)
        jacobian = grid_jacobian.encode(levels, at, table.to(device, dtype), features)
        pushed = torch.empty_like(given)
        jacobian.push(along, pushed)
        return [each.cpu().float() for each in (features, jacobian.stored, jacobian.pull(given), pushed)]

    expected = run("cpu")
    with backend.use(name):
        for emulator.order in SCHEDULES if name == backend.EMULATED else (0,):
            for ours, theirs in zip(run("cuda" if name == "cuda" else "cpu"), expected, strict=True):
                # in 16 bits what lies between two numbers may be rounded to the other
                near = 1e-5 if dtype == torch.float32 else 1e-2
                torch.testing.assert_close(ours, theirs, rtol=near, atol=near * float(theirs.abs().max()))


def test_clamped_points_do_not_move():
    levels, table = made()
    x = torch.tensor([[-0.1, 0.5], [0.5, 1.2], [0.3, 0.3]])
    _, jacobian = encoded(levels, table, x)
    rows = jacobian.stored.view(levels.channels, 3, 2)
    assert float(rows[:, 0, 0].abs().max()) == 0 and float(rows[:, 1, 1].abs().max()) == 0
    assert float(rows[:, 2].abs().min(1).values.max()) > 0


def test_bf16_rounds_features_and_slopes():
    levels, table = made()
    x = points(300)
    exact, _ = encoded(levels, table.bfloat16(), x)
    rounded, jacobian = encoded(levels, table.bfloat16(), x, torch.bfloat16)
    assert torch.equal(exact.bfloat16(), rounded) and jacobian.stored.dtype == torch.bfloat16


def test_bits_do_not_depend_on_threads(threads):
    levels, table = made(log2_size=14)
    x = points(20_000)

    def run():
        features, jacobian = encoded(levels, table, x)
        return features.clone(), jacobian.stored.clone(), jacobian.pull(features)

    for ours, theirs in threads(run):
        assert torch.equal(ours, theirs)


def test_a_level_less_has_fewer_rows():
    levels, table = made()
    import dataclasses

    part = dataclasses.replace(levels, levels=levels.levels[:2], scales=levels.scales[:2], _copies={})
    x = points(50)
    assert isinstance(part, hash_grid.GridLevels)
    assert torch.equal(encoded(part, table, x)[0], encoded(levels, table, x)[0][: part.channels])
