"""A field of grass, drawn blade by blade: the background of `textured-mnist`.

It replaces the photograph from which the paper cuts its backgrounds, because that is not available.
"""

from functools import lru_cache

import torch
from jaxtyping import UInt8
from torch import Tensor

from glimpsezoo.core.noise import Noise

SIDE = 512  # px; the field repeats at its edges
BLADES = 9000
POINTS = 48  # along a blade: more than its largest length in px, so that it has no gaps
SOIL = 20  # brightness without a blade, of 255


@lru_cache(maxsize=4)
def grass(seed: int) -> UInt8[Tensor, "512 512"]:
    """The field for a seed, with brightness in 0..255 (at most 70 % of white, so that a white digit stands out).

    Blades grow upwards from random places, lean and bend at random, and are dark at the foot and bright at the tip. Later blades cover
    earlier ones.
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
    painted = (order * 256 + value).flatten()  # the largest belongs to the topmost blade and contains its brightness
    field = torch.full((SIDE * SIDE,), SOIL)
    for width in (0, 1):  # px to the right: a blade is two pixels wide
        place = (y.floor().long() % SIDE) * SIDE + (x.floor().long() + width) % SIDE
        field = field.scatter_reduce(0, place.flatten(), painted, "amax")
    return (field % 256).view(SIDE, SIDE).to(torch.uint8)
