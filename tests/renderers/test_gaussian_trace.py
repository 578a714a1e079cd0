"""Ray tracing of particles: parity with float64, laws, bits, bad input."""

import math

import pytest
import torch
from checks import NATIVE_BACKENDS, SCHEDULES, OpCase, check_op, emulator
from renderers_traced import (
    GEOMETRY,
    NAMES,
    agrees,
    gradients,
    image_rays,
    particles,
    random_rays,
    traced,
    weights_of,
)

from radfield import backend
from radfield.errors import BadInput
from radfield.rays import Rays
from radfield.renderers.gaussian_trace import Tracing, trace_particles
from radfield.renderers.gaussian_trace_reference import trace_reference
from radfield.tracing.particle_bvh import DEGREES, GAUSSIAN, Kernel, ParticleBvh

ALONE = Tracing(packets=False)


def tree(values, kernel=GAUSSIAN):
    return ParticleBvh.of(*[values[name] for name in GEOMETRY], kernel)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("packets", (True, False))
def test_every_kernel_agrees_with_float64(degree, packets):
    agrees(particles(200, degree=1), image_rays(20, 16), Tracing(Kernel(degree), packets=packets), width=20)


@pytest.mark.parametrize("degree", (0, 2, 3, 4))
def test_every_degree_of_colour_agrees(degree):
    agrees(particles(200, degree), image_rays(16, 16), width=16)
    agrees(particles(200, degree), random_rays(200))


def test_thousands_of_particles_agree():
    values = particles(2000, degree=0, size=-3.4)
    agrees(values, image_rays(16, 16), width=16)
    agrees(values, random_rays(150))


def test_rays_with_ends_agree():
    rays = image_rays(24, 16)
    g = torch.Generator().manual_seed(2)
    near = 2 + torch.rand(len(rays), generator=g)
    agrees(particles(200), Rays(rays.origins, rays.directions, near, near + 1.5), width=24)


@pytest.mark.parametrize("size", (-8.0, 1.0))
def test_tiny_and_large_particles_agree(size):
    agrees(
        particles(200, size=size, spread=0.01 if size < 0 else 0.6),
        image_rays(32, 24, focal=30 if size < 0 else 1),
        width=32,
    )


def _inputs(count, generator):
    values = particles(count, degree=1, seed=count)
    rays = random_rays(33)
    return {**values, "origins": rays.origins * 0.3, "directions": rays.directions}


def _function(origins, directions, **values):
    seen = trace_particles(*[values[name] for name in NAMES], Rays(origins, directions))
    return seen.color, seen.opacity, seen.depth


def _reference(origins, directions, **values):
    near, far = torch.zeros(len(origins)).to(origins), torch.full((len(origins),), torch.inf).to(origins)
    together = (origins, directions, near, far)
    limits = {"min_transmittance": 1e-3, "max_alpha": 0.99}
    color, depth, transmittance, *_ = trace_reference(*[values[name] for name in NAMES], together, Kernel(), **limits)
    return color, 1 - transmittance, depth


def test_the_op():
    check_op(
        OpCase(
            function=_function,
            reference=_reference,
            inputs=_inputs,
            gradients=(*NAMES, "origins", "directions"),
            rtol=1e-4,
            atol=1e-5,
            wrong_dtype=NAMES,
            most_emulated=33,
        )
    )


def _on(values, rays, device):
    rays = Rays(*(getattr(rays, name).to(device) for name in ("origins", "directions")))
    return {name: value.to(device) for name, value in values.items()}, rays


@pytest.mark.parametrize("name", NATIVE_BACKENDS[1:])
@pytest.mark.parametrize(("kernel", "k", "width"), [(Kernel(), 4, 20), (Kernel(3), 33, None)])
def test_cuda_kernels_see_what_the_cpu_sees(name, kernel, k, width):
    """Over the edges of tiles and of the radix sort's blocks."""
    values, rays, device = particles(400, degree=1, size=-2.0), image_rays(20, 12), "cuda" if name == "cuda" else "cpu"
    tracing, weights = Tracing(kernel, packets=False, k=k), weights_of(rays, torch.ones(len(rays)))
    expected = traced(values, rays, tracing, normals=True, width=width)
    by = gradients(values, rays, weights, tracing, width=width)
    assert int(expected.hits.sum()) > 2048
    there = _on(values, rays, device)
    with backend.use(name):
        emulator.order = SCHEDULES[-1]
        found = traced(*there, tracing, normals=True, width=width)
        grads = gradients(*there, [each.to(device) for each in weights], tracing, width=width)
    assert (found.hits.cpu() != expected.hits).sum() <= 2  # responses at the very threshold
    for key in ("color", "depth", "normals"):
        assert float((getattr(found, key).cpu() - getattr(expected, key)).abs().quantile(0.99)) < 1e-5
    for key, value in by.items():
        assert float((grads[key].cpu() - value).norm()) < 1e-3 * float(value.norm()), key


