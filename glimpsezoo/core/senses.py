"""How models take patches from images, each convention by its name. Places are those of `Regions`: a region's centre and its side in px.

crop: at the nearest whole pixels. retina: concentric crops of growing sides, all averaged down to one size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def crop(
    images: Float[Tensor, "B C H W"],
    image: Int[Tensor, "N"],
    centre: Float[Tensor, "N 2"],
    side: int,
    outside: Sequence[float] | None = None,
) -> Float[Tensor, "N C {side} {side}"]:
    """Patches of `side` px around `centre` [N, 2] (x, y in [-1, 1]) of the images `image` [N], at the nearest whole pixels.

    A patch begins at floor(c - side / 2 + 1/2), with c its centre in px, so its true centre is at most half a pixel from `centre`.
    outside: what a patch shows outside of its image, per channel; 0 by default.
    """
    channels, height, width = images.shape[1:]
    size = torch.tensor([width, height], device=images.device)
    corner = ((centre.detach() + 1) / 2 * size - side / 2 + 0.5).floor().long()  # [N, 2] as (x, y)
    place = corner[:, :, None] + torch.arange(side, device=images.device)  # [N, 2, side]: columns, rows
    inside = (place >= 0) & (place < size[:, None])
    column, row = torch.minimum(place.clamp(min=0), size[:, None] - 1).unbind(1)
    plane = image[:, None] * channels + torch.arange(channels, device=images.device)  # [N, C]
    pixel = (plane[:, :, None, None] * height + row[:, None, :, None]) * width + column[:, None, None, :]  # [N, C, side, side]
    shown = (inside[:, 1, :, None] & inside[:, 0, None, :])[:, None]  # [N, 1, side, side]
    if outside is None or not any(outside):
        return images.take(pixel) * shown
    return torch.where(shown, images.take(pixel), images.new_tensor(outside)[:, None, None])


def bilinear_crop(
    images: Float[Tensor, "B C H W"], image: Int[Tensor, "N"], centre: Float[Tensor, "N 2"], side: int
) -> Float[Tensor, "N C {side} {side}"]:
    """`crop` at exactly `centre`, between pixels, so that it has a gradient in `centre`; 0 outside. Equal to `crop` at whole pixels."""
    height, width = images.shape[2:]
    offset = torch.arange(side, device=images.device) + 0.5 - side / 2  # [side] of each pixel from the centre, in px
    x = centre[:, 0, None] + 2 / width * offset  # [N, side] in [-1, 1]
    y = centre[:, 1, None] + 2 / height * offset
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), 3)  # [N, side, side, 2]
    return F.grid_sample(images[image], grid.to(images), align_corners=False)


def straight_through_crop(
    images: Float[Tensor, "B C H W"],
    image: Int[Tensor, "N"],
    centre: Float[Tensor, "N 2"],
    side: int,
    outside: Sequence[float] | None = None,
) -> Float[Tensor, "N C {side} {side}"]:
    """`crop`, bit for bit, with the gradient of `bilinear_crop` in images and centre (a straight-through estimator)."""
    soft = bilinear_crop(images, image, centre, side)
    return crop(images, image, centre, side, outside).detach() + (soft - soft.detach())


def retina(
    images: Float[Tensor, "B C H W"],
    image: Int[Tensor, "N"],
    centre: Float[Tensor, "N 2"],
    patch: int,
    scales: int,
    *,
    factor: int = 2,
    outside: Sequence[float] | None = None,
    soft: bool = False,
) -> Float[Tensor, "N {scales} C {patch} {patch}"]:
    """Crops of side patch x factor^k, for k from 0, around one centre, each averaged over areas to `patch` px.

    outside: as in `crop`. soft: give the patches a gradient in `centre`. Their values are the same.
    """
    views = []
    for scale in range(scales):
        side = patch * factor**scale
        view = straight_through_crop(images, image, centre, side, outside) if soft else crop(images, image, centre, side, outside)
        views.append(F.avg_pool2d(view, factor**scale) if scale else view)
    return torch.stack(views, 1)
