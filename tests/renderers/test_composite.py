"""Compositing of packed samples: agreement with the reference, and the laws of light along a ray."""

import pytest
import torch
from checks import OpCase, check_op

from radfield import backend
from radfield.errors import BadInput
from radfield.renderers import composite as module
from radfield.renderers.composite import Composited, compact_streams, composite, composite_raw


def packed(size, generator=None, longest=40):
    """Random rays with `size` samples in all, some rays empty: t_start, t_end, ray_start."""
    ends = [0]
    while ends[-1] < size:
        ends.append(min(size, ends[-1] + int(torch.randint(0, longest, (), generator=generator))))
    steps = torch.rand(size, generator=generator) * 0.1
    t_start = torch.rand(size, generator=generator).sort().values * 3
    return {"t_start": t_start, "t_end": t_start + steps, "ray_start": torch.tensor(ends, dtype=torch.int32)}


def differentiable(result):
    return tuple(result[:4])


def case(channels, background, raw, stop=1e-4):
    def inputs(size, generator):
        found = packed(size, generator)
        logits = torch.randn(size, 1 + channels, generator=generator) * 3 - 1
        if raw:
            values = {"logit": logits[:, 0].clone(), "color_logits": logits[:, 1:].clone()}
        else:
            values = {"sigma": logits[:, 0].exp() * 5, "rgb": logits[:, 1:].clone()}
        if background:
            found["background"] = torch.rand(len(found["ray_start"]) - 1, channels, generator=generator)
        return {**values, **found, "stop": stop, **({"shift": -0.7} if raw else {})}

    gradients = (("logit", "color_logits") if raw else ("sigma", "rgb")) + (("background",) if background else ())
    functions = (composite_raw, module.composite_raw_reference) if raw else (composite, module.composite_reference)
    options = {"gradients": gradients, "outputs": differentiable, "sizes": (0, 1, 7, 33, 1000), "rtol": 2e-5}
    return OpCase(*functions, inputs, wrong_dtype=(*gradients, "t_start", "t_end"), **options)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(("channels", "background"), [(3, False), (3, True), (1, True), (7, False)])
def test_agrees_with_reference(channels, background, raw):
    check_op(case(channels, background, raw))


@pytest.mark.parametrize("raw", [False, True])
def test_agrees_with_reference_without_stopping(raw):
    check_op(case(3, True, raw, stop=0.0))


