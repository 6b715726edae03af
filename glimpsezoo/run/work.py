"""A run in progress: calibrate, measure what is planned, write results and a comparison."""

import contextlib
import datetime as dt
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from glimpsezoo.core.exits import ThresholdRule
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.limited import Held
from glimpsezoo.data.opening import told
from glimpsezoo.errors import GlimpseZooError, counted
from glimpsezoo.evaluation.environment import environment_section
from glimpsezoo.evaluation.jobs import run_job, unit_ids
from glimpsezoo.evaluation.plan import Planned, PlannedEvaluation, PlannedFinding, evaluation_of
from glimpsezoo.evaluation.rows import StoredUnit, write_rows
from glimpsezoo.evaluation.store import UnitStore
from glimpsezoo.files import file_name, output_to, write_whole
from glimpsezoo.hashing import unit_id, weights_hash
from glimpsezoo.measures.base import Bench, Measure
from glimpsezoo.measures.calibration import Calibration, NoCalibrationError, calibration_plan, exit_settings, without_thresholds
from glimpsezoo.measures.costs import missing_operations
from glimpsezoo.measures.pairs import Comparison, every_pair
from glimpsezoo.measures.result import Checkpoint, Data, Failure, Result, Run, TrainedOn, Units, departure
from glimpsezoo.measures.sections import converted, data_section, declared_data_section, failures, model_section
from glimpsezoo.reports.readme import write_card_readme
from glimpsezoo.reports.seeds import with_recipes
from glimpsezoo.run.request import RunOutcome, RunRequest
from glimpsezoo.run.timing import compile_now, seconds_per_image
from glimpsezoo.run.updating import evidence_of
from glimpsezoo.schema import Section
from glimpsezoo.specs import Task
from glimpsezoo.toml_text import toml_text
from glimpsezoo.zoo.cards import RESULT, ROWS, remember_place
from glimpsezoo.zoo.names import Assignments, ModelChoice, command_line
from glimpsezoo.zoo.own_data import DataChoice, trained_on
from glimpsezoo.zoo.plugins import registry
from glimpsezoo.zoo.results import measure_specs, result_type

