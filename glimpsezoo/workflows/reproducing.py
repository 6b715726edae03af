"""The papers' tables with our numbers beside the printed ones, from the evidence of cards; costs come from the models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glimpsezoo.core.macs import count_macs
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.rollout import rollout
from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.files import check_inside, write_whole
from glimpsezoo.measures.anytime import exit_point
from glimpsezoo.measures.costs import evaluated_on_noise, missing_operations
from glimpsezoo.measures.result import Result, at_least_text
from glimpsezoo.measures.statistics import Estimate, proportion
from glimpsezoo.measures.threats import AttackRecord, masking_text
from glimpsezoo.reports.paper import ComparedTable, OurNumbers, Reproduction, markdown, plots
from glimpsezoo.reports.pictures.svg import svg_file
from glimpsezoo.specs import PaperSpec, load_string
from glimpsezoo.workflows.claims import judged
from glimpsezoo.workflows.evidence import Evidence, Zoo
from glimpsezoo.zoo.early import check_papers
from glimpsezoo.zoo.papers import PrintedRow, PrintedTable, PrintedTables, Side
from glimpsezoo.zoo.plugins import registry


def reproduce(names: Sequence[str] = ()) -> list[Reproduction]:
    """The tables and claims of papers with our numbers.

    names: papers (none means all), and cards that are not in the zoo. Such a card replaces the zoo's of the same name and seed; other seeds
    are added to it. Raises `GlimpseZooError` for names that are neither, and for tables and claims with unknown cards or modules.
    """
    specs = {spec.name: spec for spec in registry().all(PaperSpec)}
    papers, cards = [name for name in names if name in specs], check_papers(names)
    answers = _Reproducer(Zoo(cards))
    return [answers.of(spec) for name, spec in specs.items() if not papers or name in papers]


def write_reproduction(reproductions: Sequence[Reproduction], path: Path) -> list[Path]:
    """Write Markdown to `path`, and its plots into the folder of the same name without suffix. Returns the paths of all files.

    Raises `GlimpseZooError` for a path that does not end in .md or cannot be written.
    """
    if path.suffix != ".md":
        raise GlimpseZooError(f"-o expects a Markdown file, got {path.name!r}: name it NAME.md")
    folder = path.with_suffix("")
    drawings = {folder / name: svg_file(scene) for each in reproductions for name, scene in plots(each).items()}
    texts = {path: markdown(reproductions, folder.relative_to(path.parent).as_posix()), **drawings}
    try:
        check_inside(path.parent, folder)
        folder.mkdir(parents=True, exist_ok=True)
        for place, text in texts.items():
            write_whole(place, text.encode())
    except OSError as error:
        raise GlimpseZooError(f"-o expects a file that can be written, got {path.name!r}: {one_line(error)}") from None
    return list(texts)


class _Reproducer:
    """Finds our numbers for a paper: from the evidence of its cards, and costs from its models (no weights needed)."""

    def __init__(self, zoo: Zoo) -> None:
        self.zoo = zoo

    def of(self, spec: PaperSpec) -> Reproduction:
        printed = PrintedTables.of(spec)
        return Reproduction(
            spec,
            tables=tuple(ComparedTable(table, tuple(self._answer(table, row, printed) for row in table.row)) for table in printed.table),
            claims=tuple(judged(claim, self.zoo, self._cost_of_side) for claim in printed.claim),
            left_out=printed.left_out,
        )

    def _answer(self, table: PrintedTable, row: PrintedRow, printed: PrintedTables) -> OurNumbers:
        if row.card is None:
            return OurNumbers(row, missing="not a model of the zoo")
        if row.module is not None:
            model = self.zoo.model(row.card)
            if row.module not in dict(model.named_modules()):
                raise GlimpseZooError(f"a paper's table expects a module of {row.card}, got {row.module!r}: correct the table")
            return OurNumbers(row, cost=_macs_of_call(model, row.module), parameters=_parameters(model.get_submodule(row.module)))
        found = self.zoo.evidence(row.card)
        result = found[0].result if found else None
        steps = len(result.accuracy.steps) if result and result.accuracy else 0
        if result and row.step and row.step > steps:
            return OurNumbers(row, missing=f"takes {row.step} looks, and the card {row.card} has {steps}")
        ours = _number(table, row, found[0]) if found else None
        if result is None or ours is None:
            return OurNumbers(row, cost=self._cost(table, row), missing=f"needs {table.needs}")
        attack = _attack(row, result) if table.number == "attacked" else None
        return OurNumbers(
            row,
            ours=ours,
            seeds=tuple(number for each in found if (number := _number(table, row, each)) is not None),
            epochs=self.zoo.epochs(row.card),
            training=printed.training.get(row.card, ""),
            cost=self._cost(table, row),
            measured=None if row.share or row.policy else _measured(result, row.step, row.confidence),
            locations=_locations(result) if any(each.locations for each in table.row) else None,
            masking=masking_text(result, attack) if attack else "",
            data=f"{result.data.name}, {result.data.split}",
            unknown_cost=at_least_text(result) if result.at_least else "",
        )

    def _cost(self, table: PrintedTable, row: PrintedRow) -> float | None:
        """The cost by the paper's convention: MACs, or the speed-up over the table's reference. None for a share of images."""
        if row.share or not table.costs:
            return None
        macs = self._paper_macs(table, row)
        if table.speed_up_over is None or macs is None:
            return macs
        reference = self.zoo.model(table.speed_up_over).paper_macs(1)
        return reference.value / macs if reference else None

    def _paper_macs(self, table: PrintedTable, row: PrintedRow) -> float | None:
        assert row.card is not None
        if table.convention and row.confidence is None:
            model = self.zoo.model(row.card)
            return load_string(table.convention)(model, row.step or model.steps)
        return self._macs(row.card, row.step, row.confidence)

    def _cost_of_side(self, side: Side) -> float | None:
        return self._macs(side.card, side.step, side.confidence)

    def _macs(self, card: str, step: int | None, confidence: float | None) -> float | None:
        """MACs of a run that stops at a step, or exits early. If the paper counts only attended regions, these are the measured MACs.

        None if they are only a lower bound.
        """
        result = self.zoo.result(card)
        ran = _measured(result, step, confidence) if result else None
        if confidence is not None or (result and result.at_least):
            return ran
        model = self.zoo.model(card)
        printed = model.paper_macs(step or model.steps)
        if printed is None and model.steps == 1:
            counted = evaluated_on_noise(model, images=1)
            return None if missing_operations(counted.measured) else float(counted.rows.macs.mean())
        return printed.value if printed else ran


def _number(table: PrintedTable, row: PrintedRow, evidence: Evidence) -> Estimate | None:
    """The row's number as a share of images: accuracy, error, or the share of a group of images (`PrintedRow.share`)."""
    if table.number == "share":
        return _share(row, evidence.rows)
    ours = _right(table, row, evidence.result)
    if table.number == "error" and ours is not None:
        return ours.model_copy(update={"value": 1 - ours.value, "low": 1 - ours.high, "high": 1 - ours.low})
    return ours


