"""What the zoo knows of a paper's cards: their evidence, all their seeds, and their models, for which no weights are needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from glimpsezoo.cards import ROWS, Card, find_card
from glimpsezoo.data.config import task_of
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.recipes import find_recipe
from glimpsezoo.records import Result
from glimpsezoo.reports import evidence
from glimpsezoo.resolve import data_spec, spec_of
from glimpsezoo.settings import Settings
from glimpsezoo.specs import load_string
from glimpsezoo.store import Rows, read_rows
from glimpsezoo.workflows.training import named_by_recipe


@dataclass(frozen=True)
class Evidence:
    """What one training of a card has in evidence, on the whole of its split. rows: None where they are not beside the result."""

    seed: int
    result: Result
    rows: Rows | None = field(repr=False)


class Zoo:
    """The zoo's cards and those that were given. Given cards go before the zoo's of the same name, and those of another seed beside it."""

    def __init__(self, given: Sequence[Card] = ()) -> None:
        """Raises `GlimpseZooError` for two cards of one name and seed, and for cards of one name that are not seeds of one training."""
        self.given: dict[str, dict[int, Card]] = {}
        for card in given:
            known = self.given.setdefault(card.name, {})
            if seed_of(card) in known:
                raise GlimpseZooError(
                    f"expected one card {card.name!r} for each seed, got two of seed {seed_of(card)} "
                    f"({known[seed_of(card)].folder.name} and {card.folder.name}): name one of them"
                )
            known[seed_of(card)] = card
        self.trainings = cache(self._trainings)
        self.evidence = cache(self._evidence)
        self.model = cache(self._model)

    def card(self, name: str) -> Card | None:
        """The card that answers for a name: the zoo's own, or one that was given of its seed; else the given one of the lowest seed."""
        return next(iter(self.trainings(name)), None)

    def result(self, name: str) -> Result | None:
        """The evidence of the card, which is of its very weights and of the whole split; None if there is none."""
        card, found = self.card(name), self.evidence(name)
        return found[0].result if card and found and found[0].seed == seed_of(card) else None

    def _trainings(self, name: str) -> tuple[Card, ...]:
        """The card that answers, then its other seeds in order."""
        given, own = dict(self.given.get(name, {})), find_card(name)
        if not given and own is None:
            return ()
        first = seed_of(own) if own else min(given)
        if own:
            given.setdefault(first, own)
        for other in given.values():
            if _training(other) != _training(given[first]):
                raise GlimpseZooError(
                    f"expected cards {name!r} that differ in their seed alone, got another recipe in {other.folder.name!r}: "
                    "give that card a name of its own"
                )
        return tuple(given[seed] for seed in sorted(given, key=lambda seed: (seed != first, seed)))

    def _evidence(self, name: str) -> tuple[Evidence, ...]:
        """Of all trainings that were measured, the one that answers first."""
        found = []
        for card in self.trainings(name):
            result = evidence(card)
            if result and result.accuracy and result.run.limit is None:
                unit = read_rows(card.folder / ROWS)
                found.append(Evidence(seed_of(card), result, unit.rows if unit else None))
        return tuple(found)

    def check(self, name: str) -> None:
        """Raises `GlimpseZooError` for what is neither a card nor a recipe."""
        if self.card(name) is None and named_by_recipe(name) is None:
            raise GlimpseZooError(f"a paper's table expects a card or a recipe, got {name!r}, which is neither: correct the table")

    def epochs(self, name: str) -> str:
        """How long a card was trained, stage by stage, those of the cards that it started from first; '' where nobody knows.

        Epochs; a phase that is given in steps says so.
        """
        stages: list[str] = []
        start: str | None = name
        while start is not None:
            recipe = self._recipe(start)
            if recipe is None:
                stages.append("?")
                break
            phases = [f"{each['epochs']}" if each.get("epochs") else f"{each['steps']:,} steps" for each in recipe["phase"]]
            stages, start = [*stages, *reversed(phases)], self._start(start, recipe)
        return " + ".join(reversed(stages)) if stages != ["?"] else ""

    def _start(self, name: str, recipe: Mapping[str, Any]) -> str | None:
        """The card that a training began with: a seed's may lie in a folder of another name."""
        card = self.card(name)
        told = card.config.trained.get("start") if card else None
        return told["card"] if told else recipe.get("start")

    def _recipe(self, name: str) -> Mapping[str, Any] | None:
        """How a card was trained, or the recipe that trains one of this name; None for neither."""
        card = self.card(name)
        if card:
            return card.config.trained.get("recipe")
        named = named_by_recipe(name)
        return find_recipe(named.spec, named.card).model_dump(exclude_unset=True) if named else None

    def _model(self, name: str) -> GlimpseModel[Any]:
        """The card's model, or that of the recipe which would train it, with weights of no meaning."""
        card = self.card(name)
        if card:
            spec, values, task = spec_of(name, card), card.config.config, card.config.task.task()
        else:
            self.check(name)
            named = named_by_recipe(name)
            assert named is not None
            recipe = find_recipe(named.spec, named.card)
            spec, found = named.spec, task_of(data_spec(named.data), recipe.data)
            if found is None:
                raise GlimpseZooError(f"a paper's table expects data of a known size, got {named.data!r}: name a card of it")
            values, task = {**spec.defaults.get(named.data, {}), **recipe.settings}, found
        schema: type[Settings] = load_string(spec.config)
        torch.manual_seed(0)
        return load_string(spec.model)(schema.parse(values, owner=name), task).eval()


def seed_of(card: Card) -> int:
    """The seed that a card was trained with; recipes leave out 0, which is their default."""
    return int(card.config.trained.get("recipe", {}).get("seed", 0))


def _training(card: Card) -> tuple[Any, ...]:
    """All that the seeds of one training share. Of a start, another seed may be a card of another place."""
    recipe = {key: value for key, value in card.config.trained.get("recipe", {}).items() if key not in {"seed", "start"}}
    return card.config.model, recipe
