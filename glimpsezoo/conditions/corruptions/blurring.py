"""Defocus, glass, motion, zoom and Gaussian blur."""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int
from torch import Tensor

from glimpsezoo.conditions.corruptions import filters
from glimpsezoo.conditions.corruptions.draws import bits15
from glimpsezoo.conditions.corruptions.presets import constants
from glimpsezoo.core.noise import Noise

Images = Float[Tensor, "B C H W"]


def gaussian_blur(images: Images, severity: int, preset: str, noise: Noise) -> Images:
    """Gaussian blur, truncated at 4 sigma; borders repeat the edge."""
    return filters.gaussian(images, constants("gaussian_blur", severity, preset))


def motion_blur(images: Images, severity: int, preset: str, noise: Noise) -> Images:
    """A line blur at an angle from U(-45, 45) degrees, drawn per image."""
    radius, sigma = constants("motion_blur", severity, preset)
    return filters.motion(images, radius, sigma, noise.uniform(0, 1)[:, 0] * 90 - 45)


def zoom_blur(images: Images, severity: int, preset: str, noise: Noise) -> Images:
    """The mean of the image and its zooms. The zooms include factor 1, so the image counts twice."""
    factors = filters.zoom_factors(*constants("zoom_blur", severity, preset))
    total = images.transpose(2, 3).contiguous()
    for factor in factors:
        total += filters.turned_zoom(images, factor)
    return (total / (len(factors) + 1)).transpose(2, 3)


def defocus_blur(images: Images, severity: int, preset: str, noise: Noise) -> Images:
    """Convolution with a disk, computed in the Fourier domain per image. Borders are reflected without repeating the edge."""
    radius, smoothing = constants("defocus_blur", severity, preset)
    reach, (height, width) = _reach(radius), images.shape[2:]
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    size = _smooth_number(padded.shape[2]), _smooth_number(padded.shape[3])
    gain = _disk_gain(radius, smoothing, size).to(images.device)
    blurred = torch.empty_like(images)
    for image, result in zip(padded, blurred, strict=True):
        whole = torch.fft.irfft2(torch.fft.rfft2(image, s=size) * gain, s=size)
        result.copy_(whole[:, 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width])
    return blurred


@lru_cache(maxsize=16)
def _disk_gain(radius: float, smoothing: float, size: tuple[int, int]) -> Complex[Tensor, "h w"]:
    """The Fourier transform of the kernel. The kernel is symmetric, so convolution equals correlation."""
    return torch.fft.rfft2(disk(radius, smoothing), s=size).to(torch.complex64)


def _reach(radius: float) -> int:
    """The kernel's reach in px: 8, or the radius if it is larger."""
    return 8 if radius <= 8 else int(radius)


def disk(radius: float, smoothing: float) -> Float[Tensor, "k k"]:
    """A disk of sum 1 on a 17 x 17 grid, or (2 r + 1) for r > 8, smoothed by a 3 x 3 (5 x 5) Gaussian that reflects at the grid's edge."""
    reach, taps = _reach(radius), 1 if radius <= 8 else 2
    grid = np.arange(-reach, reach + 1)
    disk = (grid[:, None] ** 2 + grid**2 <= radius**2).astype(np.float64)
    weights = np.exp(-0.5 * (np.arange(-taps, taps + 1) / smoothing) ** 2)
    padded = torch.from_numpy(np.pad(disk / disk.sum(), taps, mode="reflect"))[None, None]
    weights = (weights / weights.sum()).tolist()
    return filters.correlate(filters.correlate(padded, weights, 2), weights, 3)[0, 0]


def _smooth_number(least: int) -> int:
    """The smallest number >= `least` without a prime factor above 5: Fourier transforms of this size are fast."""
    number = least
    while True:
        rest = number
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return number
        number += 1


def glass_blur(images: Images, severity: int, preset: str, noise: Noise) -> Images:
    """Gaussian blur, 8 bits, pixels overwritten by near ones `iterations` times, Gaussian blur again."""
    sigma, delta, iterations = constants("glass_blur", severity, preset)
    height, width = images.shape[2:]
    source = None
    for iteration in range(iterations):
        step = scan_sources(bits15(noise, iteration, height, width), delta)
        source = step if source is None else source.gather(1, step)
    assert source is not None
    levels = filters.gaussian(images, sigma).mul(255).add_(2**-10).floor_().flatten(2)  # [B, 3, H W]; rounding loses no level
    moved = torch.stack([level.index_select(1, index) for level, index in zip(levels, source, strict=True)])
    return filters.gaussian(moved.view_as(images).div_(255), sigma)


def scan_sources(draws: Int[Tensor, "B H W"], delta: int) -> Int[Tensor, "B pixels"]:
    """For each pixel, the place 0..H W - 1 of the pixel that provides its value after one scan.

    The scan visits rows and columns from the end and gives each pixel the current value of its partner, at an offset in
    [-delta, delta) (draws: in 0..2^15-1). A partner that was already visited (one later in the raster) passes on the value that it
    received itself. So the sources form chains, which jumping two links, then four, then eight ... resolves in a few steps.
    """
    batch, height, width = draws.shape
    count, side = height * width, 2 * delta
    steps = torch.arange(-delta, delta, dtype=torch.int32, device=draws.device)
    offsets = (steps[:, None] * width + steps).flatten()  # [side^2]
    choice = ((draws.int() * (side * side)) >> 15).flatten()
    # Flags are the integers 0 and 1: booleans take ten times as long on a CPU.
    inside = torch.zeros(height, width, dtype=torch.int32, device=draws.device)
    inside[delta + 1 : height - delta + 1, delta + 1 : width - delta + 1] = 1
    inside, place = inside.flatten(), torch.arange(count, dtype=torch.int32, device=draws.device)
    partner = offsets.index_select(0, choice).view(batch, count) * inside + place
    later = ((place - partner) >> 31) & 1
    passed_on = later * inside.index_select(0, partner.flatten()).view(batch, count)
    # Places below `count` mean values after the scan; places from `count` on mean values before it, where chains end.
    link = partner + count * (1 - passed_on)
    last = torch.arange(count, 2 * count, dtype=torch.int32, device=draws.device)
    chains = []
    for own in link:  # per image, so that places fit into 32 bits
        chain = own
        while int(chain.min()) < count:
            chain = torch.cat([chain, last]).index_select(0, chain)
        chains.append(chain - count)
    return torch.stack(chains).long()
