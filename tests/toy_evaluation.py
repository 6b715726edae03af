"""A small data set, jobs with toy models, and a condition, for the tests of evaluation."""

import os
import signal
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from toy_models import TASK, Counted, Peek, batch_of_images, toy

from glimpsezoo.conditions.base import Condition
from glimpsezoo.core.noise import Noise
from glimpsezoo.data.base import BadImageError, DataInfo, Example, ImageData
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.settings import Settings
from glimpsezoo.testing import tolerance

IMAGES = 33
INFO = DataInfo(name="made-up", source="a seed", revision=None, fingerprint="1", split="test", transform="none")


class MadeUp(ImageData):
    """Three images per source image; ids differ from positions."""

    def __init__(self, *, bad: tuple[int, ...] = (), info: DataInfo = INFO) -> None:
        self.info, self.task, self.bad = info, TASK, bad
        self.images = batch_of_images(IMAGES)

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> Example:
        if index in self.bad:
            raise BadImageError(f"row {index} is no image")
        return Example(self.images[index], label=index % 3, id=1000 + 7 * index, group=index // 3)


class Config(Settings):
    width: int = 3


def model_of(kind: type[Counted], **settings: int) -> Counted:
    model = toy(kind, **settings)
    model.config = Config()
    return model


def job_of(kind: type[Counted] = Peek, **parts: Any) -> Job:
    return Job(model_of(kind), "toy", MadeUp(), **parts)


@lru_cache
def rounding(kind: type[Counted]) -> float:
    """How much rounding may change a confidence or an NLL of these images: twice the change of a logit."""
    data = MadeUp()
    ids = torch.tensor([data[index].id for index in range(IMAGES)])
    return 2 * tolerance(model_of(kind), data.images, Noise.of(0, ids)).logits.max().item()


def assert_same(a: Rows, b: Rows, kind: type[Counted] = Peek) -> None:
    """Assert that two measurements of a toy model agree: floats up to rounding, everything else exactly."""
    for f in fields(Rows):
        mine, theirs = getattr(a, f.name), getattr(b, f.name)
        near = rounding(kind) if mine.dtype.kind == "f" else 0
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=near, err_msg=f.name)


@dataclass
class Darker(Condition):
    """Darkens each image by its own noise, and records the arguments of `apply`."""

    severity: int
    given: list[tuple[Tensor, Tensor, bool]] = field(default_factory=list)
    name = "darker"

    @property
    def parameters(self) -> dict[str, Any]:
        return {"severity": self.severity}

    def apply(self, images: Tensor, labels: Tensor, ids: Tensor, model: Any) -> Tensor:
        self.given.append((labels, ids, torch.is_grad_enabled() and not model.training))
        shade = Noise.of(0, ids).uniform(0, 1)[:, :, None, None]  # [B, 1, 1, 1]
        return images * shade ** (0.5 * self.severity)


@dataclass
class Deadly(Darker):
    """The first process that applies it is killed, as by a system without memory."""

    marker: str = ""
    name = "deadly"

    def apply(self, images: Tensor, labels: Tensor, ids: Tensor, model: Any) -> Tensor:
        try:
            Path(self.marker).touch(exist_ok=False)
        except FileExistsError:
            return super().apply(images, labels, ids, model)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError
