"""Gaussians seen by rays: any lens, and mirrors, glass and shadows among them.

    .venv/bin/python examples/03_ray_tracing.py OUTPUT [--gaussians FILE.ply] [--size 256]

Without a file it makes a small scene of Gaussians. It writes pictures into the folder OUTPUT: through a pinhole, a
fisheye lens of 180 degrees, a whole sphere around the camera, a lens with an aperture, and one with a mirror ball, a
glass ball and a matte one among the Gaussians, which throw shadows and are in the Gaussians' shadow.
"""

import argparse
from pathlib import Path

import torch

from radfield.apps.runs import write_picture
from radfield.cameras import Cameras, look_at
from radfield.gaussians.files import read_gaussians
from radfield.gaussians.scene import GaussianScene
from radfield.renderers.gaussian_trace import scene_bvh
from radfield.renderers.traced_scene import Sun, Surface, shadowed, trace_scene
from radfield.renderers.traced_view import trace_view, view_rays, with_lens
from radfield.tracing.bvh import Bvh

SKY = torch.tensor([0.62, 0.75, 0.9])
SUN = Sun((0.5, -0.35, 1.0), ambient=0.35)


def garden(count: int = 40_000) -> GaussianScene:
    """A chequered lawn of flat Gaussians, and bushes on it."""
    g = torch.Generator().manual_seed(0)
    lawn = (torch.rand(count, 3, generator=g) * 2 - 1) * torch.tensor([4.0, 4.0, 0.02])
    checks = ((lawn[:, 0].floor() + lawn[:, 1].floor()) % 2)[:, None]
    green = checks * torch.tensor([0.25, 0.5, 0.2]) + (1 - checks) * torch.tensor([0.75, 0.75, 0.55])
    angle, away = torch.arange(24) * 2.4, 1.5 + 2.2 * torch.rand(24, generator=g)  # around the middle
    where, bush = torch.stack((angle.cos() * away, angle.sin() * away), 1), torch.rand(24, 3, generator=g) * 0.8 + 0.1
    of = torch.randint(24, (count // 2,), generator=g)
    ball = torch.nn.functional.normalize(torch.randn(len(of), 3, generator=g), dim=1) * 0.3
    leaves = ball + torch.cat((where[of], torch.full((len(of), 1), 0.3)), 1)
    means, color = torch.cat((lawn, leaves)), torch.cat((green, bush[of] + 0.1 * torch.randn(len(of), 1, generator=g)))
    scales = torch.cat((torch.tensor([[0.04, 0.04, 0.004]]).expand(count, 3), torch.full((len(of), 3), 0.02)))
    quaternions = torch.tensor([[1.0], [0.0], [0.0], [0.0]]).expand(4, len(means))
    opacity = torch.full((len(means),), 0.8).logit()
    base = ((color - 0.5) / 0.28209479177387814).T
    parts = (means.T, quaternions, scales.log().T, opacity, base, torch.zeros(0, len(means)))
    return GaussianScene(*(part.contiguous() for part in parts))


def ball(centre: tuple, radius: float, **options) -> Surface:
    """A sphere of triangles."""
    import trimesh

    mesh = trimesh.creation.icosphere(subdivisions=5, radius=radius)
    vertices = torch.tensor(mesh.vertices).float() + torch.tensor(centre)
    return Surface(Bvh.of(vertices, torch.tensor(mesh.faces)), **options)


def main() -> None:
    """Parses the command line, and draws."""
    parser = argparse.ArgumentParser(description="Draw Gaussians by ray tracing.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--gaussians", type=Path)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    scene = read_gaussians(options.gaussians) if options.gaussians else garden()
    options.output.mkdir(parents=True, exist_ok=True)
    pose = look_at(torch.tensor([[1.9, -2.4, 1.5]]), torch.tensor([[0.1, 0.0, 0.35]]), torch.tensor([[0.0, 0.0, 1.0]]))
    size = torch.tensor([[options.size, options.size * 3 // 4]])
    one = Cameras(pose, torch.full((1, 2), options.size * 0.9), size / 2.0, size, torch.zeros(1, 9))

    def write(name, color):
        write_picture(options.output / f"{name}.png", color)
        print(options.output / f"{name}.png")

    bvh = scene_bvh(scene)
    for lens in ("capture", "fisheye", "equirectangular"):
        write("pinhole" if lens == "capture" else lens, trace_view(scene, with_lens(one, lens), 0, SKY, bvh=bvh).color)
    write("aperture", trace_view(scene, one, 0, SKY, bvh=bvh, aperture=0.08, focus=3.0, samples=16).color)
    balls = [
        ball((-0.5, 0.2, 0.62), 0.6, material="mirror", color=(0.95, 0.95, 0.95)),
        ball((0.75, -0.75, 0.47), 0.45, material="glass"),
        ball((1.05, 0.7, 0.32), 0.3, material="matte", color=(0.9, 0.3, 0.2)),
    ]
    lit = shadowed(scene, balls, SUN)
    width, height = one.size[0].tolist()
    write("balls", trace_scene(lit, balls, view_rays(one, 0), sun=SUN, background=SKY).view(height, width, 3))


if __name__ == "__main__":
    main()
