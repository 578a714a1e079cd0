"""Values over the pixels of a picture in one pass."""

import pytest
import torch
from checks import CPU_ONLY, EMULATES, NATIVE_BACKENDS, OpCase, check_op

from radfield import backend
from radfield.encodings import registry
from radfield.encodings.dense_grid import Config as DenseConfig
from radfield.encodings.hash_grid import Config, hash_grid_reference
from radfield.encodings.simplex import Config as SimplexConfig
from radfield.errors import BadInput
from radfield.fields.values import Config as FieldConfig
from radfield.fields.values import ValueField
from radfield.networks.mlp import mlp_reference
from radfield.renderers.picture_frame import picture_frame, picture_frame_reference, stored

#: levels that are dense and hashed, coarser and finer than the points are
GRIDS = {
    "hash": Config(6, 2, log2_size=8, base_resolution=4, growth=2.5),
    "smoothstep": Config(4, 1, log2_size=9, smoothstep=True),
    "nearest": Config(3, 4, log2_size=9, nearest=True),
    "dense": DenseConfig(4, 2),
    "tiled": Config(4, 8, base_resolution=16, growth=1.0, entries="tiled"),
}


def field_of(kind, precision="f32", channels=3):
    field = ValueField(2, FieldConfig(grid=GRIDS[kind], channels=channels, width=16, precision=precision))
    with torch.no_grad():
        field.grid.table.normal_()
        field.network.weights.mul_(0.5)
    field.grid.loaded()
    return field


def exact(field, across, down):
    """The specification on numbers of any float type."""
    at = torch.stack([across.expand(len(down), -1), down[:, None].expand(-1, len(across))]).flatten(1).T
    features = hash_grid_reference(at, field.grid.table.detach().to(at), field.grid.grid)
    weights, shape = field.network.weights.detach().to(at), (len(down), len(across), field.config.channels)
    return mlp_reference(features, None, weights, field.network.layers).view(shape)


# without "nearest", where the rounding of a position may choose another vertex
@pytest.mark.parametrize("kind", [kind for kind in GRIDS if kind != "nearest"])
def test_against_reference(kind):
    field = field_of(kind)

    def inputs(size, generator):
        return {"across": torch.rand(size, generator=generator), "down": torch.rand(5, generator=generator)}

    check_op(
        OpCase(
            lambda across, down: picture_frame(field.grid, field.network, across, down, torch.float32),
            lambda across, down: exact(field, across, down),
            inputs,
            atol=1e-5,
            sizes=(0, 1, 33, 200),
            wrong_dtype=("across", "down"),
            backends=NATIVE_BACKENDS if kind == "hash" else CPU_ONLY,  # each is seconds of the emulator's compiler
            most_emulated=33,
        )
    )


@pytest.mark.skipif(not EMULATES, reason="the emulator is for Linux on x86-64")
@pytest.mark.parametrize(("precision", "dtype"), [("f32", torch.uint16), ("bf16", torch.uint8)])
def test_on_cuda_it_has_the_bits_of_the_stages(precision, dtype):
    """On a CPU features are found row by row, in another order of sums."""
    field, across, down = field_of("hash", precision), torch.linspace(0, 1, 15), torch.linspace(0.2, 0.9, 5)
    with backend.use(backend.EMULATED):
        given = (field.grid, field.network, across, down, dtype, 1.0)
        ours, theirs = picture_frame(*given), picture_frame_reference(*given)
    assert torch.equal(ours, theirs) and ours.dtype == dtype and len(ours.unique()) > 10


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("kind", GRIDS)
def test_agrees_with_one_stage_after_another(kind, precision):
    field = field_of(kind, precision)
    across, down = (torch.arange(150) + 0.5) / 150, (torch.arange(40) + 0.5) / 150
    ours = picture_frame(field.grid, field.network, across, down, torch.float32)
    theirs = picture_frame_reference(field.grid, field.network, across, down, torch.float32, 1.0)
    tolerance = 1e-5 if precision == "f32" else 2e-2
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize("spread", [0.05, 1.0, 30.0])
def test_a_part_has_the_bits_of_the_whole(spread):
    """Whether pixels are denser or sparser than vertices."""
    field = field_of("hash")
    across, down = (torch.linspace(0.1, 0.1 + spread * 0.02, n).clamp(0, 1) for n in (133, 70))
    whole = picture_frame(field.grid, field.network, across, down, torch.float32)
    part = picture_frame(field.grid, field.network, across[9:100], down[3:50], torch.float32)
    assert torch.equal(part, whole[3:50, 9:100])
    order = torch.randperm(133)
    assert torch.equal(picture_frame(field.grid, field.network, across[order], down, torch.float32), whole[:, order])


