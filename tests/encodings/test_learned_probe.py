"""Learned hash probing."""

import dataclasses
import json

import pytest
import torch
from checks import CPU_ONLY, OpCase, check_op

from radfield import backend
from radfield.encodings import hash_grid, learned_probe
from radfield.encodings.baked_probe import BakedProbe, from_bits, to_bits
from radfield.encodings.hash_grid import HashGrid
from radfield.encodings.learned_probe import Config, LearnedProbe, probe_levels
from radfield.errors import BadInput
from radfield.training.adam import Adam
from radfield.training.checkpoint import save_checkpoint

SMALL = Config(levels=4, log2_entries=7, log2_codebook=5, probes=4, base_resolution=3, growth=1.7)


def case(dimensions, config, **changes):
    grid = probe_levels(dimensions, config)

    def inputs(size, generator):
        table = torch.randn(grid.entries, config.features, generator=generator)
        logits = torch.randn(grid.rows, grid.probes, generator=generator)
        x = torch.rand(size, dimensions, generator=generator)
        return {"x": x, "table": table, "logits": logits, "grid": grid, "gradients": config.gradients}

    options = {"gradients": ("x", "table", "logits"), "wrong_dtype": ("x", "table"), "gradcheck": False} | changes
    return OpCase(learned_probe.learned_probe, learned_probe.learned_probe_reference, inputs, **options, rtol=2e-4)


@pytest.mark.parametrize("gradients", ["all", "chosen"])
@pytest.mark.parametrize(("dimensions", "features", "probes"), [(2, 8, 2), (3, 2, 8)])
def test_agrees_with_reference(dimensions, features, probes, gradients):
    config = Config(3, features, 7, 5, probes, 3, 1.7, gradients=gradients)
    check_op(case(dimensions, config, sizes=(0, 1, 7, 33, 300)))


@pytest.mark.parametrize(("dimensions", "features", "probes"), [(1, 2, 4), (2, 1, 4), (3, 4, 16), (3, 8, 2), (4, 2, 8)])
def test_agrees_with_reference_on_the_cpu(dimensions, features, probes):
    config = Config(3, features, 6 if dimensions > 1 else 4, 5, probes, 3, 2.7)
    check_op(case(dimensions, config, sizes=(33, 300), backends=CPU_ONLY))


def test_second_derivatives_agree_with_reference():
    check_op(by_position(case(2, Config(3, 2, 7, 5, 4, 3, 1.7), sizes=(1, 33, 100))))


def by_position(case):
    """The gradient by x as the function: what is differentiated again."""

    def gradient_of(function):
        def gradient(x, **inputs):
            x = x if x.requires_grad else x.clone().requires_grad_()
            weights = torch.linspace(-1, 1, inputs["grid"].channels, dtype=x.dtype)
            return torch.autograd.grad((function(x, **inputs) * weights).sum(), x, create_graph=True)[0]

        return gradient

    options = {"second": (), "function": gradient_of(case.function), "reference": gradient_of(case.reference)}
    return dataclasses.replace(case, **options)


def test_gradients_are_those_of_a_softmax_over_all_probes():
    """Finite differences cannot see a straight-through gradient; those of the softmax in its place agree with it."""
    values = torch.randn(5, 8, 3, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 3, dtype=torch.float64)

    def soft(values, logits):
        return (logits.softmax(1)[:, :, None] * values).sum(1)

    torch.autograd.gradcheck(soft, (values, logits))
    expected = torch.autograd.grad((soft(values, logits) * weights).sum(), (values, logits))
    hard = learned_probe.straight_through(values, logits, "all")
    assert torch.allclose(hard, values[torch.arange(5), logits.argmax(1)])
    for ours, theirs in zip(torch.autograd.grad((hard * weights).sum(), (values, logits)), expected, strict=True):
        assert torch.allclose(ours, theirs)
    chosen = learned_probe.straight_through(values, logits, "chosen")
    by_values, by_logits = torch.autograd.grad((chosen * weights).sum(), (values, logits))
    assert torch.allclose(by_logits, expected[1])
    assert ((by_values != 0).any(2) == torch.nn.functional.one_hot(logits.argmax(1), 8).bool()).all()


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_one_probe_is_the_hash_grid_bit_for_bit(dimensions, precision):
    grid = HashGrid(
        dimensions, hash_grid.Config(5, 2, 8, 3, 1.7, precision=precision), torch.Generator().manual_seed(1)
    )
    config = Config(5, 2, 8, 5, 1, 3, 1.7, precision=precision)
    probe = LearnedProbe(dimensions, config, torch.Generator().manual_seed(1))
    assert torch.equal(grid.table, probe.table) and probe.logits.numel() == 0
    x = torch.rand(dimensions, 500).T.requires_grad_()
    features = [encoding(x) for encoding in (grid, probe)]
    assert torch.equal(*features)
    weights = torch.randn(500, grid.channels).to(features[0].dtype)
    ours, theirs = (torch.autograd.grad(f, (x, e.table), weights) for f, e in zip(features, (grid, probe), strict=True))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_dense_levels_have_no_codebook():
    probe = LearnedProbe(3, SMALL)
    rules = probe.grid.levels[:, 3].tolist()
    assert rules == [0, 1, 1, 1] and probe.logits.shape == (3 * 32, 4)
    assert LearnedProbe(2, Config(2, 2, 10, 5, 4, 3, 1.0)).logits.shape == (0, 4)


