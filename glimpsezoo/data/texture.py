"""A field of grass, drawn blade by blade: the background of `textured-mnist`.

The paper cuts its backgrounds from a photograph of grass that is not to be had; this is the project's own stand-in for it.
"""

from functools import lru_cache

import torch
from jaxtyping import UInt8
from torch import Tensor

from glimpsezoo.noise import Noise

SIDE = 512  # px of the field, which repeats at its edges
BLADES = 9000
POINTS = 48  # along a blade; more than its longest length in px, so that it has no gaps
SOIL = 20  # brightness where no blade grows, of 255


@lru_cache(maxsize=4)
def grass(seed: int) -> UInt8[Tensor, "512 512"]:
    """The field of this seed, brightness in 0..255 (at most 70 % of white, so that a white digit stands out).

    Blades grow upwards from random places, leaning and bending at random, dark at the foot and bright at the tip; the later covers
    the earlier.
    """
    draws = Noise.of(seed, torch.arange(BLADES)).uniform(0, 6)  # [blades, 6]
    foot_x, foot_y = draws[:, 0, None] * SIDE, draws[:, 1, None] * SIDE  # [blades, 1]
    length = 14 + 26 * draws[:, 2, None]
    lean = (draws[:, 3, None] - 0.5) * 1.4  # radians from upright
    bend = (draws[:, 4, None] - 0.5) * 0.8
    shade = 90 + 88 * draws[:, 5, None]
    t = torch.linspace(0, 1, POINTS)[None]  # [1, points]: from foot to tip
    x = foot_x + length * (lean.sin() * t + bend * t**2)  # [blades, points]
    y = foot_y - length * lean.cos() * t
    value = (shade * (0.45 + 0.55 * t)).long()
    order = torch.arange(BLADES)[:, None]
    painted = (order * 256 + value).flatten()  # the largest is the topmost blade, and carries its brightness
    field = torch.full((SIDE * SIDE,), SOIL)
    for width in (0, 1):  # px to the right: a blade is two pixels wide
        place = (y.floor().long() % SIDE) * SIDE + (x.floor().long() + width) % SIDE
        field = field.scatter_reduce(0, place.flatten(), painted, "amax")
    return (field % 256).view(SIDE, SIDE).to(torch.uint8)
