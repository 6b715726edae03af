"""The budget as a ball around each image: random starts, steps and projections in Linf and L2."""

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.conditions.attacks.settings import Norm
from glimpsezoo.core.noise import Noise

_TINY = 1e-12


def lengths(delta: Float[Tensor, "B C H W"], norm: Norm) -> Float[Tensor, "B 1 1 1"]:
    """The norm of each image's change."""
    flat = delta.flatten(1)
    size = flat.abs().amax(1) if norm == "Linf" else flat.square().sum(1).sqrt()
    return size[:, None, None, None]


def direction(gradient: Float[Tensor, "B C H W"], norm: Norm) -> Float[Tensor, "B C H W"]:
    """The steepest change of length 1: the sign in Linf, the unit vector in L2. It is zero where the gradient is zero."""
    return gradient.sign() if norm == "Linf" else gradient / lengths(gradient, "L2").clamp(min=_TINY)


def project(images: Float[Tensor, "B C H W"], clean: Float[Tensor, "B C H W"], norm: Norm, eps: float) -> Float[Tensor, "B C H W"]:
    """Project into the ball of radius `eps` around the clean images, then clip to [0, 1]. Clipping never leaves the ball."""
    delta = images - clean
    delta = delta.clamp(-eps, eps) if norm == "Linf" else delta * (eps / lengths(delta, "L2").clamp(min=_TINY)).clamp(max=1)
    return (clean + delta).clamp(0, 1)


def random_start(clean: Float[Tensor, "B C H W"], norm: Norm, eps: float, noise: Noise, *, step: int = 0) -> Float[Tensor, "B C H W"]:
    """Draw uniformly from the ball around the clean images, then clip to [0, 1]."""
    pixels = clean[0].numel()
    draws = noise.uniform(step, pixels + 1)
    if norm == "Linf":
        delta = (2 * draws[:, :pixels] - 1) * eps
    else:  # a uniform direction, and a radius with density proportional to the surface of its sphere
        way = torch.special.ndtri(draws[:, :pixels].double())
        delta = way / way.norm(dim=1, keepdim=True) * eps * draws[:, pixels:].double() ** (1 / pixels)
    return (clean + delta.to(clean).view_as(clean)).clamp(0, 1)
