"""Checks of autograd's gradient: its derivatives against finite differences, and whether it passes through the locator.

Everything runs in float64 on a copy of the model, at points inside (0, 1) whose pixels all differ: on a constant background,
max-pooling has no derivative.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.conditions.attacks.victim import Objective, Victim, margin, probe
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.rollout import Trace

DIRECTIONS = 4  # per image
STEP = 1e-5  # of a finite difference along a direction of length 1: rounding errors are about 1e-10, and few kinks are that close
RESOLVED = 1e-8  # smaller derivatives are indistinguishable from rounding errors
SPREAD = 4 / 255  # of the noise that makes pixels differ; smaller than an attack's changes
LOOK = (1.0, 0.6, 0.3)  # weights of x, y and scale in the number that summarises an image's regions


@dataclass(frozen=True)
class Derivatives:
    """Autograd's derivatives against finite differences, over the pairs (image, direction) where the function changes.

    Without such pairs, all values but `pairs` are None.
    """

    pairs: int
    """Number of pairs."""
    zero: float | None
    """Share of their images for which all of autograd's derivatives are 0."""
    factor: float | None
    """Median ratio of autograd's derivative to the finite difference."""
    error: float | None
    """Median distance of the two, over the median absolute finite difference."""


Function = Callable[[Tensor], Tensor]  # images [B, C, H, W] -> one number per image [B]


def exact(victim: Victim) -> Victim:
    """A copy of the victim in float64. Raises whatever a model raises that cannot run in float64."""
    model = copy.deepcopy(victim.model).double().eval()
    twin = replace(victim, model=model, images=victim.images.double(), path=None).prepared()
    twin.logits(twin.images[:1].expand_as(twin.images))
    return twin


def inner_points(images: Float[Tensor, "B C H W"], noise: Noise) -> Float[Tensor, "B C H W"]:
    """Points near the images, inside (0, 1), with all pixels different."""
    draws = noise.uniform(0, images[0].numel()).to(images).view_as(images)
    return images * (1 - SPREAD) + SPREAD * draws


def margins(victim: Victim) -> Function:
    """The margin of the last prediction. Unlike the cross entropy, it does not saturate with confidence."""
    return lambda images: margin(victim.logits(images), victim.labels)


def looks(victim: Victim) -> Function | None:
    """Where the model looks, as one number per image: the weighted centres and scales of all regressed regions. None without such regions.

    A hard choice with a surrogate gradient makes all later derivatives differ from the function's. Such models are compared at their first
    regressed step only, if no choice precedes it.
    """
    trace = victim.trace(victim.images)
    places = [step for step, look in enumerate(trace.looks) if look.decision.made == "regressed"]
    if victim.model.surrogate is not None:
        places = [step for step in places[:1] if all(look.decision.made == "given" for look in trace.looks[:step])]
    if not places:
        return None
    return lambda images: _regions(victim.trace(images), places)


def _regions(trace: Trace, places: list[int]) -> Float[Tensor, "B"]:
    total = torch.zeros_like(trace.logits[:, 0])
    for step in places:
        look = trace.looks[step]
        regions = look.decision.regions
        numbers = torch.cat([regions.centre, regions.scale[:, None]], 1) @ regions.centre.new_tensor(LOOK)  # [N]
        total = total.index_add(0, look.rows[regions.image], numbers / (step + 1))
    return total


def compare(function: Function, points: Float[Tensor, "B C H W"], noise: Noise) -> Derivatives:
    """Derivatives of `function` at `points` along random directions of length 1, by autograd and by central differences."""
    with torch.enable_grad():
        given = points.detach().requires_grad_()
        value = function(given)
        slope = torch.autograd.grad(value.sum(), given, allow_unused=True)[0] if value.requires_grad else None
    gradient = torch.zeros_like(points) if slope is None else slope
    by_autograd, by_difference = [], []
    for number in range(DIRECTIONS):
        way = torch.special.ndtri(noise.uniform(1 + number, points[0].numel()).to(points))
        way = (way / way.norm(dim=1, keepdim=True)).view_as(points)
        by_autograd.append((gradient * way).flatten(1).sum(1))
        with torch.no_grad():
            by_difference.append((function(points + STEP * way) - function(points - STEP * way)) / (2 * STEP))
    return _summary(torch.stack(by_autograd), torch.stack(by_difference))


def _summary(autograd: Float[Tensor, "K B"], difference: Float[Tensor, "K B"]) -> Derivatives:
    changes = difference.abs() > RESOLVED
    if not changes.any():
        return Derivatives(0, None, None, None)
    images = changes.any(0)
    zero = (autograd == 0).all(0)[images].double().mean().item()
    a, d = autograd[changes], difference[changes]
    return Derivatives(len(a), zero, (a / d).median().item(), ((a - d).abs().median() / d.abs().median()).item())


def reached(victim: Victim, points: Float[Tensor, "B C H W"]) -> float | None:
    """Share of the images whose gradient passes through the locator: it changes if the regions are held fixed.

    Only images with more than one step count; None if there are none.
    """
    frozen = replace(victim, images=points, frozen=True, path=None).prepared()
    slopes = []
    for one in (victim, frozen):
        with torch.enable_grad():
            given = points.detach().requires_grad_()
            value = margins(one)(given)
            slope = torch.autograd.grad(value.sum(), given, allow_unused=True)[0] if value.requires_grad else None
        slopes.append((torch.zeros_like(points) if slope is None else slope).flatten(1))
    again = victim.trace(points).last_step > 1
    if not again.any():
        return None
    free, given = slopes
    passes = (free - given).norm(dim=1) > RESOLVED * free.norm(dim=1)
    return passes[again].double().mean().item()


def vanishing(victim: Victim, noise: Noise, loss: Objective) -> float:
    """Share of the images where the attack's `loss` has a zero gradient as computed, although the margin changes nearby."""
    flat = probe(victim, victim.images, loss).gradient.flatten(1).abs().amax(1) == 0
    changes = margins(victim)(victim.images) != margins(victim)(inner_points(victim.images, noise))
    return (flat & changes).double().mean().item()
