"""gsplat's strategies on cases whose answer is known, and SelectiveAdam."""

import math

import pytest
import torch

from radfield.compat.gsplat import DefaultStrategy, MCMCStrategy, SelectiveAdam, compute_relocation
from radfield.compat.gsplat.checks import WrongCall
from radfield.compat.gsplat.strategy import ops


def trained(N, seed=0):
    """Parameters of N Gaussians after one step of Adam, with their optimisers."""
    generator = torch.Generator().manual_seed(seed)
    values = {
        "means": torch.randn(N, 3, generator=generator),
        "scales": torch.full((N, 3), math.log(0.005)),
        "quats": torch.tensor([1.0, 0, 0, 0]).repeat(N, 1),
        "opacities": torch.full((N,), 2.0),
        "sh0": torch.rand(N, 1, 3, generator=generator),
    }
    params = torch.nn.ParameterDict({k: torch.nn.Parameter(v) for k, v in values.items()})
    optimizers = {k: torch.optim.Adam([p], lr=1e-12) for k, p in params.items()}
    for name, p in params.items():
        p.grad = torch.arange(1.0, p.numel() + 1).view_as(p)
        optimizers[name].step()
        optimizers[name].zero_grad()
    return params, optimizers


def moments(optimizers, name="means"):
    (state,) = optimizers[name].state.values()
    return state


def consistent(params, optimizers):
    """Every optimiser holds the parameter that there is now, and moments of its shape."""
    for name, p in params.items():
        assert optimizers[name].param_groups[0]["params"] == [p] and p.requires_grad
        state = optimizers[name].state[p]
        assert len(optimizers[name].state) == 1 and state["exp_avg"].shape == state["exp_avg_sq"].shape == p.shape
        assert float(state["step"]) == 1


def info(grads, radii, **more):
    means2d = torch.zeros_like(grads).requires_grad_()
    means2d.grad = grads
    return {
        "means2d": means2d,
        "radii": radii,
        "width": 200,
        "height": 100,
        "n_cameras": grads.shape[0],
        "gaussian_ids": None,
        **more,
    }


def test_statistics_are_mean_lengths_in_units_of_half_the_image():
    params, optimizers = trained(3)
    strategy, grads = DefaultStrategy(), torch.zeros(2, 3, 2)
    grads[0, 0] = torch.tensor([3e-3, 0.0])
    grads[1, 0] = torch.tensor([0.0, 8e-3])
    grads[1, 2] = torch.tensor([1.0, 1.0])  # not seen: radius 0
    radii = torch.tensor([[[4, 4], [2, 2], [5, 0]], [[4, 4], [0, 0], [0, 0]]], dtype=torch.int32)
    state = strategy.initialize_state(scene_scale=2.0)
    assert state == {"grad2d": None, "count": None, "scene_scale": 2.0}
    strategy.step_post_backward(params, optimizers, state, 1, info(grads, radii))
    assert torch.allclose(state["grad2d"], torch.tensor([3e-3 * 100 * 2 + 8e-3 * 50 * 2, 0, 0]))
    assert torch.equal(state["count"], torch.tensor([2.0, 1.0, 0.0]))
    packed = info(grads[[0, 1], [0, 0]], radii[[0, 1], [0, 0]], n_cameras=2, gaussian_ids=torch.tensor([0, 0]))
    again = strategy.initialize_state()
    strategy.step_post_backward(params, optimizers, again, 1, packed, packed=True)
    assert torch.equal(again["grad2d"], state["grad2d"])


def test_absolute_gradients_are_taken_where_asked():
    params, optimizers = trained(1)
    strategy, state = DefaultStrategy(absgrad=True), {"grad2d": None, "count": None, "scene_scale": 1.0}
    told = info(torch.zeros(1, 1, 2), torch.ones(1, 1, 2, dtype=torch.int32))
    told["means2d"].absgrad = torch.tensor([[[1.0, 0.0]]])
    strategy.step_post_backward(params, optimizers, state, 1, told)
    assert state["grad2d"].tolist() == [100.0]


def test_growing_copies_the_small_and_splits_the_large():
    params, optimizers = trained(5)
    with torch.no_grad():
        params["scales"][[1, 3]] = math.log(0.05)  # above 0.01 of the scene
        params["opacities"][4] = -8.0  # is pruned
    before = {k: p.detach().clone() for k, p in params.items()}
    first = moments(optimizers)["exp_avg"].clone()
    strategy = DefaultStrategy(refine_start_iter=0, refine_every=10, reset_every=1000)
    state = {"grad2d": torch.tensor([1.0, 1, 0, 0, 0]), "count": torch.full((5,), 2.0), "scene_scale": 1.0}
    nothing = info(torch.zeros(1, 5, 2), torch.zeros(1, 5, 2, dtype=torch.int32))
    torch.manual_seed(0)
    strategy.step_post_backward(params, optimizers, state, 10, nothing)
    # kept 0, 2, 3, a copy of 0, two halves of 1
    assert len(params["means"]) == 6
    consistent(params, optimizers)
    for name, p in params.items():
        assert torch.equal(p[:3], before[name][[0, 2, 3]]) and torch.equal(p[3], before[name][0])
    assert torch.allclose(params["scales"][4:], torch.full((2, 3), math.log(0.05 / 1.6)))
    torch.manual_seed(0)
    offsets = torch.randn(2, 1, 3) * 0.05
    assert torch.allclose(params["means"][4:], before["means"][1] + offsets[:, 0], atol=1e-6)
    assert torch.equal(params["sh0"][4:], before["sh0"][[1, 1]])
    found = moments(optimizers)["exp_avg"]
    assert torch.equal(found[:3], first[[0, 2, 3]]) and not found[3:].any()
    assert not state["grad2d"].any() and len(state["grad2d"]) == len(state["count"]) == 6