def _share(row: PrintedRow, rows: Rows | None) -> Estimate | None:
    """The row's share of images under the confidence rule, from the rows of a run without exits."""
    if rows is None or row.confidence is None or row.share is None:
        return None
    step = row.step or rows.steps
    sure = rows.confidence[:, :step] >= row.confidence
    first, settled = np.asarray(sure.argmax(1)), np.asarray(sure.any(1))
    if row.share == "rejected":
        return proportion(~settled, rows.group)
    if row.share == "confident":
        return proportion(settled & (first == step - 1), rows.group)
    wrong = ~rows.hits[np.arange(len(rows)), first]
    return proportion(wrong[settled], rows.group[settled]) if settled.any() else None


def _right(table: PrintedTable, row: PrintedRow, result: Result) -> Estimate | None:
    assert result.accuracy is not None
    place = (row.step or len(result.accuracy.steps)) - 1
    if row.policy is not None:
        followed = next((each for each in result.policies if each.policy == row.policy), None)
        return followed.steps[place].top1 if followed else None
    if row.confidence is not None:
        point = exit_point(result, row.confidence)
        return point.top1 if point else None
    if table.number == "corrupted":
        return result.corruptions.by_step[place] if result.corruptions else None
    if table.number == "attacked":
        attack = _attack(row, result)
        return attack.by_step[place] if attack else None
    return result.accuracy.steps[place].top1


def _attack(row: PrintedRow, result: Result) -> AttackRecord | None:
    return next((attack for attack in result.attacks if (attack.name, attack.steps) == (row.attack, row.attack_steps)), None)


def _measured(result: Result, step: int | None, confidence: float | None) -> float | None:
    """MACs per image that ran; None if they are only a lower bound."""
    assert result.accuracy is not None
    if result.at_least:
        return None
    if confidence is not None:
        point = exit_point(result, confidence)
        return point.macs_mean if point else None
    looks = result.accuracy.steps
    return looks[(step or len(looks)) - 1].macs if (step or 1) <= len(looks) else None


def _locations(result: Result) -> float | None:
    """Mean number of regions per image after the first step; None for a model with one step."""
    assert result.accuracy is not None
    return sum(step.regions_mean for step in result.accuracy.steps[1:]) if len(result.accuracy.steps) > 1 else None


def _macs_of_call(model: GlimpseModel[Any], module: str) -> float | None:
    """MACs of one call of a submodule on one input, taken from a run on noise; None if they are only a lower bound."""
    seen: list[Tensor] = []
    hook = model.get_submodule(module).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    images = torch.rand(2, model.task.channels, *model.task.image_size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            rollout(model, images)
    finally:
        hook.remove()
    inputs = next((each for each in seen if len(each)), None)
    if inputs is None:
        raise GlimpseZooError(f"a paper's table expects a module that runs, got {module!r}, which was not called: correct the table")
    count = count_macs(lambda: model.get_submodule(module)(inputs[:1]))
    return None if count.missing else count.macs


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
