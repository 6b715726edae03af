"""A run under way: evaluate what is planned, write results and a comparison."""

import contextlib
import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from glimpsezoo.anytime import Calibration, NoCalibrationError, calibrate
from glimpsezoo.attacks.base import Attack
from glimpsezoo.attacks.masking import masking
from glimpsezoo.cards import RESULT, ROWS, file_name, remember_place
from glimpsezoo.corruptions.published import CorruptedFolders
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.limited import Held, limited
from glimpsezoo.data.loading import batches
from glimpsezoo.data.opening import told
from glimpsezoo.driver import rollout
from glimpsezoo.environment import environment_section
from glimpsezoo.errors import GlimpseZooError, counted
from glimpsezoo.evaluation import Job, evaluate, evaluating, identity_of, unit_ids
from glimpsezoo.exits import ExitRule, ThresholdRule
from glimpsezoo.files import write_whole
from glimpsezoo.measures import Measures
from glimpsezoo.own_data import DataChoice, trained_on
from glimpsezoo.plugins import registry
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.records import Checkpoint, Comparison, Data, Flops, Masking, Result, Run, TrainedOn, Units, departure
from glimpsezoo.reports import write_card_readme
from glimpsezoo.resolve import ModelChoice
from glimpsezoo.sections import (
    accuracy_section,
    compare,
    converted,
    data_section,
    declared_data_section,
    flops_of,
    flops_section,
    model_section,
)
from glimpsezoo.specs import CorruptionSpec, ExitRuleSpec, Task, load_string
from glimpsezoo.speed import seconds_of, speed_section
from glimpsezoo.store import Unit, UnitStore, unit_id, weights_hash, write_rows
from glimpsezoo.workflows.findings import Findings, feed_forward_baseline, mce_reference
from glimpsezoo.workflows.output import command_line, output_to
from glimpsezoo.workflows.planning import (
    Planned,
    Subjects,
    anytime_plan,
    attack_plan,
    built_attack,
    clean_plan,
    comparable,
    corruption_plan,
    made_with,
    rule_for_attacks,
    verdict_passes,
    without_thresholds,
)
from glimpsezoo.workflows.requests import Outcome, RunRequest
from glimpsezoo.workflows.updating import evidence_of

COMPARISON = "comparison.json"
MASKED = 50  # images that the verdict on attacks comes from
OnProgress = Callable[[str, float], None]  # what runs, and the forward passes of images that it has done by now


