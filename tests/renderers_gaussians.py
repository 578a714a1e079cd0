"""Random Gaussians before a camera, for the tests of their passes."""

import dataclasses

import torch

from radfield.renderers.gaussian_projection import MIN_ALPHA, Camera, Projected, project, project_reference
from radfield.renderers.gaussian_raster import MIN_TRANSMITTANCE, raster_reference, rasterise


def random_gaussians(count, generator=None, spread=0.6, size=-3.0):
    """The arguments of `project`, without the camera: some near, some far, some behind, needles among them."""
    scales = torch.exp(torch.randn(count, 3, generator=generator) * 0.8 + size)
    return {
        "means": torch.randn(count, 3, generator=generator) * spread,
        "quaternions": torch.randn(count, 4, generator=generator),
        "scales": scales,
        "opacities": torch.rand(count, generator=generator),
    }


def camera(width=75, height=50, distance=3.0):
    """Slightly turned, its principal point off the middle."""
    angle = torch.tensor(0.2)
    pose = torch.eye(4)
    pose[0, 0] = pose[2, 2] = angle.cos()
    pose[0, 2], pose[2, 0] = angle.sin(), -angle.sin()
    pose[:3, 3] = torch.tensor([0.05, -0.02, distance])
    return Camera(pose, (80.0, 85.0), (width / 2 + 1, height / 2 - 2), width, height)


def differentiable(result):
    return result.mean2d, result.conic, result.depth, result.opacity


def of_camera(function):
    """`function` with the camera's tensors as arguments, so that gradients to them are compared as well."""

    def run(pose, focal, center, *, view, **values):
        view = dataclasses.replace(view, world_to_camera=pose, focal=focal, center=center)
        return function(camera=view, **values)

    return run


def inverse_covariances(conic):
    """[G, 2, 2] of conics (e, k, c) [G, 3]."""
    e, k, c = conic.T
    return torch.stack((torch.stack((e + c * k * k, c * k), -1), torch.stack((c * k, c), -1)), -1)


NAMES = ("means", "quaternions", "scales", "opacities", "colors")
PATCH = 24


def scene(count, channels=3, seed=0, **options):
    """Random Gaussians with colours."""
    generator = torch.Generator().manual_seed(seed)
    values = random_gaussians(count, generator, **options)
    return {**values, "colors": torch.rand(count, channels, generator=generator)}


def draw(values, view, *, background=None, drop=None, max_alpha=0.99, device="cpu"):
    """Image, alpha, and the gradients of a fixed combination of both, drawn on `device`; pixels in `drop` take no
    part."""
    values = {k: values[k].detach().clone().to(device).requires_grad_() for k in NAMES}
    projected = project(*[values[k] for k in NAMES[:4]], view.to(device))
    behind = None if background is None else background.detach().clone().to(device).requires_grad_()
    result = rasterise(projected, values["colors"], view.width, view.height, behind, max_alpha=max_alpha)
    result = type(result)(*(v.cpu() for v in result))
    weight, weight_alpha = _weights(result.color.shape, drop)
    ((result.color * weight).sum() + (result.alpha * weight_alpha).sum()).backward()
    grads = {k: v.grad.cpu() for k, v in values.items()}
    return result, grads if behind is None else {**grads, "background": behind.grad.cpu()}


def _weights(shape, drop):
    """Of colour and alpha in the combination whose gradients are compared."""
    generator = torch.Generator().manual_seed(1)
    keep = 1.0 if drop is None else (~drop).float()
    return torch.randn(shape, generator=generator) * (keep if drop is None else keep[..., None]), (
        torch.randn(shape[:2], generator=generator) * keep
    )


