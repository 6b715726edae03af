"""Attacks on where a model looks: glimpses far from those of the clean image, or all in one quarter of it.

Both aim at the glimpses, not at the label: the accuracy under them shows what the remaining glimpses are worth. `moved` and `kept` measure
their effect, with the noise of measured runs, for any model that chooses where it looks.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from glimpsezoo.conditions.attacks.aimed import Aimed
from glimpsezoo.conditions.attacks.settings import LooksSettings, TunnelSettings
from glimpsezoo.conditions.attacks.victim import Objective, Victim
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import Trace
from glimpsezoo.errors import GlimpseZooError

L = TypeVar("L", bound=LooksSettings)
Corner = tuple[float, float]
QUARTERS: dict[str, Corner] = {  # the signs of x and y within each
    "top-left": (-1, -1),
    "top-right": (1, -1),
    "bottom-left": (-1, 1),
    "bottom-right": (1, 1),
}
WELL_INSIDE = 0.1  # how far the tunnel pulls a glimpse beyond the border, so that it is not lost by rounding


def locates(model: GlimpseModel[Any]) -> bool:
    """Whether a model chooses where it looks by what it sees."""
    return model.steps > 1 and model.policy == "learned"


def check_locates(attack: str, model: GlimpseModel[Any]) -> None:
    """Raise `GlimpseZooError` for a model that does not choose where it looks."""
    if locates(model):
        return
    got = "one of a single step" if model.steps == 1 else f"the policy {model.policy!r}"
    raise GlimpseZooError(f"{attack}: expected a model that chooses where it looks by what it sees, got {got}: leave this attack out")


class _LooksAttack(Aimed[L]):
    aims_at_looks = True

    def check(self, model: GlimpseModel[Any]) -> None:
        check_locates(self.name, model)
        super().check(model)


class Distract(_LooksAttack[LooksSettings]):
    """PGD that moves the glimpses away from those of the clean image. It keeps the iterate whose glimpses have moved furthest.

    Threat model: Linf or L2 of length eps. The attacker knows the model, and needs no label. The measured run chooses its own glimpses.
    """

    name = "distract"

    def objectives(self, model: GlimpseModel[Any]) -> Sequence[Objective]:
        return (_away,)

    def passes(self, model: GlimpseModel[Any], number: int = 0) -> float:
        return super().passes(model, number) * 4 / 3  # the clean run is repeated beside each gradient


class Tunnel(_LooksAttack[TunnelSettings]):
    """PGD that pulls every glimpse after the first into one quarter of the image. It keeps the iterate with the most glimpses there.

    Threat model: as `Distract`. With `quarter=any`, it tries all four, and the best counts per image.
    """

    name = "tunnel"

    def objectives(self, model: GlimpseModel[Any]) -> Sequence[Objective]:
        own = self.settings.quarter
        return [_into(corner) for name, corner in QUARTERS.items() if own in ("any", name)]


def mean_centres(trace: Trace) -> tuple[Float[Tensor, "B T 2"], Bool[Tensor, "B T"]]:
    """The mean centre of the glimpses of each step, as (x, y) in [-1, 1], and whether there was one."""
    batch, centres, seen = len(trace.logits), list[Tensor](), list[Tensor]()
    for look in trace.looks:
        regions = look.decision.regions
        row = look.rows[regions.image]  # [N]
        count = regions.centre.new_zeros(batch).index_add(0, row, torch.ones_like(regions.scale))
        centres.append(regions.centre.new_zeros(batch, 2).index_add(0, row, regions.centre) / count.clamp(min=1)[:, None])
        seen.append(count > 0)
    rest = trace.steps - len(seen)  # steps that no image took
    centres += [torch.zeros_like(centres[0])] * rest
    seen += [torch.zeros_like(seen[0])] * rest
    return torch.stack(centres, 1), torch.stack(seen, 1)


def moved(trace: Trace, clean: Trace) -> Float[Tensor, "B"]:
    """How far the glimpses lie from those of the clean run, in sides of the image (at most 1.41), as a mean over steps after the first.

    It compares the mean centres of the steps that both runs took; it is 0 if there is none.
    """
    squared, both = _distances(trace, clean)
    return _mean(squared.sqrt(), both)


def kept(trace: Trace, corner: Corner) -> Float[Tensor, "B"]:
    """The share of an image's glimpses after the first whose centre lies within a quarter; 0 if there is none."""
    image, centre = _glimpses(trace)
    inside = (centre * centre.new_tensor(corner) > 0).all(1).to(centre)
    return _by_image(inside, image, len(trace.logits))


def most_kept(trace: Trace) -> Float[Tensor, "B"]:
    """The share in the quarter that has the most glimpses of an image."""
    return torch.stack([kept(trace, corner) for corner in QUARTERS.values()]).amax(0)


def _away(victim: Victim, images: Tensor, run: int) -> tuple[Tensor, Tensor]:
    """The squared distance, which has a gradient at 0; success is the distance."""
    with torch.no_grad():
        clean = victim.trace(victim.images, run)
    trace = victim.trace(images, run)
    squared, both = _distances(trace, clean)
    return _mean(squared, both), moved(trace, clean).detach()


def _into(corner: Corner) -> Objective:
    """Minus the squared distance of the glimpses to the quarter; success is the share within it."""

    def objective(victim: Victim, images: Tensor, run: int) -> tuple[Tensor, Tensor]:
        trace = victim.trace(images, run)
        image, centre = _glimpses(trace)
        outside = (WELL_INSIDE - centre * centre.new_tensor(corner)).clamp(min=0)  # [N, 2]
        return -_by_image(outside.square().sum(1), image, len(images)), kept(trace, corner).detach()

    return objective


def _distances(trace: Trace, clean: Trace) -> tuple[Float[Tensor, "B t"], Bool[Tensor, "B t"]]:
    """Squared, in sides of the image, at each step after the first, and whether both runs took it."""
    (there, ours), (before, theirs) = mean_centres(trace), mean_centres(clean)
    return ((there - before) / 2).square().sum(2)[:, 1:], (ours & theirs)[:, 1:]  # a side is 2 long


def _mean(values: Float[Tensor, "B t"], mask: Bool[Tensor, "B t"]) -> Float[Tensor, "B"]:
    return (values * mask).sum(1) / mask.sum(1).clamp(min=1)


def _glimpses(trace: Trace) -> tuple[Tensor, Tensor]:
    """Of all N glimpses after the first step: the row of the image [N], and the centre [N, 2]."""
    first = trace.looks[0]
    image, centre = [first.rows[:0]], [first.decision.regions.centre[:0]]
    for look in trace.looks[1:]:
        image.append(look.rows[look.decision.regions.image])
        centre.append(look.decision.regions.centre)
    return torch.cat(image), torch.cat(centre)


def _by_image(values: Float[Tensor, "N"], image: Tensor, batch: int) -> Float[Tensor, "B"]:
    """The mean of each image's values; 0 for none."""
    total, count = (values.new_zeros(batch).index_add(0, image, each) for each in (values, torch.ones_like(values)))
    return total / count.clamp(min=1)
