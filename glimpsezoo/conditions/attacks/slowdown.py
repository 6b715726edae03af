"""An attack on adaptive computation: images for which a model with early exits takes more steps.

The idea is that of slowdown attacks on multi-exit networks (Hong et al., "A panda? No, it's a sloth", ICLR 2021).
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.conditions.attacks.aimed import Aimed
from glimpsezoo.conditions.attacks.settings import ExitAimedSettings
from glimpsezoo.conditions.attacks.victim import Objective, Victim
from glimpsezoo.core.exits import ExitRule
from glimpsezoo.core.protocol import GlimpseModel


class Slowdown(Aimed[ExitAimedSettings]):
    """PGD that lowers the confidence at every step that could be the exit. It keeps the iterate that exits last.

    It lowers the log-odds of the most likely class, log p / (1 - p), which fall as the confidence falls and the entropy rises. Unlike the
    confidence, they have a gradient even if the model is certain. The clean image is a candidate, so no image exits earlier than without
    the attack.
    """

    name = "slowdown"

    def objectives(self, model: GlimpseModel[Any]) -> Sequence[Objective]:
        assert self.exit_rule is not None
        return (doubt(self.exit_rule),)


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