class Reference:
    """The specification in float64, patch by patch, so that large scenes fit: image, alpha, the pixels where rounding
    decides how a rule applies (`close`), and the gradients of `draw`'s combination."""

    def __init__(self, values, view, background=None, max_alpha=0.99):
        self.values = {k: values[k].detach().double().requires_grad_() for k in NAMES}
        self.view, self.max_alpha = view, max_alpha
        self.behind = None if background is None else background.detach().double().requires_grad_()
        self.projected = project_reference(*[self.values[k] for k in NAMES[:4]], view)
        size = view.height, view.width
        self.color = torch.zeros(*size, values["colors"].shape[1], dtype=torch.float64)
        self.alpha, self.close = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.bool)
        for window, near_by in self._patches():
            with torch.no_grad():
                part = self._raster(window, near_by)
                self.color[window], self.alpha[window] = part
                self.close[window] = self._at_threshold(window, near_by)

    def gradients(self, drop):
        """By name, with the pixels in `drop` left out."""
        weight, weight_alpha = (w.double() for w in _weights(self.color.shape, drop))
        leaves = [v.detach().requires_grad_() for v in (*self.projected, self.values["colors"])]
        leaves += [] if self.behind is None else [self.behind]
        for leaf in leaves:
            leaf.grad = torch.zeros_like(leaf)
        for window, near_by in self._patches():
            color, alpha = self._raster(window, near_by, Projected(*leaves[:5]), leaves[5])
            ((color * weight[window]).sum() + (alpha * weight_alpha[window]).sum()).backward()
        through = [(v, leaf.grad) for v, leaf in zip(self.projected, leaves, strict=False) if v.requires_grad]
        wanted = [self.values[k] for k in NAMES[:4]]
        grads = torch.autograd.grad([v for v, _ in through], wanted, [g for _, g in through])
        found = {**dict(zip(NAMES, grads, strict=False)), "colors": leaves[5].grad}
        return found if self.behind is None else {**found, "background": self.behind.grad}

    def _patches(self):
        """(rows and columns, Gaussians there) of all patches."""
        mean2d, radius = self.projected.mean2d.detach(), self.projected.radius
        for top in range(0, self.view.height, PATCH):
            for left in range(0, self.view.width, PATCH):
                corner = torch.tensor([left, top])
                inside = (radius > 0) & (mean2d + radius > corner - 1) & (mean2d - radius < corner + PATCH + 1)
                yield (slice(top, top + PATCH), slice(left, left + PATCH)), inside.all(1).nonzero()[:, 0]

    def _raster(self, window, near_by, projected=None, colors=None):
        projected = self.projected if projected is None else projected
        colors = self.values["colors"] if colors is None else colors
        part = Projected(*(v[near_by] for v in projected))
        # depths as fp32 has them: among many thousands some are alike there, and the rule for those is their number
        depth = part.depth.detach().float().double()
        moved = part._replace(mean2d=part.mean2d - torch.tensor([window[1].start, window[0].start]), depth=depth)
        height, width = self.close[window].shape
        return raster_reference(moved, colors[near_by], width, height, self.behind, max_alpha=self.max_alpha)

    def _at_threshold(self, window, near_by):
        """Whether an alpha or transmittance lies within what fp32 resolves of a threshold."""
        found = Projected(*(v.detach()[near_by[self.projected.depth.detach()[near_by].argsort(stable=True)]]
                            for v in self.projected))  # fmt: skip
        height, width = self.close[window].shape
        y, x = torch.meshgrid(*(torch.arange(n) + 0.5 for n in (height, width)), indexing="ij")
        dx = x.reshape(1, -1) + window[1].start - found.mean2d[:, :1]
        dy = y.reshape(1, -1) + window[0].start - found.mean2d[:, 1:]
        e, k, c = found.conic.T[..., None]
        raw = found.opacity[:, None] * (-(e * dx * dx + c * (dy + k * dx).square()) / 2).exp()
        alpha = torch.where(raw >= MIN_ALPHA, raw.clamp_max(self.max_alpha), 0)
        left = (1 - alpha).cumprod(0)
        close = ((raw - MIN_ALPHA).abs() < 6e-8) | ((raw - self.max_alpha).abs() < 2e-7)
        close |= (left - MIN_TRANSMITTANCE).abs() < 1e-4 * MIN_TRANSMITTANCE
        return close.any(0).view(height, width)


def agrees(
    values, view, *, background=None, most_left_out=1e-3, max_alpha=0.99, image=1e-5, gradient=1e-4, device="cpu"
):
    """Image to 1e-5 and gradients to 1e-4 of the reference in float64, but for pixels at a threshold; returns their
    share."""
    options = {"background": background, "max_alpha": max_alpha}
    theirs = Reference(values, view, **options)
    drop = theirs.close
    ours, grads = draw(values, view, drop=drop, device=device, **options)
    with torch.no_grad():
        off = (ours.color - theirs.color).abs().amax(-1).maximum((ours.alpha - theirs.alpha).abs())
    share = float(drop.float().mean())
    assert share <= most_left_out and float(off[~drop].max()) < image, (share, float(off[~drop].max()))
    for name, wanted in theirs.gradients(drop).items():
        error = float((grads[name] - wanted).abs().max() / wanted.abs().max().clamp_min(1e-9))
        assert error < gradient, f"gradient of {name}: {error:.3g}"
    return share
