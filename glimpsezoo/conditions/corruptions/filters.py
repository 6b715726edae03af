"""Filters for several corruptions. Sums run over taps in a fixed order, so that results depend neither on the batch nor on threads."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Layers = Float[Tensor, "B C H W"]


def gaussian_weights(sigma: float, truncate: float = 4.0) -> list[float]:
    """Normalised weights of a Gaussian at whole pixels within `truncate` sigma. sigma 0 gives a single weight."""
    radius = int(truncate * sigma + 0.5)
    weights = [math.exp(-0.5 * (x / sigma) ** 2) if x else 1.0 for x in range(-radius, radius + 1)]
    return [weight / sum(weights) for weight in weights]


def correlate(padded: Layers, weights: Sequence[float], dim: int) -> Float[Tensor, "B C h w"]:
    """Weighted sums along `dim`, which becomes shorter by len(weights) - 1."""
    size = padded.shape[dim] - len(weights) + 1
    result = padded.narrow(dim, 0, size) * weights[0]
    for place, weight in enumerate(weights[1:], 1):
        result.add_(padded.narrow(dim, place, size), alpha=weight)
    return result


def gaussian(images: Layers, sigma: float) -> Layers:
    """Gaussian blur with sigma in pixels, truncated at 4 sigma; borders repeat the edge (scikit-image's defaults)."""
    weights = gaussian_weights(sigma)
    radius = len(weights) // 2
    if radius == 0:
        return images
    images = correlate(F.pad(images, (0, 0, radius, radius), mode="replicate"), weights, 2)
    return correlate(F.pad(images, (radius, radius, 0, 0), mode="replicate"), weights, 3)


def motion(images: Layers, radius: int, sigma: float, degrees: Float[Tensor, "B"]) -> Layers:
    """ImageMagick's motion blur: a one-sided Gaussian over 2 radius + 1 points of a line that begins at each pixel. One angle per image.

    Points are rounded to whole pixels; borders repeat the edge.
    """
    weights = [math.exp(-0.5 * (place / sigma) ** 2) for place in range(2 * radius + 1)]
    weights = [weight / sum(weights) for weight in weights]
    return torch.cat([_along(image[None], weights, math.radians(angle)) for image, angle in zip(images, degrees.tolist(), strict=True)])


def _along(image: Float[Tensor, "1 C H W"], weights: Sequence[float], angle: float) -> Float[Tensor, "1 C H W"]:
    height, width = image.shape[2:]
    points = [(math.ceil(i * math.sin(angle) - 0.5), math.ceil(i * math.cos(angle) - 0.5)) for i in range(len(weights))]
    top, left = (max(0, -min(point[axis] for point in points)) for axis in (0, 1))
    bottom, right = (max(0, *(point[axis] for point in points)) for axis in (0, 1))
    padded = F.pad(image, (left, right, top, bottom), mode="replicate")
    result = torch.zeros_like(image)
    for (y, x), weight in zip(points, weights, strict=True):
        result.add_(padded[:, :, top + y : top + y + height, left + x : left + x + width], alpha=weight)
    return result


def clipped_zoom(images: Layers, factor: float) -> Layers:
    """The centre of images, enlarged bilinearly by `factor` to their size; the outermost pixels of the crop stay outermost."""
    return turned_zoom(images, factor).transpose(2, 3)


def turned_zoom(images: Layers, factor: float) -> Float[Tensor, "B C W H"]:
    """`clipped_zoom` with rows and columns exchanged, because gathering rows is faster than gathering columns."""
    return _zoomed_rows(_zoomed_rows(images, factor).transpose(2, 3).contiguous(), factor)


def _zoomed_rows(images: Layers, factor: float) -> Layers:
    first, share = _zoom_taps(images.shape[2], factor)
    first = first.to(images.device)
    return images.index_select(2, first).lerp_(images.index_select(2, first + 1), share.to(images.device)[:, None])


@lru_cache(maxsize=256)
def _zoom_taps(size: int, factor: float) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"]]:
    """For each row of the zoom: the source row before it, and its position between that row and the next, 0 to 1."""
    cut = math.ceil(size / factor)
    grown = round(cut * factor)
    places = (np.arange(size) + (grown - size) // 2) * (cut - 1) / (grown - 1)
    first = np.minimum(places.astype(np.int64), cut - 2)
    return torch.from_numpy(first + (size - cut) // 2), torch.from_numpy(places - first).float()


def zoom_factors(stop: float, step: float) -> list[float]:
    """numpy's arange(1, stop, step); rounding may make it include `stop`, as in the published code."""
    return np.arange(1, stop, step).tolist()
