"""What rounding alone may change in a rollout, measured on the model itself.

Batches of other sizes take other kernels, and these round differently. Looks feed on looks, so what is an ulp at the first look may move
the second and grow from step to step, by a factor that belongs to the model and to the image. No constant is right for every model and
every machine. The tolerance is a backward error instead: a run in floating point is the exact run of a model that is a few units of
rounding away, so a difference is rounding if a model that is `UNITS` of them away differs as much. Both runs are made in float64.
"""

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.driver import Record, Trace, rollout
from glimpsezoo.noise import Noise
from glimpsezoo.protocol import GlimpseModel, State
from glimpsezoo.regions import Decision

FIRST = 64  # machine epsilons, of the largest logit: the first look feeds on none before it
UNITS = 32  # machine epsilons by which weights, pixels and regressed places are off; batches of trained models differ as if by 4 at most
PROBES = 4  # draws of the signs of these
TELLING = 1e-4  # of the largest logit: an image whose tolerance in float64 is above that tells nothing


@dataclass(frozen=True)
class Tolerance:
    """By how much rounding may move a rollout of B images in T steps.

    logits: [B, T], absolute. places: [B, T], of a region's centre and scale, in [-1, 1]. Both are infinite from the step on at which
    rounding decides which regions are looked at: a tie. largest: [T], the largest absolute logit of each step.
    """

    logits: Float[Tensor, "B T"]
    places: Float[Tensor, "B T"]
    largest: Float[Tensor, "T"]

    @property
    def telling(self) -> int:
        """How many images a fault could be seen on, in a run as precise as this tolerance is for."""
        return int((self.logits <= TELLING * self.largest).all(1).sum())


def excess(one: Float[Tensor, "*n C"], other: Float[Tensor, "*n C"], allowed: Float[Tensor, "*n"]) -> float:
    """The largest difference of two tensors as a share of what is allowed: rounding explains them up to 1.

    Infinite where shapes or NaNs differ. An infinite tolerance allows anything.
    """
    if one.shape != other.shape:
        return math.inf
    gap = apart(one, other).amax(-1)
    share = torch.where((gap == 0) | allowed.isinf(), 0.0, gap / allowed.double())
    return share.max().item() if share.numel() else 0.0


def apart(one: Tensor, other: Tensor) -> Tensor:
    """The absolute difference of two tensors of one shape, element by element; infinite where only one is NaN."""
    one, other = one.double(), other.double()
    same = (one == other) | (one.isnan() & other.isnan())
    return torch.where(same, 0.0, (one - other).abs()).nan_to_num(math.inf, math.inf)


@torch.no_grad()
def tolerance(
    model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], noise: Noise | None = None, *, dtype: torch.dtype | None = None
) -> Tolerance:
    """What rounding to `dtype` (the images' own by default) may change when `model`, in eval mode, looks at `images`.

    noise: as in `rollout`. Raises whatever a model raises that does not run in double precision.

    >>> import glimpsezoo as gz
    >>> model = gz.create_model("cnn4", task=gz.Task((28, 28), 1, ("odd", "even"))).eval()
    >>> images = torch.rand(6, 1, 28, 28)
    >>> alone, together = gz.rollout(model, images[:1]).logits, gz.rollout(model, images).logits
    >>> excess(alone, together[:1], tolerance(model, images).logits[:1, 0]) <= 1
    True
    """
    eps = torch.finfo(dtype or images.dtype).eps
    noise = Noise.of(0, torch.arange(len(images), device=images.device)) if noise is None else noise
    exact = deepcopy(model).double()
    signs = torch.Generator().manual_seed(0)
    whole = _run(deepcopy(exact), images.double(), noise)  # a copy each: what a model keeps from run to run is no rounding
    logits, places = _floor(whole, eps)
    largest = whole.logits_by_step().abs().amax((0, 2))
    for _ in range(PROBES):
        probe = _run(*_moved(exact, images.double(), UNITS * eps, signs), noise, _off(UNITS * eps, signs))
        moved = _places_apart(whole, probe)
        tie = moved.isinf().cumsum(1) > 0
        here = apart(whole.logits_by_step(), probe.logits_by_step()).amax(2)
        if whole.looks[0].decision.made == "given":
            here[:, 0] = 0  # feeds on no look: bounded by FIRST, whatever the model's own sensitivity
        logits = torch.maximum(logits, torch.where(tie, math.inf, here))
        places = torch.maximum(places, torch.where(tie, math.inf, moved))
    return Tolerance(logits, places, largest)