@pytest.mark.parametrize("used", ["color", "opacity", "depth", "weights"])
def test_gradient_of_each_output_alone(used):
    inputs = case(3, True, False).inputs(200, torch.Generator().manual_seed(1))
    results = []
    for function, kind in ((composite, torch.float32), (module.composite_reference, torch.float64)):
        values = {
            k: v.to(kind) if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in inputs.items()
        }
        sigma = values["sigma"].clone().requires_grad_()
        found = getattr(function(**{**values, "sigma": sigma}), used)
        weights = torch.linspace(-1, 1, found.numel(), dtype=kind).view(found.shape)
        results.append(torch.autograd.grad((found * weights).sum(), sigma)[0].double())
    assert torch.allclose(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("each_backend")
def test_live_counts_agree_with_reference():
    inputs = case(3, False, False).inputs(3000, torch.Generator().manual_seed(2))
    inputs["sigma"] *= 20
    live = composite(**inputs).live
    expected = module.composite_reference(**inputs).live
    assert torch.equal(live, expected) and live.dtype == torch.int32
    assert 0 < live.sum() < 3000


def slab(sigma, count, near=1.0, far=3.0):
    """One ray through a constant density."""
    edges = torch.linspace(near, far, count + 1)
    start = torch.tensor([0, count], dtype=torch.int32)
    return composite(torch.full((count,), sigma), torch.ones(count, 3), edges[:-1], edges[1:], start, stop=0.0)


@pytest.mark.parametrize("sigma", [0.0, 1e-4, 0.5, 3.0, 40.0])
def test_slab_has_the_analytic_opacity_and_depth(sigma):
    found = slab(sigma, 1000)
    length = torch.tensor(2.0 * sigma, dtype=torch.float64)
    opacity = -torch.expm1(-length)
    assert torch.allclose(found.opacity.double(), opacity[None], rtol=1e-5, atol=1e-7)
    assert torch.allclose(found.color.double(), opacity.expand(1, 3), rtol=1e-5, atol=1e-7)
    if sigma:
        depth = opacity * (1 + 1 / sigma) - 2 * torch.exp(-length)  # integral of t sigma e^(-sigma (t - 1)) over [1, 3]
        assert torch.allclose(found.depth.double(), depth[None], rtol=1e-3)


@pytest.mark.usefixtures("each_backend")
def test_thin_samples_keep_their_digits():
    found = slab(1e-6, 64)
    assert torch.allclose(found.weights, torch.full((64,), 1e-6 * 2 / 64), rtol=1e-5)


def random_rays(size=2000, scale=10.0):
    found = packed(size)
    return {"sigma": torch.rand(size) ** 3 * scale, "rgb": torch.rand(size, 3), **found}


def test_weights_and_transmittance_sum_to_one():
    rays = random_rays()
    found = composite(**rays, stop=0.0)
    tau = (rays["sigma"] * (rays["t_end"] - rays["t_start"])).double()
    for i, (a, b) in enumerate(zip(rays["ray_start"][:-1], rays["ray_start"][1:], strict=True)):
        total = found.weights[a:b].sum()
        assert abs(total + torch.exp(-tau[a:b].sum()) - 1) < 2e-6
        assert abs(total - found.opacity[i]) < 2e-6
    assert (found.weights >= 0).all()


def test_splitting_intervals_leaves_the_colour():
    rays = random_rays()
    middle = rays["t_start"] + 0.3 * (rays["t_end"] - rays["t_start"])
    split = {k: rays[k].repeat_interleave(2, 0) for k in ("sigma", "rgb")}
    split["t_start"] = torch.stack([rays["t_start"], middle], 1).flatten()
    split["t_end"] = torch.stack([middle, rays["t_end"]], 1).flatten()
    whole = composite(**rays, stop=0.0)
    halves = composite(**split, ray_start=rays["ray_start"] * 2, stop=0.0)
    assert torch.allclose(whole.color, halves.color, atol=2e-6)
    assert torch.allclose(whole.opacity, halves.opacity, atol=2e-6)


@pytest.mark.usefixtures("each_backend")
def test_early_stop_misses_less_than_its_threshold():
    rays = random_rays(scale=100.0)
    exact = composite(**rays, stop=0.0)
    for stop in (1e-4, 1e-2):
        found = composite(**rays, stop=stop)
        assert (found.live <= exact.live).all() and found.live.sum() < exact.live.sum()
        assert (exact.color - found.color).abs().max() < stop
        assert (exact.opacity - found.opacity).abs().max() < stop


@pytest.mark.usefixtures("each_backend")
def test_samples_after_the_stop_get_nothing():
    rays = random_rays(scale=100.0)
    rays["sigma"].requires_grad_(), rays["rgb"].requires_grad_()
    found = composite(**rays)
    grads = torch.autograd.grad(found.color.sum() + found.depth.sum(), [rays["sigma"], rays["rgb"]])
    for i, (a, b) in enumerate(zip(rays["ray_start"][:-1], rays["ray_start"][1:], strict=True)):
        dead = slice(int(a + found.live[i]), int(b))
        for value in (found.weights, *grads):
            assert (value[dead] == 0).all()
        assert (found.weights[a : a + found.live[i]] > 0).all()


@pytest.mark.usefixtures("each_backend")
def test_stop_within_and_between_vectors():
    """Opaque from sample k on: k + 1 samples are live, whatever the width of a vector."""
    for k in range(40):
        sigma = torch.zeros(40)
        sigma[k:] = 1e4
        edges = torch.arange(41.0)
        start = torch.tensor([0, 40], dtype=torch.int32)
        found = composite(sigma, torch.ones(40, 1), edges[:-1], edges[1:], start)
        assert found.live.tolist() == [k + 1] and found.opacity.tolist() == [1.0]


@pytest.mark.usefixtures("each_backend")
def test_no_channels_finds_the_live_samples():
    logits = torch.randn(500, 4) * 4
    rays = packed(500)
    alone = composite_raw(logits[:, 0], None, **rays)
    assert alone.color.shape == (len(rays["ray_start"]) - 1, 0)
    assert torch.equal(alone.live, composite_raw(logits[:, 0], logits[:, 1:], **rays).live)


def test_gradient_of_a_large_density_is_bounded():
    logit = torch.tensor([30.0], requires_grad=True)
    t = torch.tensor([0.0]), torch.tensor([1e-7])
    found = composite_raw(logit, torch.zeros(1, 1), *t, torch.tensor([0, 1], dtype=torch.int32))
    (grad,) = torch.autograd.grad(found.opacity.sum(), logit)
    tau = torch.tensor(30.0).exp() * 1e-7
    assert torch.allclose(grad[0], torch.tensor(15.0).exp() * 1e-7 * (-tau).exp(), rtol=1e-4)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("broken", ["density", "colour"])
def test_not_a_number_shows_in_its_ray_alone(raw, broken):
    values = torch.rand(60, 4)
    values[25, 0 if broken == "density" else 2] = float("nan")
    edges = torch.linspace(0, 1, 61)
    rays = (edges[:-1], edges[1:], torch.tensor([0, 20, 40, 60], dtype=torch.int32))
    found = (composite_raw if raw else composite)(values[:, 0], values[:, 1:], *rays)
    assert found.color[1].isnan().any() and found.color[[0, 2]].isfinite().all()
    assert found.opacity[1].isnan() == (broken == "density")


def test_same_bits_with_any_number_of_threads(threads):
    rays = packed(20_000)
    raw = (torch.randn(20_000, 4) * 3).requires_grad_()

    def run():
        found = composite_raw(raw[:, 0], raw[:, 1:], **rays)
        return *found, *torch.autograd.grad(found.color.sum() + found.depth.sum(), raw)

    for ours, expected in threads(run):
        assert torch.equal(ours, expected)


def test_streams_are_not_copied_and_gradients_are_streams():
    raw = torch.randn(4, 100).requires_grad_()
    found = composite_raw(raw[0], raw[1:].T, **packed(100))
    (grad,) = torch.autograd.grad(found.color.sum(), raw)
    assert grad.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32])
