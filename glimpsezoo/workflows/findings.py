"""What a run has found of each model, and the sections of its result.json that come of it."""

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from glimpsezoo.anytime import Outcome, area, equal_accuracy, point, stops
from glimpsezoo.attacks.base import Attack
from glimpsezoo.corruptions.mce import ALEXNET, alexnet_applies, mce
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation import Evaluation
from glimpsezoo.exits import ExitRule
from glimpsezoo.plugins import registry
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.records import Anytime, Corruptions, EqualAccuracy, Failure, Masking, Mce, Result, Speed, Units
from glimpsezoo.records import Attack as AttackSection
from glimpsezoo.robustness import Table, attack_section, common_ids, corruptions_section, errors_by_severity, rows_at
from glimpsezoo.sections import failures, missing_operations
from glimpsezoo.specs import CorruptionSpec
from glimpsezoo.store import Rows


@dataclass
class Findings:
    """All that was measured of one model, by the keys of what was planned.

    benchmark: the names of the benchmark's corruptions. implementations, preset: of those that were measured. published: their images
    come from folders, and have ids of their own. measures: which section an evaluation is for. notes: what was left out, and why.
    """

    name: str
    model: GlimpseModel[Any]
    benchmark: Sequence[str]
    implementations: Sequence[str] = ()
    preset: str = ""
    published: bool = False
    evaluations: dict[Hashable, Evaluation] = field(default_factory=dict)
    measures: dict[Hashable, str] = field(default_factory=dict)
    rules: list[ExitRule] = field(default_factory=list)
    attacks: list[Attack] = field(default_factory=list)
    masking: Masking | None = None
    speed: Speed | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def feed_forward(self) -> bool:
        """Whether it is a baseline: one look at the whole image."""
        return self.model.steps == 1 and self.model.sees == "full image"

    @property
    def clean(self) -> Evaluation:
        return self.evaluations["clean"]

    @property
    def units(self) -> Units:
        found = self.evaluations.values()
        return Units(done=sum(each.done for each in found), reused=sum(each.reused for each in found))

    @property
    def missing(self) -> tuple[str, ...]:
        """Operations that ran, may hold products and have no formula: with any of them, MACs are lower bounds."""
        return missing_operations([unit for found in self.evaluations.values() for unit in found.measured])

    @property
    def errors(self) -> tuple[Failure, ...]:
        return tuple(entry for key, found in self.evaluations.items() for entry in failures(self.measures[key], found.failed))

    def rows(self, key: Hashable) -> Rows | None:
        """What was measured under a key; None if nothing was, or all of it failed."""
        found = self.evaluations.get(key)
        return found.rows if found is not None and len(found.rows) else None

    def anytime(self, baseline: "Findings | None") -> Anytime | None:
        """The curve of all exit rules, of stops at a fixed step and of the whole run; its area is that of the exits and the whole run.

        baseline: the feed-forward model that its cost is compared with.
        """
        whole = self.rows("clean")
        if whole is None:
            return None
        found = [(rule, self.rows(("exit", rule.parameters["threshold"]))) for rule in self.rules]
        exits = [(rule, rows) for rule, rows in found if rows is not None]
        *early, last = stops(whole)
        points = [point(rule, rows) for rule, rows in exits]
        outcomes = [Outcome.of(rows) for _, rows in exits] + Outcome.stopped(whole)
        return Anytime(
            curve=(*points, *early, last),
            area=area([*points, last]),
            calibrated_on="calibration",
            equal_accuracy=self._equal(outcomes, baseline) if baseline else None,
        )

    def _equal(self, curve: Sequence[Outcome], baseline: "Findings") -> EqualAccuracy | None:
        """No ratio of costs where either is only a lower bound."""
        rows = baseline.rows("clean")
        if rows is None:
            return None
        if missing := sorted({*self.missing, *baseline.missing}):
            return EqualAccuracy(baseline=baseline.name, macs_ratio=None, missing=tuple(missing))
        return equal_accuracy(curve, baseline.name, Outcome.of(rows))

    def corruption_table(self) -> Table:
        """Rows under every corruption and severity that was measured."""
        table: dict[str, dict[int, Rows]] = {}
        for key in self.evaluations:
            if isinstance(key, tuple) and key[0] == "corruption" and (rows := self.rows(key)) is not None:
                table.setdefault(key[1], {})[key[2]] = rows
        return table

    def corruptions_section(self, reference: "tuple[str, Mapping[str, float]] | None") -> Corruptions | None:
        """reference: the name of the baseline of mCE, and its mean error under each corruption."""
        table, clean = self.corruption_table(), self.rows("clean")
        if not table or clean is None or not self._shared(table):
            return None
        errors, value = errors_by_severity(table), None
        if reference and all(name in errors and reference[1].get(name, 0) > 0 for name in self.benchmark):
            value = Mce(value=mce(errors, reference[1]), baseline=reference[0])
        section = corruptions_section(table, None if self.published else clean, self.benchmark)
        return section.model_copy(update={"implementation": ", ".join(self.implementations), "preset": self.preset, "mce": value})

    def _shared(self, table: Table) -> bool:
        """Whether any image was measured under all conditions; none may be where other blocks of each failed."""
        conditions = [rows for found in table.values() for rows in found.values()]
        return len(common_ids([*conditions, *([] if self.published else [self.clean.rows])])) > 0

    def attack_sections(self) -> tuple[AttackSection, ...]:
        sections = []
        for place, attack in enumerate(self.attacks):
            rule = attack.exit_rule if attack.attacks_the_exit else None
            runs = [self.rows(("attack", place, run)) for run in range(attack.evaluations)]
            clean = self.rows(("exit-clean", rule.parameters["threshold"]) if rule else "clean")
            whole = [rows for rows in runs if rows is not None]
            if clean is None or len(whole) < len(runs):
                continue  # the errors say why
            ids = common_ids([clean, *whole])
            if not len(ids):
                continue  # of each, other blocks failed: the errors say which
            sections.append(attack_section(attack, [rows_at(rows, ids) for rows in whole], rows_at(clean, ids), self.model))
        return tuple(sections)


