"""The papers' tables with the zoo's numbers beside the printed ones: from the evidence of measured cards, and costs from the models."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glimpsezoo.cards import Card, find_card
from glimpsezoo.cost import count_macs
from glimpsezoo.data.config import task_of
from glimpsezoo.driver import rollout
from glimpsezoo.errors import GlimpseZooError, did_you_mean, one_line
from glimpsezoo.files import write_whole
from glimpsezoo.pages.paper import Answer, AnsweredTable, Reproduction, markdown, plots
from glimpsezoo.papers import PrintedRow, PrintedTable, PrintedTables
from glimpsezoo.pictures.svg import svg_file
from glimpsezoo.plugins import registry
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.recipes import find_recipe
from glimpsezoo.records import AnytimePoint, Attack, Estimate, Result
from glimpsezoo.reports import evidence
from glimpsezoo.resolve import data_spec, spec_of
from glimpsezoo.sections import flops_of
from glimpsezoo.settings import Settings
from glimpsezoo.specs import PaperSpec, load_string
from glimpsezoo.workflows.training import named_by_recipe


def reproduce(names: Sequence[str] = ()) -> list[Reproduction]:
    """The tables of the papers among the names, or of all. The other names are cards, which go before the zoo's of the same name.

    Raises `GlimpseZooError` for what is neither a paper nor a card, and for tables that name what is not there.
    """
    specs = {spec.name: spec for spec in registry().all(PaperSpec)}
    papers, cards = [name for name in names if name in specs], [_card(name, list(specs)) for name in names if name not in specs]
    zoo = _Zoo({card.name: card for card in cards})
    return [
        Reproduction(spec, tuple(zoo.answered(table) for table in PrintedTables.of(spec).table))
        for name, spec in specs.items()
        if not papers or name in papers
    ]


def _card(name: str, papers: Sequence[str]) -> Card:
    card = find_card(name)
    if card is None:
        raise GlimpseZooError(f"expected a paper or a card, got {name!r}: {did_you_mean(name, papers)}")
    return card


def write_reproduction(reproductions: Sequence[Reproduction], path: Path) -> list[Path]:
    """Write Markdown to `path` and its plots into a folder of that name beside it. Returns what was written.

    Raises `GlimpseZooError` for a place that cannot be written.
    """
    if path.suffix != ".md":
        raise GlimpseZooError(f"-o expects a Markdown file, got {path.name!r}: name it NAME.md")
    folder = path.with_suffix("")
    drawings = {folder / name: svg_file(scene) for each in reproductions for name, scene in plots(each).items()}
    texts = {path: markdown(reproductions, folder.relative_to(path.parent).as_posix()), **drawings}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place, text in texts.items():
            write_whole(place, text.encode())
    except OSError as error:
        raise GlimpseZooError(f"-o expects a file that can be written, got {path.name!r}: {one_line(error)}") from None
    return list(texts)


class _Zoo:
    """What the zoo has to say of a row: the evidence of its card, and the costs of its model, which needs no weights."""

    def __init__(self, given: Mapping[str, Card]) -> None:
        """given: cards by their names, looked for before those of the zoo."""
        self.card = cache(lambda name: given.get(name) or find_card(name))
        self.result = cache(self._result)
        self.model = cache(self._model)

    def answered(self, table: PrintedTable) -> AnsweredTable:
        return AnsweredTable(table, tuple(self._answer(table, row) for row in table.row))

    def _answer(self, table: PrintedTable, row: PrintedRow) -> Answer:
        if row.card is None:
            return Answer(row, missing="not a model of the zoo")
        if row.module is not None:
            model = self.model(row.card)
            if row.module not in dict(model.named_modules()):
                raise GlimpseZooError(f"a paper's table expects a module of {row.card}, got {row.module!r}: correct the table")
            return Answer(row, cost=_macs_of_call(model, row.module), parameters=_parameters(model.get_submodule(row.module)))
        result = self.result(row.card)
        steps = len(result.accuracy.steps) if result and result.accuracy else 0
        if result and row.step and row.step > steps:
            return Answer(row, missing=f"takes {row.step} looks, and the card {row.card} has {steps}")
        ours = None if result is None else _number(table, row, result)
        if result is None or ours is None:
            return Answer(row, cost=self._cost(table, row), missing=f"needs {table.needs}")
        attack = _attack(row, result) if table.number == "attacked" else None
        if table.number == "error":
            ours = ours.model_copy(update={"value": 1 - ours.value, "low": 1 - ours.high, "high": 1 - ours.low})
        return Answer(
            row,
            ours=ours,
            cost=self._cost(table, row),
            measured=_measured(row, result),
            locations=_locations(result) if any(each.locations for each in table.row) else None,
            masking=result.verdict_on(attack) if attack else "",
            data=f"{result.data.name}, {result.data.split}",
        )

    def _cost(self, table: PrintedTable, row: PrintedRow) -> float | None:
        """By the paper's convention: MACs, or the speed-up over the table's reference."""
        macs = self._paper_macs(table, row)
        if table.speed_up_over is None or macs is None:
            return macs
        reference = self.model(table.speed_up_over).paper_macs(1)
        return reference.value / macs if reference else None

    def _paper_macs(self, table: PrintedTable, row: PrintedRow) -> float | None:
        """Of a run that stops at the row's step. Where the paper counts what was attended, that is what was measured."""
        assert row.card is not None
        result = self.result(row.card)
        if row.confidence is not None:
            return _measured(row, result) if result else None
        model = self.model(row.card)
        step = row.step or model.steps
        if table.convention:
            return load_string(table.convention)(model, step)
        printed = model.paper_macs(step)
        if printed is None and model.steps == 1:
            return flops_of(model, images=1).macs.mean
        return printed.value if printed else _measured(row, result) if result else None

    def _result(self, name: str) -> Result | None:
        """The evidence of a card, which is of its very weights and of the whole split; None if there is none."""
        card: Card | None = self.card(name)
        result = evidence(card) if card else None
        return result if result and result.accuracy and result.run.limit is None else None

    def _model(self, name: str) -> GlimpseModel[Any]:
        """The card's model, or that of the recipe which would train it, with weights of no meaning."""
        card = self.card(name)
        if card:
            spec, values, task = spec_of(name, card), card.config.config, card.config.task.task()
        else:
            named = named_by_recipe(name)
            if named is None:
                raise GlimpseZooError(f"a paper's table expects a card or a recipe, got {name!r}, which is neither: correct the table")
            recipe = find_recipe(named.spec, named.card)
            spec, found = named.spec, task_of(data_spec(named.data), recipe.data)
            if found is None:
                raise GlimpseZooError(f"a paper's table expects data of a known size, got {named.data!r}: name a card of it")
            values, task = {**spec.defaults.get(named.data, {}), **recipe.settings}, found
        schema: type[Settings] = load_string(spec.config)
        torch.manual_seed(0)
        return load_string(spec.model)(schema.parse(values, owner=name), task).eval()


