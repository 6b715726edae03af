"""An attack on adaptive computation: images for which a model with early exits takes more steps.

The idea is that of slowdown attacks on multi-exit networks (Hong et al., "A panda? No, it's a sloth", ICLR 2021).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.conditions.attacks.ball import random_start
from glimpsezoo.conditions.attacks.base import Attack, keep_better
from glimpsezoo.conditions.attacks.gradient import stepped
from glimpsezoo.conditions.attacks.settings import SlowdownSettings
from glimpsezoo.conditions.attacks.victim import Objective, Victim, probe
from glimpsezoo.core.exits import ExitRule
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.errors import GlimpseZooError


class Slowdown(Attack[SlowdownSettings]):
    """PGD that lowers the confidence at every step that could be the exit. It keeps the iterate that exits last.

    It lowers the log-odds of the most likely class, log p / (1 - p), which fall as the confidence falls and the entropy rises. Unlike the
    confidence, they have a gradient even if the model is certain. The clean image is a candidate, so no image exits earlier than without
    the attack.
    """

    name = "slowdown"

    def check(self, model: GlimpseModel[Any]) -> None:
        if model.steps == 1:
            raise GlimpseZooError("slowdown: expected a model of several steps, got one of a single step: leave this attack out")
        super().check(model)

    def perturb(self, victim: Victim, noise: Noise) -> Float[Tensor, "B C H W"]:
        assert self.exit_rule is not None
        settings, objective, run = self.settings, doubt(self.exit_rule), 0
        start = probe(victim, victim.images, objective, runs=settings.eot)
        best = keep_better(None, victim.images, start.success, start.loss)
        for restart in range(settings.restarts):
            images = victim.images
            if settings.random_start:
                images = random_start(images, settings.norm, settings.eps, noise.fork(restart))
            for step in range(settings.steps + 1):
                run += settings.eot
                found = probe(victim, images, objective, first_run=run, runs=settings.eot)
                best = keep_better(best, images, found.success, found.loss)
                if step < settings.steps:
                    images = stepped(victim, images, found.gradient, settings)
        return best[0]


def doubt(rule: ExitRule) -> Objective:
    """The negative log-odds of each step's prediction, summed over all steps except the last. Success is the step of the exit."""

    def objective(victim: Victim, images: Tensor, run: int) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        trace = victim.without_exits().trace(images, run, every_step=True)
        logits = trace.logits_by_step()  # [B, T, C]
        top = logits[:, :-1].max(2)  # [B, T - 1]
        others = logits[:, :-1].scatter(2, top.indices[:, :, None], -torch.inf).logsumexp(2)
        last = torch.minimum(exit_steps(rule, logits.detach()), trace.last_step)
        return -(top.values - others).sum(1), last.to(logits)

    return objective


def exit_steps(rule: ExitRule, logits: Float[Tensor, "B T C"]) -> Tensor:
    """The step at which each image exits [B], from 1."""
    steps = logits.shape[1]
    here = torch.stack([rule.exits(logits[:, :step]) for step in range(1, steps)], 1)  # [B, T - 1]
    return torch.where(here.any(1), here.int().argmax(1) + 1, steps)
