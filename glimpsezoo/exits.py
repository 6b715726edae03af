"""When an image has been looked at enough: rules that read the logits so far. Thresholds come from the calibration split."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from glimpsezoo.errors import GlimpseZooError


class ExitRule(ABC):
    """Decides after every look which images exit. Pure: it sees the logits of all steps so far and keeps nothing.

    name, parameters: identify the rule in results. reads: whether it needs logits; if not, only the last step is classified.
    """

    name: str
    reads: bool = True

    @property
    def parameters(self) -> dict[str, float]:
        return {}

    @abstractmethod
    def exits(self, logits: Float[Tensor, "B T C"]) -> Bool[Tensor, "B"]:
        """True for the images whose last look was the last one of `logits` [B, steps so far, classes]."""


class Fixed(ExitRule):
    """Never early: every image takes the whole budget of steps."""

    name = "fixed"
    reads = False

    def exits(self, logits: Float[Tensor, "B T C"]) -> Bool[Tensor, "B"]:
        return torch.zeros(len(logits), dtype=torch.bool, device=logits.device)


class Confidence(ExitRule):
    """As soon as the largest class probability reaches `threshold`.

    >>> rule = Confidence(threshold=0.9)
    >>> rule.exits(torch.tensor([[[0.0, 5.0]], [[0.0, 1.0]]])).tolist()
    [True, False]
    """

    name = "confidence"

    def __init__(self, threshold: float) -> None:
        if not 0 <= threshold <= 1:
            raise GlimpseZooError(f"a confidence threshold is a probability in [0, 1], got {threshold}")
        self.threshold = float(threshold)

    @property
    def parameters(self) -> dict[str, float]:
        return {"threshold": self.threshold}

    def exits(self, logits: Float[Tensor, "B T C"]) -> Bool[Tensor, "B"]:
        return logits[:, -1].softmax(-1).amax(-1) >= self.threshold