def _number(table: PrintedTable, row: PrintedRow, result: Result) -> Estimate | None:
    """The share of images that the model got right, where the row asks for it."""
    assert result.accuracy is not None
    place = (row.step or len(result.accuracy.steps)) - 1
    if row.confidence is not None:
        point = _exit(row, result)
        return point.top1 if point else None
    if table.number == "corrupted":
        return result.corruptions.by_step[place] if result.corruptions else None
    if table.number == "attacked":
        attack = _attack(row, result)
        return attack.by_step[place] if attack else None
    return result.accuracy.steps[place].top1


def _attack(row: PrintedRow, result: Result) -> Attack | None:
    return next((attack for attack in result.attacks if (attack.name, attack.steps) == (row.attack, row.attack_steps)), None)


def _exit(row: PrintedRow, result: Result) -> AnytimePoint | None:
    """Images that exit by the confidence rule at the row's threshold."""
    points = result.anytime.curve if result.anytime else ()
    return next((point for point in points if (point.rule, point.threshold) == ("confidence", row.confidence)), None)


def _measured(row: PrintedRow, result: Result) -> float | None:
    """MACs of what ran, an image."""
    assert result.accuracy is not None
    if row.confidence is not None:
        point = _exit(row, result)
        return point.macs_mean if point else None
    return result.accuracy.steps[(row.step or len(result.accuracy.steps)) - 1].macs


def _locations(result: Result) -> float | None:
    """Regions that an image looked at beyond its first look; None for a model of one look."""
    assert result.accuracy is not None
    return sum(step.regions_mean for step in result.accuracy.steps[1:]) if len(result.accuracy.steps) > 1 else None


def _macs_of_call(model: GlimpseModel[Any], module: str) -> float:
    """MACs of one call of a submodule for one input, as it comes in a run over noise."""
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
    return count_macs(lambda: model.get_submodule(module)(inputs[:1])).macs


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
