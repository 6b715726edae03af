"""Noise on every value: Gaussian, shot, impulse and speckle. In the formulas, c is the corruption's constant and x the image."""

from functools import lru_cache

import torch
from jaxtyping import Float, Int16
from torch import Tensor

from glimpsezoo.conditions.corruptions.draws import bits15, normal
from glimpsezoo.conditions.corruptions.presets import constants
from glimpsezoo.core.noise import Noise

Images = Float[Tensor, "B 3 H W"]
_GRID_BITS = 12  # shot noise: probabilities are exact to 2^-12


def gaussian_noise(images: Images, severity: int, preset: str, noise: Noise) -> Images:
    """x + N(0, c)."""
    draws = normal(noise, 0, *images.shape[1:])
    return draws.mul_(constants("gaussian_noise", severity, preset)).add_(images)


def speckle_noise(images: Images, severity: int, preset: str, noise: Noise) -> Images:
    """x + x N(0, c)."""
    draws = normal(noise, 0, *images.shape[1:])
    return draws.mul_(constants("speckle_noise", severity, preset)).add_(1).mul_(images)


def impulse_noise(images: Images, severity: int, preset: str, noise: Noise) -> Images:
    """A share c of the values becomes 0 or 1, half each: those with the lowest and the highest draws."""
    draws = bits15(noise, 0, *images.shape[1:]).to(images.dtype)
    half = round(constants("impulse_noise", severity, preset) / 2 * (1 << 15))
    # Draws are integers, so clamping turns them into flags; boolean masks take four times as long on a CPU.
    white = (draws - ((1 << 15) - half - 1)).clamp_(0, 1)
    kept = draws.sub_(half - 1).clamp_(0, 1)
    return torch.maximum(kept.mul_(images), white)


def shot_noise(images: Images, severity: int, preset: str, noise: Noise) -> Images:
    """Poisson(x c) / c, drawn by the quantile function of each of the 256 levels of x (other values are rounded to levels)."""
    photons = constants("shot_noise", severity, preset)
    table = _poisson_quantiles(photons).to(images.device)
    level = images.mul(255).add_(0.5).to(torch.int32).clamp_(0, 255)
    cell = (level << _GRID_BITS) | (bits15(noise, 0, *images.shape[1:]) >> (15 - _GRID_BITS))
    return table.index_select(0, cell.flatten()).view_as(cell) / float(photons)


@lru_cache(maxsize=8)
def _poisson_quantiles(photons: int) -> Int16[Tensor, "cells"]:
    """Quantiles of Poisson(level / 255 * photons) at the centres of 2^12 equal cells, for each level in turn."""
    rates = torch.arange(256, dtype=torch.float64)[:, None] / 255 * photons  # [256, 1]
    most = int(photons + 10 * photons**0.5 + 10)  # the probability beyond it is less than a cell
    # P(outcome <= k) is the regularised upper incomplete gamma function at (k + 1, rate).
    below = torch.special.gammaincc(torch.arange(1, most + 1, dtype=torch.float64).expand(256, -1), rates.expand(-1, most))
    cells = (torch.arange(1 << _GRID_BITS, dtype=torch.float64) + 0.5) / (1 << _GRID_BITS)
    return torch.searchsorted(below.contiguous(), cells.expand(256, -1).contiguous()).to(torch.int16).flatten()
