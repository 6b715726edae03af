"""Policies that need no training: where a model looks if its own locator is not asked. A learned policy is compared with them.

They follow one of three rules, which their docstrings say exactly:
- a rule that sees nothing: `Random`, `Centre`, `Scan`, `Whole`, `WholeThenRandom`, `CoarseToFine`, `FineToCoarse`;
- the image: `Saliency`;
- the model: `LowestEntropy` tries every candidate, and so does `Oracle`, which reads the label and is an upper bound.

Places are those of `GlimpseModel.look_at`. If a model sees something of the image in its first step, this step is the model's own (those
that need a model which chooses sizes choose it as well). What a policy computes is charged like a locator.
"""

import math
from abc import abstractmethod
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel, Policy, State
from glimpsezoo.core.regions import Decision, Regions
from glimpsezoo.errors import GlimpseZooError

SEARCHED = 3  # side of the grid of candidates that are tried
LOOKED_OVER = 7  # side of the grid of candidates that are only compared in a map
NEARLY = 0.999  # a place on the edge of a region counts as outside, despite rounding
SAMPLED = 5  # side of the grid of points at which a map is read within a region


def cells(side: int, like: Tensor) -> Float[Tensor, "cells 2"]:
    """The centres (x, y) of the cells of a square grid over [0, 1] x [0, 1], from left to right and top to bottom."""
    axis = (torch.arange(side, device=like.device) + 0.5) / side
    return torch.cartesian_prod(axis, axis).flip(1)


class _Placing(Policy):
    """A policy that leaves the first step to a model that sees something in it."""

    def decide(self, model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], state: State, own: Decision | None) -> Decision:
        if state.step >= model.first_choice:
            return self.look(model, images, state, own)
        assert own is not None  # because this is the first step
        return own

    @abstractmethod
    def look(self, model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], state: State, own: Decision | None) -> Decision:
        """The decision, at any step at which the model has a choice."""


class Random(_Placing):
    """One place per image and step, uniform over the range, from the images' noise; what a model says otherwise in `random_look`."""

    name, stochastic = "random", True

    def look(self, model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], state: State, own: Decision | None) -> Decision:
        return model.random_look(state)


class Centre(_Placing):
    """The middle of the range, at every step."""

    name = "centre"

    def look(self, model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], state: State, own: Decision | None) -> Decision:
        return model.look_at(state, torch.full((len(images), 2), 0.5, device=images.device))


class Scan(_Placing):
    """The cell centres of the smallest square grid with a cell per look, from left to right and top to bottom, then again from the first.

    A model whose regions divide into a `grid` has as many cells as this has.
    """

    name = "scan"

    def look(self, model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], state: State, own: Decision | None) -> Decision:
        first = model.first_choice
        side = model.grid or math.ceil(math.sqrt(model.steps - first))
        row, column = divmod((state.step - first) % (side * side), side)
        place = torch.tensor([(column + 0.5) / side, (row + 0.5) / side], device=images.device)
        return model.look_at(state, place.expand(len(images), 2))


class WholeThenRandom(_Placing):
    """The whole image, then random places in random sizes (F-IID of Berreby et al., "CanViT", 2026, sections 5.2 and 6).

    A place and its size are drawn by the model's `random_zoom`. A model whose regions have one size looks as under `random`.
    """

    name, stochastic = "whole-then-random", True

    def obstacle(self, model: GlimpseModel[Any]) -> str:
        cannot = model.first_choice == 0 and model.sizes is None
        return super().obstacle(model) or ("it cannot look at the whole image" if cannot else "")

    def look(self, model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], state: State, own: Decision | None) -> Decision:
        if state.step == 0:
            place = torch.full((len(images), 2), 0.5, device=images.device)
            return model.look_at(state, place, torch.ones_like(place[:, 0]))
        return model.random_look(state) if model.sizes is None else model.random_zoom(state)


class _Sized(Policy):
    """A policy for models that choose the size of their regions. All steps follow it, the first one included."""

    def obstacle(self, model: GlimpseModel[Any]) -> str:
        return super().obstacle(model) or ("it does not choose the size of its regions" if model.sizes is None else "")


class Whole(_Sized):
    """The whole image at every step: further steps without further input (RFS of "CanViT", section 6)."""

    name = "whole"

    def decide(self, model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], state: State, own: Decision | None) -> Decision:
        place = torch.full((len(images), 2), 0.5, device=images.device)
        return model.look_at(state, place, torch.ones_like(place[:, 0]))