@pytest.mark.parametrize("name", NATIVE_BACKENDS[1:])
def test_trees_on_cuda_are_those_of_the_cpu(name):
    values = particles(700, degree=0)  # inner nodes below the first
    moved = {**values, "means": values["means"] + 0.3, "opacities": values["opacities"] - 0.1}  # some are met no more
    bvh, rays = tree(values), image_rays(4, 4)
    there, rays = _on(values, rays, "cuda" if name == "cuda" else "cpu")
    moved_there, _ = _on(moved, rays, "cuda" if name == "cuda" else "cpu")
    with backend.use(name):
        ours = tree(there)
    assert len(bvh.child) > 1 and torch.equal(ours.child.cpu(), bvh.child)
    _same_boxes(ours, bvh)
    bvh.refit(*[moved[key] for key in GEOMETRY])
    with backend.use(name):
        with pytest.raises(BadInput, match=r"older than its particles: 6\d\d of 700"):
            traced(moved_there, rays, bvh=ours)
        ours.refit(*[moved_there[key] for key in GEOMETRY])
    _same_boxes(ours, bvh)


def _same_boxes(ours, theirs):
    for key in ("box", "leaf_box"):
        torch.testing.assert_close(getattr(ours, key).cpu(), getattr(theirs, key), rtol=1e-5, atol=1e-6)


def test_rays_alone_and_together_have_the_same_bits():
    values = particles(3000, degree=2)
    rays = image_rays(45, 31)  # tiles that hang over
    together, bvh = traced(values, rays, normals=True, width=45), tree(values)
    in_rows = traced(values, rays, normals=True)
    moved = {**values, "means": values["means"] + 0.3}
    refitted = ParticleBvh.of(*[moved[name] for name in GEOMETRY])
    refitted.refit(*[values[name] for name in GEOMETRY])
    others = [traced(values, rays, Tracing(packets=False, k=k), normals=True, bvh=bvh) for k in (1, 16, 64)]
    for other in (*others, in_rows, traced(values, rays, normals=True, bvh=refitted, width=45)):
        for ours, theirs in zip(together[:4], other[:4], strict=True):
            assert torch.equal(ours, theirs)
        torch.testing.assert_close(together.normals, other.normals)


def test_no_bit_depends_on_the_number_of_threads(threads):
    values = particles(2000, degree=1)
    for rays, options in ((image_rays(64, 48), {"width": 64}), (random_rays(500), {})):
        weights = weights_of(rays, torch.ones(len(rays)))

        def run(rays=rays, options=options, weights=weights):
            seen = traced(values, rays, normals=True, **options)
            return [*seen, *gradients(values, rays, weights, **options).values()]

        for ours, theirs in threads(run):
            assert torch.equal(ours, theirs)


def test_a_full_table_hands_its_rays_over():
    values = particles(2200, degree=0, size=-0.5)
    values["opacities"] = values["opacities"] * 4e-4 + 4e-4
    rays, kernel = image_rays(8, 8), Kernel(min_response=2e-4)
    together = traced(values, rays, Tracing(kernel), width=8)
    assert int(together.hits.max()) > 1024
    alone = traced(values, rays, Tracing(kernel, packets=False, k=64))
    assert torch.equal(together.color, alone.color) and torch.equal(together.hits, alone.hits)
    weights = weights_of(rays, torch.ones(len(rays)))
    ours = gradients(values, rays, weights, Tracing(kernel), width=8)
    theirs = gradients(values, rays, weights, Tracing(kernel, packets=False, k=64))
    for name, value in ours.items():
        if not value.numel():
            continue
        assert (value - theirs[name]).abs().max() < 1e-4 * theirs[name].abs().max().clamp_min(1e-9), name


def test_rays_inside_everything_blend_a_bounded_number():
    count = 70_000  # more leaves than a tile keeps waiting
    values = particles(count, degree=0, size=1.0)
    values["opacities"] = torch.full((count,), 0.02)
    rays = image_rays(4, 4, distance=0.0)
    seen = traced(values, rays, width=4)
    most = math.log(1e-3) / math.log(1 - 0.0113)
    assert int(seen.hits.min()) > 300 and int(seen.hits.max()) <= math.ceil(most)
    assert torch.equal(seen.color, traced(values, rays, ALONE).color)


def test_a_ray_is_the_sum_of_its_parts():
    values, rays = particles(500), image_rays(24, 24)
    tracing = Tracing(min_transmittance=1e-30)
    whole = traced(values, rays, tracing, width=24)
    middle = torch.full((len(rays),), 3.0)
    front = traced(values, Rays(rays.origins, rays.directions, None, middle), tracing, width=24)
    back = traced(values, Rays(rays.origins, rays.directions, middle, None), tracing, width=24)
    left = 1 - front.opacity[:, None]
    torch.testing.assert_close(whole.color, front.color + left * back.color, rtol=1e-5, atol=1e-6)
    assert torch.equal(whole.hits, front.hits + back.hits)
    assert int(front.hits.sum()) > 0 and int(back.hits.sum()) > 0


