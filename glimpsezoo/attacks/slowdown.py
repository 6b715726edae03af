"""An attack on adaptive computation: images that keep a model with early exits looking.

The idea is that of slowdown attacks on multi-exit networks (Hong et al., "A panda? No, it's a sloth", ICLR 2021).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.attacks.ball import random_start
from glimpsezoo.attacks.base import Attack, keep_better
from glimpsezoo.attacks.gradient import stepped
from glimpsezoo.attacks.settings import SlowdownSettings
from glimpsezoo.attacks.victim import Objective, Victim, probe
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.exits import ExitRule
from glimpsezoo.noise import Noise
from glimpsezoo.protocol import GlimpseModel


class Slowdown(Attack[SlowdownSettings]):
    """PGD that lowers the confidence at every step that could be the exit. Of all iterates the one that exits last is kept.

    Lowered is the log-odds of the most likely class, log p / (1 - p): it falls as the confidence falls and the entropy rises, and has
    a gradient however sure the model is. The image itself is among the candidates, so no attacked image exits earlier by the attack.
    """

    name = "slowdown"

    def check(self, model: GlimpseModel[Any]) -> None:
        if model.steps == 1:
            raise GlimpseZooError("slowdown: expected a model of several steps, got one of a single look: leave this attack out")
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
    """Minus the log-odds of each step's prediction, summed over the steps before the last; success is the step of the exit."""

    def objective(victim: Victim, images: Tensor, run: int) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        trace = victim.without_exits().trace(images, run, every_step=True)
        logits = trace.logits_by_step()  # [B, T, C]
        top = logits[:, :-1].max(2)  # [B, T - 1]
        others = logits[:, :-1].scatter(2, top.indices[:, :, None], -torch.inf).logsumexp(2)
        last = torch.minimum(exit_steps(rule, logits.detach()), trace.last_step)
        return -(top.values - others).sum(1), last.to(logits)

    return objective


def exit_steps(rule: ExitRule, logits: Float[Tensor, "B T C"]) -> Tensor:
    """[B], the step at which each image exits, 1 = the first look."""
    steps = logits.shape[1]
    here = torch.stack([rule.exits(logits[:, :step]) for step in range(1, steps)], 1)  # [B, T - 1]
    return torch.where(here.any(1), here.int().argmax(1) + 1, steps)
