"""Noise per image: a function of (seed, image id, step) that does not depend on the batch.

A counter-based generator (the finaliser of SplitMix64; Steele, Lea & Flood, OOPSLA 2014) in 64-bit integer tensors. It has no state, so
gathering images, removing them from the batch and reordering them change nothing, and every device gives the same bits.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.core.batched import Batched

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # as a signed 64-bit number: integer tensors wrap around


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical (unsigned) right shift."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(x: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
    x = x ^ _shift(x, 30)
    x *= 0xBF58476D1CE4E5B9 - (1 << 64)  # in place: the noise of large images is limited by memory
    x ^= _shift(x, 27)
    x *= 0x94D049BB133111EB - (1 << 64)
    x ^= _shift(x, 31)
    return x


def _combine(key: Tensor, value: Tensor | int) -> Tensor:
    # The product of a tensor wraps around by itself; that of a Python number is wrapped here.
    product = value * _GOLDEN if isinstance(value, Tensor) else (value * _GOLDEN + (1 << 63)) % (1 << 64) - (1 << 63)
    return _mix(_mix(key + _GOLDEN) ^ product)


@dataclass(frozen=True)
class Noise(Batched):
    """The noise source of every image of a batch."""

    keys: Int[Tensor, "B"]
    """One 64-bit key per image."""

    @classmethod
    def of(cls, seed: int, ids: Int[Tensor, "B"]) -> Self:
        """The noise of the images with these ids [B] under `seed`."""
        ids = ids.long()  # the arithmetic needs 64 bits
        return cls(_combine(torch.full_like(ids, seed), ids))

    def fork(self, sample: Int[Tensor, "B"] | int) -> Self:
        """An independent source for each value of `sample`, so that repeats of an image get different draws."""
        return replace(self, keys=_combine(_mix(self.keys), sample))

    def uniform(
        self,
        step: int,
        size: int,
        *,
        image: Int[Tensor, "N"] | None = None,
        lane: Int[Tensor, "N"] | int = 0,
    ) -> Float[Tensor, "N {size}"]:
        """Independent float32 draws from U(0, 1), never 0 or 1: `size` per image, or per row of `image` [N] if it is given.

        lane: [N] tells rows of one image apart by something that does not depend on the batch, such as a node's number in its tree.
        """
        keys = self.keys if image is None else self.keys[image]
        keys = _combine(_combine(keys, step), lane)[:, None]
        bits = _combine(keys, torch.arange(size, device=keys.device))
        return _shift(bits, 41).to(torch.float32).add_(0.5).div_(1 << 23)  # 23 bits: with the half added, float32 holds the value exactly

    def normal(self, step: int, size: int, *, lane: Int[Tensor, "N"] | int = 0) -> Float[Tensor, "N {size}"]:
        """Independent float32 draws from N(0, 1): `size` per image, made from the uniform draws of the same step and lane."""
        return torch.special.ndtri(self.uniform(step, size, lane=lane).double()).float()
