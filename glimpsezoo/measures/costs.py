"""What a result says of costs, and the cost of a model without data."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.data.base import DataInfo, Example, ImageData
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.evaluation.measuring import Evaluation, EvaluationConfig, run_job
from glimpsezoo.evaluation.rows import Measured
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.text import macs_text
from glimpsezoo.specs import Task


def cost_text(result: Result, macs: float) -> str:
    """A number of MACs of a result, with '>=' before it if operations without a formula ran."""
    return macs_text(macs, at_least=result.at_least)


def step_costs(result: Result) -> list[float]:
    """MACs per image of runs stopped at each step; none if they were not counted."""
    section = result.flops or result.accuracy
    return [step.macs for step in section.steps] if section else []


def mean_macs(result: Result) -> float | None:
    """MACs per image, on average; None if they were not counted."""
    if result.flops:
        return result.flops.macs.mean
    return result.accuracy.steps[-1].macs if result.accuracy else None


def uncounted(result: Result) -> tuple[str, ...]:
    """Operations that ran and count as nothing."""
    return result.flops.uncounted if result.flops else ()


def missing_operations(measured: Sequence[Measured]) -> tuple[str, ...]:
    """Operations without a formula that may hold products, in any of these units: with any, their MACs are lower bounds."""
    return tuple(sorted({name for unit in measured for name in unit.missing}))


class NoiseImages(ImageData):
    """Images of uniform noise in [0, 1] of the size that a task declares, all of class 0."""

    def __init__(self, task: Task, images: int) -> None:
        self.task, self.images = task, images
        self.info = DataInfo(name="noise", source="noise", revision=None, fingerprint=f"noise {images}", split="none", transform="none")

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> Example:
        shape = (self.task.channels, *self.task.image_size)
        pixels = Noise.of(0, torch.tensor([index])).uniform(0, math.prod(shape))
        return Example(pixels.reshape(shape), label=0, id=index, group=index)  # [1, C * H * W] -> [C, H, W]


def evaluated_on_noise(model: GlimpseModel[Any], *, images: int = 8, config: EvaluationConfig | None = None) -> Evaluation:
    """A model on a few images of noise of the size that its task declares.

    If the cost of a model depends on what it sees, this is its cost on noise.
    """
    found = run_job(Job(model, type(model).__name__, NoiseImages(model.task, images)), config)
    if found.failed and found.failed[0].error:
        raise found.failed[0].error
    return found
