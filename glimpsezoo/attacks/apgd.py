"""Auto-PGD: projected gradient ascent with momentum that sets its own step size.

Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks", ICML 2020, section 3
and algorithm 1. Symbols are the paper's: eta the step size, alpha the momentum, rho of condition 1, w the checkpoints.
"""

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from glimpsezoo.attacks.ball import direction, project, random_start
from glimpsezoo.attacks.base import Attack, keep_better, where_right
from glimpsezoo.attacks.settings import APGDSettings
from glimpsezoo.attacks.victim import Found, Objective, Victim, cross_entropy, logits_ratio, probe
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.noise import Noise
from glimpsezoo.protocol import GlimpseModel

ALPHA, RHO = 0.75, 0.75


def checkpoints(steps: int) -> list[int]:
    """w_j: the steps after which the step size is reconsidered. Periods of 22 % of the steps, each 3 % shorter, but 6 % at least.

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
    """One run from one start. A row an image, B in all.

    images, before: x^(k) and x^(k-1). here: loss and gradient at x^(k). best, best_images: the same where the loss was highest so far.
    chosen: images, success and loss of what will be returned. eta: [B, 1, 1, 1]. rises: how often the loss rose since the last checkpoint.
    best_then, halved: the highest loss at the last checkpoint, and whether eta was halved there.
    """

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
        self.halved = torch.ones_like(self.rises, dtype=torch.bool)  # nothing can have stalled before the first checkpoint

    def run(self) -> tuple[Tensor, Tensor, Tensor]:
        """The images [B, C, H, W], their success [B] and their loss [B].

        It goes on when every image is wrong: what an image gets would else depend on the others of its batch.
        """
        last = 0
        turns = checkpoints(self.settings.steps)
        for step in range(1, self.settings.steps + 1):
            self._move(1.0 if step == 1 else ALPHA)
            if step in turns:
                self._reconsider(step - last)
                last = step
        return self.chosen

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
        """Halve eta and go back to the best point where the loss rose too rarely (condition 1) or nothing came of this eta (2)."""
        stalled = ~self.halved & (self.best_then == self.best.loss)
        self.halved = (self.rises < RHO * period) | stalled
        wide = self.halved[:, None, None, None]
        self.eta = torch.where(wide, self.eta / 2, self.eta)
        self.images = torch.where(wide, self.best_images, self.images)
        self.here = _where(self.halved, self.best, self.here)
        self.rises = torch.zeros_like(self.rises)
        self.best_then = self.best.loss

    def _probe(self) -> Found:
        runs = self.settings.eot
        self.next_run += runs
        return probe(self.victim, self.images, self.objective, first_run=self.next_run - runs, runs=runs)


def _where(mask: Bool[Tensor, "B"], first: Found, second: Found) -> Found:
    return Found(
        torch.where(mask, first.loss, second.loss),
        torch.where(mask, first.success, second.success),
        torch.where(mask[:, None, None, None], first.gradient, second.gradient),
    )


class APGD(Attack[APGDSettings]):
    """Auto-PGD on the objective that a subclass names. Of all iterates the most successful is kept, then the one of the highest loss.

    A deterministic model's images that are misclassified already are left as they are.
    """

    objective: ClassVar[Objective]

    def perturb(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        return where_right(victim, noise, self._attacked)

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


class APGDLogitsRatio(APGD):
    """Auto-PGD on the difference of logits ratio, which a model cannot saturate."""

    name = "apgd-dlr"
    objective = staticmethod(logits_ratio)

    def check(self, model: GlimpseModel[Any]) -> None:
        super().check(model)
        if len(model.task.classes) < 3:
            raise GlimpseZooError(f"apgd-dlr: expected three classes or more, got {len(model.task.classes)}: use apgd-ce")