def _floor(trace: Trace, eps: float) -> tuple[Tensor, Tensor]:
    """What every step may be off by, sensitive or not: `FIRST` roundings of the largest logit, and of the width of the image."""
    logits = trace.logits_by_step()
    largest = logits.abs().amax((0, 2)).expand(len(logits), -1)
    return FIRST * eps * largest, torch.full_like(largest, FIRST * eps)


def _run(model: GlimpseModel[Any], images: Tensor, noise: Noise, choose: Any = None) -> Trace:
    """A rollout that draws the same as every other one from torch's generator, if it does."""
    with torch.random.fork_rng([images.device] if images.is_cuda else []):
        torch.manual_seed(0)
        return rollout(model, images, noise=noise, choose=choose, record=Record(every_step=True))


def _signs(like: Tensor, draw: torch.Generator) -> Tensor:
    return (torch.randint(0, 2, like.shape, generator=draw) * 2 - 1).to(like)


def _moved(model: GlimpseModel[Any], images: Tensor, size: float, draw: torch.Generator) -> tuple[GlimpseModel[Any], Tensor]:
    """A copy of the model with every weight off by `size` of itself, and the images with every pixel off by `size`."""
    model = deepcopy(model)
    for weight in model.parameters():
        weight.mul_(1 + size * _signs(weight, draw))
    return model, images + size * _signs(images, draw)


def _off(size: float, draw: torch.Generator) -> Any:
    """Moves regressed places by `size`. Others (given, drawn from a grid) are no numbers that rounding moves."""

    def choose(images: Tensor, state: State, decision: Decision) -> Decision:
        regions = decision.regions
        if decision.made != "regressed":
            return decision
        centre, scale = regions.centre + size * _signs(regions.centre, draw), regions.scale * (1 + size * _signs(regions.scale, draw))
        return replace(decision, regions=replace(regions, centre=centre, scale=scale))

    return choose


def _places_apart(one: Trace, other: Trace) -> Float[Tensor, "B T"]:
    """How far the regions of each image and step are apart; infinite where they are not as many or of other levels."""
    table = one.logits.new_zeros(len(one.logits), one.steps, dtype=torch.double)
    counts = one.regions_by_step() != other.regions_by_step()
    numbers = torch.arange(len(table), device=table.device)
    for step, looks in enumerate(zip(one.looks, other.looks, strict=False)):
        a, b = (places(look, numbers) for look in looks)
        agreed = ~counts[:, step]
        a, b = a[agreed[a[:, 0].long()]], b[agreed[b[:, 0].long()]]
        gap = torch.where(a[:, 1] == b[:, 1], (a[:, 2:] - b[:, 2:]).abs().amax(1), math.inf)
        table[:, step] = table[:, step].scatter_reduce(0, a[:, 0].long(), gap, "amax")
    return table.masked_fill(counts, math.inf)


def places(look: Any, numbers: Int[Tensor, "B"]) -> Float[Tensor, "N 5"]:
    """Where a look went, a row a region: the image's number, level, x, y, scale; ordered by image. numbers: [B] of the trace's images."""
    regions = look.decision.regions
    image = numbers[look.rows][regions.image]
    columns = [image[:, None], regions.level[:, None], regions.centre, regions.scale[:, None]]
    return torch.cat([column.double() for column in columns], 1)[image.argsort(stable=True)].detach()
