"""Elastic deformation, pixelation and JPEG."""

import io
from functools import lru_cache

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int16, UInt8
from PIL import Image
from torch import Tensor

from glimpsezoo.conditions.corruptions import filters
from glimpsezoo.conditions.corruptions.draws import uniform
from glimpsezoo.conditions.corruptions.presets import constants
from glimpsezoo.core.noise import Noise

Images = Float[Tensor, "B 3 H W"]
_FEW_TAPS = 24  # largest radius for which smoothing tap by tap is faster than by a matrix
_UNIT = 1 << 24  # weights are multiples of 1 / this and sum to 1, so sums of products with 24-bit numbers fit into 48 bits


def elastic_transform(images: Float[Tensor, "B C H W"], severity: int, preset: str, noise: Noise) -> Float[Tensor, "B C H W"]:
    """A random affine map (borders are reflected without the edge), then smooth random displacements (with the edge)."""
    alpha, sigma, distance = constants("elastic_transform", severity, preset)
    height, width = images.shape[2:]
    moved = F.grid_sample(images, _affine_grid(noise, distance, height, width), padding_mode="reflection", align_corners=True)
    if alpha == 0:
        return moved
    field = smoothed(uniform(noise, 1, 2, height, width).mul_(2).sub_(1), sigma).mul_(alpha)  # [B, 2, H, W]: dx, dy in px
    x = (field[:, 0] + torch.arange(width, device=images.device)) * (2 / width) + (1 / width - 1)
    y = (field[:, 1] + torch.arange(height, device=images.device)[:, None]) * (2 / height) + (1 / height - 1)
    return F.grid_sample(moved, torch.stack([x, y], -1), padding_mode="reflection", align_corners=False)