@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_compaction_keeps_the_live_samples(dtype, name):
    rays = random_rays(scale=100.0)
    found = composite(**rays)
    streams = (torch.randn(5, 2000) * 100).to(dtype)
    with backend.use(name):
        start, kept, t_start = compact_streams(rays["ray_start"], found.live, streams.T, rays["t_start"])
    assert kept.dtype == dtype and start.dtype == torch.int32
    assert torch.equal(start[1:] - start[:-1], found.live)
    inside = torch.cat([torch.arange(a, a + n) for a, n in zip(rays["ray_start"][:-1], found.live, strict=True)])
    assert torch.equal(kept, streams.T[inside]) and torch.equal(t_start, rays["t_start"][inside])


@pytest.mark.usefixtures("each_backend")
def test_compacted_rays_have_the_same_colour():
    rays = random_rays(scale=100.0)
    before = composite(**rays)
    start, *kept = compact_streams(
        rays["ray_start"], before.live, *[rays[k] for k in ("sigma", "rgb", "t_start", "t_end")]
    )
    after = composite(*kept, start)
    assert torch.equal(after.color, before.color) and torch.equal(after.live, before.live)


@pytest.mark.usefixtures("each_backend")
def test_compaction_of_nothing():
    start, kept = compact_streams(
        torch.zeros(1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), torch.zeros(0, 3)
    )
    assert start.tolist() == [0] and kept.shape == (0, 3)


def arguments(**changes):
    rays = packed(20)
    return {"sigma": torch.rand(20), "rgb": torch.rand(20, 3), **rays, **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"t_start": torch.rand(20, requires_grad=True)}, "t_start requires a gradient"),
        ({"ray_start": torch.tensor([0, 5], dtype=torch.int32)}, "ray_start"),
        ({"ray_start": torch.zeros(0, dtype=torch.int32)}, "ray_start"),
        ({"rgb": torch.rand(19, 3)}, "rgb has shape"),
        ({"background": torch.rand(2, 4)}, "background has shape"),
        ({"ray_start": torch.tensor([0, 20])}, "ray_start has dtype"),
    ],
)
def test_refuses(changes, words):
    with pytest.raises(BadInput, match=words):
        composite(**arguments(**changes))


def test_refuses_logits_of_another_shape_and_compaction_with_gradient():
    with pytest.raises(BadInput, match="shape"):
        composite_raw(torch.rand(20, 1), None, **packed(20))
    with pytest.raises(BadInput, match="requires a gradient"):
        start = torch.tensor([0, 2], dtype=torch.int32)
        compact_streams(start, torch.tensor([1], dtype=torch.int32), torch.rand(2, requires_grad=True))


def test_broken_ray_starts_stay_inside_the_streams():
    start = torch.tensor([-5, 90, 3, 20], dtype=torch.int32)
    assert isinstance(composite(**arguments(ray_start=start)), Composited)
