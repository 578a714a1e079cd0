"""Random particles and rays, and the specification of tracing in float64, for the tests of the tracer."""

import torch

from radfield.gaussians.scene import GaussianScene
from radfield.rays import Rays
from radfield.renderers.gaussian_trace import DEFAULT, trace_particles
from radfield.renderers.gaussian_trace_reference import meetings, trace_reference

NAMES = ("means", "quaternions", "scales", "opacities", "base", "rest")
GEOMETRY = NAMES[:4]


def particles(count, degree=1, seed=0, size=-3.0, spread=0.6):
    """Streams by name: large and small, round and needles, with view-dependent colours."""
    g = torch.Generator().manual_seed(seed)
    rows = 3 * ((degree + 1) ** 2 - 1)
    return {
        "means": torch.randn(3, count, generator=g) * spread,
        "quaternions": torch.randn(4, count, generator=g),
        "scales": torch.exp(torch.randn(3, count, generator=g) * 0.8 + size),
        "opacities": torch.rand(count, generator=g),
        "base": torch.randn(3, count, generator=g),
        "rest": torch.randn(rows, count, generator=g) * 0.3,
    }


def gaussian_scene(count=400, seed=0, size=-2.5, spread=0.8):
    """The same as the parameters of a scene, neither clear nor opaque, tiny or huge."""
    values = particles(count, degree=0, seed=seed, size=size, spread=spread)
    values["log_scales"] = values.pop("scales").clamp(0.01, 0.3).log()
    values["opacity_logits"] = values.pop("opacities").clamp(0.05, 0.95).logit()
    values["base"] = values["base"].clamp(-1, 1)
    return GaussianScene(**values)


def image_rays(width, height, distance=3.0, focal=1.1):
    """A pinhole camera's, row by row, from (0, 0, -distance) along z."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    local = torch.stack(((x - width / 2) / (focal * width), (y - height / 2) / (focal * width), torch.ones_like(x)), -1)
    directions = torch.nn.functional.normalize(local.view(-1, 3), dim=-1)
    return Rays(torch.tensor([0.0, 0.0, -distance]).expand_as(directions).contiguous(), directions)


def random_rays(count, seed=1):
    """From everywhere in the scene to everywhere."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1)
    return Rays(torch.randn(count, 3, generator=g), directions)


def traced(values, rays, tracing=DEFAULT, **options):
    """`trace_particles` of particles by name."""
    return trace_particles(*[values[name] for name in NAMES], rays, tracing=tracing, **options)


class Reference:
    """What float64 says: `color`, `depth`, `transmittance`, `hits`, `normals`; `close`: rays of which a response or
    transmittance lies at a threshold; the leaves by name for gradients."""

    def __init__(self, values, rays, tracing=DEFAULT):
        self.leaves = {name: value.detach().double().requires_grad_() for name, value in values.items()}
        self.leaves["origins"], self.leaves["directions"] = (
            v.detach().double().requires_grad_() for v in (rays.origins, rays.directions)
        )
        near, far = torch.zeros(len(rays)), torch.full((len(rays),), torch.inf)
        near, far = (d if v is None else v for v, d in ((rays.near, near), (rays.far, far)))
        together = (self.leaves["origins"], self.leaves["directions"], near.double(), far.double())
        particles = [self.leaves[name] for name in NAMES]
        limits = {"min_transmittance": tracing.min_transmittance, "max_alpha": tracing.max_alpha}
        found = trace_reference(*particles, together, tracing.kernel, **limits)
        self.color, self.depth, self.transmittance, self.hits, self.normals = found
        with torch.no_grad():
            met = meetings(*particles[:4], together, tracing.kernel)
            least, most = tracing.kernel.min_response, tracing.max_alpha
            close = (met.raw / least - 1).abs().amin(1) < 1e-5
            close |= (met.raw - most).abs().amin(1) < 1e-5
            close |= ((met.tau - near[:, None]).abs() < 1e-6).any(1) | ((met.tau - far[:, None]).abs() < 1e-6).any(1)
            self.close = close | ((self.transmittance / tracing.min_transmittance - 1).abs() < 1e-5)

    def gradients(self, weights):
        """By name, of the sum of color, depth and opacity times `weights`."""
        color, depth, opacity = (w.double() for w in weights)
        total = (self.color * color).sum() + (self.depth * depth).sum() + ((1 - self.transmittance) * opacity).sum()
        grads = torch.autograd.grad(total, list(self.leaves.values()))
        return dict(zip(self.leaves, grads, strict=True))


def weights_of(rays, keep, seed=3):
    """Of color, depth and opacity in the sum whose gradients are compared; 0 where not `keep`."""
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randn(len(rays), 3, generator=g) * keep[:, None],
        torch.randn(len(rays), generator=g) * keep,
        torch.randn(len(rays), generator=g) * keep,
    )


def gradients(values, rays, weights, tracing=DEFAULT, **options):
    """Those of the tracer, by name."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in values.items()}
    origins, directions = (v.detach().clone().requires_grad_() for v in (rays.origins, rays.directions))
    seen = traced(leaves, Rays(origins, directions, rays.near, rays.far), tracing, **options)
    color, depth, opacity = weights
    ((seen.color * color).sum() + (seen.depth * depth).sum() + (seen.opacity * opacity).sum()).backward()
    found = {name: value.grad for name, value in leaves.items()}
    return found | {"origins": origins.grad, "directions": directions.grad}


def agrees(values, rays, tracing=DEFAULT, most_close=1e-3, **options):
    """Values to 1e-5 and gradients to 1e-4 of float64, but for rays at a threshold, of which there are few."""
    theirs, ours = Reference(values, rays, tracing), traced(values, rays, tracing, normals=True, **options)
    keep = ~theirs.close
    assert float(theirs.close.float().mean()) <= most_close
    assert torch.equal(ours.hits[keep], theirs.hits[keep])
    for name, found, wanted in (
        ("color", ours.color, theirs.color),
        ("depth", ours.depth, theirs.depth),
        ("opacity", ours.opacity, 1 - theirs.transmittance),
        ("normals", ours.normals, theirs.normals),
    ):
        worst = float((found - wanted).detach().abs()[keep].max())
        assert worst < 1e-5, f"{name}: off by {worst:.3g}"
    weights = weights_of(rays, keep)
    wanted = theirs.gradients(weights)
    for name, found in gradients(values, rays, weights, tracing, **options).items():
        if not found.numel():
            continue
        error = float((found - wanted[name]).abs().max() / wanted[name].abs().max().clamp_min(1e-9))
        assert error < 1e-4, f"gradient of {name}: {error:.3g}"
