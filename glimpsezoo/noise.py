"""Randomness that belongs to the image: noise is a function of (seed, image id, step), whatever the batch around it.

A counter-based generator (the finaliser of SplitMix64; Steele, Lea & Flood, OOPSLA 2014) in 64-bit integer tensors: no state, so
gathering images, leaving the batch and reordering it change nothing, and every device gives the same bits.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.batched import Batched

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # as a signed 64-bit number: integer tensors wrap around


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical (unsigned) shift right."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
    x = (x ^ _shift(x, 30)) * (0xBF58476D1CE4E5B9 - (1 << 64))
    x = (x ^ _shift(x, 27)) * (0x94D049BB133111EB - (1 << 64))
    return x ^ _shift(x, 31)


def _combine(key: Tensor, value: Tensor | int) -> Tensor:
    # A tensor's product wraps around by itself; a plain number's is wrapped here.
    product = value * _GOLDEN if isinstance(value, Tensor) else (value * _GOLDEN + (1 << 63)) % (1 << 64) - (1 << 63)
    return _mix(_mix(key + _GOLDEN) ^ product)


@dataclass(frozen=True)
class Noise(Batched):
    """The noise source of every image of a batch. keys: [B], one 64-bit key an image."""

    keys: Int[Tensor, "B"]

    @classmethod
    def of(cls, seed: int, ids: Int[Tensor, "B"]) -> Self:
        """The noise of images with these ids [B] under `seed`."""
        ids = ids.long()  # the arithmetic is that of 64 bits
        return cls(_combine(torch.full_like(ids, seed), ids))

    def fork(self, sample: Int[Tensor, "B"] | int) -> Self:
        """An independent source for each value of `sample`: give the repeats of an image different draws."""
        return replace(self, keys=_combine(_mix(self.keys), sample))

    def uniform(
        self,
        step: int,
        size: int,
        *,
        image: Int[Tensor, "N"] | None = None,
        lane: Int[Tensor, "N"] | int = 0,
    ) -> Float[Tensor, "N {size}"]:
        """Independent draws from U(0, 1), never 0 or 1, float32: `size` for each image, or for each row of `image` [N] when given.

        lane: [N] tells rows of one image apart (a node's number in its tree, say) by something that the batch does not change.
        """
        keys = self.keys if image is None else self.keys[image]
        keys = _combine(_combine(keys, step), lane)[:, None]
        bits = _combine(keys, torch.arange(size, device=keys.device))
        return (_shift(bits, 41).to(torch.float32) + 0.5) / (1 << 23)  # 23 bits: with the half added, what a float32 holds exactly
