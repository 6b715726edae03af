"""The architectures of appendix tables 1 to 5 and their calculated costs. This module does not need torch.

One MAC is one multiply-accumulate of a convolution or a linear layer, without biases: what the paper prints as a FLOP.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

GRID = 3  # cells along a side of a node's grid of candidate locations
CELLS = GRID * GRID


@dataclass(frozen=True)
class Conv:
    """3 x 3 convolution with `out` channels, stride 1, SAME padding, then leaky ReLU."""

    out: int


@dataclass(frozen=True)
class Pool:
    """Max-pooling of size x size, stride 2, VALID: incomplete windows at the right and bottom edge are dropped."""

    size: int


class ModuleMacs(NamedTuple):
    """MACs of one call of each module, for one node."""

    features: int
    location: int
    aggregation: int
    merging: int
    classification: int


@dataclass(frozen=True)
class Architecture:
    """A feature extraction module."""

    name: str
    base: int
    """The base resolution: the side in pixels of the crops that it takes."""
    layers: tuple[Conv | Pool, ...]
    """In order, from the image on."""

    @property
    def width(self) -> int:
        """Length f of a feature vector: the channels of the last convolution."""
        return [layer.out for layer in self.layers if isinstance(layer, Conv)][-1]

    def map_side(self, side: int) -> int:
        """Side of the last feature map for an image of `side` pixels; 0 or less if the image is too small."""
        for layer in self.layers:
            if isinstance(layer, Pool):
                side = (side - layer.size) // 2 + 1
        return side

    def smallest_side(self) -> int:
        """The smallest image side in pixels that leaves a feature map."""
        return next(side for side in range(1, self.base + 1) if self.map_side(side) >= 1)

    def feature_macs(self, channels: int, height: int, width: int) -> int:
        """MACs of the convolutions for an image of height x width pixels with `channels` channels."""
        macs = 0
        for layer in self.layers:
            if isinstance(layer, Conv):
                macs += 9 * channels * layer.out * height * width
                channels = layer.out
            else:
                height, width = ((side - layer.size) // 2 + 1 for side in (height, width))
        return macs

    def module_macs(self, channels: int, classes: int) -> ModuleMacs:
        """MACs of one call of every module of the pyramid model, for images with `channels` channels."""
        f = self.width
        return ModuleMacs(
            features=self.feature_macs(channels, self.base, self.base),
            location=self.map_side(self.base) ** 2 * f * CELLS,
            aggregation=CELLS * f * f,
            merging=2 * f * f,
            classification=f * classes,
        )


M1 = Architecture("m1", 14, (Conv(64), Pool(2)))  # table 3
M2 = Architecture("m2", 14, (Conv(32), Pool(2), Conv(64)))  # table 2
M3 = Architecture("m3", 14, (Conv(32), Pool(2), Conv(64), Pool(3), Conv(64)))  # table 1
IMAGENET_M1 = Architecture("imagenet-m1", 32, (Conv(64), Pool(2), Conv(128), Pool(2), Conv(256)))  # table 5
IMAGENET_M2 = Architecture("imagenet-m2", 32, (Conv(64), Pool(2), Conv(128), Pool(2), Conv(256), Pool(2), Conv(256)))  # table 4


def levels_for(image_size: tuple[int, int], base: int) -> int:
    """The most levels K for which base x 2^(K - 1) pixels does not enlarge an image of (height, width); at least 1.

    >>> levels_for((56, 56), 14), levels_for((64, 64), 14), levels_for((10, 10), 14)
    (3, 3, 1)
    """
    return max(1, (min(image_size) // base).bit_length())


def even_rate(attended: float, levels: int) -> float:
    """The probability r with which `attended` locations are expected beyond the first, if it is the same for every cell.

    Solves sum over k = 1..levels - 1 of (9 r)^k = attended. The result is the c_r for a c_t: the paper says that they depend on each
    other, but does not print c_r. (Its c_t of 2 at two levels, and of 6 and 12 at three, mean 2, 2 and 3 cells per node.)

    >>> round(9 * even_rate(2, 2), 6), round(9 * even_rate(6, 3), 6), round(9 * even_rate(12, 3), 6)
    (2.0, 2.0, 3.0)
    """
    low, high = 0.0, float(CELLS)
    for _ in range(60):  # bisection to the last bit of a double
        middle = (low + high) / 2
        low, high = (middle, high) if math.fsum(middle**k for k in range(1, levels)) < attended else (low, middle)
    return low / CELLS
