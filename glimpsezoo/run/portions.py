"""A plan as portions: what can be done side by side, by whoever is free."""

from collections.abc import Callable, Hashable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from glimpsezoo.data.limited import Held
from glimpsezoo.evaluation.jobs import Span, spans_of
from glimpsezoo.evaluation.measuring import EvaluationConfig, Known, run_job, run_units
from glimpsezoo.evaluation.plan import Plan, PlannedEvaluation, PlannedFinding, never
from glimpsezoo.evaluation.reading import Reader
from glimpsezoo.evaluation.rows import StoredUnit
from glimpsezoo.evaluation.store import UnitStore
from glimpsezoo.measures.base import Bench
from glimpsezoo.schema import Section


@dataclass(frozen=True)
class Portion:
    """Some pieces of a plan, in order."""

    pieces: tuple[int, ...]
    """Places in the plan."""
    span: Span | None = None
    """The images of one unit; None for all."""
    skip: frozenset[int] = frozenset()
    """Pieces that are done already."""


@dataclass
class Outcome:
    """What came of portions."""

    units: dict[str, StoredUnit | Exception] = field(default_factory=dict)
    """By the ids of units: the content, or why the unit failed."""
    findings: dict[int, Section | Exception | None] = field(default_factory=dict)
    """By places in the plan: what was found, or why that failed."""
    notes: list[tuple[int, str]] = field(default_factory=list)
    """(index of a model, what could not be found and why)."""


def portions_of(plan: Plan) -> list[Portion]:
    """The portions of a plan, in its order.

    Pieces that are done together share images in memory, so each unit of them is one portion. If one of them may become superfluous by what
    another finds, all their units are one. What is never stored (a latency) is no portion: it is found alone, by the process that asks.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, (measure, planned) in enumerate(plan):
        if not isinstance(planned, PlannedFinding) or planned.stored_as is not None:
            groups.setdefault((measure, planned.together, place if planned.together is None else None), []).append(place)
    portions = []
    for places in map(tuple, groups.values()):
        members = [plan[place][1] for place in places]
        jobs = [planned.job for planned in members if isinstance(planned, PlannedEvaluation)]
        if len(jobs) < len(members) or any(planned.unless is not never for planned in members):
            portions.append(Portion(places))
        else:
            portions += [Portion(places, span) for span in spans_of(jobs[0])]
    return portions


@dataclass
class Doer:
    """Does portions of a plan, in this process."""

    plan: Plan
    bench: Bench
    config: EvaluationConfig
    reader: Reader = field(default_factory=Reader)
    """Reads the images of units."""

    def do(
        self,
        portion: Portion,
        given: Outcome,
        *,
        keep: Callable[[str, StoredUnit], None] = lambda *_: None,
        on_images: Callable[[int, int], None] = lambda *_: None,
    ) -> Outcome:
        """Do a portion. given: what is known of it already. keep: gets each unit at once. on_images: gets a piece and its finished images.

        Raises `GlimpseZooError` for errors that the user can fix; any other error fails only its unit or finding.
        """
        found, done = Outcome(), dict[Hashable, dict[Hashable, Any]]()
        before = {index: len(notes) for index, notes in self.bench.notes.items()}
        for place in portion.pieces:
            measure, planned = self.plan[place]
            mine = done.setdefault((measure, planned.index), {})
            if place not in portion.skip and not planned.unless(mine):
                on_images(place, 0)
                if isinstance(planned, PlannedEvaluation):
                    units = _Kept(keep)
                    mine[planned.key] = self._evaluate(
                        planned, portion.span, units, given.units, lambda n, place=place: on_images(place, n)
                    )
                    found.units |= units.found
                elif isinstance(planned, PlannedFinding):
                    known = place in given.findings
                    mine[planned.key] = found.findings[place] = given.findings[place] if known else planned.found()
            for images in planned.last_of if isinstance(planned, PlannedEvaluation) else ():
                images.forget()
        found.notes = [(index, note) for index, notes in self.bench.notes.items() for note in notes[before.get(index, 0) :]]
        return found

    def _evaluate(
        self, planned: PlannedEvaluation, span: Span | None, units: "_Kept", known: Known, on_images: Callable[[int], None]
    ) -> Any:
        config = config_of(planned, self.config)
        if span is None:
            found = run_job(planned.job, config, units, on_images=on_images, known=known)
            units.found |= {unit.id: unit.error for unit in found.failed if unit.error is not None}
            return found
        for unit in run_units(planned.job, config, units, on_images=on_images, known=known, spans=[span], reader=self.reader):
            if unit.error is not None:
                units.found[unit.id] = unit.error
        return None


def config_of(planned: PlannedEvaluation, config: EvaluationConfig) -> EvaluationConfig:
    """How a piece is evaluated."""
    config = replace(config, seed=planned.seed)
    # A worker process would not share what it reads.
    return replace(config, workers=0) if isinstance(planned.job.data, Held) else config


class _Kept(UnitStore):
    """The units that are measured, in memory: what is stored has been given, and nobody else works on them."""

    def __init__(self, keep: Callable[[str, StoredUnit], None]) -> None:
        self.found: dict[str, StoredUnit | Exception] = {}
        self.keep = keep

    def read(self, unit_id: str) -> StoredUnit | None:
        return None

    def write(self, unit_id: str, unit: StoredUnit) -> None:
        self.found[unit_id] = unit
        self.keep(unit_id, unit)

    def claim(self, unit_id: str) -> Any:
        return nullcontext(True)
