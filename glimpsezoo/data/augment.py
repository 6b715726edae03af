"""How training augments natural images: a random resized crop, a flip, and changed colours.

Images are 8-bit tensors on any device, augmented in batches. What an image becomes depends on its own noise alone, not on its batch.
torchvision is imported when an image is augmented: that takes a second, which only training needs.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from glimpsezoo.core.noise import Noise
from glimpsezoo.data.config import AugmentedSettings

ATTEMPTS = 10  # crops that are drawn per image until one lies in it, as in torchvision's RandomResizedCrop
DISTORTION = 0.5  # the largest relative change of brightness, contrast and saturation
CROP, FLIP, MODE, COLOURS = range(4)  # lanes of an image's noise
Images = Sequence[UInt8[Tensor, "C _ _"]] | UInt8[Tensor, "n C h w"]


class Augmentation:
    """Augments images to `size` (height, width).

    The defaults of the settings are the usual ones for ImageNet classifiers, MGNet among them. For the pyramid models on ImageNet
    (appendix A.6.2): crop_area 0.85, crop_aspect 2, interpolation "random", colours "distort".
    """

    def __init__(self, size: tuple[int, int], config: AugmentedSettings) -> None:
        self.size, self.config = size, config

    def __call__(self, images: Images, ids: Int[Tensor, "n"], epoch: int) -> UInt8[Tensor, "n C H W"]:
        """An augmented view of each image, determined by the seed of the settings, the image's id and the epoch.

        ids: on the CPU, where the draws are made. The views are on the device of the images, which may have different sizes.
        """
        noise = Noise.of(self.config.seed, ids).fork(epoch)
        sides = torch.tensor([image.shape[-2:] for image in images])  # [n, 2]
        boxes = crop_boxes(sides, noise, self.config.crop_area, self.config.crop_aspect)
        views = self._cropped(images, boxes, noise)
        flipped = (noise.uniform(0, 1, lane=FLIP)[:, 0] < 0.5).nonzero().squeeze(1).to(views.device)
        views[flipped] = views[flipped].flip(3)
        if self.config.colours == "autoaugment":
            from glimpsezoo.data.autoaugment import autoaugmented

            return autoaugmented(views, noise.uniform(0, 5, lane=COLOURS))
        return distorted(views, noise.uniform(0, 6, lane=COLOURS)) if self.config.colours == "distort" else views

    def _cropped(self, images: Images, boxes: Int[Tensor, "n 4"], noise: Noise) -> UInt8[Tensor, "n C H W"]:
        if self.config.interpolation == "bilinear":
            if images[0].device.type != "cpu" and len({image.shape for image in images}) == 1:
                return resized_together(images if isinstance(images, Tensor) else torch.stack(list(images)), boxes, self.size)
            kinds = ["bilinear"] * len(images)
        else:
            modes = ("bilinear", "nearest-exact", "bicubic", "box")
            kinds = [modes[int(draw * len(modes))] for draw in noise.uniform(0, 1, lane=MODE)[:, 0].tolist()]
        views = []
        for image, (top, left, height, width), mode in zip(images, boxes.tolist(), kinds, strict=True):
            views.append(_resized(image[:, top : top + height, left : left + width], self.size, mode))
        return torch.stack(views)


def crop_boxes(sides: Int[Tensor, "n 2"], noise: Noise, least_area: float, most_aspect: float) -> Int[Tensor, "n 4"]:
    """A crop (top, left, height, width) of each image of these sides (height, width), drawn as torchvision's RandomResizedCrop draws.

    Its share of the area is uniform in [least_area, 1], and the logarithm of its aspect in [-log most_aspect, log most_aspect]. If no
    attempt lies in the image, the crop is the largest central one whose aspect is in the range.
    """
    area, aspect, *place = noise.uniform(0, 4 * ATTEMPTS, lane=CROP).double().unflatten(1, (4, ATTEMPTS)).unbind(1)  # [n, attempts] each
    area = sides.prod(1, keepdim=True) * (least_area + (1 - least_area) * area)
    aspect = ((2 * aspect - 1) * math.log(most_aspect)).exp()
    drawn = torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()], 2).round().long()  # [n, attempts, 2]
    inside = ((drawn > 0) & (drawn <= sides[:, None])).all(2)  # [n, attempts]
    first = inside.int().argmax(1)  # the first attempt that lies in the image
    rows = torch.arange(len(sides))
    central = torch.minimum(sides, (sides.flip(1) * most_aspect).round().long())
    found = inside.any(1)[:, None]
    cut = torch.where(found, drawn[rows, first], central)
    share = torch.where(found, torch.stack(place, 2)[rows, first], 0.5)  # 0.5 rounds down to the centre
    room = sides - cut
    corner = torch.where(found, (share * (room + 1)).long(), room // 2)
    return torch.cat([corner, cut], 1)


def _resized(image: UInt8[Tensor, "C h w"], size: tuple[int, int], mode: str) -> UInt8[Tensor, "C H W"]:
    if mode == "box":  # which torchvision has for Pillow's images only
        return F.interpolate(image[None].float(), size, mode="area")[0].round().to(torch.uint8)
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resize

    return resize(image, list(size), interpolation=InterpolationMode(mode), antialias=True)


def resized_together(images: UInt8[Tensor, "n C h w"], boxes: Int[Tensor, "n 4"], size: tuple[int, int]) -> UInt8[Tensor, "n C H W"]:
    """Bilinear, antialiased crops of all images by two products of matrices, for devices that are slow at many small calls.

    Equal to resizing one by one, up to one level of 255.
    """
    top, left, height, width = boxes.to(images.device).float().unbind(1)
    rows = _filters(top, height, images.shape[2], size[0])[:, None]  # [n, 1, H, h]
    columns = _filters(left, width, images.shape[3], size[1])[:, None]  # [n, 1, W, w]
    return (rows @ images.float() @ columns.mT).round().clamp(0, 255).to(torch.uint8)


def _filters(first: Float[Tensor, "n"], length: Float[Tensor, "n"], side: int, size: int) -> Float[Tensor, "n size side"]:
    """How much each of `side` pixels counts in each of `size` pixels of the span [first, first + length)."""
    scale = (length / size)[:, None, None]
    centre = (torch.arange(size, device=first.device)[:, None] + 0.5) * scale  # [n, size, 1], within the span
    pixel = torch.arange(side, device=first.device) - first[:, None, None]  # [n, 1, side], within the span
    weight = (1 - (pixel + 0.5 - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weight = weight.masked_fill((pixel < 0) | (pixel >= length[:, None, None]), 0)
    return weight / weight.sum(2, keepdim=True)


def distorted(images: UInt8[Tensor, "n C H W"], draws: Float[Tensor, "n 6"]) -> UInt8[Tensor, "n C H W"]:
    """Change brightness, contrast and saturation by random factors, in random order."""
    factors = 1 + DISTORTION * (2 * draws[:, :3] - 1)
    order = draws[:, 3:].argsort(1)
    images = images.clone()
    for turn in range(3):
        for kind, background in enumerate((_black, _mean_grey, _grey)):
            chosen = (order[:, turn] == kind).nonzero().squeeze(1)
            here = chosen.to(images.device)
            factor = factors[chosen, kind].to(images.device)[:, None, None, None]
            images[here] = (images[here] * factor + background(images[here]) * (1 - factor)).clamp(0, 255).to(torch.uint8)
    return images


def _black(images: UInt8[Tensor, "n C H W"]) -> Float[Tensor, ""]:
    return torch.zeros((), device=images.device)


def _grey(images: UInt8[Tensor, "n C H W"]) -> Float[Tensor, "n 1 H W"]:
    from torchvision.transforms.v2.functional import rgb_to_grayscale

    return (rgb_to_grayscale(images) if images.shape[1] == 3 else images).float()


def _mean_grey(images: UInt8[Tensor, "n C H W"]) -> Float[Tensor, "n 1 1 1"]:
    return _grey(images).mean((1, 2, 3), keepdim=True)
