"""The tree over particles: it holds them, tightly, and is the same everywhere."""

import pytest
import torch
from renderers_traced import GEOMETRY, particles

from radfield.errors import BadInput
from radfield.renderers.gaussian_projection import rotation_matrices
from radfield.renderers.gaussian_trace_reference import kernel_radius, kernel_response
from radfield.tracing.particle_bvh import DEGREES, GAUSSIAN, WIDE, Kernel, ParticleBvh


def of(values, kernel=GAUSSIAN):
    return ParticleBvh.of(*[values[name] for name in GEOMETRY], kernel)


def half_sides(values, kernel):
    """[G, 3], in float64."""
    _, quaternions, scales, opacities = (values[name].double() for name in GEOMETRY)
    axes = rotation_matrices(quaternions.T) * scales.T[:, None]
    return axes.square().sum(-1).sqrt() * kernel_radius(opacities, kernel.min_response, kernel.degree)[:, None]


def boxes_of(tree):
    """Low and high corners [G, 3] in the particles' order."""
    flat = tree.leaf_box.permute(0, 2, 1).reshape(-1, 6)[: len(tree)]
    boxes = torch.empty_like(flat)
    boxes[tree.order.long()] = flat
    return boxes.double().split(3, 1)


def check(tree):
    """Every particle is in one leaf, every node in one parent, whose box is the union of what is below."""
    assert tree.order.sort().values.tolist() == list(range(len(tree)))
    named = tree.child[tree.child != 0].tolist()
    assert sorted(named) == [*range(-len(tree.leaf_box), 0), *range(1, len(tree.child))]
    for node in range(len(tree.child)):
        for i, child in enumerate(tree.child[node].tolist()):
            if child == 0:
                assert (tree.box[node, :3, i] > tree.box[node, 3:, i]).all()
                continue
            below = tree.leaf_box[-1 - child] if child < 0 else tree.box[child]
            assert torch.equal(tree.box[node, :3, i], below[:3].amin(1))
            assert torch.equal(tree.box[node, 3:, i], below[3:].amax(1))
            slot = tree.leaf_slot[-1 - child] if child < 0 else tree.slot[child]
            assert int(slot) == WIDE * node + i


@pytest.mark.parametrize("count", (1, 2, 15, 16, 17, 255, 257, 300, 5000))
def test_the_tree_holds_every_particle_once(count):
    check(of(particles(count)))


def test_particles_in_one_place_make_a_tree():
    values = particles(3000)
    for name in GEOMETRY[:3]:
        values[name] = values[name][:, :1].repeat(1, 3000)
    check(of(values))


@pytest.mark.parametrize("degree", DEGREES)
def test_boxes_are_tight(degree):
    values, kernel = particles(500), Kernel(degree)
    low, high = boxes_of(of(values, kernel))
    half, mean = half_sides(values, kernel), values["means"].double().T
    met = values["opacities"] > kernel.min_response
    slack = 4e-5 * half + 4e-6 * mean.abs() + 1e-7
    assert ((low <= mean - half) & (high >= mean + half))[met].all()
    assert ((low >= mean - half - slack) & (high <= mean + half + slack))[met].all()
    assert (low > high)[~met].all()


@pytest.mark.parametrize("degree", DEGREES)
def test_the_radius_is_where_the_response_falls_to_the_least(degree):
    opacity = torch.linspace(0.02, 1, 50, dtype=torch.float64)
    radius = kernel_radius(opacity, 0.0113, degree)
    assert torch.allclose(opacity * kernel_response(radius.square(), degree), torch.full_like(opacity, 0.0113))
    assert (radius.diff() > 0).all()  # the more opaque, the larger


def test_a_refitted_tree_holds_what_moved():
    values = particles(2000)
    tree = of(values)
    values["means"] = values["means"].flip(1) * 2
    values["opacities"][:50] = 0
    values["opacities"][50:100] = 1
    tree.refit(*[values[name] for name in GEOMETRY])
    check(tree)
    for ours, theirs in zip(boxes_of(tree), boxes_of(of(values)), strict=True):
        assert torch.equal(ours, theirs)


def test_no_bit_depends_on_the_number_of_threads(threads):
    values = particles(20_000)
    for ours, theirs in threads(lambda: [v for v in vars(of(values)).values() if isinstance(v, torch.Tensor)]):
        assert torch.equal(ours, theirs)


def test_large_particles_do_not_spoil_the_small():
    """A few huge particles among many small ones: small ones keep to small leaves."""
    values = particles(4096, size=-5.0)
    values["means"] = torch.rand(3, 4096, generator=torch.Generator().manual_seed(0))
    values["scales"][:, ::256], values["opacities"][::256] = 0.5, 0.5
    tree = of(values)
    sides = (tree.leaf_box[:, 3:].amax(2) - tree.leaf_box[:, :3].amin(2)).amax(1)
    assert int((sides > 1).sum()) <= 4  # 16 of them, which fill one leaf; among the others they would spoil 16


def test_bad_input_is_refused():
    with pytest.raises(BadInput, match="it has 0 particles"):
        of(particles(0))
    with pytest.raises(BadInput, match="degree is 6"):
        Kernel(6)
    with pytest.raises(BadInput, match="min_response"):
        Kernel(min_response=0)
    with pytest.raises(BadInput, match="the tree has 20: build it again"):
        of(particles(20)).refit(*[particles(21)[name] for name in GEOMETRY])
