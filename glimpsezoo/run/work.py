"""A run in progress: calibrate, measure what is planned, write results and a comparison."""

import contextlib
import datetime as dt
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import Any

from pydantic import ValidationError

from glimpsezoo.core.exits import ThresholdRule
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.data.base import BadImageError, ImageData
from glimpsezoo.data.opening import told
from glimpsezoo.errors import counted, one_line
from glimpsezoo.evaluation.jobs import unit_ids
from glimpsezoo.evaluation.measuring import run_job
from glimpsezoo.evaluation.plan import Planned, PlannedEvaluation, PlannedFinding, evaluation_of
from glimpsezoo.evaluation.store import UnitStore
from glimpsezoo.measures.base import Bench, Measure
from glimpsezoo.measures.calibration import Calibration, NoCalibrationError, calibration_plan, exit_settings, without_thresholds
from glimpsezoo.measures.result import Data, Failure, TrainedOn, departure
from glimpsezoo.measures.sections import data_section, declared_data_section
from glimpsezoo.measures.stopwatch import threads
from glimpsezoo.run.engines.choosing import AUTO, THREADS, Choice, chosen, engine, fastest
from glimpsezoo.run.portions import Doer, Outcome, Portion, config_of
from glimpsezoo.run.progress import OnProgress, RunProgress
from glimpsezoo.run.request import RunRequest
from glimpsezoo.run.scheduling import POLL, Scheduler
from glimpsezoo.run.timing import compile_now, seconds_per_image
from glimpsezoo.schema import Section
from glimpsezoo.specs import Task
from glimpsezoo.zoo.names import Assignments, ModelChoice
from glimpsezoo.zoo.own_data import DataChoice, trained_on
from glimpsezoo.zoo.plugins import registry

CLEAN = "accuracy"  # errors of clean evaluations are reported under this measure
_FOR_ALL: Hashable = object()  # key of the clean evaluations


@contextlib.contextmanager
def _advised() -> Iterator[None]:
    """Say what to do about a bad image."""
    try:
        yield
    except BadImageError as bad:
        raise BadImageError(f"{bad}: repair or remove it, or measure without such images (--on-bad-image skip)") from None


