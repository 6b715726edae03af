"""A model as an attacker sees it: rollouts under chosen noise, and losses that are computed from them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glimpsezoo.conditions.attacks.settings import Aim, Path
from glimpsezoo.core.batched import Batched
from glimpsezoo.core.exits import ExitRule
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel, State
from glimpsezoo.core.regions import Decision
from glimpsezoo.core.rollout import Choose, Record, Trace, rollout


class ScanPath:
    """The decisions of a run, to be replayed in a run of the same images or a subset: `rollout(..., choose=path)`.

    Images are identified by their noise, so both runs must use the same noise. The recorded run has no exit rule, so it has a decision
    for every step of the replay.
    """

    def __init__(self, model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], noise: Noise) -> None:
        self._steps: list[tuple[Tensor, Decision]] = []  # per step: the images' keys, ascending, and their decisions
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
    """A model with the images on which it is attacked; `select` takes a subset of the images."""

    model: GlimpseModel[Any]
    images: Float[Tensor, "B C H W"]
    """Clean, in [0, 1]."""
    labels: Int[Tensor, "B"]
    noise: Noise
    """The attacker's noise, which no measured run uses."""
    target: Aim = "final"
    """See `AttackSettings`."""
    exit_rule: ExitRule | None = None
    """The exit rule of the attacked run; only the target 'exit' has one."""
    path: Path = "free"
    """See `AttackSettings`."""
    scan: ScanPath | None = None
    """The decisions on the clean images, if they are frozen and do not depend on the noise."""

    def __len__(self) -> int:
        return len(self.images)

    def without_exits(self) -> Self:
        """A copy without an exit rule, so that runs take every step."""
        return replace(self, exit_rule=None)

    def prepared(self) -> Self:
        """A copy that has the clean path computed, if it is frozen and the same in every run."""
        if self.path == "frozen" and not self.model.stochastic:
            return replace(self, scan=ScanPath(self.model, self.images, self._noise(0)))
        return self

    def trace(self, images: Float[Tensor, "B C H W"], run: int = 0, *, every_step: bool = False, choose: Choose | None = None) -> Trace:
        """Run the model on `images` instead of the clean ones. run: selects the noise of a stochastic model. choose: as in `rollout`, for
        victims whose path is free.
        """
        noise = self._noise(run)
        if self.path == "frozen":
            choose = self.scan or ScanPath(self.model, self.images, noise)
        elif self.path == "detached":
            choose = as_given
        return rollout(self.model, images, exit_rule=self.exit_rule, choose=choose, noise=noise, record=Record(every_step=every_step))

    def logits(self, images: Float[Tensor, "B C H W"], run: int = 0) -> Float[Tensor, "B classes"]:
        """The logits of the attacked prediction. For 'any-step', they are those of the step with the smallest margin.

        So the attack succeeds exactly if these logits are wrong.
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


def as_given(images: Tensor, state: State, decision: Decision) -> Decision:
    """`choose` of a rollout whose gradient does not pass through where the model looks."""
    return decision.detached()


Objective = Callable[[Victim, Tensor, int], tuple[Tensor, Tensor]]
"""objective(victim, images, run) -> the loss [B] to raise, and the success [B] of this run.

The success is 1 where the prediction is wrong and else 0; for a threat of another kind, how far the attack came.
"""


@dataclass(frozen=True)
class Probe(Batched):
    """What an attacker learns about some images. All fields are means over runs."""

    loss: Float[Tensor, "B"]
    success: Float[Tensor, "B"]
    gradient: Float[Tensor, "B C H W"]
    """The gradient of the loss with respect to the images."""


def probe(victim: Victim, images: Float[Tensor, "B C H W"], objective: Objective, *, first_run: int = 0, runs: int = 1) -> Probe:
    """Loss, success and gradient at `images`, averaged over `runs` runs with different noise (expectation over transformation).

    The gradient is zero if autograd finds no dependence of the loss on the images.
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
    return Probe(loss, success, gradient)


def queried(
    victim: Victim, images: Float[Tensor, "B C H W"], objective: Objective, *, first_run: int = 0, runs: int = 1
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Loss and success at `images`, as `probe` averages them, without the gradient."""
    with torch.no_grad():
        loss, success = zip(*(objective(victim, images, run) for run in range(first_run, first_run + runs)), strict=True)
    return torch.stack(loss).mean(0), torch.stack(success).mean(0)


def cross_entropy(victim: Victim, images: Float[Tensor, "B C H W"], run: int) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Cross entropy of the attacked prediction, in nats."""
    logits = victim.logits(images, run)
    return F.cross_entropy(logits, victim.labels, reduction="none"), (logits.argmax(1) != victim.labels).float()


def margin_loss(victim: Victim, images: Float[Tensor, "B C H W"], run: int) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Minus the margin of the attacked prediction (Carlini & Wagner, 2017). Unlike the cross entropy, it does not saturate."""
    logits = victim.logits(images, run)
    return -margin(logits, victim.labels), (logits.argmax(1) != victim.labels).float()


def logits_ratio(victim: Victim, images: Float[Tensor, "B C H W"], run: int) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """The difference of logits ratio (Croce & Hein, 2020, eq. 6): minus the margin, over the gap between the first and the third logit.

    It is invariant to shifting and scaling the logits. Needs three classes.
    """
    logits = victim.logits(images, run)
    top = logits.topk(3, 1).values
    loss = -margin(logits, victim.labels) / (top[:, 0] - top[:, 2]).clamp(min=1e-12)
    return loss, (logits.argmax(1) != victim.labels).float()


def margin(logits: Float[Tensor, "B classes"], labels: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """The label's logit minus the largest other logit: negative if the prediction is wrong."""
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return own.squeeze(1) - others.amax(1)