def test_affine_functions_are_reproduced():
    """Entries that are the vertices' places, and a network that adds two features."""
    field = ValueField(2, FieldConfig(grid=Config(1, 2, base_resolution=8, entries="dense"), channels=1, layers=0))
    place = torch.arange(64)
    with torch.no_grad():
        field.grid.table[:64] = torch.stack([place % 8, place // 8], 1).float()
        field.network.weights.copy_(torch.tensor([1.0, 10, 0]))
    field.grid.loaded()
    across, down = torch.linspace(0, 1, 100), torch.linspace(0, 1, 37)
    found = picture_frame(field.grid, field.network, across, down, torch.float32)[..., 0]
    expected = (7 * across + 0.5) + 10 * (7 * down + 0.5)[:, None]
    # beyond the outermost vertices lies the next row's first entry, or the level's
    inside = (7 * across + 0.5 < 7) & (7 * down + 0.5 < 7)[:, None]
    assert (found - expected)[inside].abs().max() < (1e-4 if field.config.precision == "f32" else 0.5)


@pytest.mark.parametrize(("dtype", "most"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_integers_are_the_rounded_values(dtype, most):
    field = field_of("hash", channels=4)
    field.network.weights.data.mul_(4)
    at = torch.linspace(0, 1, 70)
    values = picture_frame(field.grid, field.network, at, at, torch.float32)
    found = picture_frame(field.grid, field.network, at, at, dtype)
    assert torch.equal(found, stored(values, dtype, 1.0))
    assert found.int().min() == 0 and found.int().max() == most
    assert torch.equal(picture_frame(field.grid, field.network, at, at, torch.float32, 3.0), values * 3)


def test_same_bits_with_any_number_of_threads(threads):
    field = field_of("hash", "bf16")
    at = torch.linspace(0, 1, 300)
    for ours, expected in threads(lambda: (picture_frame(field.grid, field.network, at, at),)):
        assert torch.equal(ours, expected)


def test_time_of_the_stages_is_added():
    field, spent = field_of("hash"), torch.zeros(3, dtype=torch.int64)
    at = torch.linspace(0, 1, 100)
    picture_frame(field.grid, field.network, at, at, nanoseconds=spent)
    grid, network, whole = spent.tolist()
    assert grid > 0 and network > 0 and grid + network <= whole


def test_other_encodings_go_stage_by_stage():
    config = SimplexConfig(levels=2, log2_size=8)
    field = ValueField(2, FieldConfig(grid=config, width=16, precision="f32"))
    assert type(field.grid) is registry.ENCODINGS["simplex"].module
    at = torch.linspace(0, 1, 20)
    ours = picture_frame(field.grid, field.network, at, at)
    assert torch.equal(ours, picture_frame_reference(field.grid, field.network, at, at, torch.uint8, 1.0))
    with backend.use("reference"):
        other = picture_frame(field.grid, field.network, at, at)
    assert (ours.int() - other.int()).abs().max() <= 1


def test_refuses_other_outputs():
    field, at = field_of("hash"), torch.linspace(0, 1, 20)
    with pytest.raises(BadInput, match="values"):
        picture_frame(field.grid, field.network, at, at, torch.int32)