class CoarseToFine(_Sized):
    """The tiles of a quadtree, level after level: the whole image, its quarters, its sixteenths (C2F of "CanViT", appendix D.1).

    Level l tiles the image with 2^l x 2^l regions of the scale 2^-l. There are as many levels as the steps of the model need. Each image
    has its own random order of the tiles of a level, from its noise.
    """

    name, stochastic = "coarse-to-fine", True
    backwards = False
    """Whether the last level comes first."""

    def decide(self, model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], state: State, own: Decision | None) -> Decision:
        levels = quadtree_levels(model.steps)
        before = 0
        for level in reversed(levels) if self.backwards else levels:
            if state.step < before + 4**level:
                break
            before += 4**level
        side = 2**level
        order = state.noise.fork(level).uniform(0, side * side).argsort(1)  # [B, tiles]
        tile = order[:, state.step - before]
        place = torch.stack([tile % side, tile.div(side, rounding_mode="floor")], 1) / max(1, side - 1)  # [B, 2]
        if level == 0:
            place = place + 0.5
        return model.look_at(state, place, place.new_full((len(place),), 1 / side), "sampled" if level else "given")


class FineToCoarse(CoarseToFine):
    """The tiles of `CoarseToFine` from the last level to the first, so that only the order differs (F2C of "CanViT", appendix D.1)."""

    name = "fine-to-coarse"
    backwards = True


def quadtree_levels(looks: int) -> range:
    """The levels of 1, 4, 16, ... tiles that have this many tiles in all.

    >>> list(quadtree_levels(1)), list(quadtree_levels(5)), list(quadtree_levels(6))
    ([0], [0, 1], [0, 1, 2])
    """
    levels = 1
    while (4**levels - 1) // 3 < looks:
        levels += 1
    return range(levels)


class Saliency(_Placing):
    """The most salient of 49 places, then the next one, outside of the regions looked at (after Itti, Koch & Niebur, PAMI 1998).

    The saliency of a region is the mean of `contrast_map` over it. Places are the cell centres of a 7 x 7 grid, or of the model's `grid`,
    where every look takes the most salient cell of the region before it. Chosen regions inhibit the places within them.
    """

    name = "saliency"

    def look(self, model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], state: State, own: Decision | None) -> Decision:
        with torch.no_grad():
            contrast = contrast_map(images)
            decisions = _candidates(model, state, LOOKED_OVER)
            found = [_at_regions(contrast, each.regions) for each in decisions]
        value, centre, half = (torch.stack(column, 1) for column in zip(*found, strict=True))  # [B, K], [B, K, 2], [B, K, 2]
        rows = torch.arange(len(images), device=images.device)
        for _ in range(0 if model.grid else state.step - model.first_choice):
            best = value.argmax(1)
            apart = (centre - centre[rows, best, None]).abs() / half[rows, best, None]  # [B, K, 2]
            value = value - (apart < NEARLY).all(2).to(value)  # contrast is at most one half: the rest comes first
        return _pick(decisions, value)


