"""Ray tracing of Gaussians against Mitsuba 3's `ellipsoids` shape under `volprim_rf_basic` (LLVM), side by side.

Both trace the ball of rasterise.py from its camera, one ray per pixel, forward and with gradients to all that describes
the Gaussians, in turns in one process, each on one thread. Figures are medians of CPU milliseconds, so that they can be
taken beside other work; `forward_ratio` and `forward_backward_ratio` are how many times as long theirs take. Both trees
are there before. Theirs bounds Gaussians by opacity as ours does (`extent_adaptive_clamping`), and stops after 64 of
them or at 0.01 of the light, where ours stops at 0.001; `psnr` is that of the two images, theirs with 16 rays per
pixel, which it places at random within.

Mitsuba and LLVM are needed (`pip install mitsuba`; `DRJIT_LIBLLVM_PATH`, LLVM 17 or newer: 15 fails on a processor with
AVX-512); where they are not there it says so and ends.

    python benchmarks/trace_mitsuba.py [--gaussians 100000] [--size 512] [--repeats 5] [--json] [--save FILE]
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from pathlib import Path

import torch
from common import report
from rasterise import ball

from radfield.cpu import library
from radfield.rays import Rays
from radfield.renderers.gaussian_color import HARMONIC_0
from radfield.renderers.gaussian_trace import DEFAULT, trace_particles
from radfield.tracing.particle_bvh import ParticleBvh

FOCAL = 1.1  # of the image's width
VARIANT = "llvm_ad_rgb"


def mitsuba():
    """The module with its variant set. Raises `ImportError` where it, or LLVM, is not there."""
    import drjit
    import mitsuba as mi

    if VARIANT not in mi.variants():
        raise ImportError(f"this Mitsuba has no {VARIANT}")
    mi.set_variant(VARIANT)
    try:
        float(mi.Float(1.0)[0] + 1)  # the first evaluation loads LLVM
    except RuntimeError as error:
        raise ImportError(f"LLVM could not be loaded: {str(error).splitlines()[0]}") from error
    drjit.set_thread_count(1)
    return mi


class Ours:
    """The ball as radfield traces it."""

    def __init__(self, values: dict, size: int, weights: torch.Tensor):
        names = ("means", "quaternions", "scales", "opacities", "base")
        streams = [values[name] if values[name].ndim == 1 else values[name].mT for name in names]
        self.scene = [value.contiguous().clone().requires_grad_() for value in streams]
        self.scene.append(torch.zeros(0, len(values["opacities"])))
        self.bvh, self.size, self.weights = ParticleBvh.of(*self.scene[:4]), size, weights.view(-1, 3)
        y, x = torch.meshgrid(*(torch.arange(size) + 0.5 - size / 2,) * 2, indexing="ij")
        local = torch.stack((x / (FOCAL * size), y / (FOCAL * size), torch.ones_like(x)), -1).view(-1, 3)
        origin = torch.tensor([0.0, 0.0, -4.0]).expand_as(local).contiguous()
        self.rays = Rays(origin, torch.nn.functional.normalize(local, dim=-1))

    def image(self) -> torch.Tensor:
        """[size, size, 3]."""
        with torch.no_grad():
            return self._draw().view(self.size, self.size, 3)

    def forward(self) -> None:
        """One image."""
        self.image()

    def forward_backward(self) -> None:
        """One image and all gradients."""
        for value in self.scene:
            value.grad = None
        self._draw().backward(self.weights)

    def _draw(self) -> torch.Tensor:
        return trace_particles(*self.scene, self.rays, tracing=DEFAULT, bvh=self.bvh, width=self.size).color


class Theirs:
    """The ball as Mitsuba traces it."""

    def __init__(self, mi, values: dict, size: int, weights: torch.Tensor):
        import drjit as dr

        self.mi, self.dr = mi, dr
        w, *xyz = values["quaternions"].unbind(1)
        shape = {
            "type": "ellipsoids",
            "centers": self._tensor(values["means"]),
            "scales": self._tensor(values["scales"]),
            "quaternions": self._tensor(torch.stack((*xyz, w), 1)),
            "opacities": self._tensor(values["opacities"][:, None]),
            "sh_coeffs": self._tensor(values["base"]),
            "extent_adaptive_clamping": True,
        }
        film = {"type": "hdrfilm", "width": size, "height": size, "pixel_format": "rgb", "rfilter": {"type": "box"}}
        sensor = {
            "type": "perspective",
            "fov": math.degrees(2 * math.atan(0.5 / FOCAL)),
            "to_world": mi.ScalarTransform4f().look_at(origin=[0, 0, -4], target=[0, 0, 0], up=[0, -1, 0]),
            "film": film,
            "sampler": {"type": "independent", "sample_count": 1},
        }
        integrator = {"type": "volprim_rf_basic", "srgb_primitives": False}
        self.scene = mi.load_dict({"type": "scene", "integrator": integrator, "sensor": sensor, "gaussians": shape})
        self.parameters = mi.traverse(self.scene)
        self.parameters.keep([f"gaussians.{name}" for name in ("data", "opacities", "sh_coeffs")])
        self.weights, self.seed = self._tensor(weights), 0

    def _tensor(self, value: torch.Tensor):
        return self.mi.TensorXf(value.detach().contiguous().numpy())

    def image(self) -> torch.Tensor:
        """[size, size, 3] of 16 rays per pixel."""
        return torch.from_numpy(self.mi.render(self.scene, spp=16).numpy())[..., :3]

    def forward(self) -> None:
        """One image."""
        self.seed += 1
        self.dr.eval(self.mi.render(self.scene, spp=1, seed=self.seed))
        self.dr.sync_thread()

    def forward_backward(self) -> None:
        """One image and all gradients."""
        self.seed += 1
        for _, value in self.parameters.items():
            self.dr.enable_grad(value)
        image = self.mi.render(self.scene, self.parameters, spp=1, seed=self.seed)
        self.dr.backward(self.dr.sum(image * self.weights))
        self.dr.eval([self.dr.grad(value) for _, value in self.parameters.items()])
        self.dr.sync_thread()


def cpu_ms(function) -> float:
    """CPU milliseconds of a call, over all threads."""
    began = time.process_time()
    function()
    return (time.process_time() - began) * 1e3


def figures(mi, options: argparse.Namespace) -> dict:
    """Medians of calls in turns."""
    values = {name: value.detach() for name, value in ball(options.gaussians).items()}
    values["scales"] = values["scales"] * (100_000 / options.gaussians) ** (1 / 3)
    values["base"] = (values["colors"] - 0.5) / HARMONIC_0
    weights = torch.rand(options.size, options.size, 3, generator=torch.Generator().manual_seed(1)) * 1e-3
    ours, theirs = Ours(values, options.size, weights), Theirs(mi, values, options.size, weights)
    error = (ours.image() - theirs.image()).square().mean()
    found = {"psnr": round(-10 * math.log10(float(error)), 2)}
    for name in ("forward", "forward_backward"):
        times = {"ours": [], "mitsuba": []}
        for i in range(options.repeats + 1):  # in the first theirs is compiled
            for who, times_of in ((ours, times["ours"]), (theirs, times["mitsuba"])):
                times_of.append(cpu_ms(getattr(who, name)))
            print(f"{name}: {i} of {options.repeats}", file=sys.stderr, flush=True)
        medians = {key: statistics.median(value[1:]) for key, value in times.items()}
        found |= {f"{name}_cpu_ms": round(medians["ours"], 1), f"{name}_cpu_ms_mitsuba": round(medians["mitsuba"], 1)}
        found[f"{name}_ratio"] = round(medians["mitsuba"] / medians["ours"], 2)
    sizes = {"gaussians": options.gaussians, "size": options.size, "repeats": options.repeats}
    return {**found, **sizes, "isa": library.choose_isa(), "mitsuba": mi.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gaussians", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    try:
        mi = mitsuba()
    except ImportError as error:
        print(f"trace_mitsuba: nothing is compared: {error}", file=sys.stderr)
        return
    torch.set_num_threads(1)
    library.set_num_threads(1)
    report(figures(mi, options), options.json, options.save)


if __name__ == "__main__":
    main()
