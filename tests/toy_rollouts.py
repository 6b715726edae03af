"""The toy models in double precision, and images that exit at many steps.

Rounding hides no fault here; what it may change in single precision is for test_rounding.py.
"""

from dataclasses import dataclass
from typing import Any

import torch
import toy_models
from torch import Tensor
from toy_models import Counted, Peek, Tree, batch_of_images

from glimpsezoo.core.exits import Confidence
from glimpsezoo.core.noise import Noise

IMAGES = batch_of_images(24).double()
NOISE = Noise.of(7, torch.arange(100, 124))


@dataclass(frozen=True)
class Case:
    """A toy, and a threshold under which its images exit at many steps."""

    kind: type[Counted]
    threshold: float

    @property
    def rule(self) -> Confidence:
        return Confidence(self.threshold)


CASES = [Case(Peek, 0.75), Case(Tree, 0.95)]


def toy(kind: type[Counted], **settings: Any) -> Counted:
    return toy_models.toy(kind, **settings).double()


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
