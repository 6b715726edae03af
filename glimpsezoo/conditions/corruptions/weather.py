"""Snow and fog."""

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.conditions.corruptions import filters
from glimpsezoo.conditions.corruptions.draws import normal, uniform
from glimpsezoo.conditions.corruptions.presets import constants
from glimpsezoo.core.noise import Noise

Images = Float[Tensor, "B 3 H W"]
_WIBBLE = 100.0  # of the plasma's first step; only ratios matter, because the plasma is normalised


def snow(images: Images, severity: int, preset: str, noise: Noise) -> Images:
    """Mix the image with a whitened grey, and add a layer of flakes and the same layer rotated by 180 degrees."""
    mean, deviation, zoom, threshold, radius, sigma, share = constants("snow", severity, preset)
    height, width = images.shape[2:]
    layer = normal(noise, 0, 1, height, width).mul_(deviation).add_(mean)  # [B, 1, H, W]
    layer = filters.clipped_zoom(layer, zoom)
    layer = torch.where(layer < threshold, 0, layer).clamp_(0, 1)
    layer = filters.motion(layer, radius, sigma, noise.uniform(0, 1)[:, 0] * 90 - 135)
    layer = layer.mul_(255).round_().div_(255)  # an 8-bit image
    red, green, blue = images.split(1, 1)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    whitened = torch.maximum(images, grey.mul_(1.5).add_(0.5)).mul_(1 - share).add_(images, alpha=share)
    return whitened.add_(layer + layer.flip(2, 3))


def fog(images: Images, severity: int, preset: str, noise: Noise) -> Images:
    """(x + c p) max(x) / (max(x) + c), where p is a plasma in [0, 1]."""
    weight, decay = constants("fog", severity, preset)
    height, width = images.shape[2:]
    side = 1 << (max(height, width) - 1).bit_length()
    layer = plasma(uniform(noise, 0, side * side), side, decay)[:, None, :height, :width]
    largest = images.amax((1, 2, 3), keepdim=True)  # [B, 1, 1, 1]
    return (images + layer * weight) * (largest / (largest + weight))


def plasma(draws: Float[Tensor, "B cells"], side: int, decay: float) -> Float[Tensor, "B side side"]:
    """Diamond-square clouds in [0, 1] that repeat at their edges (Fournier, Fussell & Carpenter, CACM 1982). side: a power of two.

    Each new point is the mean of its four neighbours plus a random offset. The largest offset is divided by `decay`^2 when distances halve.
    draws: side^2 values from U(0, 1).
    """
    cloud = draws.new_zeros(len(draws), side, side)
    step, wibble, used = side, _WIBBLE, 0

    def wibbled(total: Tensor) -> Tensor:
        nonlocal used
        count = total[0].numel()
        own = draws[:, used : used + count].view_as(total)
        used += count
        return total.mul_(0.25).add_(own * 2 - 1, alpha=wibble * wibble)

    while step >= 2:
        half = step // 2
        corners = cloud[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        cloud[:, half::step, half::step] = wibbled(pairs + pairs.roll(-1, 2))
        centres = cloud[:, half::step, half::step]
        cloud[:, ::step, half::step] = wibbled(centres + centres.roll(1, 1) + (corners + corners.roll(-1, 2)))
        cloud[:, half::step, ::step] = wibbled(centres + centres.roll(1, 2) + (corners + corners.roll(-1, 1)))
        step, wibble = half, wibble / decay
    cloud -= cloud.amin((1, 2), keepdim=True)
    return cloud / cloud.amax((1, 2), keepdim=True)
