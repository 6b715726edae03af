"""The cards of a paper: their evidence, all their seeds, and their models (no weights needed)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.data.config import task_of
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.measures.result import Result
from glimpsezoo.settings import Settings
from glimpsezoo.specs import ModelSpec, Task, load_string
from glimpsezoo.training.target import target_of_recipe
from glimpsezoo.zoo.cards import Card, find_card
from glimpsezoo.zoo.names import data_spec, spec_of
from glimpsezoo.zoo.recipes import find_recipe
from glimpsezoo.zoo.results import evidence, rows_of


@dataclass(frozen=True)
class Evidence:
    """The evidence of one training of a card, on its whole split."""

    seed: int
    """Seed of the training."""
    result: Result
    """The card's result.json."""
    rows: Rows | None = field(repr=False)
    """The rows behind the result; None if the card has none."""


class Zoo:
    """The zoo's cards and additional ones. A given card replaces the zoo's of the same name and seed; other seeds are added to it."""

    def __init__(self, given: Sequence[Card] = ()) -> None:
        """Raises `GlimpseZooError` for two cards with the same name and seed, or with the same name and different recipes."""
        self.given: dict[str, dict[int, Card]] = {}
        for card in given:
            known = self.given.setdefault(card.name, {})
            if seed_of(card) in known:
                raise GlimpseZooError(
                    f"expected one card {card.name!r} for each seed, got two of seed {seed_of(card)} "
                    f"({known[seed_of(card)].folder.name} and {card.folder.name}): name only one of them"
                )
            known[seed_of(card)] = card
        self.trainings = cache(self._trainings)
        self.evidence = cache(self._evidence)
        self.model = cache(self._model)

    def card(self, name: str) -> Card | None:
        """The main card of a name: the zoo's own or a given one of the same seed; else the given one with the lowest seed."""
        return next(iter(self.trainings(name)), None)

    def result(self, name: str) -> Result | None:
        """The evidence of the main card, which was measured with its weights on the whole split; None if there is none."""
        card, found = self.card(name), self.evidence(name)
        return found[0].result if card and found and found[0].seed == seed_of(card) else None

    def _trainings(self, name: str) -> tuple[Card, ...]:
        """The main card, then its other seeds in order."""
        given, own = dict(self.given.get(name, {})), find_card(name)
        if not given and own is None:
            return ()
        first = seed_of(own) if own else min(given)
        if own:
            given.setdefault(first, own)
        for other in given.values():
            if other is not given[first] and _training(other) != _training(given[first]):
                raise GlimpseZooError(
                    f"expected cards {name!r} that differ only in their seed, got another recipe in {other.folder.name!r}: "
                    "give that card another name"
                )
        return tuple(given[seed] for seed in sorted(given, key=lambda seed: (seed != first, seed)))

    def _evidence(self, name: str) -> tuple[Evidence, ...]:
        """The evidence of all measured trainings, the main card first."""
        found = []
        for card in self.trainings(name):
            result = evidence(card)
            if result and result.accuracy and result.run.limit is None:
                found.append(Evidence(seed_of(card), result, rows_of(card.folder, result)))
        return tuple(found)

    def check(self, name: str) -> None:
        """Raises `GlimpseZooError` if the name is neither a card nor a recipe."""
        if self.card(name) is None and target_of_recipe(name) is None:
            raise GlimpseZooError(f"a paper's table expects a card or a recipe, got {name!r}, which is neither: correct the table")

    def epochs(self, name: str) -> str:
        """The epochs of every training phase, beginning with the cards that the training started from; '' if unknown.

        A training phase that is given in steps says so.
        """
        stages: list[str] = []
        start: str | None = name
        while start is not None:
            recipe = self._recipe(start)
            if recipe is None:
                stages.append("?")
                break
            phases = [f"{each['epochs']}" if each.get("epochs") else f"{each['steps']:,} steps" for each in recipe.get("phase", ())]
            stages, start = [*stages, *reversed(phases)], self._start(start, recipe)
        return " + ".join(reversed(stages)) if stages != ["?"] else ""

    def _start(self, name: str, recipe: Mapping[str, Any]) -> str | None:
        """The name of the card that a training started from, which may differ between seeds; '?' if that card has other weights by now."""
        card = self.card(name)
        told = card.config.trained.get("start") if card else None
        if not told:
            return recipe.get("start")
        start = self.card(told["card"])
        changed = start is not None and start.config.weights is not None and start.config.weights.sha256 != told.get("sha256")
        return "?" if changed else told["card"]

    def _recipe(self, name: str) -> Mapping[str, Any] | None:
        """The recipe that a card was trained with, or that would train a card of this name; None without either."""
        card = self.card(name)
        if card:
            return card.config.trained.get("recipe")
        named = target_of_recipe(name)
        return find_recipe(named.spec, named.card).model_dump(exclude_unset=True) if named else None

    def _model(self, name: str) -> GlimpseModel[Any]:
        """The model of the card, or of the recipe that would train it, with random weights."""
        card = self.card(name)
        if card:
            return _model_of(card)
        self.check(name)
        named = target_of_recipe(name)
        assert named is not None
        recipe = find_recipe(named.spec, named.card)
        task = task_of(data_spec(named.data), recipe.data)
        if task is None:
            raise GlimpseZooError(f"a paper's table expects data of a known size, got {named.data!r}: name a card of it")
        return _built(name, named.spec, {**named.spec.defaults.get(named.data, {}), **recipe.settings}, task)


def seed_of(card: Card) -> int:
    """The seed that a card was trained with; 0 for one that was not trained by a recipe."""
    return card.config.seed or 0


def _training(card: Card) -> tuple[Any, ...]:
    """Everything that the seeds of one training share. Not the start: each seed may start from its own card.

    Settings are those that the model ends with: a recipe may leave to the model what another names. So cards of different ages agree, whose
    `recipe_id` may differ: that has the recipe's own settings, and the fingerprint of the data, which older cards do not record.
    """
    told = card.config.trained.get("recipe") or {}
    recipe = {key: value for key, value in told.items() if key not in {"seed", "start", "settings"}}
    return card.config.model, recipe, _model_of(card).config.model_dump()


def _model_of(card: Card) -> GlimpseModel[Any]:
    """The model of a card, with random weights."""
    return _built(card.name, spec_of(card.name, card), card.config.config, card.config.task.task())


def _built(name: str, spec: ModelSpec, settings: Mapping[str, Any], task: Task) -> GlimpseModel[Any]:
    schema: type[Settings] = load_string(spec.config)
    torch.manual_seed(0)
    return load_string(spec.model)(schema.parse(settings, owner=name), task).eval()
