"""Auto-PGD: projected gradient ascent with momentum that sets its own step size.

Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks", ICML 2020, section 3
and algorithm 1. The symbols are the paper's: the step size eta, the momentum alpha, rho of condition 1, the checkpoints w.
"""

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glimpsezoo.conditions.attacks.ball import direction, project, random_start
from glimpsezoo.conditions.attacks.base import RightOnly, keep_better
from glimpsezoo.conditions.attacks.settings import APGDSettings
from glimpsezoo.conditions.attacks.victim import Objective, Probe, Victim, cross_entropy, logits_ratio, margin_loss, probe
from glimpsezoo.core.batched import gather
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.errors import GlimpseZooError

ALPHA, RHO = 0.75, 0.75


def checkpoints(steps: int) -> list[int]:
    """w_j: the steps after which the step size is adapted. The first period is 22 % of the steps; each is 3 % shorter, down to 6 %.

    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    found, place, period = [], 0, max(1, int(0.22 * steps))
    while place + period <= steps:
        place += period
        found.append(place)
        period = max(period - max(1, int(0.03 * steps)), 1, int(0.06 * steps))
    return found


class Ascent:
    """One run from one start, for B images at once."""

    images: Float[Tensor, "B C H W"]
    """x^(k)."""
    before: Float[Tensor, "B C H W"]
    """x^(k-1)."""
    here: Probe
    """Loss and gradient at x^(k)."""
    best_images: Float[Tensor, "B C H W"]
    """The iterates with the highest loss so far."""
    best: Probe
    """Loss and gradient at `best_images`."""
    chosen: tuple[Tensor, Tensor, Tensor]
    """The images to return, with their success and loss."""
    eta: Float[Tensor, "B 1 1 1"]
    rises: Float[Tensor, "B"]
    """How often the loss has risen since the last checkpoint."""
    best_then: Float[Tensor, "B"]
    """The highest loss at the last checkpoint."""
    halved: Bool[Tensor, "B"]
    """Whether eta was halved at the last checkpoint."""

    def __init__(
        self, victim: Victim, start: Float[Tensor, "B C H W"], objective: Objective, settings: APGDSettings, first_run: int
    ) -> None:
        self.victim, self.objective, self.settings, self.next_run = victim, objective, settings, first_run
        self.images = self.before = self.best_images = start
        self.here = self.best = self._probe()
        self.chosen = keep_better(None, start, self.here.success, self.here.loss)
        self.eta = start.new_full((len(start), 1, 1, 1), settings.step)
        self.rises = torch.zeros_like(self.here.loss)
        self.best_then = self.best.loss
        self.halved = torch.ones_like(self.rises, dtype=torch.bool)  # no image can stall before the first checkpoint

    def run(self, *, until_wrong: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """The images [B, C, H, W], their success [B] and their loss [B].

        until_wrong: whether an image is finished once it succeeds in every run; otherwise its loss rises on to the last step.
        """
        last, turns = 0, checkpoints(self.settings.steps)
        rows, found = torch.arange(len(self.images), device=self.images.device), _copies(self.chosen)
        for step in range(1, self.settings.steps + 1):
            if until_wrong and (self.chosen[1] == 1).any():
                rows = self._leave(rows, found)
                if not len(rows):
                    break
            self._move(1.0 if step == 1 else ALPHA)
            if step in turns:
                self._reconsider(step - last)
                last = step
        _put(found, rows, self.chosen)
        return found

    def _leave(self, rows: Int[Tensor, "b"], found: tuple[Tensor, ...]) -> Int[Tensor, "n"]:
        """Put the images that succeeded, the places `rows` of the start, into `found`, and keep the others: their places."""
        done = self.chosen[1] == 1
        _put(found, rows[done], gather(self.chosen, done.nonzero().squeeze(1)))
        staying = (~done).nonzero().squeeze(1)
        for name in ("victim", *Ascent.__annotations__):
            setattr(self, name, gather(getattr(self, name), staying))
        return rows[staying]

    def _move(self, alpha: float) -> None:
        clean, norm, eps = self.victim.images, self.settings.norm, self.settings.eps
        ahead = project(self.images + self.eta * direction(self.here.gradient, norm), clean, norm, eps)
        moved = self.images + alpha * (ahead - self.images) + (1 - alpha) * (self.images - self.before)
        self.before, self.images = self.images, project(moved, clean, norm, eps)
        loss_before, self.here = self.here.loss, self._probe()
        self.rises = self.rises + (self.here.loss > loss_before)
        self._keep_best(self.here.loss > self.best.loss)
        self.chosen = keep_better(self.chosen, self.images, self.here.success, self.here.loss)

    def _keep_best(self, better: Bool[Tensor, "B"]) -> None:
        self.best_images = torch.where(better[:, None, None, None], self.images, self.best_images)
        self.best = _where(better, self.here, self.best)

    def _reconsider(self, period: int) -> None:
        """Halve eta and return to the best point if the loss rose too rarely (condition 1) or neither eta nor the best loss changed (2)."""
        stalled = ~self.halved & (self.best_then == self.best.loss)
        self.halved = (self.rises < RHO * period) | stalled
        wide = self.halved[:, None, None, None]
        self.eta = torch.where(wide, self.eta / 2, self.eta)
        self.images = torch.where(wide, self.best_images, self.images)
        self.here = _where(self.halved, self.best, self.here)
        self.rises = torch.zeros_like(self.rises)
        self.best_then = self.best.loss

    def _probe(self) -> Probe:
        runs = self.settings.eot
        self.next_run += runs
        return probe(self.victim, self.images, self.objective, first_run=self.next_run - runs, runs=runs)


def _copies(values: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    images, success, loss = values
    return images.clone(), success.clone(), loss.clone()


def _put(found: tuple[Tensor, ...], rows: Int[Tensor, "b"], values: tuple[Tensor, ...]) -> None:
    for whole, part in zip(found, values, strict=True):
        whole[rows] = part


def _where(mask: Bool[Tensor, "B"], first: Probe, second: Probe) -> Probe:
    return Probe(
        torch.where(mask, first.loss, second.loss),
        torch.where(mask, first.success, second.success),
        torch.where(mask[:, None, None, None], first.gradient, second.gradient),
    )


class APGD(RightOnly[APGDSettings]):
    """Auto-PGD on the objective of a subclass. It keeps the most successful iterate, and among those the one with the highest loss.

    Images that a deterministic model already misclassifies are not changed.
    """

    objective: ClassVar[Objective]

    def _attacked(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        settings, best = self.settings, None
        for restart in range(settings.restarts):
            start = random_start(victim.images, settings.norm, settings.eps, noise.fork(restart))
            first_run = restart * (settings.steps + 1) * settings.eot
            best = keep_better(best, *Ascent(victim, start, type(self).objective, settings, first_run).run())
        assert best is not None
        return best[0]


class APGDCrossEntropy(APGD):
    """Auto-PGD on the cross entropy."""

    name = "apgd-ce"
    objective = staticmethod(cross_entropy)


class APGDMargin(APGD):
    """Auto-PGD on minus the margin, which does not saturate for large logits and is defined for two classes."""

    name = "apgd-margin"
    objective = staticmethod(margin_loss)


class APGDLogitsRatio(APGD):
    """Auto-PGD on the difference of logits ratio, which does not saturate for large logits."""

    name = "apgd-dlr"
    objective = staticmethod(logits_ratio)

    def check(self, model: GlimpseModel[Any]) -> None:
        super().check(model)
        if len(model.task.classes) < 3:
            raise GlimpseZooError(f"apgd-dlr: expected three classes or more, got {len(model.task.classes)}: use apgd-ce")
