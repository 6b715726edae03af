"""What a training would do, what its folder has of it already, and how long the rest may take. Nothing is trained or written."""

from dataclasses import asdict, dataclass
from typing import Any

from glimpsezoo.training.folder import load_checkpoint
from glimpsezoo.training.work import TrainingWork


@dataclass(frozen=True)
class PhaseForecast:
    """A training phase."""

    name: str
    epochs: int
    """An incomplete last epoch counts."""
    steps: int
    """Optimiser steps."""
    done: int
    """Steps that the checkpoint in the folder has behind it."""


@dataclass(frozen=True)
class TrainingForecast:
    """The plan of a training."""

    card: str
    folder: str
    """For the card."""
    images: int
    """For training."""
    recipe: dict[str, Any]
    """With all changes; without what is as by default."""
    phases: tuple[PhaseForecast, ...]
    seconds: float | None
    """Expected time, by that of the steps that are done; None if there are none."""
    notes: tuple[str, ...]
    """What was inferred."""

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    @property
    def done(self) -> int:
        return sum(phase.done for phase in self.phases)

    def to_json(self) -> dict[str, Any]:
        """JSON values: all of it."""
        return {**asdict(self), "steps": self.steps, "done": self.done}


def forecast(work: TrainingWork, *, fresh: bool) -> TrainingForecast:
    """The plan of a prepared training. fresh: a checkpoint would be ignored.

    Raises `GlimpseZooError` for a damaged checkpoint, and for one of another training.
    """
    job, recipe = work.job, work.job.recipe
    state = None if fresh else load_checkpoint(job)
    phase, step, spent = (state["phase"], state["step"], state["seconds"]) if state else (0, 0, 0.0)
    phases = tuple(
        PhaseForecast(each.name, job.epochs_of(k), job.steps_of(k), job.steps_of(k) if k < phase else step if k == phase else 0)
        for k, each in enumerate(recipe.phase)
    )
    done, steps = sum(each.done for each in phases), sum(each.steps for each in phases)
    return TrainingForecast(
        card=work.target.card,
        folder=str(job.folder),
        images=len(job.train),
        recipe=recipe.model_dump(mode="json", exclude_defaults=True),
        phases=phases,
        seconds=spent / done * (steps - done) if done else None,
        notes=tuple(work.notes),
    )
