"""A training script as users of gsplat write it: nothing in it knows of radfield. A few hundred Gaussians learn eight
pictures of coloured balls; prints the number of Gaussians and the PSNR of views that were not trained on."""

import math

import torch
from gsplat.rendering import rasterization
from gsplat.strategy import DefaultStrategy
from torch.nn.functional import l1_loss, mse_loss, normalize

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
size, steps = 48, 240
balls = torch.tensor([[0.0, 0.0, 0.0, 0.5], [0.6, 0.1, 0.2, 0.3], [-0.5, -0.3, 0.3, 0.35]], device=device)
paint = torch.tensor([[0.9, 0.3, 0.2], [0.2, 0.8, 0.3], [0.2, 0.4, 0.9]], device=device)
K = torch.tensor([[60.0, 0, size / 2], [0, 60.0, size / 2], [0, 0, 1]], device=device)


def look_at(angle, height):
    """World to camera, from a circle of radius 3 around the origin."""
    eye = torch.tensor([3 * math.cos(angle), height, 3 * math.sin(angle)], device=device)
    forward = normalize(-eye, dim=0)
    right = normalize(torch.linalg.cross(forward, torch.tensor([0.0, -1.0, 0.0], device=device)), dim=0)
    down = torch.linalg.cross(forward, right)
    view = torch.eye(4, device=device)
    view[:3, :3] = torch.stack([right, down, forward])
    view[:3, 3] = -view[:3, :3] @ eye
    return view


def photograph(view):
    """The nearest ball of each pixel's ray, on white."""
    v, u = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    local = torch.stack([(u - size / 2) / 60, (v - size / 2) / 60, torch.ones_like(u)], -1).to(device)
    rays = normalize(local, dim=-1) @ view[:3, :3]
    eye = -view[:3, :3].T @ view[:3, 3]
    to = balls[:, :3] - eye
    along = rays @ to.T
    inside = balls[:, 3] ** 2 - (to**2).sum(1) + along**2
    hit = torch.where(inside > 0, along - inside.clamp_min(0).sqrt(), torch.inf)
    nearest, which = hit.min(-1)
    return torch.where(torch.isfinite(nearest)[..., None], paint[which], torch.ones(3, device=device))


views = torch.stack([look_at(2 * math.pi * i / 10, 0.8 * (-1) ** i) for i in range(10)])
images = torch.stack([photograph(view) for view in views])
train, test = list(range(8)), [8, 9]
count = 300
params = torch.nn.ParameterDict(
    {
        "means": torch.nn.Parameter(torch.rand(count, 3) * 1.8 - 0.9),
        "scales": torch.nn.Parameter(torch.full((count, 3), math.log(0.1))),
        "quats": torch.nn.Parameter(torch.rand(count, 4)),
        "opacities": torch.nn.Parameter(torch.logit(torch.full((count,), 0.2))),
        "sh0": torch.nn.Parameter(torch.rand(count, 1, 3) - 0.5),
        "shN": torch.nn.Parameter(torch.zeros(count, 3, 3)),
    }
).to(device)
rates = {"means": 4e-3, "scales": 1e-2, "quats": 2e-3, "opacities": 5e-2, "sh0": 1e-2, "shN": 5e-4}
optimizers = {name: torch.optim.Adam([params[name]], lr=rate, eps=1e-15) for name, rate in rates.items()}
strategy = DefaultStrategy(refine_start_iter=40, refine_stop_iter=160, refine_every=40, reset_every=10_000)
strategy.check_sanity(params, optimizers)
state = strategy.initialize_state(scene_scale=1.0)


def render(view, packed=False):
    return rasterization(
        params["means"],
        params["quats"],
        torch.exp(params["scales"]),
        torch.sigmoid(params["opacities"]),
        torch.cat([params["sh0"], params["shN"]], 1),
        view[None],
        K[None],
        size,
        size,
        sh_degree=1,
        packed=packed,
        backgrounds=torch.ones(1, 3, device=device),
    )


for step in range(steps):
    i = train[step % len(train)]
    rendered, alphas, info = render(views[i])
    loss = l1_loss(rendered[0], images[i])
    strategy.step_pre_backward(params, optimizers, state, step, info)
    loss.backward()
    strategy.step_post_backward(params, optimizers, state, step, info, packed=False)
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

with torch.no_grad():
    errors = [mse_loss(render(views[i], packed=True)[0][0].clamp(0, 1), images[i]).item() for i in test]
psnr = -10 * math.log10(sum(errors) / len(errors))
gaussians = len(params["means"])
print(f"{gaussians} {psnr:.2f}")
