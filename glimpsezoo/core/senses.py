"""How models take patches from images, each convention by its name. Places are those of `Regions`: a region's centre and its side in px.

crop: at the nearest whole pixels. retina: concentric crops of growing sides, all averaged down to one size. Both show 0 outside.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def crop(
    images: Float[Tensor, "B C H W"], image: Int[Tensor, "N"], centre: Float[Tensor, "N 2"], side: int
) -> Float[Tensor, "N C {side} {side}"]:
    """Patches of `side` px around `centre` [N, 2] (x, y in [-1, 1]) of the images `image` [N], at the nearest whole pixels; 0 outside.

    A patch begins at floor(c - side / 2 + 1/2), with c its centre in px, so its true centre is at most half a pixel from `centre`.
    """
    channels, height, width = images.shape[1:]
    size = torch.tensor([width, height], device=images.device)
    corner = ((centre.detach() + 1) / 2 * size - side / 2 + 0.5).floor().long()  # [N, 2] as (x, y)
    place = corner[:, :, None] + torch.arange(1, side + 1, device=images.device)  # [N, 2, side]: columns, rows of the framed images
    column, row = torch.minimum(place.clamp(min=0), size[:, None] + 1).unbind(1)
    plane = image[:, None] * channels + torch.arange(channels, device=images.device)  # [N, C]
    first = (plane[:, :, None] * (height + 2) + row[:, None]) * (width + 2)  # [N, C, side], of every row
    framed = F.pad(images, (1, 1, 1, 1))  # a frame of zeros, from which all pixels outside are taken
    return framed.take(first[:, :, :, None] + column[:, None, None])


def bilinear_crop(
    images: Float[Tensor, "B C H W"], image: Int[Tensor, "N"], centre: Float[Tensor, "N 2"], side: int
) -> Float[Tensor, "N C {side} {side}"]:
    """`crop` at exactly `centre`, between pixels, so that it has a gradient in `centre`. Equal to `crop` if the corner is a whole pixel."""
    height, width = images.shape[2:]
    offset = torch.arange(side, device=images.device).to(centre) + 0.5 - side / 2  # [side] of each pixel from the centre, in px
    x = centre[:, 0, None] + 2 / width * offset  # [N, side] in [-1, 1]
    y = centre[:, 1, None] + 2 / height * offset
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), 3)  # [N, side, side, 2]
    return F.grid_sample(images[image], grid.to(images), align_corners=False)


def straight_through_crop(
    images: Float[Tensor, "B C H W"], image: Int[Tensor, "N"], centre: Float[Tensor, "N 2"], side: int
) -> Float[Tensor, "N C {side} {side}"]:
    """`crop`, bit for bit, with the gradient of `bilinear_crop` in images and centre (a straight-through estimator)."""
    soft = bilinear_crop(images, image, centre, side)
    return crop(images, image, centre, side).detach() + (soft - soft.detach())


def retina(
    images: Float[Tensor, "B C H W"], image: Int[Tensor, "N"], centre: Float[Tensor, "N 2"], patch: int, scales: int, *, soft: bool = False
) -> Float[Tensor, "N {scales} C {patch} {patch}"]:
    """One patch per scale around `centre`: a `crop` of `patch` px, then crops of twice the side each, averaged over areas to `patch` px.

    soft: give the patches a gradient in `centre`. Their values are the same. Raises `ValueError` for an odd patch with several scales,
    whose crops would have no common centre.
    """
    if scales > 1 and patch % 2:
        raise ValueError(f"expected an even patch for more than one scale, got {patch}: crops of odd and of even sides have other centres")
    widest = (straight_through_crop if soft else crop)(images, image, centre, patch << (scales - 1))
    views = []
    for scale in range(scales):
        side = patch << scale
        edge = (widest.shape[-1] - side) // 2
        view = widest[:, :, edge : edge + side, edge : edge + side]
        views.append(F.avg_pool2d(view, 1 << scale) if scale else view)
    return torch.stack(views, 1)
