"""How models take pixels from images, each convention by its name. Where they take them is what `Regions` says.

    crop            whole pixels, as they are: the side is given in px
    retina          concentric crops of growing sides, all averaged down to one size
    grid_crop       whole pixels at multiples of half the crop's side
    resample        a grid of points over the region, interpolated between pixels: the region's scale is its size
    thumbnail       the whole image, made smaller

What lies outside the image is 0.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.core.regions import Regions
from glimpsezoo.core.symbolic import tensor_cache


def crop(images: Float[Tensor, "B C H W"], regions: Regions, side: int) -> Float[Tensor, "N C {side} {side}"]:
    """Patches of `side` px around the centres of N regions, at the nearest whole pixels.

    A patch begins at floor(c - side / 2 + 1/2), with c the centre in px, so its true centre is at most half a pixel from the region's.
    """
    channels, height, width = images.shape[1:]
    size = torch.tensor([width, height], device=images.device)
    corner = ((regions.centre.detach() + 1) / 2 * size - side / 2 + 0.5).floor().long()  # [N, 2] as (x, y)
    place = corner[:, :, None] + torch.arange(1, side + 1, device=images.device)  # [N, 2, side]: columns, rows of the framed images
    column, row = torch.minimum(place.clamp(min=0), size[:, None] + 1).unbind(1)
    plane = regions.image[:, None] * channels + torch.arange(channels, device=images.device)  # [N, C]
    first = (plane[:, :, None] * (height + 2) + row[:, None]) * (width + 2)  # [N, C, side], of every row
    framed = F.pad(images, (1, 1, 1, 1))  # a frame of zeros, from which all pixels outside are taken
    pixel = first[:, :, :, None] + column[:, None, None]  # [N, C, side, side]
    return framed.flatten().index_select(0, pixel.flatten()).view(pixel.shape)


def bilinear_crop(images: Float[Tensor, "B C H W"], regions: Regions, side: int) -> Float[Tensor, "N C {side} {side}"]:
    """`crop` at exactly the centre, between pixels, so that it has a gradient there. Equal to `crop` if the corner is a whole pixel."""
    height, width = images.shape[2:]
    offset = torch.arange(side, device=images.device).to(regions.centre) + 0.5 - side / 2  # [side] of each pixel from the centre, in px
    x, y = (regions.centre[:, axis, None] + 2 / count * offset for axis, count in ((0, width), (1, height)))  # [N, side] in [-1, 1]
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), 3)  # [N, side, side, 2]
    return F.grid_sample(regions.images_of(images), grid.to(images), align_corners=False)


def straight_through_crop(images: Float[Tensor, "B C H W"], regions: Regions, side: int) -> Float[Tensor, "N C {side} {side}"]:
    """`crop`, bit for bit, with the gradient of `bilinear_crop` in images and centre (a straight-through estimator)."""
    soft = bilinear_crop(images, regions, side)
    return crop(images, regions, side).detach() + (soft - soft.detach())


def retina(
    images: Float[Tensor, "B C H W"], regions: Regions, patch: int, scales: int, *, soft: bool = False
) -> Float[Tensor, "N {scales} C {patch} {patch}"]:
    """One patch per scale around each centre: a `crop` of `patch` px, then crops of twice the side each, averaged over areas to `patch` px.

    soft: give the patches a gradient in the centre. Their values are the same. Raises `ValueError` for an odd patch with several scales,
    whose crops would have no common centre.
    """
    if scales > 1 and patch % 2:
        raise ValueError(f"expected an even patch for more than one scale, got {patch}: crops of odd and of even sides have other centres")
    widest = (straight_through_crop if soft else crop)(images, regions, patch << (scales - 1))
    views = []
    for scale in range(scales):
        side = patch << scale
        edge = (widest.shape[-1] - side) // 2
        view = widest[:, :, edge : edge + side, edge : edge + side]
        views.append(F.avg_pool2d(view, 1 << scale) if scale else view)
    return torch.stack(views, 1)


def grid_crop(images: Float[Tensor, "B C H W"], regions: Regions, side: int) -> Float[Tensor, "N C {side} {side}"]:
    """Patches of `side` px, an even number, whose corners are the multiples of side / 2 px nearest to those of the regions, and inside."""
    windows = images.unfold(2, side, side // 2).unfold(3, side, side // 2)  # [B, C, h, w, side, side], a view
    height, width = images.shape[2:]
    corner = (regions.centre + 1 - regions.half) / 2  # [N, 2] as (x, y), in shares of the image
    x, y = (corner[:, axis] * (count / (side // 2)) for axis, count in ((0, width), (1, height)))
    column, row = (at.round().long().clamp(0, count - 1) for at, count in ((x, windows.shape[3]), (y, windows.shape[2])))
    return windows[regions.image, :, row, column]


def resample(
    images: Float[Tensor, "B C H W"],
    regions: Regions,
    size: tuple[int, int],
    *,
    mode: Literal["bilinear", "bicubic"] = "bilinear",
    align_corners: bool = False,
) -> Float[Tensor, "N C h w"]:
    """The image at `size` (height, width) points over every region, with a gradient in its centre and its scale.

    align_corners: False takes the centres of h x w cells that tile the region, with the edges of the image at the outer edges of its
    pixels, as `Regions` have them. True takes points up to the region's edges, with the edges of the image at the centres of its
    outermost pixels, as in spatial transformer networks.
    """
    points = _points(size, align_corners, images.device)  # [2, h, w]
    grid = regions.centre.view(-1, 2, 1, 1) + regions.half[:, :, None, None] * points  # [N, 2, h, w]; F.affine_grid multiplies matrices
    return F.grid_sample(regions.images_of(images), grid.permute(0, 2, 3, 1).to(images), mode=mode, align_corners=align_corners)


@tensor_cache(64)
def _points(size: tuple[int, int], align_corners: bool, device: torch.device) -> Float[Tensor, "2 h w"]:
    """x and y in [-1, 1] of `size` (height, width) points at equal distances; a single row or column lies at 0."""
    ends = [float(count > 1) if align_corners else 1 - 1 / count for count in size]
    y, x = (torch.linspace(-end, end, count, device=device) for end, count in zip(ends, size, strict=True))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))


def thumbnail(
    images: Float[Tensor, "B C H W"],
    size: tuple[int, int],
    mode: Literal["area", "pixels", "bilinear", "bicubic"] = "area",
    *,
    align_corners: bool = False,
) -> Float[Tensor, "B C h w"]:
    """Images resized to `size` (height, width).

    mode: area: the mean over the area that a new pixel covers; pixels that are partly covered count in part, so that resizing in two
    steps gives the same as in one. pixels: the mean over every pixel that it touches ("area" in torch). bilinear, bicubic: interpolated
    between pixels, without a filter against aliasing; only here `align_corners` matters, as in `torch.nn.functional.interpolate`.

    >>> thumbnail(torch.tensor([[[[0.0, 3.0, 6.0]]]]), (1, 2)), thumbnail(torch.tensor([[[[0.0, 3.0, 6.0]]]]), (1, 2), "pixels")
    (tensor([[[[1., 5.]]]]), tensor([[[[1.5000, 4.5000]]]]))
    """
    if mode == "area":
        return _shrink_rows(_shrink_rows(images, size[0]).mT, size[1]).mT
    if mode == "pixels":
        return F.adaptive_avg_pool2d(images, size)
    return F.interpolate(images, size, mode=mode, align_corners=align_corners)


def _shrink_rows(images: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B C h W"]:
    """Each of `size` new rows is the sum of the old rows that it covers, weighted by their covered share."""
    old = images.shape[2]
    if old % size == 0:
        return F.avg_pool2d(images, (old // size, 1)) if old > size else images
    row, share = _covered(old, size, images.device)
    rows = images.contiguous().index_select(2, row.flatten()).unflatten(2, row.shape)  # [B, C, h, reach, W], at most three times the image
    return (rows * share.to(images)[:, :, None]).sum(3)


@tensor_cache(64)
def _covered(old: int, size: int, device: torch.device) -> tuple[Int[Tensor, "h reach"], Float[Tensor, "h reach"]]:
    """For each of `size` new rows, the old rows (of `old`) that it may cover, and their share in it."""
    start = torch.arange(size, device=device, dtype=torch.float64) * (old / size)
    stop = start + old / size
    row = start.floor()[:, None] + torch.arange(old // size + 2, device=device)  # [h, reach]: the most rows that one can cover
    covered = (torch.minimum(row + 1, stop[:, None]) - torch.maximum(row, start[:, None])).clamp(min=0)
    return row.long().clamp(max=old - 1), covered * (size / old)
