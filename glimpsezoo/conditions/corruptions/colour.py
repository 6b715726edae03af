"""Brightness, contrast and saturation. HSV is changed without conversion: at a fixed hue, channels are linear in value and saturation."""

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.conditions.corruptions.presets import constants
from glimpsezoo.core.noise import Noise

Images = Float[Tensor, "B 3 H W"]
_TINY = 1e-12  # avoids 0 / 0; values are 0 or at least 1/255


def brightness(images: Images, severity: int, preset: str, noise: Noise) -> Images:
    """HSV value v + c, at most 1: each channel times (v + c) / v. Black becomes grey."""
    added = constants("brightness", severity, preset)
    value = images.amax(1, keepdim=True)  # [B, 1, H, W]
    raised = (value + added).clamp_(max=1)
    return torch.where(value > 0, images * (raised / value.clamp_min(_TINY)), raised)


def contrast(images: Float[Tensor, "B C H W"], severity: int, preset: str, noise: Noise) -> Float[Tensor, "B C H W"]:
    """(x - mean) c + mean, the mean of each channel over the image."""
    factor = constants("contrast", severity, preset)
    # Per image, so that the order of summation does not depend on the batch; in float64, so that the number of threads does not matter.
    means = torch.stack([image.flatten(1).mean(1, dtype=torch.float64) for image in images]).to(images.dtype)
    return images * factor + (means * (1 - factor))[:, :, None, None]


def saturate(images: Images, severity: int, preset: str, noise: Noise) -> Images:
    """HSV saturation s becomes t = s a + b, clipped to [0, 1]. The hue of a grey pixel is red, as usual.

    With value v and smallest channel m, s = (v - m) / v, and a channel x becomes v - (v - x) t / s.
    """
    factor, added = constants("saturate", severity, preset)
    value, least = images.amax(1, keepdim=True), images.amin(1, keepdim=True)  # [B, 1, H, W]
    span = value - least
    saturation = (span / value.clamp_min(_TINY) * factor + added).clamp_(0, 1)
    spread = torch.where(span > 0, value * saturation / span.clamp_min(_TINY), 0)
    result = value - (value - images) * spread
    if added:
        reddish = torch.cat([value, value * (1 - saturation), value * (1 - saturation)], 1)
        result = torch.where(span > 0, result, reddish)
    return result
