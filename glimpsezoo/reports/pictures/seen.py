"""What the model saw in a glimpse: the pixels that entered its network, or else the region at the same resolution."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from glimpsezoo.core.protocol import GlimpseModel, State
from glimpsezoo.core.regions import Regions
from glimpsezoo.core.senses import resample

ALIKE = 0.15  # the network's input counts as a picture of the region up to this mean distance of pixels in [0, 1]


def glimpses_seen(
    model: GlimpseModel[Any], images: Float[Tensor, "1 C H W"], state: State, regions: Regions
) -> list[list[UInt8[ndarray, "h w 3"]]]:
    """The pictures that the model saw in each of N regions of one image: one each, or several scales around the same centre.

    images: as for `sense`; state: before the step. Phases have no side effects, so `sense` can be called again. The first tensor of N
    images that enters one of the model's modules is what it saw, once the task's normalisation is undone; the whole image, of which the
    model takes its glimpse itself, is not. If no pixels enter a module, or they do not resemble the region, the picture is the region
    itself, averaged by area.
    """
    if not len(regions):
        return []
    entered = _entering(model, images, state, regions)
    height, width = entered.shape[-2:] if entered is not None else _own_pixels(images, regions)
    covered = covers(images, regions, (height, width))[:, None]  # [N, 1, C, h, w]
    found = covered
    if entered is not None:
        seen = min(_readings(model, entered), key=lambda candidate: _distance(candidate, covered))
        found = seen if _distance(seen, covered) <= ALIKE else covered
    return [[pixels_of(view) for view in views] for views in found]


def _entering(model: GlimpseModel[Any], images: Tensor, state: State, regions: Regions) -> Float[Tensor, "N scales C h w"] | None:
    """The first N images that enter a module of the model while it senses N regions; None if there are none."""
    found: list[Tensor] = []
    channels = images.shape[1]

    def note(module: Any, given: tuple[Any, ...]) -> None:
        tensor = given[0] if given else None
        if found or not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.ndim not in {4, 5}:
            return
        if tensor.shape[0] != len(regions) or tensor.shape[-3] != channels:
            return
        tensor = tensor.detach().float()
        if tensor.shape != images.shape or not any(torch.allclose(each, images, atol=1e-4) for each in _readings(model, tensor)):
            found.append(tensor)

    handles = [module.register_forward_pre_hook(note) for module in model.modules() if module is not model]
    try:
        model.sense(images, state, regions)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        return None
    return found[0] if found[0].ndim == 5 else found[0][:, None]


def _readings(model: GlimpseModel[Any], pixels: Float[Tensor, "*N C h w"]) -> tuple[Tensor, Tensor]:
    """Pixels as they are, and without the task's normalisation."""
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (model.task.mean, model.task.std))
    return pixels, pixels * std + mean


def _own_pixels(images: Tensor, regions: Regions) -> tuple[int, int]:
    """Height and width of the first region, in pixels of the image."""
    x, y = regions.half[0].tolist()
    return max(1, round(y * images.shape[2])), max(1, round(x * images.shape[3]))


def _distance(views: Float[Tensor, "N scales C h w"], covered: Float[Tensor, "N 1 C h w"]) -> float:
    """Mean distance of pixels at the closest scale: the widest scale shows what the region covers."""
    return float((views - covered).abs().mean((0, 2, 3, 4)).min())


def covers(images: Float[Tensor, "1 C H W"], regions: Regions, size: tuple[int, int]) -> Float[Tensor, "N C h w"]:
    """The image inside each region at `size` (height, width), averaged by area; black outside the image."""
    widest, tallest = regions.half.amax(0).tolist()
    side = math.ceil(max(widest * images.shape[3] / size[1], tallest * images.shape[2] / size[0]))
    finer = max(1, min(side, 8))  # samples per pixel, along each side
    return F.avg_pool2d(resample(images, regions, (size[0] * finer, size[1] * finer)), finer)


def pixels_of(image: Float[Tensor, "C H W"]) -> UInt8[ndarray, "H W 3"]:
    """An image in [0, 1] as 8-bit RGB. If it has neither one nor three channels, their mean is shown in grey."""
    if image.shape[0] != 3:
        image = image.mean(0, keepdim=True).expand(3, -1, -1)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()  # [3, H, W] -> [H, W, 3]
