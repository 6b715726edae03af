"""Checks of autograd's gradient, per image: its derivatives against finite differences, and whether it passes through the locator.

Everything runs in float64 on a copy of the model, at points inside (0, 1) whose pixels all differ: on a constant background,
max-pooling has no derivative.
"""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from glimpsezoo.conditions.attacks.victim import Victim, margin
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.rollout import Trace

DIRECTIONS = 4  # per image
STEP = 1e-5  # of a finite difference along a direction of length 1: rounding errors are about 1e-10, and few kinks are that close
RESOLVED = 1e-8  # smaller derivatives are indistinguishable from rounding errors
SPREAD = 4 / 255  # of the noise that makes pixels differ; smaller than an attack's changes
LOOK = (1.0, 0.6, 0.3)  # weights of x, y and scale in the number that summarises an image's regions

Function = Callable[[Tensor], Tensor]  # images [B, C, H, W] -> one number per image [B]


def exact(victim: Victim) -> Victim:
    """A copy of the victim in float64. Raises whatever a model raises that cannot run in float64."""
    model = copy.deepcopy(victim.model).double().eval()
    twin = replace(victim, model=model, images=victim.images.double(), scan=None).prepared()
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


def slope(function: Function, points: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Autograd's gradient of `function`; zero if it finds no dependence on the points."""
    with torch.enable_grad():
        given = points.detach().requires_grad_()
        value = function(given)
        found = torch.autograd.grad(value.sum(), given, allow_unused=True)[0] if value.requires_grad else None
    return torch.zeros_like(points) if found is None else found


def errors(function: Function, points: Float[Tensor, "B C H W"], noise: Noise) -> Float[Tensor, "B"]:
    """How far autograd's derivatives of `function` are from central differences along random directions, as a share of these.

    Per image, the median distance over the median absolute difference. NaN for an image around which the function does not change.
    """
    gradient = slope(function, points)
    by_autograd, by_difference = [], []
    for number in range(DIRECTIONS):
        way = torch.special.ndtri(noise.uniform(1 + number, points[0].numel()).to(points))
        way = (way / way.norm(dim=1, keepdim=True)).view_as(points)
        by_autograd.append((gradient * way).flatten(1).sum(1))
        with torch.no_grad():
            by_difference.append((function(points + STEP * way) - function(points - STEP * way)) / (2 * STEP))
    autograd, difference = torch.stack(by_autograd), torch.stack(by_difference)  # [K, B]
    size = difference.abs().median(0).values
    return torch.where(size > RESOLVED, (autograd - difference).abs().median(0).values / size, torch.nan)


def reached(victim: Victim, points: Float[Tensor, "B C H W"]) -> tuple[Bool[Tensor, "B"], Bool[Tensor, "B"]]:
    """Which images' gradient passes through the locator, that is, changes if the regions are held fixed; and which take a second step."""
    frozen = replace(victim, images=points, path="frozen", scan=None).prepared()
    free, given = (slope(margins(one), points).flatten(1) for one in (victim, frozen))
    passes = (free - given).norm(dim=1) > RESOLVED * free.norm(dim=1)
    return passes, victim.trace(points).last_step > 1