def test_a_split_with_revised_opacity_keeps_the_image_of_two():
    params, optimizers = trained(2)
    ops.split(params, optimizers, {}, torch.tensor([False, True]), revised_opacity=True)
    o = torch.tensor(2.0).sigmoid()
    halves = params["opacities"][1:].sigmoid()
    assert torch.allclose(1 - (1 - halves).prod(), o)


def test_the_large_are_pruned_only_after_the_first_reset():
    for step, left in ((10, 3), (30, 2)):
        params, optimizers = trained(3)
        with torch.no_grad():
            params["scales"][1] = math.log(0.2)
        state = {"grad2d": torch.zeros(3), "count": torch.zeros(3), "scene_scale": 1.0}
        strategy = DefaultStrategy(refine_start_iter=0, refine_every=10, reset_every=20)
        assert strategy._prune_gs(params, optimizers, state, step) == 3 - left == 3 - len(params["means"])


def test_sizes_on_the_image_count_where_asked():
    params, optimizers = trained(3)
    strategy = DefaultStrategy(refine_scale2d_stop_iter=100, refine_start_iter=0, refine_every=10, reset_every=1000)
    state = strategy.initialize_state()
    radii = torch.tensor([[[1, 2], [1, 11], [3, 3]]], dtype=torch.int32)  # 11 of 200 pixels: above 0.05
    strategy.step_post_backward(params, optimizers, state, 10, info(torch.zeros(1, 3, 2), radii))
    assert len(params["means"]) == 4 and not state["radii"].any()


def test_opacities_are_reset_as_stated_and_1_5_3_does_not():
    params, optimizers = trained(2)
    with torch.no_grad():
        params["opacities"][1] = -6.0
    strategy, state = DefaultStrategy(reset_every=30), {"grad2d": None, "count": None, "scene_scale": 1.0}
    nothing = info(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int32))
    for step in (0, 29):
        strategy.step_post_backward(params, optimizers, state, step, nothing)
        assert params["opacities"][0] == 2.0
    strategy.step_post_backward(params, optimizers, state, 30, nothing)
    assert torch.allclose(params["opacities"].sigmoid(), torch.tensor([0.01, torch.tensor(-6.0).sigmoid()]))
    assert not moments(optimizers, "opacities")["exp_avg"].any() and moments(optimizers)["exp_avg"].any()
    consistent(params, optimizers)


def test_nothing_happens_once_refinement_has_stopped():
    params, optimizers = trained(1)
    state = {"grad2d": None, "count": None, "scene_scale": 1.0}
    DefaultStrategy(refine_stop_iter=5).step_post_backward(params, optimizers, state, 5, {})
    assert state["grad2d"] is None


@pytest.mark.parametrize("copies", [1, 2, 5, 51])
def test_relocation_is_the_closed_form(copies):
    opacities = torch.tensor([0.01, 0.3, 0.9, 0.999])
    scales = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    binoms = MCMCStrategy().initialize_state()["binoms"]
    assert binoms.shape == (51, 51) and binoms[4, 2] == 6 and binoms[2, 3] == 0
    ratios = torch.full((4,), copies)
    new, sizes = compute_relocation(opacities, scales, ratios, binoms)
    for i, o in enumerate(opacities.tolist()):
        o_new = 1 - (1 - o) ** (1 / copies)
        total = sum(
            math.comb(n - 1, k) * (-1) ** k * o_new ** (k + 1) / math.sqrt(k + 1)
            for n in range(1, copies + 1)
            for k in range(n)
        )
        assert float(new[i]) == pytest.approx(o_new, rel=1e-5)
        assert torch.allclose(sizes[i], scales[i] * o / total, rtol=1e-4)


def test_ratios_beyond_the_table_count_as_its_length():
    ratios = torch.tensor([0, 99])
    values = torch.tensor([0.5, 0.5]), torch.ones(2, 3)
    compute_relocation(*values, ratios, torch.zeros(51, 51))
    assert ratios.tolist() == [1, 51]
    with pytest.raises(WrongCall, match="scales has shape"):
        compute_relocation(values[0], values[1][:1], ratios, torch.zeros(51, 51))


