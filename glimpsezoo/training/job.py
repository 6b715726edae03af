"""What a training consists of, and what a training step is told beside its batch."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.loading import batches_per_epoch
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
    """Tensors that are kept from step to step (a moving baseline, say) and saved in checkpoints."""


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
    start: str | None = None
    """SHA-256 of the weights file that the model starts with, if any."""

    def per_epoch(self, index: int) -> int:
        """Optimiser steps per epoch of a training phase."""
        return batches_per_epoch(self.train, self.recipe.batch_size) * self.recipe.phase[index].replays

    def steps_of(self, index: int) -> int:
        """Optimiser steps of a training phase."""
        phase = self.recipe.phase[index]
        return phase.steps if phase.steps is not None else self.per_epoch(index) * int(phase.epochs or 0)

    def epochs_of(self, index: int) -> int:
        """Epochs of a training phase; an incomplete last epoch counts."""
        return -(-self.steps_of(index) // self.per_epoch(index))


def job_digest(job: TrainingJob) -> str:
    """A hash of everything that decides the outcome of a job: recipe, model settings, data and the weights it starts with."""
    parts = [job.recipe.model_dump(), job.model.config.model_dump(), type(job.model).__qualname__, job.train.info.fingerprint]
    text = json.dumps([*parts, *([job.start] if job.start else [])], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