def test_one_gaussian_in_the_middle_has_its_exact_values():
    values = particles(1, degree=0)
    values |= {"means": torch.tensor([[0.0], [0.0], [2.0]]), "scales": torch.full((3, 1), 0.1)}
    values |= {"opacities": torch.tensor([0.5]), "base": torch.zeros(3, 1)}
    rays = Rays(torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]))
    seen = traced(values, rays, background=torch.tensor([1.0, 0.0, 0.0]), normals=True)
    torch.testing.assert_close(seen.color, torch.tensor([[0.75, 0.25, 0.25], [1.0, 0.0, 0.0]]))
    torch.testing.assert_close(seen.depth, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(seen.opacity, torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(seen.normals[0], torch.tensor([0.0, 0.0, -0.5]))
    assert seen.hits.tolist() == [1, 0]


def test_unsound_particles_are_not_met():
    values = particles(64, degree=0)
    bad = {"means": torch.nan, "scales": torch.inf, "opacities": torch.nan, "quaternions": torch.nan, "base": 0.0}
    for i, (name, value) in enumerate(bad.items()):
        values[name][..., i] = value
    values["quaternions"][:, 5], values["scales"][:, 6], values["scales"][0, 7] = 0, 0, -1
    values["scales"][:, 8], values["means"][:, 9], values["scales"][:, 10] = 1e20, 1e20, 1e-20
    rays, dead = image_rays(16, 16), [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]
    kept = [i for i in range(64) if i not in dead]
    seen = traced(values, rays, width=16)
    alive = traced({name: value[..., kept].contiguous() for name, value in values.items()}, rays, width=16)
    assert torch.equal(seen.color, alive.color)
    found = gradients(values, rays, weights_of(rays, torch.ones(len(rays))), width=16)
    for name in NAMES:
        assert found[name].isfinite().all() and not found[name][..., dead].any()


def test_flat_particles_are_discs():
    values = particles(50, degree=0)
    values["scales"][2] = 0
    agrees(values, image_rays(24, 16), width=24, most_close=5e-3)


@pytest.mark.parametrize("direction", ([0.0, 0.0, 0.0], [math.nan, 0.0, 1.0], [0.0, 2.0, 0.0], [math.inf, 0.0, 0.0]))
def test_rays_without_direction_are_refused(direction):
    rays = image_rays(16, 4)
    rays.directions[5] = torch.tensor(direction)
    with pytest.raises(BadInput, match=r"trace: 1 rays are none; ray 5 .*unit vectors"):
        traced(particles(20), rays, width=16)


def test_a_tree_older_than_its_particles_is_refused():
    values = particles(100)
    bvh = tree(values)
    traced(values, image_rays(8, 8), bvh=bvh)
    values["means"][0, 17] += 0.5
    with pytest.raises(BadInput, match="older than its particles: 1 of 100"):
        traced(values, image_rays(8, 8), bvh=bvh)
    bvh.refit(*[values[name] for name in GEOMETRY])
    assert torch.equal(traced(values, image_rays(8, 8), bvh=bvh).color, traced(values, image_rays(8, 8), width=8).color)
    with pytest.raises(BadInput, match="older than its particles, of which it has 100"):
        traced(particles(101), image_rays(8, 8), bvh=bvh)
    with pytest.raises(BadInput, match="the tree is one for"):
        traced(values, image_rays(8, 8), Tracing(Kernel(4)), bvh=bvh)


def test_nothing_is_seen_of_nothing():
    for values, rays in ((particles(0), image_rays(8, 8)), (particles(9), image_rays(8, 8)[:0])):
        seen = traced(values, rays, normals=True)
        assert seen.color.shape == (len(rays), 3) and not seen.color.any() and not seen.opacity.any()
    weights = weights_of(image_rays(8, 8), torch.ones(64))
    found = gradients(particles(5, seed=1) | {"opacities": torch.zeros(5)}, image_rays(8, 8), weights)
    assert not any(value.any() for value in found.values())


def test_bad_options_are_refused():
    for options in ({"min_transmittance": 0.0}, {"max_alpha": 1.0}, {"k": 0}, {"k": 65}):
        with pytest.raises(BadInput, match=next(iter(options))):
            Tracing(**options)
    with pytest.raises(BadInput, match="width is 7"):
        traced(particles(9), image_rays(8, 8), width=7)
    with pytest.raises(BadInput, match="rest has shape"):
        traced({**particles(9), "rest": torch.zeros(4, 9)}, image_rays(8, 8))
