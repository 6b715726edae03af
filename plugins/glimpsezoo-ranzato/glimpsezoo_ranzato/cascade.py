"""The confidence cascade of Ranzato (2014), section 4.1: an image goes on to the next glimpse only if it is not classified confidently.

Running it is the core's exit rule, `Confidence(threshold=0.95)`; here is what the paper reports of such a run.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glimpsezoo import GlimpseZooError, Trace


@dataclass(frozen=True)
class Cascade:
    """Shares are of all images, in [0, 1].

    classified: by step, of images that were first confident there. rejected: not confident even at their last step.
    error: of all images, the last look deciding for the rejected ones. error_of_classified: of the confident ones alone; 0 if none.
    """

    classified: tuple[float, ...]
    rejected: float
    error: float
    error_of_classified: float


def cascade(
    confidence: Float[Tensor, "B"], last_step: Int[Tensor, "B"], right: Bool[Tensor, "B"], *, steps: int, threshold: float
) -> Cascade:
    """What a run of a model of `steps` steps under the confidence rule did, from a row an image.

    last_step: the last step that the image took, 1 = the first look. confidence, right: the largest class probability there, and
    whether it was the right class's.

    Raises `GlimpseZooError` if an image stopped early without confidence: then another rule, or another threshold, was at work.

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
    """The same, from the trace of `rollout(model, images, exit_rule=Confidence(threshold))` of a model of so many steps."""
    confidence, predicted = trace.logits.softmax(1).max(1)
    return cascade(confidence, trace.last_step, predicted == labels, steps=steps, threshold=threshold)
