"""A model as an attacker sees it: rollouts of single images under chosen noise, and what is read off them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glimpsezoo.attacks.settings import Target
from glimpsezoo.batched import Batched
from glimpsezoo.driver import Choose, Record, Trace, rollout
from glimpsezoo.exits import ExitRule
from glimpsezoo.noise import Noise
from glimpsezoo.protocol import GlimpseModel, State
from glimpsezoo.regions import Decision


class ScanPath:
    """The decisions of a run, to be replayed by a run of the same images or some of them: `rollout(..., choose=path)`.

    Images are told apart by their noise, so both runs must have the same. The run that is replayed has no exit rule: an image of the
    replaying run is still there at least as long.
    """

    def __init__(self, model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], noise: Noise) -> None:
        self._steps: list[tuple[Tensor, Decision]] = []  # a step's images, by key in rising order with their rows, and what they chose
        with torch.no_grad():
            rollout(model, images, choose=self._note, noise=noise)

    def _note(self, images: Tensor, state: State, decision: Decision) -> Decision:
        keys, rows = state.noise.keys.sort()
        self._steps.append((keys, decision.select(rows)))
        return decision

    def __call__(self, images: Tensor, state: State, decision: Decision) -> Decision:
        keys, noted = self._steps[state.step]
        return noted.select(torch.searchsorted(keys, state.noise.keys))


@dataclass(frozen=True)
class Victim(Batched):
    """A model with the images that it is attacked on; `select` takes some of them.

    images: clean, [B, C, H, W] in [0, 1]. noise: the attacker's own, which no measured run has. target: see `AttackSettings`.
    exit_rule: of the run under attack; only the target 'exit' has one. frozen: keep the looks of the clean images. path: those, where
    they do not depend on the noise.
    """

    model: GlimpseModel[Any]
    images: Float[Tensor, "B C H W"]
    labels: Int[Tensor, "B"]
    noise: Noise
    target: Target = "final"
    exit_rule: ExitRule | None = None
    frozen: bool = False
    path: ScanPath | None = None

    def __len__(self) -> int:
        return len(self.images)

    def without_exits(self) -> Self:
        """The same in runs that take every step."""
        return replace(self, exit_rule=None)

    def prepared(self) -> Self:
        """With the clean path at hand, if there is one and it is the same in every run."""
        if self.frozen and not self.model.stochastic:
            return replace(self, path=ScanPath(self.model, self.images, self._noise(0)))
        return self

    def trace(self, images: Float[Tensor, "B C H W"], run: int = 0, *, every_step: bool = False) -> Trace:
        """Let the model look at `images` in place of the clean ones. run: which of the attacker's noises a stochastic model gets."""
        noise = self._noise(run)
        choose: Choose | None = None
        if self.frozen:
            choose = self.path or ScanPath(self.model, self.images, noise)
        return rollout(self.model, images, exit_rule=self.exit_rule, choose=choose, noise=noise, record=Record(every_step=every_step))

    def logits(self, images: Float[Tensor, "B C H W"], run: int = 0) -> Float[Tensor, "B classes"]:
        """Of the prediction that is attacked. For 'any-step' it is that of the step nearest to an error, or furthest into one.

        So the model errs in the attacker's sense exactly where these logits do.
        """
        if self.target != "any-step":
            return self.trace(images, run).logits
        by_step = self.trace(images, run, every_step=True).logits_by_step()  # [B, T, C]
        steps = by_step.shape[1]
        margins = margin(by_step.flatten(0, 1), self.labels.repeat_interleave(steps)).view(-1, steps)
        return by_step[torch.arange(len(by_step), device=by_step.device), margins.argmin(1)]

    def wrong(self, images: Float[Tensor, "B C H W"], run: int = 0) -> Bool[Tensor, "B"]:
        """Whether the attacked prediction is wrong in this run."""
        with torch.no_grad():
            return self.logits(images, run).argmax(1) != self.labels

    def _noise(self, run: int) -> Noise:
        return self.noise.fork(run if self.model.stochastic else 0)


Objective = Callable[[Victim, Tensor, int], tuple[Tensor, Tensor]]
"""objective(victim, images, run) -> loss [B] to raise, and success [B]: 1 where the attack has what it wants in this run, else 0."""


@dataclass(frozen=True)
class Found(Batched):
    """What an attacker learns at some images. loss, success: [B], means over runs. gradient: of the loss in the images."""

    loss: Float[Tensor, "B"]
    success: Float[Tensor, "B"]
    gradient: Float[Tensor, "B C H W"]


def probe(victim: Victim, images: Float[Tensor, "B C H W"], objective: Objective, *, first_run: int = 0, runs: int = 1) -> Found:
    """Loss, success and gradient at `images`, as means over `runs` runs with noise of their own (expectation over transformation).

    Where the loss does not depend on the images in a way that autograd sees, the gradient is zero.
    """
    loss, success = (images.new_zeros(len(images)) for _ in range(2))
    gradient = torch.zeros_like(images)
    for run in range(first_run, first_run + runs):
        with torch.enable_grad():
            given = images.detach().requires_grad_()
            its_loss, its_success = objective(victim, given, run)
            if its_loss.requires_grad:
                found = torch.autograd.grad(its_loss.sum(), given, allow_unused=True)[0]
                gradient = gradient if found is None else gradient + found / runs
        loss, success = loss + its_loss.detach() / runs, success + its_success / runs
    return Found(loss, success, gradient)


def cross_entropy(victim: Victim, images: Float[Tensor, "B C H W"], run: int) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Cross entropy of the attacked prediction, in nats."""
    logits = victim.logits(images, run)
    return F.cross_entropy(logits, victim.labels, reduction="none"), (logits.argmax(1) != victim.labels).float()


def logits_ratio(victim: Victim, images: Float[Tensor, "B C H W"], run: int) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """The difference of logits ratio (Croce & Hein, 2020, eq. 6): the margin over the gap of the first and the third logit, negated.

    It does not change when logits are shifted or scaled. Needs three classes.
    """
    logits = victim.logits(images, run)
    top = logits.topk(3, 1).values
    loss = -margin(logits, victim.labels) / (top[:, 0] - top[:, 2]).clamp(min=1e-12)
    return loss, (logits.argmax(1) != victim.labels).float()


def margin(logits: Float[Tensor, "B classes"], labels: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """The label's logit less the largest other one: negative where the prediction is wrong."""
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return own.squeeze(1) - others.amax(1)