def test_a_logit_moves_its_vertices_to_another_entry():
    """With the k-th logit of every row the largest, each vertex reads the k-th entry of its window."""
    probe = LearnedProbe(3, SMALL)
    offset, size, _, _ = probe.grid.levels[3].tolist()
    with torch.no_grad():
        probe.table[offset : offset + size, 0] = torch.arange(size) % 4
        for k in range(4):
            probe.logits.zero_()[:, k] = 1
            features = probe(torch.rand(100, 3))
            assert torch.allclose(features[:, 6], torch.full((100,), float(k)), atol=1e-5)


def test_training_chooses_entries(each_backend_once):
    """Steps on entries and logits lower the error of a random function, and the choices follow the logits."""
    probe = LearnedProbe(2, Config(1, 1, 5, 6, 8, 16, 1.0), torch.Generator().manual_seed(2))
    optimizer = Adam(probe.adam_groups())
    x = torch.rand(200, 2)
    target = (12 * x).sin().prod(1, keepdim=True)
    before, losses = probe.choices().clone(), []
    for _ in range(60):
        losses.append(((probe(x) - target) ** 2).mean())
        losses[-1].backward()
        assert optimizer.step(lr=3e-2) == 0
    assert losses[-1] < 0.6 * losses[0] and not torch.equal(probe.choices(), before)
    assert torch.equal(probe.choices(), learned_probe.choices_of(probe.logits, 6))


def test_choices_follow_a_loaded_state():
    probe, other = LearnedProbe(3, SMALL), LearnedProbe(3, SMALL)
    x = torch.rand(20, 3)
    probe(x)
    probe.load_state_dict(other.state_dict())
    assert torch.equal(probe(x), other(x))


@pytest.mark.parametrize("probes", [1, 2, 4, 8, 16])
def test_baked_file_has_the_published_size(tmp_path, probes):
    """L (N_f F 16 + N_c log2 N_p) bits, where no level is dense: 17^3 vertices exceed 2^12 entries."""
    config = Config(16, 2, 12, 14, probes, base_resolution=17)
    baked = LearnedProbe(3, config).bake()
    published = 16 * (2**12 * 2 * 16 + 2**14 * (probes.bit_length() - 1)) // 8
    assert baked.bytes == published
    assert probes != 8 or published == 360_448
    baked.save(tmp_path / "probe.safetensors")
    assert 0 < (tmp_path / "probe.safetensors").stat().st_size - published < 1024


@pytest.mark.parametrize("probes", [1, 4, 16])
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_baked_probe_equals_the_trained_one_of_16_bit_entries(tmp_path, probes, precision):
    probe = LearnedProbe(3, Config(4, 2, 7, 5, probes, 3, 1.7, precision=precision))
    torch.nn.init.normal_(probe.table)
    baked = probe.bake()
    baked.save(tmp_path / "probe.safetensors")
    loaded = BakedProbe.load(tmp_path / "probe.safetensors")
    with torch.no_grad():
        probe.table.copy_(probe.table.bfloat16())
    x = torch.rand(100, 3)
    for name in ("cpu", "reference"):
        with backend.use(name):
            assert torch.allclose(loaded(x), probe(x), atol=1e-6)
    assert torch.equal(loaded(x), baked(x)) and torch.equal(loaded(x), probe(x))
    assert not list(loaded.parameters()) and loaded.config == probe.config
    points = x.clone().requires_grad_()
    assert torch.autograd.grad(loaded(points).sum(), points)[0].isfinite().all()


