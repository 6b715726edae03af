"""Schedules the portions of a run on its workers, together with other processes that use the same store.

The units that a portion lacks are claimed before a worker gets it; portions that another process has claimed are tried again later. Workers
need no store: they are given what is known, and their outcomes are stored here.
"""

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import sleep
from typing import Any, NamedTuple

from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.evaluation.jobs import Span, spans_of, unit_ids
from glimpsezoo.evaluation.measuring import EvaluationConfig, Known, run_job, stored_unit
from glimpsezoo.evaluation.plan import Plan, PlannedEvaluation, PlannedFinding
from glimpsezoo.evaluation.rows import StoredUnit
from glimpsezoo.evaluation.store import UnitStore
from glimpsezoo.run.engines.base import Engine, WorkerDiedError
from glimpsezoo.run.portions import Outcome, Portion, config_of, portions_of
from glimpsezoo.schema import Section

POLL = 0.5  # seconds between checks for what another process is measuring
BUSY = Portion(())  # in place of a portion that another process has claimed
TRIES = 3  # times that a portion is given to a worker, if workers die of it


class _Turn(NamedTuple):
    """A portion that waits for a worker, or that a worker has."""

    portion: Portion
    tries: int = 1
    claims: ExitStack = ExitStack()


@dataclass
class Scheduler:
    """Has the plan of one run done, and stores the outcomes."""

    plan: Plan
    config: EvaluationConfig
    store: UnitStore
    stored_finding: Callable[[PlannedFinding], Section | None]
    """Reads a finding from the store."""
    found: Outcome = field(default_factory=Outcome)
    """What was found for this run."""
    _ids: dict[int, dict[Span, str]] = field(default_factory=dict)
    """Place in the plan -> the ids of its units."""

    @cached_property
    def portions(self) -> list[Portion]:
        return portions_of(self.plan)

    def left(self) -> list[Portion]:
        """The portions, or parts of them, that are not done yet."""
        return [left for portion in self.portions if (left := self._left(portion)) is not None]

    def keep(self, unit_id: str, unit: StoredUnit) -> None:
        """Store a unit that was measured."""
        self.store.write(unit_id, unit)
        self.found.units[unit_id] = unit

    def run(self, engine: Engine, on_portion: Callable[[Portion], None] = lambda _: None) -> Outcome:
        """Have all portions done by an engine. on_portion: called after each one, including those that were done already.

        Raises `GlimpseZooError` for errors that the user can fix, and if workers die of a portion again and again.
        """
        waiting = deque(_Turn(portion) for portion in self.portions)
        if engine.slots > 1:  # long portions first, so that nobody waits for one at the end
            waiting = deque(sorted(waiting, key=lambda turn: turn.portion.span is not None))
        flying: dict[Future[Outcome], _Turn] = {}
        busy: list[_Turn] = []  # what other processes have claimed
        try:
            while waiting or flying or busy:
                while waiting and len(flying) < engine.slots:
                    turn = waiting.popleft()
                    with ExitStack() as claims:
                        left = self._claimed(turn.portion, claims)
                        if left is None:
                            on_portion(turn.portion)
                        elif left is BUSY:
                            busy.append(turn)
                        else:
                            future = engine.submit(left, self._given(left))
                            flying[future] = turn._replace(claims=claims.pop_all())
                done = wait(flying, timeout=POLL, return_when=FIRST_COMPLETED).done
                for future in sorted(done, key=lambda future: future.exception() is not None):  # what was found is kept, whatever follows
                    turn = flying.pop(future)
                    if self._landed(turn, future, flying):
                        on_portion(turn.portion)
                    else:
                        waiting.append(turn._replace(tries=turn.tries + 1))  # last: what can be finished is kept
                if busy and not flying:
                    sleep(POLL)
                if done or not flying:
                    waiting.extend(busy)
                    busy.clear()
        finally:
            for turn in flying.values():
                turn.claims.close()
        return self.found

    def _claimed(self, portion: Portion, claims: ExitStack) -> Portion | None:
        """The portion without what is done, with claims on all of it; None if nothing is left, `BUSY` if another process is at it."""
        left = self._left(portion)
        if left is None:
            return None
        if not all(claims.enter_context(self.store.claim(name)) for name in self._names(left)):
            return BUSY
        return self._left(portion)  # somebody may have finished it just before it was claimed

    def _landed(self, turn: _Turn, future: Future[Outcome], flying: Mapping[Future[Outcome], _Turn]) -> bool:
        """Take what came of a portion, and release its claims. False if its worker died; `GlimpseZooError` if one died too often."""
        with turn.claims:
            try:
                self._add(future.result())
            except WorkerDiedError as error:
                if turn.tries < TRIES:
                    return False
                for other in wait(flying).done:  # what is at work is kept
                    if other.exception() is None:
                        self._add(other.result())
                raise GlimpseZooError(_workers_died(self.plan, turn.portion, error)) from None
        return True

    def _left(self, portion: Portion) -> Portion | None:
        """The portion without what is done; None if nothing is left."""
        if portion.span is not None:
            skip = frozenset(place for place in portion.pieces if self._is_done(place, portion.span))
            return None if len(skip) == len(portion.pieces) else replace(portion, skip=skip)
        done: dict[Hashable, Any] = {}
        for place in portion.pieces:
            planned = self.plan[place][1]
            if planned.unless(done):
                continue
            if not self._is_done(place, None):
                return portion
            if isinstance(planned, PlannedEvaluation) and place != portion.pieces[-1]:  # its rows tell whether the rest is superfluous
                config = config_of(planned, self.config)
                done[planned.key] = run_job(planned.job, config, self.store, known=self._known(place))
        return None

    def _is_done(self, place: int, span: Span | None) -> bool:
        """Whether a unit of a piece, or all of it, was found for this run or is in the store."""
        planned = self.plan[place][1]
        if isinstance(planned, PlannedFinding):
            return place in self.found.findings or self.stored_finding(planned) is not None
        found, fresh = self.found.units, self.config.fresh
        return all(name in found or (not fresh and self.store.has(name)) for name in self._names_of(place, span))

    def _names(self, portion: Portion) -> dict[str, None]:
        """The names in the store of what a portion finds, each once: two pieces may be the same work."""
        return {name: None for place in portion.pieces if place not in portion.skip for name in self._names_of(place, portion.span)}

    def _names_of(self, place: int, span: Span | None) -> list[str]:
        planned = self.plan[place][1]
        if not isinstance(planned, PlannedEvaluation):
            return [planned.stored_as] if planned.stored_as is not None else []
        if place not in self._ids:
            self._ids[place] = dict(zip(spans_of(planned.job), unit_ids(planned.job, planned.seed), strict=True))
        return [self._ids[place][span]] if span is not None else list(self._ids[place].values())

    def _given(self, portion: Portion) -> Outcome:
        """What is known of a portion whose pieces read each other's outcomes."""
        given = Outcome()
        for place in portion.pieces if portion.span is None else ():
            planned = self.plan[place][1]
            if isinstance(planned, PlannedEvaluation):
                given.units |= self._known(place)
            elif isinstance(planned, PlannedFinding) and (found := self.stored_finding(planned)) is not None:
                given.findings[place] = found
        return given

    def _known(self, place: int) -> Known:
        """The units of an evaluation that are known, by id."""
        known: dict[str, StoredUnit | Exception] = {}
        for name in self._names_of(place, None):
            if name in self.found.units:
                known[name] = self.found.units[name]
            elif unit := stored_unit(name, self.config, self.store):
                known[name] = unit
        return known

    def _add(self, found: Outcome) -> None:
        """Store what a worker has found."""
        for name, unit in found.units.items():
            if name not in self.found.units and isinstance(unit, StoredUnit):
                self.store.write(name, unit)
        for place, section in found.findings.items():
            name = self.plan[place][1].stored_as
            if name is not None and isinstance(section, Section):
                self.store.write_finding(name, section.to_json())
        self.found.units |= found.units
        self.found.findings |= found.findings
        self.found.notes += found.notes


def _workers_died(plan: Plan, portion: Portion, error: Exception) -> str:
    measure, planned = plan[portion.pieces[0]]
    what = f"{planned.label} ({measure})"
    return (
        f"expected workers that measure {what}, got {TRIES} that died of it ({one_line(error)}), perhaps because memory ran out: repeat "
        "the command, which goes on from there, with fewer processes or a smaller --batch-size"
    )