COMPARISON, COMMAND = "comparison.json", "command.toml"
CLEAN = "accuracy"  # errors of clean evaluations are reported under this measure
_FOR_ALL: Hashable = object()  # key of the clean evaluations
OnProgress = Callable[[str, float, float], None]  # label, expected seconds until now, expected seconds in all


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
    done: dict[str, dict[int, dict[Hashable, Any]]] = field(default_factory=dict)
    """Measure -> model -> key -> outcome."""

    def get_ready(self, on_progress: OnProgress = lambda *_: None) -> None:
        """Compile the models if asked to, time them (for the estimate), find the thresholds of exit rules, and plan all work."""
        if self.bench is None:
            return
        for index, model in enumerate(self.models):
            if model.computing.compiled:
                on_progress(f"{self.names[index]}: compiling", index, len(self.models))
                self.bench.note(index, f"{self.names[index]}: {compile_now(model, self.task, self.request.device)}")
        self.seconds_per_image = [seconds_per_image(model, self.task, self.request.device) for model in self.models]
        self._calibrate(self.bench, on_progress)
        self.plan = [
            *clean_plan(self.bench),
            *((measure.name, planned) for measure in self.measures for planned in measure.plan(self.bench)),
        ]

    def calibrations(self) -> tuple[type[ThresholdRule], list[PlannedFinding]]:
        """The exit rule, and the work that finds its thresholds for every model with several steps."""
        _, rule = exit_settings(self.sets, registry())
        models = [(k, name, model) for k, (name, model) in enumerate(zip(self.names, self.models, strict=True)) if model.steps > 1]
        seed, bad, data = self.request.seed, self.request.on_bad_image, self.calibration
        return rule, [calibration_plan(m, name, k, data, rule, seed=seed, on_bad_image=bad) for k, name, m in models if data is not None]

    def _calibrate(self, bench: Bench, on_progress: OnProgress) -> None:
        """Calibrate every model with several steps. If no calibration image can be read, add a note instead."""
        if self.calibration is None:
            return
        rule, plans = self.calibrations()
        whole, passed, found = sum(map(self._seconds, plans)), 0.0, dict[int, Calibration]()
        try:
            for planned in plans:
                on_progress(f"{self.names[planned.index]}: {planned.label}", passed, whole)
                found[planned.index] = self._find(planned).calibration(rule)
                passed += self._seconds(planned)
        except NoCalibrationError as error:
            self.notes.append(without_thresholds(self.measures, error))
        else:
            bench.calibrations = found

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
        images = f"{all_of_them:,} images per model"
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
        own = self.store.folder.parent == self.folder
        return text + (f"; finished units are kept in {self.store.folder}, because runs/ cannot be written" if own else "")

    @property
    def warnings(self) -> list[str]:
        """One warning for each model that was trained at another image size."""
        about = self._data_section(0)
        sizes = [(name, trained.image_size) for name, trained in zip(self.names, map(_trained_on, self.choices), strict=True) if trained]
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
        notes = self.bench.notes if self.bench is not None else {}
        return [*([inferred] if inferred else []), *self.notes, *(note for index in sorted(notes) for note in notes[index])]

    def _departures(self) -> str:
        """The models that were trained on other data, as text to append."""
        about = self._data_section(0)
        found = [departure(name, trained, about) for name, trained in zip(self.names, map(_trained_on, self.choices), strict=True)]
        return "".join(f"; {text}" for text in found if text)

    # Measuring

    def measure(self, on_progress: OnProgress) -> None:
        """Do all planned work."""
        passed = 0.0
        for name, planned in self.plan:
            label, whole, before = f"{self.names[planned.index]}: {planned.label}", self._seconds(planned), passed
            passed += whole

            def report(images: int, label: str = label, before: float = before, share: float = whole / max(1, planned.images)) -> None:
                on_progress(label, before + share * images, self.expected_seconds)

            if not planned.unless(self.done.get(name, {}).get(planned.index, {})):
                report(0)
                self._keep(name, planned, self._outcome(planned, report))
            for images in planned.last_of if isinstance(planned, PlannedEvaluation) else ():
                images.forget()

    def _keep(self, name: str, planned: Planned, outcome: Any) -> None:
        """Store an outcome for its measure; clean evaluations are shared by all measures."""
        assert self.bench is not None
        if planned.key is _FOR_ALL:
            self.bench.clean[planned.index] = outcome
        else:
            self.done.setdefault(name, {}).setdefault(planned.index, {})[planned.key] = outcome

    def _outcome(self, planned: Planned, report: Callable[[int], None]) -> Any:
        if isinstance(planned, PlannedFinding):
            return self._find(planned)
        assert isinstance(planned, PlannedEvaluation)
        config = replace(self.request.config, seed=planned.seed)
        if isinstance(planned.job.data, Held):
            config = replace(config, workers=0)  # a worker process would not share what it reads
        return run_job(planned.job, config, self.store, on_images=report)

    def stored(self, planned: PlannedFinding) -> Any:
        """The finding from the store; None if it is not there, or is not to be reused."""
        name = _finding_id(planned)
        known = None if name is None or self.request.fresh else self.store.read_finding(name)
        if known is not None:
            with contextlib.suppress(ValidationError):  # a damaged file is computed again
                return planned.kind.model_validate_json(known)
        return None

    def _find(self, planned: PlannedFinding) -> Any:
        """The finding, read from the store or computed."""
        known = self.stored(planned)
        if known is not None:
            return known
        name, found = _finding_id(planned), planned.find()
        if name is not None and found is not None:
            self.store.write_finding(name, found.to_json())
        return found

    # Time estimates

    def _seconds(self, planned: Planned) -> float:
        """Expected time for a piece of work with no stored units, without the time to corrupt images."""
        return planned.forward_images * self.seconds_per_image[planned.index]

    @property
    def expected_seconds(self) -> float:
        return sum(self._seconds(planned) for _, planned in self.plan)

    def _estimate(self) -> tuple[float, int]:
        """Seconds of remaining work, and the number of stored units."""
        seconds, reused = 0.0, 0
        for _, planned in self.plan:
            left = 1.0
            if isinstance(planned, PlannedEvaluation):
                ids = unit_ids(planned.job, planned.seed)
                finished = 0 if self.request.fresh else sum(self.store.has(unit) for unit in ids)
                reused, left = reused + finished, 1 - finished / max(1, len(ids))
            elif isinstance(planned, PlannedFinding) and (name := _finding_id(planned)) and not self.request.fresh:
                left = 0.0 if self.store.read_finding(name) is not None else 1.0
            seconds += left * self._seconds(planned)
        return seconds, reused

    # Results

    def finish(self) -> RunOutcome:
        """Write every result, and comparison.json if several models were measured for accuracy."""
        comparison = self._comparison()
        results = [self._result(index) for index in range(len(self.models))]
        comparison = with_recipes(comparison, results, self.bench, self.notes)
        written = tuple(self._write(index, result) for index, result in enumerate(results))
        with output_to(self.folder):
            write_whole(self.folder / COMMAND, f"{toml_text(self.request.options)}\n".encode())
            if comparison is not None:
                write_whole(self.folder / COMPARISON, comparison.to_json().encode())
        return RunOutcome(tuple(results), comparison, f"{_counts(results)}; results in {self.folder}", written)

    def _comparison(self) -> Comparison | None:
        """Paired tests between the models, if several were measured for accuracy."""
        if len(self.models) == 1 or self.bench is None or not any(measure.name == CLEAN for measure in self.measures):
            return None
        rows = {name: self.bench.clean_rows(index) for index, name in enumerate(self.names)}
        known = {name: each for name, each in rows.items() if each is not None}
        if len(known) < len(rows):
            return None  # the errors say why
        try:
            return Comparison(run=self.request.id, data=self.chosen.shown, pairs=every_pair(known))
        except GlimpseZooError as error:  # different units of the models failed
            self.notes.append(f"no paired test: {error}")
            return None

    def _result(self, index: int) -> Result:
        choice, bench = self.choices[index], self.bench
        assert choice.spec.provenance is not None
        model, name = self.models[index], self.names[index]
        sections, errors = self._sections(index), tuple(self._errors(index))
        clean = bench.clean[index].measured if bench is not None else ()
        evaluations = [found for _, found in self._evaluations(index)]
        return result_type()(
            run=self._run(index, failed=bool(errors)),
            model=model_section(model, name, choice.spec.provenance, self._checkpoint(index), _trained_on(choice)),
            data=self._data_section(sum(len(unit.skipped) for unit in clean), converted(clean)),
            environment=environment_section(self.request.device),
            errors=errors,
            notes=(*self.notes, *(bench.notes.get(index, ()) if bench is not None else ())),
            missing=missing_operations([unit for found in evaluations for unit in found.measured]) if bench else _missing_in(sections),
            **sections,
        )

    def _sections(self, index: int) -> dict[str, Any]:
        """The sections of result.json, by measure."""
        found = {spec.name: None for spec in measure_specs()}
        if self.bench is None:
            model = self.models[index].to(self.request.device)
            mine = {measure.name: measure.section_without_data(model, self.request.config) for measure in self.measures}
        else:
            mine = {measure.name: measure.section(self.bench, index, self.done.get(measure.name, {})) for measure in self.measures}
        return {name: mine[name] for name in found if name in mine}

    def _evaluations(self, index: int) -> Iterator[tuple[str, Any]]:
        """Every evaluation of a model, each with the name of its measure."""
        if self.bench is None:
            return
        yield CLEAN, self.bench.clean[index]
        for name, by_model in self.done.items():
            yield from ((name, found) for found in by_model.get(index, {}).values() if not isinstance(found, Section | None))

    def _errors(self, index: int) -> Iterator[Failure]:
        for name, found in self._evaluations(index):
            yield from failures(name, found.failed)

    def _write(self, index: int, result: Result) -> Path:
        """Write the result and its rows; with --update-card, also into the card, unless units failed. Returns where the result is."""
        folders, card = [file_name(name).replace(" ", "-") for name in self.names], self.choices[index].card
        folder = folders[index] + (f"-{index + 1}" if folders.index(folders[index]) < index else "")  # 'a/b' and 'a_b' collide
        places = {self.folder / folder: result}
        if self.request.update_card and card and not result.errors:
            places[card.folder] = evidence_of(card, result)
        clean = self.bench.clean[index] if self.bench is not None else None
        for place, content in places.items():
            with output_to(place):
                place.mkdir(parents=True, exist_ok=True)
                if clean is not None and len(clean.rows):
                    write_rows(place / ROWS, StoredUnit(clean.rows, clean.measured[0]))
                else:
                    (place / ROWS).unlink(missing_ok=True)
                write_whole(place / RESULT, content.to_json().encode())
                if card and place == card.folder:
                    write_card_readme(card)
        if card:
            remember_place(card)
        return self.folder / folder / RESULT

    def _run(self, index: int, *, failed: bool) -> Run:
        found = [evaluation for _, evaluation in self._evaluations(index)]
        return Run(
            id=self.request.id,
            command=command_line(self.request.words),
            started=self.started,
            finished=dt.datetime.now(dt.UTC),
            seed=self.request.seed,
            limit=self.request.limit,
            status="failed" if failed else "done",
            units=Units(done=sum(each.done for each in found), reused=sum(each.reused for each in found)),
        )

    def _data_section(self, skipped: int, conversions: dict[str, int] | None = None) -> Data:
        if self.bench is None:
            return declared_data_section(self.chosen.shown, self.task, self.chosen.recorded)
        return data_section(self.bench.data, skipped=skipped, conversions=conversions, settings=self.chosen.recorded)

    def _checkpoint(self, index: int) -> Checkpoint | None:
        choice = self.choices[index]
        if choice.card:
            return choice.card.checkpoint()
        if self.request.checkpoint == "timm":
            return Checkpoint(uri=choice.full_name, revision=None, sha256=weights_hash(self.models[index].state_dict()))
        return None