def feed_forward_baseline(findings: Sequence[Findings], of: Findings) -> Findings | None:
    """The most accurate feed-forward model of a run, for a model that is none itself."""
    if of.feed_forward:
        return None
    others = [(float(rows.hits[:, -1].mean()), each) for each in findings if each.feed_forward and (rows := each.rows("clean")) is not None]
    return max(others, key=lambda pair: pair[0])[1] if others else None


def mce_reference(findings: Sequence[Findings], wanted: str | None) -> tuple[str, Mapping[str, float]] | None:
    """The baseline of mCE by name, with its errors: what the user named, else the run's first feed-forward model.

    Raises `GlimpseZooError` for a name that is no model of the run and no result, and for AlexNet where its errors do not hold.
    """
    if wanted is None:
        wanted = next((each.name for each in findings if each.feed_forward), None)
        if wanted is None:
            return None
    for each in findings:
        if each.name == wanted:
            return each.name, _means(errors_by_severity(each.corruption_table()))
    if wanted == "alexnet":
        return "alexnet (published)", ALEXNET
    return _of_result(wanted)


def check_mce_reference(wanted: str | None, names: Sequence[str], classes: int, image_size: tuple[int, int]) -> None:
    """See before anything is measured that the baseline of mCE can be had. Raises `GlimpseZooError`."""
    if wanted is None or wanted in names:
        return
    if wanted == "alexnet":
        if not alexnet_applies(classes, image_size):
            raise GlimpseZooError(
                f"corruptions.baseline=alexnet expects 1000 classes at 224 px, got {classes} at {image_size[0]} x {image_size[1]}: "
                "AlexNet's errors are published for no other data; name a model of this run, or a result.json"
            )
        return
    _of_result(wanted)


def _of_result(path: str) -> tuple[str, Mapping[str, float]]:
    try:
        result = Result.model_validate_json(Path(path).read_bytes())
    except (OSError, ValidationError, json.JSONDecodeError):
        raise GlimpseZooError(
            f"corruptions.baseline expects a model of this run, a result.json or 'alexnet', got {path!r}: name one of these"
        ) from None
    if result.corruptions is None:
        raise GlimpseZooError(f"corruptions.baseline expects a result with corruptions, got {path!r}, which has none: measure them there")
    table = result.corruptions.table
    errors = _means({name: [1 - cell.value for cell in cells if cell] for name, cells in table.items() if all(cells)})
    lacking = [spec.name for spec in registry().all(CorruptionSpec) if spec.benchmark and not errors.get(spec.name)]
    if lacking:
        raise GlimpseZooError(
            f"corruptions.baseline expects a result with errors under every corruption of the benchmark at every severity, got {path!r} "
            f"without {', '.join(lacking[:3])}{', ...' if len(lacking) > 3 else ''}: measure them there"
        )
    return result.model.name, errors


def _means(errors: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: sum(each) / len(each) for name, each in errors.items()}