@dataclass
class RunWork:
    """A prepared run: call `get_ready`, then `measure`, then `finish`."""

    request: RunRequest
    measures: list[Measure]
    """In the order of result.json."""
    chosen: DataChoice
    """The data, by name."""
    names: list[str]
    """Names of the models in results, in the order of the command, like `choices` and `models`."""
    choices: list[ModelChoice]
    """The models as the user named them, with their cards."""
    models: list[GlimpseModel[Any]]
    """The built models."""
    task: Task
    """Image size and classes of the data."""
    bench: Bench | None
    """None if the measures need only the declared image size, so that no data were opened."""
    calibration: ImageData | None
    """The images that thresholds are found on; None if no measure needs thresholds."""
    sets: Assignments
    """Settings of `--set`."""
    folder: Path
    """For the results."""
    store: UnitStore
    """For units of work."""
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""
    started: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    """Start time, for result.json."""
    plan: list[tuple[str, Planned]] = field(default_factory=list)
    """All work in order, each piece with the name of its measure. Set by `get_ready`."""
    seconds_per_image: list[float] = field(default_factory=list)
    """One value per model, measured by `get_ready`."""
    scheduler: Scheduler = field(init=False)
    """What has been found of the plan. Set by `get_ready`."""
    engine: Choice = field(default_factory=lambda: Choice(THREADS))
    """Who does it. Set by `get_ready`."""
    done: dict[str, dict[int, dict[Hashable, Any]]] = field(default_factory=dict)
    """Measure -> model -> key -> outcome."""
    failed: list[tuple[int, Failure]] = field(default_factory=list)
    """Findings that failed, each with the index of its model."""

    @_advised()
    def get_ready(self, on_progress: OnProgress = lambda *_: None) -> None:
        """Compile the models if asked to, time them (for the estimate), find the thresholds of exit rules, and plan all work."""
        if self.bench is None:
            return
        self.store.sweep()
        batch = self.request.config.batch_size
        for index, model in enumerate(self.models):
            if model.computing.compiled:
                on_progress(f"{self.names[index]}: compiling", index, len(self.models))
                self.bench.note(index, f"{self.names[index]}: {compile_now(model, self.task, self.request.device, batch)}")
        self.seconds_per_image = [seconds_per_image(model, self.task, self.request.device, batch) for model in self.models]
        self._calibrate(self.bench, on_progress)
        self.plan = [
            *clean_plan(self.bench),
            *((measure.name, planned) for measure in self.measures for planned in measure.plan(self.bench)),
        ]
        self.scheduler = Scheduler(self.plan, self.request.config, self.store, self.stored)
        self.engine = self._engine()

    def _engine(self) -> Choice:
        """The engine that the user named; else the one that should be done first."""
        choice, device = chosen(self.request.engine), self.request.device
        if choice.kind != AUTO:
            return choice
        if device.type != "cpu" or self.request.compile:
            return Choice(THREADS)
        left = self.scheduler.left()

        rates: list[float] = []

        def with_one() -> list[float]:
            with threads(1):
                rates.extend(seconds_per_image(model, self.task, device, self.request.config.batch_size) for model in self.models)
            return [self._seconds_of(each, rates) for each in left]

        choice = fastest([self._seconds_of(each, self.seconds_per_image) for each in left], with_one)
        if choice.workers > 1:  # the time that is said is theirs
            self.seconds_per_image = [rate / choice.workers for rate in rates]
        return choice

    def _seconds_of(self, portion: Portion, rates: Sequence[float]) -> float:
        """Expected time for a portion. rates: seconds per image of every model."""
        pieces = [self.plan[place][1] for place in portion.pieces if place not in portion.skip]
        share = 1.0 if portion.span is None else (portion.span[1] - portion.span[0]) / max(1, pieces[0].images)
        return share * sum(planned.forward_images * rates[planned.index] for planned in pieces)

    def calibrations(self) -> tuple[type[ThresholdRule], list[PlannedFinding]]:
        """The exit rule, and the work that finds its thresholds for every model with several steps."""
        _, rule = exit_settings(self.sets, registry())
        models = [(k, name, model) for k, (name, model) in enumerate(zip(self.names, self.models, strict=True)) if model.steps > 1]
        config, data = self.request.config, self.calibration
        return rule, [calibration_plan(model, name, k, data, rule, config) for k, name, model in models if data is not None]

    def _calibrate(self, bench: Bench, on_progress: OnProgress) -> None:
        """Calibrate every model with several steps. If no calibration image can be read, add a note instead."""
        if self.calibration is None:
            return
        rule, plans = self.calibrations()
        whole, passed, found = sum(map(self._seconds, plans)), 0.0, dict[int, Calibration]()
        try:
            for planned in plans:
                on_progress(f"{self.names[planned.index]}: {planned.label}", passed, whole)
                passed += self._seconds(planned)
                if isinstance(record := self._find(planned), Exception):
                    self.notes.append(f"{self.names[planned.index]}: no thresholds of early exits ({one_line(record)})")
                    continue
                found[planned.index] = calibrated = record.calibration(rule)
                if unread := planned.images - len(calibrated.hits):
                    left_out = counted(unread, "calibration image")
                    self.notes.append(f"{self.names[planned.index]}: thresholds of exits without {left_out} that cannot be read")
        except NoCalibrationError as error:
            self.notes.append(without_thresholds(self.measures, error))
        else:
            bench.calibrations = found
            if found and self.request.split == "calibration":
                self.notes.append("the thresholds of exits are chosen on the images that are measured: other images show what they do")

    # Messages to the user

    @property
    def subject(self) -> str:
        """What the run measures, of which models, on which images."""
        changed = [", ".join(f"{key}={choice.changed[key]}" for key in choice.changed if key not in choice.own) for choice in self.choices]
        models = [f"{name} ({change})" if change else name for name, change in zip(self.names, changed, strict=True)]
        what = f"{', '.join(text for measure in self.measures for text in measure.texts)} of {', '.join(models)}"
        if self.bench is None:
            return f"{what}: on images of noise, as {self.chosen.shown} declares them"
        all_of_them, few = len(self.bench.data), len(self.bench.few)
        images = f"{counted(all_of_them, 'image')} per model"
        partial = [measure.name for measure in self.measures if measure.few and measure.texts]
        if few < all_of_them and partial:
            images += f" ({few:,} of them for {' and '.join(partial)})"
        return f"{what} on {self.chosen.shown} {self.request.split}: {images}"

    def summary(self, estimate: tuple[float, int] | None = None) -> str:
        """What the run will do, and the expected time on this device. estimate: seconds, and the number of stored units, if known."""
        if self.bench is None:
            return f"{self.subject}{self._departures()}"
        seconds, reused = estimate or self._estimate()
        text = f"{self.subject}, about {max(1, round(seconds))} s"
        text += (f" ({counted(reused, 'unit')} measured already)" if reused else "") + self._departures()
        own = self.store.folder is not None and self.store.folder.parent == self.folder
        why = ", because runs/ cannot be written" if own and self.request.store is None else ""
        return text + (f"; finished units are kept in {self.store.shown}{why}" if own or self.request.store is not None else "")

    @property
    def warnings(self) -> list[str]:
        """One warning for each model that was trained at another image size."""
        about = self.data_section(0)
        sizes = [(name, trained.image_size) for name, trained in zip(self.names, map(training_of, self.choices), strict=True) if trained]
        return [
            f"warning: {name} was never trained at {about.image_size[0]} x {about.image_size[1]} px: some of its parts may be "
            "untrained, and its cost differs from that at the size it was trained for"
            for name, size in sizes
            if size != about.image_size
        ]

    @property
    def said(self) -> list[str]:
        """What was inferred about the data, and what has been left out so far, and why."""
        inferred = told(self.bench.data) if self.bench is not None else None
        workers = [self.engine.said] if self.engine.said else []
        about = [note for _, notes in sorted(self.bench.notes.items()) for note in notes] if self.bench is not None else []
        return [*([inferred] if inferred else []), *self.notes, *workers, *self.store.notes, *about]

    def _departures(self) -> str:
        """The models that were trained on other data, as text to append."""
        about = self.data_section(0)
        found = [departure(name, trained, about) for name, trained in zip(self.names, map(training_of, self.choices), strict=True)]
        return "".join(f"; {text}" for text in found if text)

    # Measuring

    @_advised()
    def measure(self, on_progress: OnProgress) -> None:
        """Do all planned work: first what can be shared, then the rest, and put together what came of it."""
        if self.bench is None:
            return
        progress = RunProgress(self.plan, [self._seconds(planned) for _, planned in self.plan], self.names, on_progress)
        doer = Doer(self.plan, self.bench, self.request.config)
        with engine(self.engine, doer, self.scheduler.keep, progress.on_images, self.request.ray_address) as workers:
            found = self.scheduler.run(workers, progress.on_portion)
        for index, note in found.notes:
            self.bench.note(index, note)
        for place, (name, planned) in enumerate(self.plan):
            if not planned.unless(self.done.get(name, {}).get(planned.index, {})):
                self._keep(name, planned, self._outcome(place, planned, found))

    def _keep(self, name: str, planned: Planned, outcome: Any) -> None:
        """Store an outcome for its measure; clean evaluations are shared by all measures."""
        assert self.bench is not None
        if planned.key is _FOR_ALL:
            self.bench.clean[planned.index] = outcome
        else:
            self.done.setdefault(name, {}).setdefault(planned.index, {})[planned.key] = outcome

    def _outcome(self, place: int, planned: Planned, found: Outcome) -> Any:
        if isinstance(planned, PlannedFinding):
            section = found.findings[place] if place in found.findings else self._find(planned)
            if not isinstance(section, Exception):
                return section
            name = self.plan[place][0]
            failure = Failure(measure=name, unit=planned.stored_as or planned.label, images=(0, planned.images), error=one_line(section))
            self.failed.append((planned.index, failure))
            return None
        assert isinstance(planned, PlannedEvaluation)
        return run_job(planned.job, config_of(planned, self.request.config), self.store, known=found.units)

    def stored(self, planned: PlannedFinding) -> Any:
        """The finding from the store; None if it is not there, or is not to be reused."""
        name = planned.stored_as
        known = None if name is None or self.request.fresh else self.store.read_finding(name)
        if known is not None:
            with contextlib.suppress(ValidationError):  # a damaged file is computed again
                return planned.kind.model_validate_json(known)
        return None

    def _find(self, planned: PlannedFinding) -> Any:
        """The finding, or why it failed: read from the store, computed, or awaited from another process that computes it."""
        name = planned.stored_as
        if name is None:
            return planned.found()
        while (known := self.stored(planned)) is None:
            with self.store.claim(name) as mine:
                if mine:
                    found = self.stored(planned) or planned.found()  # another process may have stored it just before
                    if isinstance(found, Section):
                        self.store.write_finding(name, found.to_json())
                    return found
            sleep(POLL)
        return known

    # Time estimates

    def _seconds(self, planned: Planned) -> float:
        """Expected time for a piece of work with no stored units, without the time to corrupt images."""
        return planned.forward_images * self.seconds_per_image[planned.index]

    def _estimate(self) -> tuple[float, int]:
        """Seconds of remaining work, and the number of stored units."""
        seconds, reused = 0.0, 0
        for _, planned in self.plan:
            left = 1.0
            if isinstance(planned, PlannedEvaluation):
                ids = unit_ids(planned.job, planned.seed)
                finished = 0 if self.request.fresh else sum(self.store.has(unit) for unit in ids)
                reused, left = reused + finished, 1 - finished / max(1, len(ids))
            elif isinstance(planned, PlannedFinding) and (name := planned.stored_as) and not self.request.fresh:
                left = 0.0 if self.store.read_finding(name) is not None else 1.0
            seconds += left * self._seconds(planned)
        return seconds, reused

    def data_section(self, skipped: int, conversions: dict[str, int] | None = None) -> Data:
        """The section of result.json about the data."""
        if self.bench is None:
            return declared_data_section(self.chosen.shown, self.task, self.chosen.recorded)
        return data_section(self.bench.data, skipped=skipped, conversions=conversions, settings=self.chosen.recorded)


def clean_plan(bench: Bench) -> Iterator[tuple[str, Planned]]:
    """The evaluation of every model on all clean images."""
    for index in range(len(bench.models)):
        yield CLEAN, evaluation_of(bench.job(index, bench.data), index=index, key=_FOR_ALL, label="clean", seed=bench.seed)


def training_of(choice: ModelChoice) -> TrainedOn | None:
    return trained_on(choice.card.config) if choice.card else None