def clean_plan(bench: Bench) -> Iterator[tuple[str, Planned]]:
    """The evaluation of every model on all clean images."""
    for index in range(len(bench.models)):
        yield CLEAN, evaluation_of(bench.job(index, bench.data), index=index, key=_FOR_ALL, label="clean", seed=bench.seed)


def _finding_id(planned: PlannedFinding) -> str | None:
    """The name of a finding in the store; None if it is never stored."""
    return None if planned.identity is None else unit_id(planned.identity, 0, planned.images)


def _missing_in(sections: dict[str, Any]) -> tuple[str, ...]:
    """Operations without a formula, collected from the sections of a run without data."""
    return tuple(sorted({name for section in sections.values() for name in getattr(section, "missing", ())}))


def _trained_on(choice: ModelChoice) -> TrainedOn | None:
    return trained_on(choice.card.config) if choice.card else None


def _counts(results: list[Result]) -> str:
    """How many units were measured, reused and failed."""
    if results[0].data.fingerprint is None:
        return "counted"
    done, reused = (sum(getattr(result.run.units, what) for result in results) for what in ("done", "reused"))
    errors = [failure.error for result in results for failure in result.errors]
    failed = f", {counted(len(errors), 'unit')} FAILED ({errors[0]}; all errors are in result.json)" if errors else ""
    return f"{counted(done, 'unit')} measured, {reused} reused{failed}"