def test_bits_come_back():
    for each in (1, 2, 3, 4):
        choices = torch.randint(0, 2**each, (64,), dtype=torch.uint8)
        packed = to_bits(choices, each)
        assert len(packed) == 8 * each and torch.equal(from_bits(packed, each), choices)


@pytest.mark.parametrize(
    ("changes", "tensors", "word"),
    [
        ({}, {}, "table is missing"),
        ({}, {"table": torch.zeros(3, 2, dtype=torch.bfloat16)}, "table is torch.bfloat16 .3, 2."),
        ({"probes": 3}, {}, "probes is 3"),
        ({"probes": "8"}, {}, "probes is '8'"),
        ({"levels": 16.5}, {}, "levels is 16.5"),
        ({"dimensions": None}, {}, "dimensions is None"),
        ({"colour": 1}, {}, "holds no baked probe"),
    ],
)
def test_refuses_files_that_hold_no_baked_probe(tmp_path, changes, tensors, word):
    about = {"dimensions": 3, **vars(SMALL), **changes}
    save_checkpoint(tmp_path / "file", tensors, {"probe": json.dumps(about)})
    with pytest.raises(BadInput, match=word):
        BakedProbe.load(tmp_path / "file")


def test_gradients_go_into_workspaces_and_add_up():
    probe = LearnedProbe(3, SMALL)
    x = torch.rand(64, 3)
    expected = torch.autograd.grad(probe(x).sum(), (probe.table, probe.logits))
    probe.grad_into = (torch.zeros_like(probe.table), torch.zeros_like(probe.logits))
    for _ in range(2):
        probe(x).sum().backward()
    assert probe.table.grad is None and probe.logits.grad is None
    for ours, once in zip(probe.grad_into, expected, strict=True):
        assert torch.allclose(ours, 2 * once, rtol=1e-5, atol=1e-9)


def test_order_and_threads_change_no_bit(threads):
    probe = LearnedProbe(3, Config(4, 2, 9, 8, 8, 8, 1.7))
    x = torch.rand(20_000, 3)
    order = torch.randperm(20_000)
    assert torch.equal(probe(x)[order], probe(x[order]))

    def run():
        features = probe(x)
        return features, *torch.autograd.grad((features**2).sum(), (probe.table, probe.logits))

    for ours, expected in threads(run):
        assert torch.equal(ours, expected)


def test_not_a_number_and_points_outside_stay_inside_the_table():
    probe = LearnedProbe(3, SMALL)
    assert probe(torch.full((5, 3), float("nan"))).isfinite().all()
    outside = torch.tensor([[-0.5, 0.3, 2.0], [1e9, -1e9, 0.5]])
    assert torch.equal(probe(outside), probe(outside.clamp(0, 1)))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"probes": 3}, "probes is 3"),
        ({"probes": 32}, "probes is 32"),
        ({"log2_entries": 3, "probes": 16}, "probes is 16; the rule: at most"),
        ({"log2_entries": 25}, "log2_entries is 25"),
        ({"log2_entries": 10**9}, "log2_entries is 1000000000"),
        ({"log2_codebook": 2}, "log2_codebook is 2"),
        ({"log2_codebook": 14.0}, "log2_codebook is 14.0"),
        ({"gradients": "some"}, "gradients is some"),
        ({"levels": 0}, "levels is 0"),
    ],
)
def test_refuses_options_out_of_range(changes, word):
    with pytest.raises(BadInput, match=word):
        probe_levels(3, Config(**changes))


def test_gradients_by_entries_cannot_be_differentiated_again():
    probe = LearnedProbe(3, SMALL)
    (gradient,) = torch.autograd.grad((probe(torch.rand(5, 3)) ** 2).sum(), probe.table, create_graph=True)
    with pytest.raises(ValueError, match="cannot be differentiated again"):
        gradient.square().sum().backward()
