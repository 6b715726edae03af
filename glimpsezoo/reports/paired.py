"""Paired tests in words: models, and recipes with several training seeds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from glimpsezoo.measures.costs import mean_macs
from glimpsezoo.measures.pairs import Comparison, Pair, pair_text
from glimpsezoo.measures.result import Result, model_identity
from glimpsezoo.measures.seeds import RecipePair
from glimpsezoo.measures.shown import Entry
from glimpsezoo.reports.seeds import by_seeds, members, seeds_table
from glimpsezoo.reports.table import terminal


def pair_texts(
    entries: Sequence[Entry],
    pairs: Sequence[Pair],
    recipes: Sequence[RecipePair] = (),
    called: Callable[[Entry], str] = lambda entry: entry.name,
) -> list[str]:
    """One sentence per pair; each model is compared with those after it. called: the name of a result in `pairs`.

    Recipes with several training seeds are compared as a whole: pairs of single trainings of theirs are left out. Two models of which the
    cells of a grid measured the same clean images again are compared once.
    """
    names = [called(entry) for entry in entries]
    models = {called(entry): model_identity(entry.result) for entry in entries}
    macs = {called(entry): None if entry.result.at_least else mean_macs(entry.result) for entry in entries}
    groups = by_seeds(entries)
    single = members([each for each in groups if len(each.training) > 1]) if recipes else ()
    mine = [pair for pair in pairs if names.index(pair.a) < names.index(pair.b) and pair.a not in single and pair.b not in single]
    found = [pair_text(pair, macs[pair.a], macs[pair.b]) for pair in _each_once(mine, models)]
    order = [each.name for each in groups]
    costs = {each.name: macs[called(each.entries[0])] for each in groups}
    known = [pair for pair in recipes if {pair.a, pair.b} <= set(order) and order.index(pair.a) < order.index(pair.b)]
    return [*(pair_text(pair, costs[pair.a], costs[pair.b]) for pair in known), *found]


def _each_once(pairs: Sequence[Pair], models: Mapping[str, str]) -> list[Pair]:
    """The first of the pairs of the same two models with the same outcome. models: by name, what is the same for one model."""
    found = dict[tuple[Any, ...], Pair]()
    for pair in pairs:
        found.setdefault((pair.n, frozenset({(models[pair.a], pair.only_a), (models[pair.b], pair.only_b)})), pair)
    return list(found.values())


def print_comparison(comparison: Comparison | None, results: Sequence[Result], console: Console) -> None:
    """Print the spread over seeds, then one line per pair of models of a run; each model is compared with those after it."""
    entries = [Entry(result.model.name, result) for result in results]
    print_seeds(entries, console)
    if comparison is not None:
        for text in pair_texts(entries, comparison.pairs, comparison.recipes, lambda entry: entry.result.model.name):
            console.print(Text(text))


def print_seeds(entries: Sequence[Entry], console: Console) -> None:
    """Print mean and spread of the models that have several seeds."""
    found = seeds_table(entries)
    if found is not None:
        console.print(terminal(found, console.width))
