"""Exits of the paper (section 3.2): a threshold of its own for each step, chosen for a budget.

    stop at the first t where max p_t >= eta_t;   a share q_t of all images, proportional to a^t, is to stop at step t

The smaller a, the earlier the exits; the authors report 39 budgets, a = .05, .10, ..., 1.95. The measure `anytime` needs no such rule: its
rule `confidence` has one threshold for all steps.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from glimpsezoo import ExitRule, GlimpseZooError, budget_thresholds


class StepConfidence(ExitRule):
    """As soon as the largest class probability reaches the threshold of the step. Steps without a threshold let no image exit.

    >>> rule = StepConfidence((0.9, 0.5))
    >>> unsure = torch.tensor([[[0.0, 1.0]]])  # a largest probability of 0.73
    >>> rule.exits(unsure).tolist(), rule.exits(unsure.repeat(1, 2, 1)).tolist()
    ([False], [True])
    """

    name = "step-confidence"

    def __init__(self, thresholds: tuple[float, ...]) -> None:
        """thresholds: of step 1, step 2 and so on; above 1, no image exits, and below 0, every image does."""
        if not thresholds:
            raise GlimpseZooError("expected a threshold for one step or more, got none: give a tuple of numbers")
        self.thresholds = thresholds

    @property
    def parameters(self) -> dict[str, float]:
        return {f"step {step}": threshold for step, threshold in enumerate(self.thresholds, 1)}

    def exits(self, logits: Float[Tensor, "B T C"]) -> Bool[Tensor, "B"]:
        step = logits.shape[1]
        if step > len(self.thresholds):
            return torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        return logits[:, -1].softmax(-1).amax(-1) >= self.thresholds[step - 1]


def thresholds_for(confidence: Float[Tensor, "n T"], budget: float) -> tuple[float, ...]:
    """The thresholds of T steps with which shares proportional to budget^t of the images stop at step t.

    confidence: the largest probability of n calibration images, after every step. Where no image is to stop, the threshold is above 1. The
    last step's is 0.
    """
    return (*budget_thresholds(confidence[:, :-1], budget), 0.0)