def _affine_grid(noise: Noise, distance: float, height: int, width: int) -> Float[Tensor, "B H W 2"]:
    """The source of each pixel, in [-1, 1], under the affine map that moves three points by U(-distance, distance) along each axis."""
    centre, size = torch.tensor([width // 2, height // 2], dtype=torch.float64), min(height, width) // 3
    points = centre + size * torch.tensor([[1, 1], [1, -1], [-1, -1]], dtype=torch.float64)  # [3, 2]: (x, y)
    moved = points + (noise.uniform(0, 6).double().cpu().view(-1, 3, 2) * 2 - 1) * distance
    ones = torch.ones(len(moved), 3, 1, dtype=torch.float64)
    back = torch.linalg.solve(torch.cat([moved, ones], 2), points.expand(len(moved), 3, 2))  # [B, 3, 2]: (x, y, 1) to the source
    scale = torch.tensor([2 / (width - 1), 2 / (height - 1)], dtype=torch.float64)
    back = back * scale
    back[:, 2] -= 1
    by_x, by_y, start = back.float().to(noise.keys.device)[:, :, :, None, None].unbind(1)  # [B, 2, 1, 1] each
    x = torch.arange(width, device=by_x.device)
    y = torch.arange(height, device=by_x.device)[:, None]
    return torch.stack((by_x * x + (by_y * y + start)).unbind(1), -1)


def smoothed(fields: Float[Tensor, "B C H W"], sigma: float) -> Float[Tensor, "B C H W"]:
    """Gaussian smoothing, truncated at 3 sigma, which may exceed the field; borders are reflected with the edge.

    Wide smoothing multiplies by one matrix per axis. Its numbers are multiples of a unit with so few bits that every sum is exact in
    float64, so the result does not depend on the order in which a library sums.
    """
    weights = filters.gaussian_weights(sigma, 3.0)
    radius = len(weights) // 2
    if radius <= _FEW_TAPS:
        for dim in (2, 3):
            first, last = fields.narrow(dim, 0, radius), fields.narrow(dim, fields.shape[dim] - radius, radius)
            fields = filters.correlate(torch.cat([first.flip(dim), fields, last.flip(dim)], dim), weights, dim)
        return fields
    height, width = fields.shape[2:]
    down, across = (_smoothing_matrix(side, sigma).to(fields.device) for side in (height, width))
    once = down @ fields.double().mul_(1 << 20).round_()
    # Round the sums of the first pass to the bits that remain for the second.
    once = once.div_(_UNIT).mul_(1 << 4).round_()
    return (once @ across.T).div_(_UNIT).div_(1 << 24).float()


@lru_cache(maxsize=16)
def _smoothing_matrix(size: int, sigma: float) -> Float[Tensor, "size size"]:
    """The weights of the smoothing along one axis, times 2^24, as integers."""
    weights = filters.gaussian_weights(sigma, 3.0)
    places = torch.from_numpy(np.pad(np.arange(size), len(weights) // 2, mode="symmetric"))
    source = places.unfold(0, len(weights), 1)  # [size, taps]: the sources of each result
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix.scatter_add_(1, source, torch.tensor(weights, dtype=torch.float64).expand(size, -1))
    return matrix.mul_(_UNIT).round_()


def pixelate(images: Images, severity: int, preset: str, noise: Noise) -> UInt8[Tensor, "B 3 H W"]:
    """Shrink to int(c size) by a box filter and enlarge again, exactly as Pillow does; values are rounded to 8 bits first."""
    share = constants("pixelate", severity, preset)
    height, width = images.shape[2:]
    rows, columns = int(height * share), int(width * share)
    across, down = (_nearest(*sides).to(images.device) for sides in ((columns, width), (rows, height)))
    levels = images.mul(255).round_().short()  # torch is several times slower to convert floats to uint8 than to int16
    # Columns are gathered as the rows of a transposed image, which is several times faster.
    narrow = _boxes(levels.mT.contiguous(), columns).mT.contiguous()
    small = _boxes(narrow, rows)
    wide = small.mT.contiguous().index_select(2, across).mT.contiguous()
    return wide.to(torch.uint8).index_select(2, down)


def _boxes(levels: Int16[Tensor, "B C H W"], count: int) -> Int16[Tensor, "B C count W"]:
    """The means of `count` runs of rows, rounded to whole levels."""
    indices, within, lengths = (each.to(levels.device) for each in _runs(levels.shape[2], count))
    total = levels.index_select(2, indices[0])
    for index, inside in zip(indices[1:], within[1:], strict=True):
        total.addcmul_(levels.index_select(2, index), inside[:, None])
    return total.float().div_(lengths[:, None]).add_(0.5).short()


@lru_cache(maxsize=64)
def _runs(size: int, count: int) -> tuple[Int[Tensor, "longest count"], Int16[Tensor, "longest count"], Float[Tensor, "count"]]:
    """The rows of `count` runs of `size` rows; 1 for each of them, and 0 after the end of shorter runs; the lengths of the runs.

    A run has the rows with centres in it, with ties as in Pillow.
    """
    scale = size / count
    middle = (np.arange(count) + 0.5) * scale
    row = np.arange(size)[:, None]
    near = (row >= (middle - scale / 2 + 0.5).astype(int)) & (row < (middle + scale / 2 + 0.5).astype(int))
    place = (row - middle + 0.5) * (1 / scale)
    covered = near & (place > -0.5) & (place <= 0.5)  # [size, count]
    first, lengths = covered.argmax(0), covered.sum(0)
    offset = np.arange(lengths.max())[:, None]
    rows = first + np.minimum(offset, lengths - 1)
    return torch.from_numpy(rows), torch.from_numpy(offset < lengths).short(), torch.from_numpy(lengths).float()


@lru_cache(maxsize=64)
def _nearest(count: int, size: int) -> Int[Tensor, "size"]:
    """The run, of `count`, that contains each of `size` pixels."""
    return (2 * torch.arange(size) + 1) * count // (2 * size)


def jpeg_compression(images: Images, severity: int, preset: str, noise: Noise) -> UInt8[Tensor, "B 3 H W"]:
    """Encode by Pillow (libjpeg) at quality c, with its default 4:2:0 chroma, and decode; values are rounded to 8 bits first.

    simplejpeg decodes to the same pixels as Pillow in half the time. It does not encode to the same bytes.
    """
    quality = constants("jpeg_compression", severity, preset)
    size = images.shape[3], images.shape[2]
    # Pillow stores a pixel as the bytes of R + 256 G + 65536 B, which floats hold exactly. Merging three channels of bytes takes longer.
    red, green, blue = images.mul(255).round_().unbind(1)
    pixels = torch.add(red, green, alpha=256).add_(blue, alpha=65536).int().cpu().numpy().astype("<i4", copy=False)  # [B, H, W]
    levels = np.empty((*pixels.shape, 4), np.uint8)  # RGBX
    for image, decoded in zip(pixels, levels, strict=True):
        stream = io.BytesIO()
        Image.frombuffer("RGBX", size, image, "raw", "RGBX", 0, 1).save(stream, "JPEG", quality=quality)
        simplejpeg.decode_jpeg(stream.getbuffer(), "RGBX", buffer=decoded)
    return torch.from_numpy(levels)[..., :3].permute(0, 3, 1, 2).to(images.device)
