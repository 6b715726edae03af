"""What a training consists of, and what a training step is told beside its batch."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.loading import batches_per_epoch
from glimpsezoo.training.optimisers import check_trainable
from glimpsezoo.training.shared import Share
from glimpsezoo.zoo.recipes import Recipe

TrainingStep = Callable[[GlimpseModel[Any], Tensor, Tensor, "TrainingPhase"], dict[str, Tensor]]
"""training_step(model, images, labels, phase) -> {term: loss}; the sum of the terms is minimised."""


@dataclass(frozen=True, kw_only=True)
class TrainingPhase:
    """What a training step is told beside its batch."""

    name: str
    """Name of the training phase in the recipe."""
    options: Mapping[str, Any]
    """Options of the training phase in the recipe."""
    step: int
    """Index of this optimiser step in the training phase, from 0."""
    steps: int
    """Number of optimiser steps in the training phase."""
    epoch: int
    """Index of the epoch in the training phase, from 0."""
    noise: Noise
    """One noise source per image, new in every step."""
    memory: dict[str, Tensor]
    """Tensors that are kept from step to step (a moving baseline, say) and saved in checkpoints. On several processes, all must keep the
    same ones: see `mean`."""
    share: Share = field(default_factory=Share)
    """The part of every batch that this process takes: all of it, if the training runs on one process."""

    def mean(self, values: Float[Tensor, "n *s"]) -> Float[Tensor, "*s"]:
        """The mean over the first axis, and over all processes that share the batch, with gradients.

        A term of the loss that is a mean over images needs no help. Anything else that a training step computes from its batch (the square
        of a mean, a baseline that it remembers, a normalisation) starts from this. All processes must call it equally often.
        """
        return self.share.mean(values)


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One training: the model, the data and the recipe."""

    model: GlimpseModel[Any]
    training_step: TrainingStep
    recipe: Recipe
    train: ImageData
    calibration: ImageData
    """Images on which the accuracy is measured during the training."""
    folder: Path
    """Where the checkpoint and the log are written."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    """Processes that decode images; 0 decodes in this process."""
    checkpoint_seconds: float = 30.0
    """Seconds between two checkpoints."""
    share: Share = field(default_factory=Share)
    """The part of every batch that this process takes."""
    start: str | None = None
    """SHA-256 of the weights file that the model starts with, if any."""

    def __post_init__(self) -> None:
        check_trainable(self.model, self.recipe)

    def per_epoch(self, index: int) -> int:
        """Optimiser steps per epoch of a training phase."""
        return batches_per_epoch(self.train, self.recipe.batch_size) * self.recipe.phase[index].replays

    def images_of(self, index: int, step: int) -> int:
        """Images of the whole batch of a step of a training phase; the last batch of an epoch may be smaller."""
        number = step % self.per_epoch(index) // self.recipe.phase[index].replays
        return min(self.recipe.batch_size, len(self.train) - number * self.recipe.batch_size)

    def steps_of(self, index: int) -> int:
        """Optimiser steps of a training phase."""
        phase = self.recipe.phase[index]
        return phase.steps if phase.steps is not None else self.per_epoch(index) * int(phase.epochs or 0)

    def epochs_of(self, index: int) -> int:
        """Epochs of a training phase; an incomplete last epoch counts."""
        return -(-self.steps_of(index) // self.per_epoch(index))


def job_digest(job: TrainingJob) -> str:
    """A hash of everything that decides the outcome of a job: recipe, model settings, data, their order and the weights it starts with."""
    parts = [job.recipe.model_dump(), job.model.config.model_dump(), type(job.model).__qualname__, job.train.info.fingerprint]
    text = json.dumps([*parts, *([job.start] if job.start else []), *_order_of(job)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _order_of(job: TrainingJob) -> list[str]:
    """A hash of the training order if it is not that of other data: a stream is shuffled in windows, and has the same fingerprint."""
    order, usual = job.train.training_order(0, job.recipe.seed), ImageData.training_order(job.train, 0, job.recipe.seed)
    return [] if order.equal(usual) else [hashlib.sha256(order.numpy().tobytes()).hexdigest()]
