"""Spatter: drops of water or mud on the lens. OpenCV's Canny and distance transform, used by the published code, are implemented here."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from glimpsezoo.conditions.corruptions import filters
from glimpsezoo.conditions.corruptions.draws import normal
from glimpsezoo.conditions.corruptions.presets import constants
from glimpsezoo.core.noise import Noise

Images = Float[Tensor, "B 3 H W"]
Map = Float[Tensor, "B 1 H W"]
_WATER, _MUD = (175, 238, 238), (63, 42, 20)  # pale turquoise and brown, of 255
_WEAK, _STRONG = 50, 150  # Canny's thresholds
_FAR = 20  # px: larger distances count as this
_RELIEF = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))  # light from the upper left


def spatter(images: Images, severity: int, preset: str, noise: Noise) -> Images:
    """Smoothed noise above a threshold is liquid. Water is added, bright by its amount and its edges' relief; mud covers the image."""
    mean, deviation, sigma, threshold, strength, mud = constants("spatter", severity, preset)
    draws = normal(noise, 0, 1, *images.shape[2:]).mul_(deviation).add_(mean)
    liquid = filters.gaussian(draws, sigma)
    liquid = torch.where(liquid < threshold, 0, liquid)
    colour = torch.tensor(_MUD if mud else _WATER, device=images.device)[None, :, None, None] / 255
    if mud:
        cover = filters.gaussian((liquid > threshold).float(), strength)
        cover = torch.where(cover < 0.8, 0, cover)
        return images * (1 - cover) + colour * cover
    levels = (liquid * 255).int().remainder(256).float()  # 8 bits that overflow, as in the published code
    water = levels * _relief(levels)
    water = water * (strength / water.amax((1, 2, 3), keepdim=True).clamp_min(1e-6))
    return images + water * colour


def _relief(levels: Map) -> Map:
    """The brightness of each point of the liquid, 0 to 255: its distance from the nearest edge, equalised and embossed."""
    distance = _box3(_distances(_edges(levels))).floor()
    embossed = _correlate3(_equalised(distance), _RELIEF).clamp(0, 255)
    return _box3(embossed).add(0.5).floor()


def _correlate3(maps: Map, kernel: tuple[tuple[float, ...], ...], mode: str = "reflect") -> Map:
    height, width = maps.shape[2:]
    padded = F.pad(maps, (1, 1, 1, 1), mode=mode)
    taps = [(weight, y, x) for y, row in enumerate(kernel) for x, weight in enumerate(row) if weight]
    return torch.stack([padded[:, :, y : y + height, x : x + width] * weight for weight, y, x in taps]).sum(0)


def _box3(maps: Map) -> Map:
    return _correlate3(maps, ((1, 1, 1),) * 3) / 9


def _edges(levels: Map) -> Bool[Tensor, "B 1 H W"]:
    """Canny's edges (PAMI 1986) as in OpenCV: Sobel, L1 norm, maxima across the edge, then weak points connected to strong ones."""
    dx = _correlate3(levels, ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)), "replicate")
    dy = _correlate3(levels, ((-1, -2, -1), (0, 0, 0), (1, 2, 1)), "replicate")
    size = dx.abs() + dy.abs()
    height, width = size.shape[2:]
    padded = F.pad(size, (1, 1, 1, 1))

    def near(y: int, x: int) -> Tensor:
        return padded[:, :, 1 + y : 1 + y + height, 1 + x : 1 + x + width]

    steep = dy.abs() / dx.abs().clamp_min(1e-6)
    across = (size > near(0, -1)) & (size >= near(0, 1))
    upright = (size > near(-1, 0)) & (size >= near(1, 0))
    falling = (size > near(-1, -1)) & (size > near(1, 1))
    rising = (size > near(-1, 1)) & (size > near(1, -1))
    diagonal = torch.where(dx * dy >= 0, falling, rising)
    tangent = 2**0.5 - 1  # of 22.5 degrees
    ridge = torch.where(steep < tangent, across, torch.where(steep > tangent + 2, upright, diagonal))
    weak = ridge & (size > _WEAK)
    found = weak & (size > _STRONG)
    while True:
        grown = weak & (F.max_pool2d(found.float(), 3, 1, 1) > 0)
        if torch.equal(grown, found):
            return found
        found = grown


def _distances(edges: Bool[Tensor, "B 1 H W"]) -> Map:
    """Euclidean distance in px from the nearest edge, at most 20: first along columns, then along rows."""
    width = edges.shape[3]
    column = torch.where(edges, 0.0, float(_FAR + 1))
    for _ in range(_FAR):
        padded = F.pad(column, (0, 0, 1, 1), value=_FAR + 1)
        column = torch.minimum(column, torch.minimum(padded[:, :, :-2], padded[:, :, 2:]) + 1)
    padded = F.pad(column.square(), (_FAR, _FAR, 0, 0), value=(_FAR + 1) ** 2)
    nearest = column.square()
    for x in range(-_FAR, _FAR + 1):
        nearest = torch.minimum(nearest, padded[:, :, :, _FAR + x : _FAR + x + width] + x * x)
    return nearest.sqrt().clamp(max=_FAR)


def _equalised(levels: Map) -> Map:
    """Histogram equalisation of levels 0..20 to 0..255; the lowest level that occurs becomes 0."""
    flat = levels.flatten(1).long()  # [B, H W]
    counts = F.one_hot(flat, _FAR + 1).sum(1)  # [B, 21]
    total = counts.cumsum(1)
    lowest = counts.gather(1, (counts > 0).int().argmax(1, keepdim=True))
    spread = (total - lowest) * 255 / (flat.shape[1] - lowest).clamp_min(1)
    return spread.clamp_min(0).round().gather(1, flat).view_as(levels)
