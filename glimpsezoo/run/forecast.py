"""What a run would do, how much of it is stored already, and how long the rest may take. Nothing is measured or written."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.evaluation.environment import device_name
from glimpsezoo.evaluation.jobs import unit_ids
from glimpsezoo.evaluation.plan import Planned, PlannedEvaluation, PlannedFinding
from glimpsezoo.run.work import RunWork, clean_plan

CALIBRATION = "calibration"  # in the place of a measure: thresholds of early exits


@dataclass(frozen=True)
class MeasureForecast:
    """What one measure of one model will take."""

    model: str
    measure: str
    units: int
    """Units of work: blocks of up to 1,000 images, and findings."""
    stored: int
    """Units that are not measured again."""
    seconds: float | None
    """Expected time for the others; None if no unit of the model has been measured on this device."""
    left: float
    """Forward passes of single images in the others."""
    rate: float | None
    """Seconds per forward pass of an image, by the units of the model that this device measured; None without any."""


@dataclass(frozen=True)
class Forecast:
    """The plan of a run."""

    subject: str
    """What is measured, in one line."""
    plan: tuple[MeasureForecast, ...]
    folder: str
    """For the results."""
    notes: tuple[str, ...]
    """What is left out or not known yet, and why."""

    @property
    def units(self) -> int:
        return sum(share.units for share in self.plan)

    @property
    def stored(self) -> int:
        return sum(share.stored for share in self.plan)

    @property
    def seconds(self) -> float | None:
        """Expected time; None if it is unknown for some of the plan."""
        known = [share.seconds for share in self.plan if share.seconds is not None]
        return sum(known) if len(known) == len(self.plan) else None

    def to_json(self) -> dict[str, Any]:
        """JSON values: all of it."""
        return {**asdict(self), "units": self.units, "stored": self.stored, "seconds": self.seconds}


def forecast(work: RunWork, seen: set[str] | None = None) -> Forecast:
    """The plan of a prepared run. seen: names of units and findings that other runs of a grid count, to which this run's are added."""
    seen = set() if seen is None else seen
    notes: list[str] = []
    pieces = list(_pieces(work, notes)) if work.bench is not None else []
    if work.bench is None:
        notes.append("this is counted at once, and nothing of it is stored")
    rates = [_seconds_per_pass(work, [planned for _, planned in pieces if planned.index == index]) for index in range(len(work.models))]
    groups: dict[tuple[int, str], list[Planned]] = {}
    for name, planned in pieces:
        groups.setdefault((planned.index, name), []).append(planned)
    plan = []
    for (index, name), members in sorted(groups.items(), key=lambda group: group[0][0]):
        counts = [_counts(work, planned, seen) for planned in members]
        left = sum(planned.forward_images * share for planned, (_, _, share) in zip(members, counts, strict=True))
        rate = rates[index]
        seconds = 0.0 if not left else None if rate is None else left * rate
        units, stored = sum(count[0] for count in counts), sum(count[1] for count in counts)
        plan.append(MeasureForecast(work.names[index], name, units, stored, seconds, left, rate))
    return Forecast(work.subject, tuple(plan), str(work.folder), (*work.warnings, *work.said, *notes))


def _pieces(work: RunWork, notes: list[str]) -> Iterator[tuple[str, Planned]]:
    """All work, each piece with the name of its measure. What depends on thresholds that are not found yet becomes a note."""
    bench = work.bench
    assert bench is not None
    rule, calibrations = work.calibrations()
    found = {planned.index: work.stored(planned) for planned in calibrations}
    bench.calibrations = {index: record.calibration(rule) for index, record in found.items() if record is not None}
    missing = [bench.names[index] for index, record in found.items() if record is None]
    yield from ((CALIBRATION, planned) for planned in calibrations)
    yield from clean_plan(bench)
    waiting = []
    for measure in work.measures:
        if missing and measure.uses_exits:
            waiting.append(measure.name)
        try:
            yield from ((measure.name, planned) for planned in measure.plan(bench))
        except GlimpseZooError as error:
            if not missing:
                raise
            notes.append(f"{measure.name}: {one_line(error)}")
    if waiting:
        notes.append(f"thresholds of early exits are not found yet for {', '.join(missing)}: {' and '.join(waiting)} may have more units")


def _counts(work: RunWork, planned: Planned, seen: set[str]) -> tuple[int, int, float]:
    """The units of a piece of work that nobody has counted, how many of them are stored, and the share of the piece that is left."""
    if isinstance(planned, PlannedFinding):
        new = planned.stored_as is None or planned.stored_as not in seen
        seen |= {planned.stored_as} if planned.stored_as is not None else set()
        stored = int(new and work.stored(planned) is not None)
        return int(new), stored, float(new - stored)
    assert isinstance(planned, PlannedEvaluation)
    ids = unit_ids(planned.job, planned.seed)
    new = [name for name in ids if name not in seen]
    seen.update(new)
    stored = 0 if work.request.fresh else sum(map(work.store.has, new))
    return len(new), stored, (len(new) - stored) / len(ids) if ids else 0.0


def _seconds_per_pass(work: RunWork, pieces: list[Planned]) -> float | None:
    """Seconds per image and forward pass of a model: the mean over the units that are stored, if this device measured them."""
    device, seconds, passes = device_name(work.request.device), 0.0, 0.0
    for planned in pieces:
        for name in unit_ids(planned.job, planned.seed) if isinstance(planned, PlannedEvaluation) else ():
            unit = work.store.read(name)
            if unit is not None and unit.measured.device == device:
                seconds += unit.measured.seconds
                passes += planned.passes * len(unit.rows)
    return seconds / passes if passes else None