@dataclass
class RunWork:
    """A run that is ready: `measure`, then `finish`.

    chosen: which data, by name. names, choices, models: in the order of the command. data: None where only declared sizes are needed.
    few: what corruptions and attacks are measured on. calibration: what thresholds are found on; None where nothing asks for them.
    store: where units are kept.
    """

    request: RunRequest
    measures: Measures
    chosen: DataChoice
    names: list[str]
    choices: list[ModelChoice]
    models: list[GlimpseModel[Any]]
    task: Task
    data: ImageData | None
    few: ImageData | None
    calibration: ImageData | None
    folder: Path
    store: UnitStore
    published: CorruptedFolders | None = None
    notes: list[str] = field(default_factory=list)
    started: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))

    @cached_property
    def findings(self) -> list[Findings]:
        benchmark = [spec.name for spec in registry().all(CorruptionSpec) if spec.benchmark]
        return [Findings(name, model, benchmark) for name, model in zip(self.names, self.models, strict=True)]

    @property
    def rule(self) -> type[ThresholdRule]:
        return load_string(registry().find(ExitRuleSpec, self.measures.anytime.rule).rule)

    def summary(self) -> str:
        """What the run will do, and how long it should take on this device."""
        changed = [", ".join(f"{key}={value}" for key, value in choice.changed.items()) for choice in self.choices]
        models = [f"{name} ({change})" if change else name for name, change in zip(self.names, changed, strict=True)]
        what = f"{', '.join(self.measures.texts)} of {', '.join(models)}"
        if self.data is None:
            return f"{what}: on images of noise, as {self.chosen.shown} declares them{self._departures()}"
        images = f"{len(self.data):,} images a model"
        if self.few is not None and len(self.few) < len(self.data) and (self.measures.corruptions or self.measures.attacks):
            images += f" ({len(self.few):,} of them for corruptions and attacks)"
        seconds, reused = self._estimate()
        text = f"{what} on {self.chosen.shown} {self.request.split}: {images}, about {max(1, round(seconds))} s"
        text += (f" ({counted(reused, 'block')} measured already)" if reused else "") + self._departures()
        own = self.store.folder.parent == self.folder
        return text + (f"; finished blocks are kept in {self.store.folder}, for runs/ cannot be written here" if own else "")

    @property
    def warnings(self) -> list[str]:
        """What a user should know who chose other images than a model was trained on."""
        about = self._data_section(0)
        sizes = [(name, trained.image_size) for name, trained in zip(self.names, map(_trained_on, self.choices), strict=True) if trained]
        return [
            f"warning: {name} was never trained at {about.image_size[0]} x {about.image_size[1]} px: parts of it may be as they were "
            "before training, and its cost is not the one that it was trained for"
            for name, size in sizes
            if size != about.image_size
        ]

    def _departures(self) -> str:
        """Which models were trained on other data than these."""
        about = self._data_section(0)
        found = [departure(name, trained, about) for name, trained in zip(self.names, map(_trained_on, self.choices), strict=True)]
        return "".join(f"; {text}" for text in found if text)

    def _data_section(self, skipped: int, conversions: Mapping[str, int] | None = None) -> Data:
        if self.data is None:
            return declared_data_section(self.chosen.shown, self.task, self.chosen.recorded)
        return data_section(self.data, skipped=skipped, conversions=conversions, settings=self.chosen.recorded)

    @cached_property
    def plan(self) -> list[Planned]:
        """All evaluations in their order. Finds the thresholds of exit rules first, on the calibration split."""
        if self.data is None or self.few is None:
            return []
        subjects = Subjects(self.models, self.names, self.data, self.few, self.request.seed, self.published)
        plan = list(clean_plan(subjects))
        calibrated = self._calibrated()
        for index, calibration in calibrated.items() if "anytime" in self.measures.sections else ():
            self.findings[index].rules = self._rules(calibration)
            plan += anytime_plan(subjects, index, self.findings[index].rules)
        corrupted = list(corruption_plan(subjects, self.measures))
        plan += corrupted
        for found in self.findings:
            found.published = self.published is not None
            found.implementations, found.preset = made_with(corrupted, self.published)
        for index, found in enumerate(self.findings):
            found.attacks = self._attacks(found, calibrated.get(index))
            plan += attack_plan(subjects, index, found.attacks)
        return plan

    def _calibrated(self) -> dict[int, Calibration]:
        """How calibration images fare in the models that can exit, by their places; nothing where there is no image, which a note says."""
        if self.calibration is None:
            return {}
        seed, bad = self.request.seed, self.request.on_bad_image
        models = {index: model.to(self.request.device) for index, model in enumerate(self.models) if model.steps > 1}
        try:
            return {index: calibrate(model, self.calibration, self.rule, seed=seed, on_bad_image=bad) for index, model in models.items()}
        except NoCalibrationError as error:
            self.notes.append(without_thresholds(self.measures, error))
            return {}

    def _attacks(self, found: Findings, calibrated: Calibration | None) -> list[Attack]:
        """The attacks that suit a model. One that does not is noted. Raises `GlimpseZooError` if the user named it."""
        rule, chosen = None, self.measures.anytime.threshold
        if self.measures.attacks and calibrated is not None:
            rule = rule_for_attacks(calibrated, self._chosen(calibrated))
        elif chosen is not None and found.model.steps > 1:
            rule = self.rule(chosen)
        attacks = []
        for wanted in self.measures.attacks:
            try:
                attacks.append(built_attack(wanted, found.name, found.model, rule))
            except GlimpseZooError as error:
                if wanted.named:
                    raise
                found.notes.append(f"{error.args[0].partition(': leave ')[0]}: not measured")
        return attacks

    @property
    def said(self) -> list[str]:
        """What was found out of the data, and all that was left out by now, and why."""
        inferred = told(self.data) if self.data is not None else None
        return [*([inferred] if inferred else []), *self.notes, *(note for found in self.findings for note in found.notes)]

    def _rules(self, found: Calibration) -> list[ExitRule]:
        """The rule at every threshold of the curve, the user's own among them."""
        chosen = self._chosen(found)
        thresholds = [*found.spread(self.measures.anytime.points), *([chosen] if chosen is not None else [])]
        return [self.rule(threshold) for threshold in dict.fromkeys(thresholds)]

    def _chosen(self, found: Calibration) -> float | None:
        """The threshold that the user's target asks for."""
        wanted = self.measures.anytime
        if wanted.accuracy is not None:
            return found.reaching(wanted.accuracy)
        return found.within(wanted.macs) if wanted.macs is not None else wanted.threshold

    def measure(self, on_progress: OnProgress) -> None:
        """Do all that is planned. on_progress: called with what runs, and the seconds that it should have taken by now."""
        if self.data is None:
            return
        done = 0.0
        for planned in self.plan:
            whole = self._seconds(planned)

            def report(images: int, planned: Planned = planned, done: float = done, whole: float = whole) -> None:
                on_progress(f"{self.names[planned.index]}: {planned.label}", done + whole * images / len(planned.job.data))

            report(0)
            found, config = self.findings[planned.index], replace(self.request.config, seed=planned.seed)
            if isinstance(planned.job.data, Held):
                config = replace(config, workers=0)  # what a worker reads is gone with it
            found.evaluations[planned.key] = evaluate(planned.job, config, self.store, on_images=report)
            found.measures[planned.key] = planned.measure
            if planned.last_of is not None:
                planned.last_of.forget()
            done += whole
        for index, found in enumerate(self.findings):
            self._look_closer(found, lambda label, done=done: on_progress(label, done))
            done += self._verdict_seconds(index)

    def _look_closer(self, found: Findings, report: Callable[[str], None]) -> None:
        """What is no evaluation of the whole data: whether attacks can be believed, and speed."""
        if _reported(found) and self.few is not None:
            report(f"{found.name}: can its attacks be believed?")
            found.masking = self._masking(found, limited(self.few, MASKED), self._verdict_id(found))
        if "speed" in self.measures.sections and self.data is not None:
            report(f"{found.name}: speed")
            rule = found.rules[-1] if found.rules else None
            found.speed = speed_section(found.model, self.data, rule, on_bad_image=self.request.on_bad_image)

    def _verdict_id(self, found: Findings) -> str:
        """Under which the verdict on attacks is kept, like a unit: it is found once."""
        assert self.few is not None
        data, reported = limited(self.few, MASKED), _reported(found)
        attack = [reported.name, reported.parameters] if reported else None
        settings = self.measures.masking.model_dump(mode="json")
        identity = {**identity_of(Job(found.model, found.name, data), self.request.seed), "masking": [settings, attack]}
        return unit_id(identity, 0, len(data))

    def _masking(self, found: Findings, data: ImageData, name: str) -> Masking | None:
        """The verdict on attacks; None, and a note, where no image can be read. name: under which it is kept."""
        known = None if self.request.fresh else self.store.read_finding(name)
        if known is not None:
            with contextlib.suppress(ValidationError):  # a damaged file is found again
                return Masking.model_validate_json(known)
        batch = next(iter(batches(data, 0, len(data), len(data), 0, on_bad_image=self.request.on_bad_image)))
        if not len(batch.ids):
            found.notes.append(f"{found.name}: no verdict on its attacks, for none of {len(data)} images that would tell it can be read")
            return None
        device = self.request.device
        with evaluating(found.model):
            images, labels, ids = (tensor.to(device) for tensor in (batch.images, batch.labels, batch.ids))
            verdict = masking(found.model, images, labels, ids, self.measures.masking, _reported(found))
        self.store.write_finding(name, verdict.to_json())
        return verdict

    @cached_property
    def _cost(self) -> list[float]:
        """Seconds that an image takes each model."""
        return [seconds_an_image(model, self.task, self.request.device) for model in self.models]

    def _seconds(self, planned: Planned) -> float:
        """How long an evaluation should take, if nothing of it is measured already; making corrupted images is not counted."""
        return planned.forward_images * self._cost[planned.index]

    @property
    def expected_seconds(self) -> float:
        return sum(self._seconds(planned) for planned in self.plan) + sum(map(self._verdict_seconds, range(len(self.models))))

    def _verdict_seconds(self, index: int) -> float:
        """How long the verdict on a model's attacks should take, if it is not known."""
        found = self.findings[index]
        if _reported(found) is None or self.few is None:
            return 0.0
        passes = verdict_passes(self.measures.masking, found.model, _reported(found))
        return min(MASKED, len(self.few)) * passes * self._cost[index]

    def _estimate(self) -> tuple[float, int]:
        """Seconds that are left to measure, and how many blocks are measured already."""
        seconds, reused = 0.0, 0
        for planned in self.plan:
            ids = unit_ids(planned.job, planned.seed)
            finished = 0 if self.request.fresh else sum(self.store.has(unit) for unit in ids)
            reused += finished
            seconds += self._seconds(planned) * (1 - finished / max(1, len(ids)))
        for index, found in enumerate(self.findings):
            if _reported(found) and (self.request.fresh or self.store.read_finding(self._verdict_id(found)) is None):
                seconds += self._verdict_seconds(index)
        return seconds, reused

    def finish(self) -> Outcome:
        """Write every result, and comparison.json where several models were measured for accuracy."""
        comparison = self._comparison()
        results = [self._result(index) for index in range(len(self.models))]
        for index, result in enumerate(results):
            self._write(index, result)
        if comparison is not None:
            with output_to(self.folder):
                write_whole(self.folder / COMPARISON, comparison.to_json().encode())
        return Outcome(tuple(results), comparison, f"{_done(results)}; results in {self.folder}")

    def _comparison(self) -> Comparison | None:
        """Paired tests between the models, where several were measured for accuracy."""
        if len(self.models) == 1 or self.data is None or "accuracy" not in self.measures.sections:
            return None
        rows = {found.name: found.clean.rows for found in self.findings}
        if not all(map(len, rows.values())):
            return None  # the errors say why
        try:
            return Comparison(run=self.request.id, data=self.chosen.shown, pairs=compare(rows))
        except GlimpseZooError as error:  # of each, other blocks failed
            self.notes.append(f"no paired test: {error}")
            return None

    def _result(self, index: int) -> Result:
        found, choice = self.findings[index], self.choices[index]
        assert choice.spec.provenance is not None
        errors = found.errors
        sections = self._counted(found) if self.data is None else self._sections(found)
        return Result(
            run=self._run(found.units, failed=bool(errors)),
            model=model_section(found.model, found.name, choice.spec.provenance, self._checkpoint(index), _trained_on(choice)),
            environment=environment_section(self.request.device),
            errors=errors,
            notes=(*self.notes, *found.notes),
            **sections,
        )

    def _counted(self, found: Findings) -> dict[str, Any]:
        """Costs without data."""
        flops: Flops = flops_of(found.model.to(self.request.device), config=self.request.config)
        return {"flops": flops, "missing": flops.missing, "data": self._data_section(0)}

    def _sections(self, found: Findings) -> dict[str, Any]:
        asked, rows = self.measures.sections, found.rows("clean")
        skipped = sum(len(measured.skipped) for measured in found.clean.measured)
        return {
            "data": self._data_section(skipped, converted(found.clean.measured)),
            "accuracy": accuracy_section(rows) if rows is not None and "accuracy" in asked else None,
            "flops": flops_section(rows, found.clean.measured) if rows is not None and "flops" in asked else None,
            "anytime": found.anytime(feed_forward_baseline(self.findings, found)) if "anytime" in asked else None,
            "corruptions": found.corruptions_section(mce_reference(self.findings, self.measures.baseline)),
            "attacks": found.attack_sections(),
            "masking": found.masking,
            "speed": found.speed,
            "missing": found.missing,
        }

    def _write(self, index: int, result: Result) -> None:
        """Write the result and its rows, and into the card too where that was asked for and nothing failed."""
        folders, card = [file_name(name) for name in self.names], self.choices[index].card
        folder = folders[index] + (f"-{index + 1}" if folders.index(folders[index]) < index else "")  # of 'a/b' and 'a_b'
        places = {self.folder / folder: result}
        if self.request.update_card and card and not result.errors:
            places[card.folder] = evidence_of(card, result)
        rows = self.findings[index].rows("clean") if self.data is not None else None
        for place, content in places.items():
            with output_to(place):
                place.mkdir(parents=True, exist_ok=True)
                if rows is not None:
                    write_rows(place / ROWS, Unit(rows, self.findings[index].clean.measured[0]))
                else:
                    (place / ROWS).unlink(missing_ok=True)
                write_whole(place / RESULT, content.to_json().encode())
                if card and place == card.folder:
                    write_card_readme(card)
        if card:
            remember_place(card)

    def _run(self, units: Units, *, failed: bool) -> Run:
        return Run(
            id=self.request.id,
            command=command_line(),
            started=self.started,
            finished=dt.datetime.now(dt.UTC),
            seed=self.request.seed,
            limit=self.request.limit,
            status="failed" if failed else "done",
            units=units,
        )

    def _checkpoint(self, index: int) -> Checkpoint | None:
        choice = self.choices[index]
        if choice.card:
            return choice.card.checkpoint()
        if self.request.checkpoint == "timm":
            return Checkpoint(uri=choice.full_name, revision=None, sha256=weights_hash(self.models[index].state_dict()))
        return None


def _trained_on(choice: ModelChoice) -> TrainedOn | None:
    return trained_on(choice.card.config) if choice.card else None


def _reported(found: Findings) -> Attack | None:
    """The attack that the verdict is about: the first of a kind that can be judged. Without one, there is no verdict."""
    return next((attack for attack in found.attacks if comparable(attack)), None)


def _done(results: list[Result]) -> str:
    """How much was measured, how much reused, and what failed."""
    if results[0].data.fingerprint is None:
        return "counted"
    done, reused = (sum(getattr(result.run.units, what) for result in results) for what in ("done", "reused"))
    errors = [failure.error for result in results for failure in result.errors]
    failed = f", {counted(len(errors), 'block')} FAILED ({errors[0]}; all errors are in result.json)" if errors else ""
    return f"{counted(done, 'block')} measured, {reused} reused{failed}"


@torch.no_grad()
def seconds_an_image(model: GlimpseModel[Any], task: Task, device: torch.device, batch: int = 64) -> float:
    """How long one image takes, from the shortest of three batches of noise."""
    model.to(device)
    images = torch.rand(batch, task.channels, *task.image_size, device=device)
    return min(seconds_of(lambda: rollout(model, images), device) for _ in range(3)) / batch
