"""An attack on adaptive computation: images that exit early, and wrong.

The opposite of `slowdown`: an attacker who wants the model to stop before it has seen what would correct it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.conditions.attacks.aimed import Aimed
from glimpsezoo.conditions.attacks.settings import ExitAimedSettings
from glimpsezoo.conditions.attacks.slowdown import exit_steps
from glimpsezoo.conditions.attacks.victim import Objective, Victim
from glimpsezoo.core.exits import ExitRule
from glimpsezoo.core.protocol import GlimpseModel


class EarlyWrong(Aimed[ExitAimedSettings]):
    """PGD that raises the model's confidence in a wrong class at every step. It keeps the iterate that is wrong and exits first.

    Threat model: Linf or L2 of length eps. The attacker knows the model, the label and the exit rule. Accuracy under it is that at the
    exit; `steps_mean` beside that of the clean images says how much earlier they exit. An image that cannot be made wrong at its exit
    counts as no success, however early it exits.
    """

    name = "early-wrong"

    def objectives(self, model: GlimpseModel[Any]) -> Sequence[Objective]:
        assert self.exit_rule is not None
        return (early_error(self.exit_rule),)


def early_error(rule: ExitRule) -> Objective:
    """The log-odds of the likeliest wrong class, summed over all steps.

    Success is 0 if the prediction at the exit is right; otherwise 1, and 1 more for every step that the exit saves.
    """

    def objective(victim: Victim, images: Tensor, run: int) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        trace = victim.without_exits().trace(images, run, every_step=True)
        logits = trace.logits_by_step()  # [B, T, C]
        label = victim.labels[:, None, None].expand(-1, logits.shape[1], 1)  # [B, T, 1]
        rival = logits.scatter(2, label, -torch.inf).max(2)  # [B, T]
        others = logits.scatter(2, rival.indices[:, :, None], -torch.inf).logsumexp(2)
        last = torch.minimum(exit_steps(rule, logits.detach()), trace.last_step)
        at_exit = logits[torch.arange(len(logits), device=logits.device), last - 1]  # [B, C]
        wrong = at_exit.argmax(1) != victim.labels
        return (rival.values - others).sum(1), wrong * (trace.steps + 1 - last).to(logits)

    return objective
