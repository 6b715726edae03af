"""Exit rules: when an image needs no further step. They read the logits so far; thresholds come from the calibration split."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from glimpsezoo.errors import GlimpseZooError


class ExitRule(ABC):
    """Decides after every step which images exit. It is a pure function of the logits of all steps so far."""

    name: str
    """With `parameters`, identifies the rule in results."""
    reads: bool = True
    """Whether the rule needs logits. If not, only the last step is classified."""
    window: int | None = None
    """How many of the latest steps it needs the logits of; None for all steps so far."""

    @property
    def parameters(self) -> dict[str, float]:
        """The values that the rule was built with, by name."""
        return {}

    @abstractmethod
    def exits(self, logits: Float[Tensor, "B T C"]) -> Bool[Tensor, "B"]:
        """True for the images that exit at the last step of `logits` [B, steps so far (`window` of them at least), classes]."""


class Fixed(ExitRule):
    """No early exit: every image takes all steps of the budget."""

    name = "fixed"
    reads = False

    def exits(self, logits: Float[Tensor, "B T C"]) -> Bool[Tensor, "B"]:
        return torch.zeros(len(logits), dtype=torch.bool, device=logits.device)


class ThresholdRule(ExitRule):
    """Exits an image once its `score` reaches a threshold. A subclass defines the score and the valid thresholds."""

    falling: ClassVar[bool] = False
    """Whether a low score means that the model is sure."""

    def __init__(self, threshold: float) -> None:
        """threshold: in the score's unit."""
        self.threshold = self.checked(float(threshold))

    @property
    def parameters(self) -> dict[str, float]:
        return {"threshold": self.threshold}

    def exits(self, logits: Float[Tensor, "B T C"]) -> Bool[Tensor, "B"]:
        score = self.score(logits)
        return score <= self.threshold if self.falling else score >= self.threshold

    @staticmethod
    @abstractmethod
    def score(logits: Float[Tensor, "B T C"]) -> Float[Tensor, "B"]:
        """How sure the model is after the last step."""

    @staticmethod
    @abstractmethod
    def checked(threshold: float) -> float:
        """The threshold. Raises `GlimpseZooError` for a threshold that no score can reach, or that every score reaches."""


class Confidence(ThresholdRule):
    """As soon as the largest class probability reaches `threshold`. Ranzato's cascade is this rule (2014, section 4.1).

    >>> rule = Confidence(threshold=0.9)
    >>> rule.exits(torch.tensor([[[0.0, 5.0]], [[0.0, 1.0]]])).tolist()
    [True, False]
    """

    name = "confidence"
    window = 1

    @staticmethod
    def score(logits: Float[Tensor, "B T C"]) -> Float[Tensor, "B"]:
        return logits[:, -1].softmax(-1).amax(-1)

    @staticmethod
    def checked(threshold: float) -> float:
        if not 0 <= threshold <= 1:
            raise GlimpseZooError(f"a confidence threshold is a probability in [0, 1], got {threshold:g}")
        return threshold


class Margin(ThresholdRule):
    """As soon as the largest class probability is `threshold` above the second largest.

    >>> Margin(threshold=0.5).exits(torch.tensor([[[0.0, 5.0]], [[0.0, 0.5]]])).tolist()
    [True, False]
    """

    name = "margin"
    window = 1

    @staticmethod
    def score(logits: Float[Tensor, "B T C"]) -> Float[Tensor, "B"]:
        two = logits[:, -1].softmax(-1).topk(min(2, logits.shape[-1]), -1).values
        return two[:, 0] - two[:, 1:].sum(-1)  # with a single class, its probability

    @staticmethod
    def checked(threshold: float) -> float:
        if not 0 <= threshold <= 1:
            raise GlimpseZooError(f"a margin is a difference of probabilities in [0, 1], got {threshold:g}")
        return threshold


class Entropy(ThresholdRule):
    """As soon as the entropy of the class probabilities is at most `threshold` nats (BranchyNet: Teerapittayanon et al. 2016).

    >>> Entropy(threshold=0.1).exits(torch.tensor([[[0.0, 5.0]], [[0.0, 0.5]]])).tolist()
    [True, False]
    """

    name = "entropy"
    window = 1
    falling = True

    @staticmethod
    def score(logits: Float[Tensor, "B T C"]) -> Float[Tensor, "B"]:
        log_p = logits[:, -1].log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)

    @staticmethod
    def checked(threshold: float) -> float:
        if not 0 <= threshold < math.inf:
            raise GlimpseZooError(f"an entropy in nats is a finite number of at least 0, got {threshold:g}")
        return threshold


class Patience(ThresholdRule):
    """As soon as the prediction has stayed the same for `threshold` steps after the step that made it (PABEE: Zhou et al. 2020).

    >>> logits = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]]])
    >>> Patience(threshold=1).exits(logits).tolist(), Patience(threshold=2).exits(logits).tolist()
    ([True], [False])
    """

    name = "patience"

    @staticmethod
    def score(logits: Float[Tensor, "B T C"]) -> Float[Tensor, "B"]:
        prediction = logits.argmax(-1)  # [B, T]
        differs = prediction != prediction[:, -1:]
        return ((differs.flip(1).cumsum(1) == 0).sum(1) - 1).to(logits.dtype)  # from the last step backwards, until it differs

    @staticmethod
    def checked(threshold: float) -> float:
        if not 1 <= threshold < math.inf or threshold != int(threshold):
            raise GlimpseZooError(f"a patience is a whole number of steps, at least 1, got {threshold:g}")
        return threshold


def budget_thresholds(scores: Float[Tensor, "n steps"], budget: float) -> tuple[float, ...]:
    """Thresholds of all steps but the last, with which shares proportional to budget^t of the images exit at step t, the rest at the last.

    scores: how sure a model is of n calibration images after every step but the last. An image exits once its score reaches the step's
    threshold: the score of the last image of the share, among the images that are left; where none is to exit, it is above all scores.
    The smaller the budget, the earlier the exits ("Glance and Focus": Wang et al. 2020, section 3.2).

    >>> budget_thresholds(torch.tensor([[0.5, 1.0], [0.75, 0.5], [1.0, 0.25]]), budget=1.0)
    (1.0, 1.0)
    """
    images, steps = scores.shape
    shares = torch.tensor([float(budget) ** step for step in range(1, steps + 2)], dtype=torch.float64)
    counts = (images * shares / shares.sum()).floor().long().tolist()
    left = torch.ones(images, dtype=torch.bool, device=scores.device)
    thresholds = []
    for score, count in zip(scores.unbind(1), counts[:-1], strict=True):
        here = score[left].sort(descending=True).values
        thresholds.append(float(here[count - 1]) if 0 < count <= len(here) else float(score.max()) + 1)
        left &= score < thresholds[-1]
    return tuple(thresholds)