def contrast_map(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 H W"]:
    """Blurred contrast: the standard deviation of the grey values in a square of about an eighth of the image's side.

    It is the root of blur((g - blur(g))^2), where blur is the mean over the part of the square that lies inside the image.
    """
    side = 2 * max(1, round(min(images.shape[2:]) / 16)) + 1

    def blur(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, side, stride=1, padding=side // 2, count_include_pad=False)

    grey = images.mean(1, keepdim=True)
    return blur((grey - blur(grey)).square()).sqrt()


def _at_regions(values: Float[Tensor, "B 1 H W"], regions: Regions) -> tuple[Tensor, Tensor, Tensor]:
    """Of the regions of each image, as means: the value within [B], the centre [B, 2], half of the sides [B, 2]."""
    points = 2 * cells(SAMPLED, regions.centre) - 1  # [P, 2] in [-1, 1]
    at = regions.centre[:, None] + regions.half[:, None] * points  # [N, P, 2]
    within = F.grid_sample(regions.images_of(values), at[:, None].to(values), padding_mode="border", align_corners=False).mean((1, 2, 3))
    count = regions.counts().clamp(min=1).to(values)
    return tuple(  # type: ignore[return-value]
        each.new_zeros(regions.batch, *each.shape[1:]).index_add(0, regions.image, each) / count.view(-1, *[1] * (each.ndim - 1))
        for each in (within, regions.centre.to(values), regions.half.to(values))
    )


class _Searching(_Placing):
    """Takes each of 9 looks in turn, and keeps the one whose outcome has the largest value. All looks are charged, and none is free.

    The candidates are the cell centres of a 3 x 3 grid, or of the model's `grid`; and the model's own look, if the policy reads it.
    """

    tries = SEARCHED**2

    def look(self, model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], state: State, own: Decision | None) -> Decision:
        with torch.no_grad():
            decisions = _candidates(model, state, SEARCHED)
            if self.reads_own and own is not None:
                decisions = _alike([*decisions, replace(own, made="searched")])
            values = [self.value(state, _logits_after(model, images, state, each)) for each in decisions]
        return _pick(decisions, torch.stack(values, 1))

    @abstractmethod
    def value(self, state: State, logits: Float[Tensor, "B classes"]) -> Float[Tensor, "B"]:
        """How good it is to have these logits after a look."""


class LowestEntropy(_Searching):
    """Of 9 looks, the one after which the prediction has the lowest entropy.

    It takes the look that a choice by the expected gain of information (Denzler & Brown, PAMI 2002) would have to foresee. "CanViT" has a
    policy of this name for dense predictions, which a classifier does not have.
    """

    name = "entropy"

    def value(self, state: State, logits: Float[Tensor, "B classes"]) -> Float[Tensor, "B"]:
        log_p = logits.float().log_softmax(1)
        return (log_p.exp() * log_p).sum(1)


class Oracle(_Searching):
    """Of 9 looks and the model's own, the one after which the right class has the largest probability.

    It reads the labels: an upper bound. It plans one step: a plan for several could reach more.
    """

    name, reads_own, needs_labels = "oracle", True, True

    def __init__(self, noise: Noise | None = None, labels: Int[Tensor, "B"] | None = None) -> None:
        """noise, labels: of the images of a run, which are known by their noise; see `told`."""
        self._known: tuple[Tensor, Tensor] | None = None
        if noise is not None and labels is not None:
            keys, order = noise.keys.sort()
            self._known = keys, labels.to(order.device)[order]

    def told(self, noise: Noise, labels: Int[Tensor, "B"]) -> "Oracle":
        return Oracle(noise, labels)

    def value(self, state: State, logits: Float[Tensor, "B classes"]) -> Float[Tensor, "B"]:
        if self._known is None:
            raise GlimpseZooError(
                "the policy 'oracle' expects the labels of the images, which only evaluations and traces have: follow another policy here"
            )
        keys, labels = self._known
        right = labels[torch.searchsorted(keys, state.noise.keys)]
        return logits.float().log_softmax(1).gather(1, right[:, None]).squeeze(1)


def check_without_labels(model: GlimpseModel[Any], who: str, instead: str = "leave it out") -> None:
    """Raise `GlimpseZooError` for a model that chooses where it looks by the labels, which `who` does not have."""
    if model.follows.needs_labels:
        raise GlimpseZooError(
            f"{who}: expected a model that chooses where it looks without labels, got the policy {model.policy!r}: {instead}"
        )


def _candidates(model: GlimpseModel[Any], state: State, side: int) -> list[Decision]:
    """The looks at the cells of a grid of `side` x `side`, or of the model's own grid."""
    places = cells(model.grid or side, state.noise.keys)
    return [model.look_at(state, place.expand(len(state.noise.keys), 2), made="searched") for place in places]


def _logits_after(
    model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], state: State, decision: Decision
) -> Float[Tensor, "B classes"]:
    """The logits of a model that takes one more look."""
    after = model.fuse(state, decision, model.sense(images, state, decision.regions))
    return model.classify(replace(after, step=state.step + 1))


def _alike(decisions: list[Decision]) -> list[Decision]:
    """The decisions as one class, so that they can be joined: as plain `Decision`s if only some are of a plugin's subclass."""
    if len({type(each) for each in decisions}) == 1:
        return decisions
    return [Decision(regions=each.regions, made=each.made, log_prob=each.log_prob, entropy=each.entropy) for each in decisions]


def _pick(decisions: list[Decision], value: Float[Tensor, "B K"]) -> Decision:
    """For each image, that of K decisions with the largest value; of equal ones, the first."""
    joined = type(decisions[0]).join(decisions)  # of K batches, one after the other
    batch = len(value)
    return joined.select(value.argmax(1) * batch + torch.arange(batch, device=value.device))
