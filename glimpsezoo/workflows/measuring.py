"""A run under way: evaluate what is planned, write results and a comparison."""

import contextlib
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from glimpsezoo.anytime import Calibration, calibrate
from glimpsezoo.attacks.base import Attack
from glimpsezoo.attacks.masking import masking
from glimpsezoo.cards import RESULT, ROWS, file_name
from glimpsezoo.corruptions.published import CorruptedFolders
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.limited import Held, limited
from glimpsezoo.data.loading import batches
from glimpsezoo.driver import rollout
from glimpsezoo.environment import environment_section
from glimpsezoo.errors import counted
from glimpsezoo.evaluation import Job, evaluate, evaluating, identity_of, unit_ids
from glimpsezoo.exits import ExitRule, ThresholdRule
from glimpsezoo.files import write_whole
from glimpsezoo.measures import Measures
from glimpsezoo.plugins import registry
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.records import Checkpoint, Comparison, Flops, Masking, Result, Run, Units
from glimpsezoo.reports import write_card_readme
from glimpsezoo.resolve import ModelChoice
from glimpsezoo.sections import (
    accuracy_section,
    compare,
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
from glimpsezoo.workflows.output import command_line
from glimpsezoo.workflows.planning import (
    Planned,
    Subjects,
    anytime_plan,
    attack_plan,
    built_attack,
    clean_plan,
    comparable,
    corruption_plan,
    rule_for_attacks,
    verdict_passes,
)
from glimpsezoo.workflows.requests import Outcome, RunRequest

COMPARISON = "comparison.json"
MASKED = 50  # images that the verdict on attacks comes from
OnProgress = Callable[[str, float], None]  # what runs, and the forward passes of images that it has done by now


@dataclass
class RunWork:
    """A run that is ready: `measure`, then `finish`.

    names, choices, models: in the order of the command. data: None where only declared sizes are needed. few: what corruptions and
    attacks are measured on. calibration: what thresholds are found on; None where nothing asks for them. store: where units are kept.
    """

    request: RunRequest
    measures: Measures
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
            return f"{what}: on images of noise, as {self.request.data} declares them"
        images = f"{len(self.data):,} images a model"
        if self.few is not None and len(self.few) < len(self.data) and (self.measures.corruptions or self.measures.attacks):
            images += f" ({len(self.few):,} of them for corruptions and attacks)"
        seconds, reused = self._estimate()
        text = f"{what} on {self.request.data} {self.request.split}: {images}, about {max(1, round(seconds))} s"
        return text + (f" ({counted(reused, 'block')} measured already)" if reused else "")

    @cached_property
    def plan(self) -> list[Planned]:
        """All evaluations in their order. Finds the thresholds of exit rules first, on the calibration split."""
        if self.data is None or self.few is None:
            return []
        subjects = Subjects(self.models, self.names, self.data, self.few, self.request.seed, self.published)
        plan = list(clean_plan(subjects))
        calibrated = {index: self._calibrate(index) for index, model in enumerate(self.models) if model.steps > 1 and self.calibration}
        for index, calibration in calibrated.items() if "anytime" in self.measures.sections else ():
            self.findings[index].rules = self._rules(calibration)
            plan += anytime_plan(subjects, index, self.findings[index].rules)
        corrupted = list(corruption_plan(subjects, self.measures))
        plan += corrupted
        for found in self.findings:
            found.published = self.published is not None
            found.implementations, found.preset = _made_with(corrupted, self.published)
        for index, found in enumerate(self.findings):
            rule = None
            if self.measures.attacks and index in calibrated:
                rule = rule_for_attacks(calibrated[index], self._chosen(calibrated[index]))
            attacks = [built_attack(wanted, found.name, self.models[index], rule) for wanted in self.measures.attacks]
            found.attacks = [attack for attack in attacks if attack is not None]
            plan += attack_plan(subjects, index, found.attacks)
        return plan

    def _calibrate(self, index: int) -> Calibration:
        assert self.calibration is not None
        model, bad = self.models[index].to(self.request.device), self.request.on_bad_image
        return calibrate(model, self.calibration, self.rule, seed=self.request.seed, on_bad_image=bad)

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
        if found.attacks and self.few is not None:
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

    def _masking(self, found: Findings, data: ImageData, name: str) -> Masking:
        """The verdict on attacks. name: under which it is kept."""
        known = None if self.request.fresh else self.store.read_finding(name)
        if known is not None:
            with contextlib.suppress(ValidationError):  # a damaged file is found again
                return Masking.model_validate_json(known)
        batch = next(iter(batches(data, 0, len(data), len(data), 0, on_bad_image=self.request.on_bad_image)))
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
        if not found.attacks or self.few is None:
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
            seconds += self._seconds(planned) * (1 - finished / len(ids))
        for index, found in enumerate(self.findings):
            if found.attacks and (self.request.fresh or self.store.read_finding(self._verdict_id(found)) is None):
                seconds += self._verdict_seconds(index)
        return seconds, reused

    def finish(self) -> Outcome:
        """Write every result, and comparison.json where several models were measured for accuracy."""
        results = [self._result(index) for index in range(len(self.models))]
        for index, result in enumerate(results):
            self._write(index, result)
        comparison = None
        if len(results) > 1 and all(result.accuracy for result in results):
            rows = {found.name: found.clean.rows for found in self.findings}
            comparison = Comparison(run=self.request.id, data=self.request.data, pairs=compare(rows))
            write_whole(self.folder / COMPARISON, comparison.to_json().encode())
        return Outcome(tuple(results), comparison, f"{_done(results)}; results in {self.folder}")

    def _result(self, index: int) -> Result:
        found, choice = self.findings[index], self.choices[index]
        assert choice.spec.provenance is not None
        errors = found.errors
        sections = self._counted(found) if self.data is None else self._sections(found)
        return Result(
            run=self._run(found.units, failed=bool(errors)),
            model=model_section(found.model, found.name, choice.spec.provenance, self._checkpoint(index)),
            environment=environment_section(self.request.device),
            errors=errors,
            **sections,
        )

    def _counted(self, found: Findings) -> dict[str, Any]:
        """Costs without data."""
        flops: Flops = flops_of(found.model.to(self.request.device), config=self.request.config)
        return {"flops": flops, "data": declared_data_section(self.request.data, self.task)}

    def _sections(self, found: Findings) -> dict[str, Any]:
        asked, rows = self.measures.sections, found.rows("clean")
        skipped = sum(len(measured.skipped) for measured in found.clean.measured)
        assert self.data is not None
        return {
            "data": data_section(self.data, skipped=skipped),
            "accuracy": accuracy_section(rows) if rows is not None and "accuracy" in asked else None,
            "flops": flops_section(rows, found.clean.measured) if rows is not None and "flops" in asked else None,
            "anytime": found.anytime(feed_forward_baseline(self.findings, found)) if "anytime" in asked else None,
            "corruptions": found.corruptions_section(mce_reference(self.findings, self.measures.baseline)),
            "attacks": found.attack_sections(),
            "masking": found.masking,
            "speed": found.speed,
        }

    def _write(self, index: int, result: Result) -> None:
        """Write the result and its rows, and into the card too where that was asked for and nothing failed."""
        places = [self.folder / file_name(self.names[index])]
        card = self.choices[index].card
        if self.request.update_card and card and not result.errors:
            places.append(card.folder)
        rows = self.findings[index].rows("clean") if self.data is not None else None
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
            if rows is not None:
                write_rows(place / ROWS, Unit(rows, self.findings[index].clean.measured[0]))
            else:
                (place / ROWS).unlink(missing_ok=True)
            write_whole(place / RESULT, result.to_json().encode())
        if card and card.folder in places:
            write_card_readme(card)

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


def _reported(found: Findings) -> Attack | None:
    """The attack that the verdict stands beside, if it is of the kind that can be judged."""
    return next((attack for attack in found.attacks if comparable(attack)), None)


def _made_with(corrupted: list[Planned], published: CorruptedFolders | None) -> tuple[tuple[str, ...], str]:
    """Who computed the corruptions, and the preset of their constants."""
    if not corrupted:
        return (), ""
    if published is not None:
        return (f"published images in {published.path.resolve().name}",), "published"
    conditions = [planned.job.condition for planned in corrupted]
    parts = [part for each in conditions for part in each.implementation.split(", ")]
    return tuple(dict.fromkeys(parts)), conditions[0].parameters["preset"]


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
