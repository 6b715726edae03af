"""AugMix (Hendrycks et al., ICLR 2020, arXiv:1912.02781, algorithm 1) for batches in which every image draws its own chains.

The operations are torchvision's, whose own transform changes a whole batch in one way. They are the paper's nine that have nothing in
common with the corruptions of ImageNet-C: no contrast, brightness, colour or sharpness. Both concentrations are 1 as in the paper, so that
the Dirichlet weights are normalised exponential draws, and the Beta weight is uniform. Not as in the paper: levels are whole numbers from 1
to the severity, so that images with the same operation are changed together.
"""

import math
from collections import defaultdict
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from glimpsezoo.core.noise import Noise

LEVELS = 10  # the strongest level of the paper
WEIGHTS, SHARE, DEPTH, STEPS = range(4)  # lanes of an image's noise

# Operation -> how it changes images, given a strength in (0, 1] with the sign that was drawn.
OPERATIONS: tuple[Callable[[Tensor, float], Tensor], ...] = (
    lambda images, by: tv.autocontrast(images),
    lambda images, by: tv.equalize(images),
    lambda images, by: tv.posterize(images, 4 - int(4 * abs(by))),
    lambda images, by: tv.solarize(images, 256 * (1 - abs(by))),
    lambda images, by: _moved(images, angle=30 * by),
    lambda images, by: _moved(images, shear=(math.degrees(math.atan(0.3 * by)), 0.0)),
    lambda images, by: _moved(images, shear=(0.0, math.degrees(math.atan(0.3 * by)))),
    lambda images, by: _moved(images, shift=(by / 3, 0.0)),
    lambda images, by: _moved(images, shift=(0.0, by / 3)),
)


def _moved(
    images: UInt8[Tensor, "n C H W"],
    angle: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    shear: tuple[float, float] = (0.0, 0.0),
) -> UInt8[Tensor, "n C H W"]:
    """Rotated by an angle, shifted by shares of the sides (x, y) or sheared by angles, in degrees. What was outside is black."""
    pixels = [share * side for share, side in zip(shift, images.shape[:1:-1], strict=True)]
    return tv.affine(images, angle, pixels, 1.0, list(shear), interpolation=tv.InterpolationMode.BILINEAR)


def augmixed(images: Float[Tensor, "n C H W"], noise: Noise, *, severity: int, width: int, depth: int) -> Float[Tensor, "n C H W"]:
    """A mixture of every image with chains of operations on it, drawn from its own noise. Pixels are in [0, 1], in and out.

    noise: on the CPU. The operations take images of 256 levels; what is mixed is not rounded.
    """
    n, device = len(images), images.device
    levels = (images * 255).round().to(torch.uint8)
    chains = levels.repeat_interleave(width, 0)  # [n * width, C, H, W]
    lengths = (1 + depth * noise.uniform(0, width, lane=DEPTH)).long().flatten()  # [n * width]
    draws = noise.uniform(0, width * depth * 3, lane=STEPS).view(n * width, depth, 3)
    for step in range(depth):
        _change(chains, draws[:, step], lengths > step, severity)
    weights = -noise.uniform(0, width, lane=WEIGHTS).log()  # [n, width]
    weights = (weights / weights.sum(1, keepdim=True)).to(device)
    mixed = torch.einsum("nk,nkchw->nchw", weights.to(images), chains.unflatten(0, (n, width)).to(images) / 255)
    share = noise.uniform(0, 1, lane=SHARE).to(device)[:, :, None, None]  # of the image itself
    return share * images + (1 - share) * mixed


def _change(chains: UInt8[Tensor, "N C H W"], draws: Float[Tensor, "N 3"], goes_on: Bool[Tensor, "N"], severity: int) -> None:
    """Change every image of a chain that goes on by one operation, in place. draws: the operation, its level and its sign."""
    groups = defaultdict[tuple[int, float], list[int]](list)  # images that an operation changes by the same strength
    for place, (kind, level, sign) in enumerate(draws.tolist()):
        if goes_on[place]:
            strength = (1 + int(level * severity)) / LEVELS
            groups[int(kind * len(OPERATIONS)), strength if sign < 0.5 else -strength].append(place)
    for (kind, strength), places in groups.items():
        chosen = torch.tensor(places, device=chains.device)
        chains[chosen] = OPERATIONS[kind](chains[chosen], strength)
