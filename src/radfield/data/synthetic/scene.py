"""What a ray sees of a synthetic scene: surface, colour, depth and normal.

A scene has opaque solids, a mesh, clear solids, and perhaps an open sky behind. A clear solid is a medium of one sRGB
colour c and density sigma per unit of length, without refraction: over a path of length s it shows
c (1 - T) + T behind, T = exp(-sigma s), which is the model of a radiance field; and it has highlights. The sun's light
is thinned by it likewise. Letters: N rays. World: z up. Units: the world's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...camera_rays import camera_rays
from ...cameras import Cameras
from ...geometry import SceneTransform
from ...rays import Rays
from ...tracing.shading import Light, shade, sky
from ...tracing.solids import Shape, Solids, trace_solids
from ...tracing.texture import Material, Textures, texture
from .mesh import TexturedMesh

SUBPIXELS = 2  # along each side: 4 rays per pixel
# Shadow rays, and rays into a medium, start this far off the surface, or rounding would let it meet itself.
OFFSET = 1e-3
LAYERS = 3  # of clear solids one behind another
CHUNK = 1 << 16  # rays at a time, so that the buffers between the ops stay in the caches


@dataclass(frozen=True)
class Medium:
    """What fills a clear solid. color: sRGB. density: per unit of length. The others as of a `Material`."""

    color: tuple[float, float, float]
    density: float
    highlight: float = 0.5
    shininess: float = 120.0
    reflection: float = 0.04


@dataclass(frozen=True)
class Surface:
    """What N rays meet first. depth: [N], inf for nothing. normal: [N, 3] outward, 0 for nothing. index: [N] int32, a
    number of the shape (the mesh's is the one after the opaque solids', clear ones come after it), -1 for nothing.
    clear: [N] bool, whether it is transparent."""

    depth: Tensor
    normal: Tensor
    index: Tensor
    clear: Tensor


@dataclass(frozen=True)
class SyntheticScene:
    """solids: opaque shapes, each with a `Material`. clear: shapes with a `Medium`. floor: the height of what it stands
    on. distance: from which cameras look at `target`, with a field of view `angle` (radians) in each direction, from
    `heights` (sines of the elevation). tables: what the ops take, made from the others.
    open_sky: whether the sky is seen; else nothing is, and images have alpha."""

    name: str
    solids: tuple = ()
    clear: tuple = ()
    mesh: TexturedMesh | None = None
    light: Light = field(default_factory=Light)
    open_sky: bool = False
    floor: float = -0.5
    target: tuple[float, float, float] = (0.0, 0.0, 0.0)
    distance: float = 4.031
    angle: float = 0.6911112
    heights: tuple[float, float] = (0.08, 0.95)
    tables: dict = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        tables = Solids.of(self.solids)
        materials = [shape.material or Material() for shape in tables.shapes]
        placement = tables.placement
        if self.mesh is not None:  # its colours come from its own texture
            materials.append(self.mesh.material)
            placement = torch.cat((placement, torch.zeros(1, 12)))
        media = Solids.of(self.clear)
        gloss = [Material(highlight=m.highlight, shininess=m.shininess, reflection=m.reflection) for m in _media(media)]
        tables = dict(
            opaque=tables,
            textures=Textures.of(materials, placement),
            media=media,
            media_gloss=Textures.of(gloss, media.placement).gloss,
            light_table=self.light.table(),
        )
        object.__setattr__(self, "tables", tables)

    def on_ground(self, material: Material) -> SyntheticScene:
        """The same scene on endless ground below an open sky."""
        ground = Shape("plane", (), (0.0, 0.0, self.floor), material=material)
        return replace(self, solids=(*self.solids, ground), open_sky=True)

    def surface(self, rays: Rays, transform: SceneTransform | None = None) -> Surface:
        """The first surface along each ray, clear ones included.

        transform: world to the rays' coordinates (`Scene.transform` for rays of a `Scene`'s cameras); depth and normal
        are then in the rays' coordinates.
        """
        rays, scale = _to_world(rays, transform), 1.0 if transform is None else transform.scale
        depth, normal, index, _ = self._nearest(rays)
        if self.clear:
            media = trace_solids(self.tables["media"], rays, limit=depth)
            first = media.index >= 0
            depth, normal = torch.where(first, media.depth, depth), torch.where(first[:, None], media.normal, normal)
            index = torch.where(first, media.index + len(self.tables["textures"].pattern), index)
        else:
            first = torch.zeros_like(index, dtype=torch.bool)
        normal = normal if transform is None else transform.directions(normal)
        return Surface(depth * scale, normal, index, first)

    def color(
        self, rays: Rays, transform: SceneTransform | None = None, pixel_angle: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """(sRGB [N, 3] times alpha, alpha [N]). pixel_angle: between neighbouring pixels (radians); finer texture
        fades. transform as for `surface`."""
        parts = [self._color(_to_world(part, transform), pixel_angle) for part in _chunks(rays)]
        return torch.cat([color for color, _ in parts]), torch.cat([alpha for _, alpha in parts])

    def _color(self, rays: Rays, pixel_angle: float) -> tuple[Tensor, Tensor]:
        depth, normal, index, weights = self._nearest(rays)
        hit = index >= 0
        color = sky(rays.directions, self.tables["light_table"]) if self.open_sky else torch.zeros_like(rays.origins)
        alpha = torch.ones_like(depth) if self.open_sky else hit.to(depth)
        where = hit.nonzero()[:, 0]
        if len(where):
            seen = rays[where]
            found = self._shade(seen, depth[where], normal[where], index[where], weights, where, pixel_angle)
            color = color.contiguous().index_copy(0, where, found)
        return self._through_media(rays, depth, color, alpha) if self.clear else (color, alpha)

    def _nearest(self, rays: Rays):
        # (depth [N], normal [N, 3], index [N], the mesh's weights [N, 2]) of opaque surfaces
        hits = trace_solids(self.tables["opaque"], rays)
        if self.mesh is None:
            return hits.depth, hits.normal, hits.index, None
        found = self.mesh.trace(rays, limit=hits.depth)
        nearer = found.index >= 0
        normal = torch.where(nearer[:, None], self.mesh.normal(found), hits.normal)
        index = torch.where(nearer, len(self.tables["opaque"].shapes), hits.index)
        return torch.where(nearer, found.depth, hits.depth), normal, index, found

    def _shade(self, rays: Rays, depth, normal, index, found, where, pixel_angle: float) -> Tensor:
        x, tables = rays.at(depth), self.tables
        across = (rays.directions * normal).sum(-1)
        width = pixel_angle * depth / across.abs().clamp_min(0.15)  # foreshortened pixels are longer on the surface
        albedo = texture(tables["textures"], x, width, index)
        if found is not None:
            mine = index == len(tables["opaque"].shapes)
            albedo, normal = self.mesh.look(found, where, mine, albedo, normal, rays.directions)
        cosine = normal @ tables["light_table"][0]
        visible = torch.zeros_like(depth)
        lit = (cosine > 0).nonzero()[:, 0]
        visible[lit] = self._sunlight(x[lit] + OFFSET * normal[lit])
        return shade(albedo, normal, rays.directions, visible, index, tables["textures"].gloss, tables["light_table"])

    def _sunlight(self, x: Tensor) -> Tensor:
        # [N]: the share of the sun's light that arrives at points x
        rays = Rays(x, self.tables["light_table"][0].to(x).expand_as(x))
        open_way = (trace_solids(self.tables["opaque"], rays, normals=False).index < 0).to(x)
        if self.mesh is not None:
            open_way *= self.mesh.trace(rays).index < 0
        if self.clear:
            hits = trace_solids(self.tables["media"], rays, normals=False)
            open_way *= self._transmittance(rays, hits.depth, hits.index, torch.full_like(hits.depth, torch.inf))
        return open_way

    def _transmittance(self, rays: Rays, enters: Tensor, index: Tensor, behind: Tensor) -> Tensor:
        media = self.tables["media"]
        start = torch.where(index >= 0, enters, 0) + OFFSET
        leaves = trace_solids(media, Rays(rays.at(start), rays.directions), inside=True, normals=False).depth + start
        density = torch.tensor([m.density for m in _media(media)]).to(enters)[index.long().clamp_min(0)]
        length = (torch.minimum(leaves, behind) - enters).clamp_min(0)
        return torch.where(index >= 0, (-density * length.nan_to_num(0.0)).exp(), 1.0)

    def _through_media(self, rays: Rays, depth: Tensor, color: Tensor, alpha: Tensor):
        # Puts what the layers in front of `color` do over it, the last layer that is still in front first.
        start, layers = torch.zeros_like(depth), []
        for _ in range(LAYERS):
            moved = Rays(rays.at(start), rays.directions)
            hits = trace_solids(self.tables["media"], moved, limit=depth - start)
            if not bool((hits.index >= 0).any()):
                break
            enters = hits.depth + start
            layers.append((enters, hits.index, hits.normal))
            last = torch.where(hits.index >= 0, enters, 0) + OFFSET
            out = trace_solids(self.tables["media"], Rays(rays.at(last), rays.directions), inside=True, normals=False)
            start = torch.where(hits.index >= 0, last + out.depth.nan_to_num(posinf=0.0) + OFFSET, start)
        for enters, index, normal in reversed(layers):
            color, alpha = self._layer(rays, enters, index, normal, depth, color, alpha)
        return color, alpha

    def _layer(self, rays: Rays, enters, index, normal, behind, color, alpha):
        there = index >= 0
        through = self._transmittance(rays, enters, index, behind)
        media = _media(self.tables["media"])
        own = torch.tensor([m.color for m in media]).to(color)[index.long().clamp_min(0)]
        color = own * (1 - through)[:, None] + color * through[:, None]
        alpha = 1 - through + alpha * through
        x = rays.at(torch.where(there, enters, 0))
        visible = self._sunlight(x + OFFSET * normal) * there
        glint = shade(
            torch.zeros_like(color),
            normal,
            rays.directions,
            visible,
            index.clamp_min(0),
            self.tables["media_gloss"],
            self.tables["light_table"],
        )
        glint = glint * there[:, None]
        cover = glint.amax(-1)
        return glint + color * (1 - cover)[:, None], cover + alpha * (1 - cover)


def synthetic_image(scene: SyntheticScene, cameras: Cameras, i: int) -> Tensor:
    """[H, W, 4] uint8 sRGB with straight alpha: view i of cameras in the world, averaged over 4 rays per pixel."""
    fine = cameras[i].scaled(SUBPIXELS)
    width, height = cameras.size[i].tolist()
    pixel_angle = 1 / float(cameras.focal[i].mean())
    pixel = fine.pixel_centres(0)
    mean = torch.empty(height * width, 4)
    rows = max(1, CHUNK // (width * SUBPIXELS**2))
    for top in range(0, height, rows):
        block = pixel[top * width * SUBPIXELS**2 : (top + rows) * width * SUBPIXELS**2]
        rays = camera_rays(fine, torch.zeros(len(block), dtype=torch.int32), block)
        color, alpha = scene.color(rays, pixel_angle=pixel_angle)
        both = torch.cat((color, alpha[:, None]), -1)
        blocks = both.view(-1, SUBPIXELS, width, SUBPIXELS, 4)
        mean[top * width : (top + rows) * width] = blocks.mean((1, 3)).view(-1, 4)
    mean[:, :3] /= mean[:, 3:].clamp_min(1e-6)  # the mean is premultiplied: misses are black
    return (mean.clamp(0, 1) * 255).round().to(torch.uint8).view(height, width, 4)


def _media(solids: Solids) -> list[Medium]:
    return [shape.material for shape in solids.shapes]


def _chunks(rays: Rays):
    for begin in range(0, max(len(rays), 1), CHUNK):
        yield rays[begin : begin + CHUNK]


def _to_world(rays: Rays, transform: SceneTransform | None) -> Rays:
    if transform is None:
        return rays
    back = transform.inverse()
    return Rays(back.points(rays.origins), back.directions(rays.directions))
