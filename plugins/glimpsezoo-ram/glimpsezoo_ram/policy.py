"""The Gaussian policy that RAM and DRAM share: places l = (x, y) in [-1, 1] around a mean, and how other policies place their looks.

A place belongs to one of K runs of an image, so draws, places and log-probabilities have an axis K. The noise of the first k runs is the
same for every K.
"""

from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal, Uniform

from glimpsezoo import Decision, GlimpseModel, Made, Noise, Regions, State
from glimpsezoo_ram.config import Bound, Decide

S = TypeVar("S", bound=State)


@dataclass(frozen=True, kw_only=True)
class Drawn(Decision):
    """A decision of the learned policy, with what training needs."""

    evidence: Float[Tensor, "B K width"]
    """What the places were chosen from: the baseline predicts the return from it."""


@dataclass(frozen=True)
class Placing:
    """How places become regions: the size of the images and of the widest patch, in px."""

    image_size: tuple[int, int]
    """(height, width)."""
    side: int

    @property
    def shift(self) -> tuple[float, float]:
        """l less the centre of its region, as (x, y) in [-1, 1].

        A patch covers [p - side // 2, p - side // 2 + side), where p is the pixel that contains l. If the side is even, its centre is
        the edge of this pixel, half a pixel before the middle of the places with this patch. So a region is exact to half a pixel.
        """
        height, width = self.image_size
        return (0.0, 0.0) if self.side % 2 else (1 / width, 1 / height)

    def regions(self, places: Float[Tensor, "B K 2"]) -> Regions:
        """One region for each of K places of every image."""
        batch, runs, _ = places.shape
        height, width = self.image_size
        centre, scale, ratio = places.flatten(0, 1) - places.new_tensor(self.shift), self.side / width, width / height
        if runs == 1:
            return Regions.one_each(centre, scale, ratio=ratio)
        image = torch.arange(batch, device=places.device).repeat_interleave(runs)  # [B K]
        return Regions(
            image=image,
            centre=centre,
            scale=centre.new_full((len(image),), scale),
            level=torch.zeros_like(image),
            parent=torch.full_like(image, -1),
            batch=batch,
            ratio=ratio,
        )

    def places(self, regions: Regions) -> Float[Tensor, "N 2"]:
        """l of every region."""
        return regions.centre + regions.centre.new_tensor(self.shift)


def first_decision(placing: Placing, noise: Noise, runs: int, decide: Decide, like: Tensor) -> Decision:
    """The first place, uniform in [-1, 1] x [-1, 1] (`sample`) or its mean (`mode`). like: a tensor with the dtype of the places."""
    batch, zero = len(noise.keys), like.new_zeros(())
    if decide == "mode":
        return Decision.certain(placing.regions(zero.expand(batch, runs, 2)), "mode")
    places = 2 * noise.uniform(0, 2 * runs).to(like).unflatten(1, (runs, 2)) - 1
    return _decision(placing, places, places, Uniform(zero - 1, zero + 1, validate_args=False), "sampled")


def gaussian_decision(
    placing: Placing, state: State, evidence: Tensor, chosen: Normal, decide: Decide, *, stopped: bool, bound: Bound = "clamp"
) -> Drawn:
    """Places [B, K, 2] drawn from `chosen`, or its means, brought to [-1, 1] by `bound`. The draw that is scored is not bounded.

    evidence: what `chosen` was made from. stopped: no gradient passes through the places.
    """

    def bounded(places: Tensor) -> Tensor:
        return places.tanh() if bound == "tanh" else places.clamp(-1, 1)

    if decide == "mode":
        decision = Decision.certain(placing.regions(bounded(chosen.mean)), "mode")
    else:
        draw = state.noise.normal(state.step, chosen.mean[0].numel()).to(chosen.mean).view_as(chosen.mean)
        places = chosen.mean + chosen.stddev * draw
        decision = _decision(placing, bounded(places), places.detach(), chosen, "sampled")
    regions = decision.regions.detached() if stopped else decision.regions
    return Drawn(regions=regions, made=decision.made, log_prob=decision.log_prob, entropy=decision.entropy, evidence=evidence)


def _decision(placing: Placing, places: Tensor, scored: Tensor, distribution: Normal | Uniform, made: Made) -> Decision:
    entropy = distribution.entropy().expand_as(places).sum((1, 2))
    return Decision(
        regions=placing.regions(places), made=made, log_prob=distribution.log_prob(scored).sum((1, 2)), entropy=entropy.to(places)
    )


def given_decision(placing: Placing, place: Float[Tensor, "B 2"], runs: int, made: Made) -> Decision:
    """Patches in the middle of `place` (x, y) in [0, 1] of the image, the same for all runs of an image."""
    places = 2 * place - 1 + place.new_tensor(placing.shift)
    return Decision.certain(placing.regions(places[:, None].expand(-1, runs, -1)), made)


class InRuns(GlimpseModel[S]):
    """A model that runs K times on each image in testing, with a Gaussian policy."""

    placing: Placing

    @property
    def runs(self) -> int:
        """K, the runs per image: in training, copies of the images take their place."""
        return 1 if self.training else self.config.evaluations

    @property
    def _decide(self) -> Decide:
        """The mode has no gradient, so training draws."""
        return "sample" if self.training else self.config.decide

    def random_look(self, state: S) -> Decision:
        """Places drawn uniformly over the image for every run."""
        places = 2 * state.noise.uniform(state.step, 2 * self.runs).unflatten(1, (self.runs, 2)) - 1
        return Decision.certain(self.placing.regions(places), "sampled")
