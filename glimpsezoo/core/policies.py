"""Trivial policies: where a model looks if it has learned nothing about where to look. A learned policy is compared with them."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.core.noise import Noise

Policy = Literal["learned", "random", "centre", "scan"]


def trivial_centres(policy: Policy, noise: Noise, step: int, looks: int) -> Float[Tensor, "B 2"]:
    """Places (x, y) in [0, 1] x [0, 1] of the range that a model can look at, for the decision made after `step`.

    random: uniform, from the images' noise. centre: the middle. scan: the cell centres of the smallest square grid with at least
    `looks` cells, from left to right and top to bottom; `step` 1 takes the first cell.
    Raises `ValueError` for 'learned', which is up to the model.
    """
    batch, device = len(noise.keys), noise.keys.device
    if policy == "random":
        return noise.uniform(step, 2)
    if policy == "centre":
        return torch.full((batch, 2), 0.5, device=device)
    if policy != "scan":
        raise ValueError(f"expected a trivial policy (random, centre or scan), got {policy!r}")
    side = math.ceil(math.sqrt(looks))
    row, column = divmod((step - 1) % (side * side), side)
    return torch.tensor([(column + 0.5) / side, (row + 0.5) / side], device=device).expand(batch, 2)
