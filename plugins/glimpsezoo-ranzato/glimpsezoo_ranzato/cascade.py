"""The confidence cascade of Ranzato (2014), section 4.1: an image gets another glimpse only if it is not classified confidently.

The core's exit rule `Confidence(threshold=0.95)` runs the cascade; this module computes what the paper reports of it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glimpsezoo import GlimpseZooError, Trace


@dataclass(frozen=True)
class Cascade:
    """What the paper reports of a run, as shares of all images in [0, 1] unless said otherwise."""

    classified: tuple[float, ...]
    """By step: the images that were first classified confidently there."""
    rejected: float
    """The images that were not classified confidently even at their last step."""
    error: float
    """The images that were classified wrong; rejected images by their last step."""
    error_of_classified: float
    """The error among the confidently classified images; 0 if there are none."""


def cascade(
    confidence: Float[Tensor, "B"], last_step: Int[Tensor, "B"], right: Bool[Tensor, "B"], *, steps: int, threshold: float
) -> Cascade:
    """The cascade of a model with `steps` steps, from the results of a run under the confidence rule.

    last_step: the last step that each image took, from 1. confidence: the largest class probability at that step. right: whether the
    prediction there was right.

    Raises `GlimpseZooError` if an image stopped early without confidence, because the run then had another rule or threshold.

    >>> cascade(torch.tensor([0.99, 0.6]), torch.tensor([1, 2]), torch.tensor([True, False]), steps=2, threshold=0.95)
    Cascade(classified=(0.5, 0.0), rejected=0.5, error=0.5, error_of_classified=0.0)
    """
    confident = confidence >= threshold
    early = int((~confident & (last_step < steps)).sum())
    if early:
        raise GlimpseZooError(
            f"expected all {steps} steps for images below confidence {threshold:g}, got {early} that stopped: give the rule's threshold"
        )
    images = len(confidence)
    stopped = torch.bincount(last_step[confident] - 1, minlength=steps)
    wrong = ~right
    return Cascade(
        classified=tuple((stopped / images).tolist()),
        rejected=int((~confident).sum()) / images,
        error=int(wrong.sum()) / images,
        error_of_classified=int((wrong & confident).sum()) / max(int(confident.sum()), 1),
    )


def cascade_of(trace: Trace, labels: Int[Tensor, "B"], *, steps: int, threshold: float) -> Cascade:
    """The cascade from the trace of `rollout(model, images, exit_rule=Confidence(threshold))` with a model of `steps` steps."""
    confidence, predicted = trace.logits.softmax(1).max(1)
    return cascade(confidence, trace.last_step, predicted == labels, steps=steps, threshold=threshold)
