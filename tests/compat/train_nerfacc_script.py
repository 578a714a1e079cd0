"""A script as users of nerfacc write it: nothing in it knows of radfield. A tiny radiance field of eight pictures."""

import math

import nerfacc
import torch
from torch.nn.functional import mse_loss, normalize, softplus

torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZE, STEP = 20, 0.05


def truth(x):
    """A ball with a colour for each direction from its centre: (colour, density)."""
    return 0.5 + 0.5 * normalize(x, dim=-1), 30.0 * (x.norm(dim=-1) < 0.6)


def pixel_rays(view):
    """The rays of a camera on a circle around the scene, which looks at its centre."""
    angle = 2 * math.pi * view / 8
    origin = torch.tensor([2.5 * math.cos(angle), 2.5 * math.sin(angle), 0.8])
    forward = normalize(-origin, dim=0)
    right = normalize(torch.linalg.cross(forward, torch.tensor([0.0, 0, 1])), dim=0)
    at = (torch.arange(SIZE) + 0.5) / SIZE - 0.5
    v, u = torch.meshgrid(at, at, indexing="ij")
    down = torch.linalg.cross(forward, right)
    directions = forward + 0.7 * (u[..., None] * right + v[..., None] * down)
    return origin.expand(SIZE * SIZE, 3), normalize(directions.view(-1, 3), dim=-1)


class Field(torch.nn.Module):
    """A grid of densities and colours, interpolated."""

    def __init__(self):
        super().__init__()
        self.grid = torch.nn.Parameter(torch.zeros(1, 4, 24, 24, 24))

    def forward(self, x):
        found = torch.nn.functional.grid_sample(self.grid, x.view(1, -1, 1, 1, 3), align_corners=True)
        found = found[0, :, :, 0, 0].T
        return found[:, :3].sigmoid(), softplus(10 * found[:, 3] + 1)

    def density(self, x):
        return self(x)[1]


def render(field, estimator, rays_o, rays_d, stratified):
    def positions(t_starts, t_ends, ray_indices):
        return rays_o[ray_indices] + rays_d[ray_indices] * ((t_starts + t_ends) / 2)[:, None]

    def sigma_fn(t_starts, t_ends, ray_indices):
        return field.density(positions(t_starts, t_ends, ray_indices))

    def rgb_sigma_fn(t_starts, t_ends, ray_indices):
        return field(positions(t_starts, t_ends, ray_indices))

    ray_indices, t_starts, t_ends = estimator.sampling(
        rays_o, rays_d, sigma_fn=sigma_fn, render_step_size=STEP, stratified=stratified, alpha_thre=1e-3
    )
    return nerfacc.rendering(
        t_starts,
        t_ends,
        ray_indices=ray_indices,
        n_rays=len(rays_o),
        rgb_sigma_fn=rgb_sigma_fn,
        render_bkgd=torch.ones(3, device=device),
    )


def exact(rays_o, rays_d):
    """What the cameras see: fine steps through the true field."""
    t = torch.arange(1.0, 4.0, 0.01)
    rgb, sigma = truth(rays_o[:, None] + rays_d[:, None] * (t[:, None] + 0.005))
    options = {"render_bkgd": torch.ones(3), "rgb_sigma_fn": lambda *_: (rgb, sigma)}
    starts = t.expand(len(rays_o), -1)
    return nerfacc.rendering(starts, starts + 0.01, **options)[0]


views = [pixel_rays(view) for view in range(8)]
rays_o, rays_d = (torch.cat(parts).to(device) for parts in zip(*views, strict=True))
colors = exact(rays_o, rays_d)
held_out = slice(3 * SIZE * SIZE, 4 * SIZE * SIZE)
train = torch.ones(len(rays_o), dtype=torch.bool)
train[held_out] = False
train = train.nonzero()[:, 0]

field = Field().to(device)
estimator = nerfacc.OccGridEstimator(roi_aabb=[-1.0, -1, -1, 1, 1, 1], resolution=24, levels=1).to(device)
optimizer = torch.optim.Adam(field.parameters(), lr=5e-2)
losses, samples = [], []
for step in range(100):
    estimator.update_every_n_steps(
        step, lambda x: field.density(x)[:, None] * STEP, occ_thre=1e-2, ema_decay=0.6, warmup_steps=32, n=4
    )
    batch = train[torch.randint(len(train), (256,))]
    color, _, _, extras = render(field, estimator, rays_o[batch], rays_d[batch], True)
    loss = mse_loss(color, colors[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    samples.append(len(extras["weights"]))

with torch.no_grad():
    color, *_ = render(field, estimator, rays_o[held_out], rays_d[held_out], False)
psnr = -10 * math.log10(mse_loss(color, colors[held_out]).item())
occupied = estimator.binaries.float().mean().item()
if __name__ == "__main__":
    print(f"{psnr:.2f} {occupied:.3f} {samples[0]} {samples[-1]}")
