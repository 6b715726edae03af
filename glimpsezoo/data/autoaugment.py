"""AutoAugment's ImageNet policy (Cubuk et al., CVPR 2019, arXiv:1805.09501) for batches in which every image draws its own changes.

The policy and the operations are torchvision's, whose own transform changes a whole batch in one way.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms import AutoAugment
from torchvision.transforms.v2 import functional as tv

LEVELS = 10  # magnitudes that the policy chooses from

# Operation -> how it changes images, given its magnitude; its smallest and largest magnitude; and whether the sign is drawn.
OPERATIONS: dict[str, tuple[Callable[[Tensor, float], Tensor], tuple[float, float], bool]] = {
    "ShearX": (lambda images, by: _sheared(images, by), (0.0, 0.3), True),
    "Rotate": (lambda images, by: tv.rotate(images, by), (0.0, 30.0), True),
    "Color": (lambda images, by: tv.adjust_saturation(images, 1 + by), (0.0, 0.9), True),
    "Contrast": (lambda images, by: tv.adjust_contrast(images, 1 + by), (0.0, 0.9), True),
    "Sharpness": (lambda images, by: tv.adjust_sharpness(images, 1 + by), (0.0, 0.9), True),
    "Posterize": (lambda images, by: tv.posterize(images, round(by)), (8.0, 4.0), False),
    "Solarize": (lambda images, by: tv.solarize(images, 255 * by), (1.0, 0.0), False),
    "AutoContrast": (lambda images, by: tv.autocontrast(images), (0.0, 0.0), False),
    "Equalize": (lambda images, by: tv.equalize(images), (0.0, 0.0), False),
    "Invert": (lambda images, by: tv.invert(images), (0.0, 0.0), False),
}


def _sheared(images: UInt8[Tensor, "n C H W"], by: float) -> UInt8[Tensor, "n C H W"]:
    return tv.affine(images, angle=0, translate=[0, 0], scale=1, shear=[math.degrees(math.atan(by)), 0], center=[0, 0])


@cache
def _policy() -> list[tuple[tuple[str, float, int | None], ...]]:
    return AutoAugment().policies


def autoaugmented(images: UInt8[Tensor, "n C H W"], draws: Float[Tensor, "n 5"]) -> UInt8[Tensor, "n C H W"]:
    """Change each image as one of the policy's pairs of operations says.

    draws: in (0, 1), on the CPU: which pair; then whether the first operation happens, and its sign; then the same of the second.
    """
    images = images.clone()
    for turn in range(2):
        groups = defaultdict[tuple[str, float], list[int]](list)  # images that an operation changes by the same magnitude
        for place, (pair, *own) in enumerate(draws.tolist()):
            name, probability, level = _policy()[int(pair * len(_policy()))][turn]
            happens, sign = own[2 * turn : 2 * turn + 2]
            if happens <= probability:
                _, (low, high), signed = OPERATIONS[name]
                magnitude = low + (high - low) * (level or 0) / (LEVELS - 1)
                groups[name, -magnitude if signed and sign <= 0.5 else magnitude].append(place)
        for (name, magnitude), places in groups.items():
            chosen = torch.tensor(places, device=images.device)
            images[chosen] = OPERATIONS[name][0](images[chosen], magnitude)
    return images