def test_the_dead_move_to_the_living():
    params, optimizers = trained(4)
    with torch.no_grad():
        params["opacities"][[0, 2, 3]] = -9.0  # only 1 lives, so all move to it
    place, color = params["means"][1].detach().clone(), params["sh0"][1].detach().clone()
    strategy = MCMCStrategy(refine_start_iter=0, refine_every=1, cap_max=4, noise_lr=0.0)
    strategy.step_post_backward(params, optimizers, strategy.initialize_state(), 1, {}, lr=1.0)
    assert torch.equal(params["means"], place.expand(4, 3)) and torch.equal(params["sh0"], color.expand(4, 1, 3))
    o = torch.tensor(2.0).sigmoid()
    assert torch.allclose(params["opacities"].sigmoid(), 1 - (1 - o) ** 0.25)
    assert not moments(optimizers)["exp_avg"][1].any() and moments(optimizers)["exp_avg"][0].any()
    consistent(params, optimizers)


def test_growth_is_five_percent_up_to_the_cap():
    params, optimizers = trained(100)
    strategy = MCMCStrategy(refine_start_iter=0, refine_every=1, cap_max=107, noise_lr=0.0)
    state = strategy.initialize_state()
    counts = []
    for step in (1, 2, 3):
        strategy.step_post_backward(params, optimizers, state, step, {}, lr=1.0)
        counts.append(len(params["means"]))
    assert counts == [105, 107, 107]
    consistent(params, optimizers)
    assert not moments(optimizers)["exp_avg"][100:].any()


def test_noise_moves_the_transparent_along_their_axes():
    params, optimizers = trained(2)
    with torch.no_grad():
        params["opacities"][0] = -9.0
        params["scales"].copy_(torch.tensor([0.3, -30.0, -30.0]))
    before = params["means"].detach().clone()
    ops.inject_noise_to_position(params, optimizers, {}, scaler=2.0)
    moved = params["means"].detach() - before
    assert moved[0, 0].abs() > 1e-3 and moved[0, 1:].abs().max() < 1e-9 and moved[1].abs().max() < 1e-9
    torch.manual_seed(4)
    before = params["means"].detach().clone()
    ops.inject_noise_to_position(params, optimizers, {}, scaler=2.0)
    torch.manual_seed(4)
    normal = torch.randn(2, 3)[0, 0]
    o = torch.tensor(-9.0).sigmoid()
    wanted = math.exp(0.6) * normal * 2.0 / (1 + torch.exp(-100 * (0.005 - o)))
    assert torch.allclose(params["means"][0, 0] - before[0, 0], wanted, rtol=1e-4)


def test_sanity_is_checked():
    params, optimizers = trained(2)
    for strategy in (DefaultStrategy(), MCMCStrategy()):
        strategy.check_sanity(params, optimizers)
        with pytest.raises(WrongCall, match="those trained"):
            strategy.check_sanity(params, {k: v for k, v in optimizers.items() if k != "sh0"})
        fewer = {k: v for k, v in params.items() if k != "quats"}
        with pytest.raises(WrongCall, match="quats, opacities among them"):
            strategy.check_sanity(fewer, {k: v for k, v in optimizers.items() if k != "quats"})
    with pytest.raises(WrongCall, match="means2d is in it"):
        DefaultStrategy().step_pre_backward(params, optimizers, {}, 0, {})


def test_selective_adam_steps_what_is_seen_without_bias_correction():
    generator = torch.Generator().manual_seed(0)
    start, seen = torch.randn(6, 2, 3, generator=generator), torch.tensor([1, 0, 1, 1, 0, 1]).bool()
    ours, plain = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizer = SelectiveAdam([{"params": [ours], "lr": 1e-2}], eps=1e-6, betas=(0.9, 0.99))
    m, v = torch.zeros_like(start), torch.zeros_like(start)
    for _ in range(5):
        grad = torch.randn(6, 2, 3, generator=generator)
        ours.grad = grad
        optimizer.step(visibility=seen)
        m, v = 0.9 * m + 0.1 * grad, 0.99 * v + 0.01 * grad**2
        with torch.no_grad():
            plain -= torch.where(seen[:, None, None], 1e-2 * m / (v.sqrt() + 1e-6), 0.0)
    assert torch.allclose(ours, plain, atol=1e-6) and torch.equal(ours[~seen], start[~seen])
    assert not optimizer.state[ours]["exp_avg"][~seen].any()


def test_selective_adam_is_torch_s_adam_but_for_the_correction():
    """One step from nothing: torch divides m by 1 - b1 and v by 1 - b2."""
    grad = torch.tensor([[0.5, -2.0]])
    ours, theirs = (torch.nn.Parameter(torch.zeros(1, 2)) for _ in range(2))
    ours.grad, theirs.grad = grad.clone(), grad.clone()
    SelectiveAdam([{"params": [ours], "lr": 1e-2 * math.sqrt(0.001) / 0.1}], eps=0.0, betas=(0.9, 0.999)).step(
        torch.ones(1)
    )
    torch.optim.Adam([theirs], lr=1e-2, eps=0.0).step()
    assert torch.allclose(ours, theirs)
    with pytest.raises(WrongCall, match="visibility has shape"):
        SelectiveAdam([ours], eps=1e-8, betas=(0.9, 0.999)).step(torch.ones(3))
