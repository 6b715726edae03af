"""Planned work of a run: evaluations of models, and findings that do not have one row per image."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glimpsezoo.conditions.base import Remembered
from glimpsezoo.data.limited import Held
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.hashing import unit_id
from glimpsezoo.schema import Section


def never(done: Mapping[Hashable, Any]) -> bool:
    """The default of `Planned.unless`: the work is always done."""
    return False


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One piece of work on one model of a run."""

    index: int
    """Index of the model in the run."""
    key: Hashable
    """Identifies the outcome; only the measure that planned the work interprets it."""
    label: str
    """Shown to the user while the work runs."""
    passes: float = 1.0
    """Cost per image, in forward passes."""
    images: int
    """Number of images."""
    together: Hashable = None
    """Pieces of one measure with the same value are done in order by one process, because they share images in memory or read each
    other's outcomes; None for a piece that stands alone.
    """
    unless: Callable[[Mapping[Hashable, Any]], bool] = never
    """Whether the work is superfluous, given what its measure has found of the model so far, by key. It may read only pieces that
    are done together with this one.
    """

    @property
    def stored_as(self) -> str | None:
        """Name of the outcome in the store, if it has one name: that of a finding which is kept."""
        return None

    @property
    def forward_images(self) -> float:
        return self.passes * self.images


@dataclass(frozen=True, kw_only=True)
class PlannedEvaluation(Planned):
    """An evaluation of a model on data under a condition. Its outcome is stored in units."""

    job: Job
    """The model, data and condition."""
    seed: int
    """Seed of the model's noise."""
    last_of: tuple[Remembered | Held, ...] = ()
    """Objects that hold images in memory which are no longer needed after this evaluation, whether it was done or left out."""


@dataclass(frozen=True, kw_only=True)
class PlannedFinding(Planned):
    """A result without one row per image. Like a unit, it is kept in the store (as JSON) and never computed twice."""

    identity: Mapping[str, Any] | None
    """Everything that determines the outcome (JSON values); None for a finding that is never stored, such as a latency."""
    kind: type[Section]
    """Class of the outcome."""
    find: Callable[[], Section | None]
    """Computes it; returns None and adds a note if that is impossible."""

    @property
    def stored_as(self) -> str | None:
        return None if self.identity is None else unit_id(self.identity, 0, self.images)

    def found(self) -> Section | Exception | None:
        """What `find` returns, or why it failed: a model or a measure of a plugin may fail in any way. Raises `GlimpseZooError`."""
        try:
            return self.find()
        except GlimpseZooError:
            raise
        except Exception as error:
            return error


Plan = Sequence[tuple[str, Planned]]
"""All work of a run in order, each piece with the name of its measure."""


def evaluation_of(job: Job, *, index: int, key: Hashable, label: str, seed: int, **more: Any) -> PlannedEvaluation:
    """The plan of a job on all its images."""
    return PlannedEvaluation(index=index, key=key, label=label, images=len(job.data), job=job, seed=seed, **more)
