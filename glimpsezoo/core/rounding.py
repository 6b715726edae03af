"""How much rounding alone may change a rollout, measured on the model itself.

Batches of different sizes use different kernels, which round differently. Each step depends on the steps before it, so an ulp in the first
step may move the second and grow from step to step, by a factor that depends on the model and on the image. No constant fits every model
and every machine. The tolerance is a backward error instead: a run in floating point is the exact run of a model whose weights are a few
units of rounding away. So a difference counts as rounding if a model that is `UNITS` units away differs as much. Both runs are in float64.
"""

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel, State
from glimpsezoo.core.regions import Decision
from glimpsezoo.core.rollout import Record, Trace, rollout

FIRST = 64  # machine epsilons of the largest logit: the tolerance of the first step, which depends on no other
UNITS = 32  # machine epsilons by which weights, pixels and regressed places are moved; batches of trained models differ by 4 at most
PROBES = 4  # draws of the signs of these moves
TELLING = 1e-4  # of the largest logit: an image with a larger tolerance in float64 cannot show a fault


@dataclass(frozen=True)
class Tolerance:
    """How much rounding may change a rollout of B images in T steps.

    A tie is a step in which rounding decides which regions are chosen. From a tie on, tolerances are infinite.
    """

    logits: Float[Tensor, "B T"]
    """The largest absolute difference of a logit."""
    places: Float[Tensor, "B T"]
    """The largest difference of a region's centre (in [-1, 1]) and scale."""
    largest: Float[Tensor, "T"]
    """The largest absolute logit of each step."""

    @property
    def telling(self) -> int:
        """The number of images that could show a fault, in a run of the precision of this tolerance."""
        return int((self.logits <= TELLING * self.largest).all(1).sum())


def excess(one: Float[Tensor, "*n C"], other: Float[Tensor, "*n C"], allowed: Float[Tensor, "*n"]) -> float:
    """The largest difference of two tensors as a share of what is allowed. Rounding explains it if the share is at most 1.

    It is infinite if shapes or NaNs differ. An infinite tolerance allows anything.
    """
    if one.shape != other.shape:
        return math.inf
    gap = apart(one, other).amax(-1)
    share = torch.where((gap == 0) | allowed.isinf(), 0.0, gap / allowed.double())
    return share.max().item() if share.numel() else 0.0


def apart(one: Tensor, other: Tensor) -> Tensor:
    """The elementwise absolute difference of two tensors of the same shape; infinite where only one of them is NaN."""
    one, other = one.double(), other.double()
    same = (one == other) | (one.isnan() & other.isnan())
    return torch.where(same, 0.0, (one - other).abs()).nan_to_num(math.inf, math.inf)


@torch.no_grad()
def tolerance(
    model: GlimpseModel[Any],
    images: Float[Tensor, "B C H W"],
    noise: Noise | None = None,
    *,
    dtype: torch.dtype | None = None,
    probed_in: torch.dtype = torch.float64,
    probes: int = PROBES,
) -> Tolerance:
    """How much rounding to `dtype` (by default that of the images) may change a rollout of `model`, in eval mode, on `images`.

    noise: as in `rollout`. probed_in: the precision of the runs that are compared; in that of `dtype` they are quicker, and their own
    rounding adds a few of the `UNITS`. probes: how many draws of moves are tried. Raises whatever a model raises that cannot run in it.

    >>> import glimpsezoo as gz
    >>> model = gz.create_model("cnn4", task=gz.Task((28, 28), 1, ("odd", "even"))).eval()
    >>> images = torch.rand(6, 1, 28, 28)
    >>> alone, together = gz.rollout(model, images[:1]).logits, gz.rollout(model, images).logits
    >>> excess(alone, together[:1], tolerance(model, images).logits[:1, 0]) <= 1
    True
    """
    eps = torch.finfo(dtype or images.dtype).eps
    noise = Noise.of(0, torch.arange(len(images), device=images.device)) if noise is None else noise
    exact, images = deepcopy(model).to(probed_in), images.to(probed_in)
    signs = torch.Generator().manual_seed(0)
    whole = _run(deepcopy(exact), images, noise)  # copies, because a state that a model keeps between runs is not rounding
    logits, places = _floor(whole, eps)
    largest = whole.logits_by_step().abs().amax((0, 2))
    given = whole.looks[0].decision.made == "given"
    for _ in range(0 if given and whole.steps == 1 else probes):
        probe = _run(*_moved(exact, images, UNITS * eps, signs), noise, _off(UNITS * eps, signs))
        moved = _places_apart(whole, probe)
        tie = moved.isinf().cumsum(1) > 0
        here = apart(whole.logits_by_step(), probe.logits_by_step()).amax(2)
        if given:
            here[:, 0] = 0  # the first step depends on no other: FIRST bounds it, independently of the model's sensitivity
        logits = torch.maximum(logits, torch.where(tie, math.inf, here))
        places = torch.maximum(places, torch.where(tie, math.inf, moved))
    return Tolerance(logits, places, largest)


def _floor(trace: Trace, eps: float) -> tuple[Tensor, Tensor]:
    """The minimal tolerance of every step: `FIRST` roundings of the largest logit, and of the width of the image."""
    logits = trace.logits_by_step()
    largest = logits.abs().amax((0, 2)).expand(len(logits), -1)
    return FIRST * eps * largest, torch.full_like(largest, FIRST * eps)


def _run(model: GlimpseModel[Any], images: Tensor, noise: Noise, choose: Any = None) -> Trace:
    """A rollout with torch's generator in a fixed state, in case the model uses it."""
    with torch.random.fork_rng([images.device] if images.is_cuda else []):
        torch.manual_seed(0)
        return rollout(model, images, noise=noise, choose=choose, record=Record(every_step=True))


def _signs(like: Tensor, draw: torch.Generator) -> Tensor:
    return (torch.randint(0, 2, like.shape, generator=draw) * 2 - 1).to(like)


def _moved(model: GlimpseModel[Any], images: Tensor, size: float, draw: torch.Generator) -> tuple[GlimpseModel[Any], Tensor]:
    """A copy of the model with every weight moved by the share `size` of itself, and the images with every pixel moved by `size`."""
    model = deepcopy(model)
    for weight in model.parameters():
        weight.mul_(1 + size * _signs(weight, draw))
    return model, images + size * _signs(images, draw)


def _off(size: float, draw: torch.Generator) -> Any:
    """Move regressed places by `size`. Rounding does not move other places, which are given or drawn from a grid."""

    def choose(images: Tensor, state: State, decision: Decision) -> Decision:
        regions = decision.regions
        if decision.made != "regressed":
            return decision
        centre, scale = regions.centre + size * _signs(regions.centre, draw), regions.scale * (1 + size * _signs(regions.scale, draw))
        return replace(decision, regions=replace(regions, centre=centre, scale=scale))

    return choose


def _places_apart(one: Trace, other: Trace) -> Float[Tensor, "B T"]:
    """The largest distance between the regions of two traces, per image and step; infinite if their numbers or levels differ."""
    table = one.logits.new_zeros(len(one.logits), one.steps, dtype=torch.double)
    counts = one.regions_by_step() != other.regions_by_step()
    numbers = torch.arange(len(table), device=table.device)
    for step, looks in enumerate(zip(one.looks, other.looks, strict=False)):
        a, b = (region_table(look, numbers) for look in looks)
        agreed = ~counts[:, step]
        a, b = a[agreed[a[:, 0].long()]], b[agreed[b[:, 0].long()]]
        gap = torch.where(a[:, 1] == b[:, 1], (a[:, 2:] - b[:, 2:]).abs().amax(1), math.inf)
        table[:, step] = table[:, step].scatter_reduce(0, a[:, 0].long(), gap, "amax")
    return table.masked_fill(counts, math.inf)


def region_table(look: Any, numbers: Int[Tensor, "B"]) -> Float[Tensor, "N 5"]:
    """The regions of a step, one per row: image number, level, x, y, scale; sorted by image. numbers: [B] of the trace's images."""
    regions = look.decision.regions
    image = numbers[look.rows][regions.image]
    columns = [image[:, None], regions.level[:, None], regions.centre, regions.scale[:, None]]
    return torch.cat([column.double() for column in columns], 1)[image.argsort(stable=True)].detach()
