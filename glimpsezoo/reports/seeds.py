"""Several seeds of one model: their mean and spread, beside each by itself.

Two seeds are told apart everywhere: the training seed, which decided the weights, and the noise seed (`run --seed`), which decides the
random numbers of a measurement.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glimpsezoo.errors import GlimpseZooError, counted
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.measures.base import Bench
from glimpsezoo.measures.pairs import Comparison, Pair
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.seeds import RecipePair, Trainings, mean_over_seeds, recipe_pair
from glimpsezoo.measures.shown import Cell, Column, Entry, Table
from glimpsezoo.measures.statistics import Estimate
from glimpsezoo.measures.text import macs_text
from glimpsezoo.reports.table import columns_of
from glimpsezoo.schema import Section

_SEED = re.compile(r"\.seed-\d+$")  # of a card's name
CAPTION = "Mean over seeds ± standard deviation (lowest to highest)."


class SeedSpread(Section):
    """A number over several seeds. If training and noise seeds both vary, it is averaged over noise seeds first."""

    mean: float
    """In the unit of its heading."""
    sd: float | None
    """Standard deviation (of a sample); null for one seed."""
    low: float
    """The lowest."""
    high: float
    """The highest."""
    each: tuple[float, ...]
    """One value per seed, in the order of the seeds."""


@dataclass(frozen=True)
class Seeds:
    """Results that differ only in their seeds."""

    title: str
    """The model without a seed, with what tells it from the others."""
    labels: tuple[str, ...]
    """What else tells these results from others, such as the data."""
    entries: tuple[Entry, ...]

    @property
    def name(self) -> str:
        """The title, marked as `Result.display_name` is."""
        return self.entries[0].result.renamed(self.title).display_name

    @property
    def training(self) -> list[int]:
        """The training seeds; empty where no card tells them."""
        return sorted({seed for each in self.entries if (seed := _training_seed(each.result)) is not None})

    @property
    def noise(self) -> list[int]:
        """The noise seeds."""
        return sorted({each.result.run.seed for each in self.entries})

    @property
    def text(self) -> str:
        """How many seeds of which kind: those of the kind that varies, or of both."""
        training = counted(len(self.training), "training seed") if len(self.training) > 1 else ""
        noise = counted(len(self.noise), "noise seed") if len(self.noise) > 1 else ""
        return " x ".join(filter(None, (training, noise))) or "1"

    def spread(self, value: Callable[[Result], float | None]) -> SeedSpread | None:
        """A number over the seeds; None if a result lacks it."""
        by_seed: dict[int | None, list[float]] = {}
        for each in sorted(self.entries, key=lambda each: (_training_seed(each.result) or 0, each.result.run.seed)):
            found = value(each.result)
            if found is None:
                return None
            by_seed.setdefault(_training_seed(each.result), []).append(found)
        several = [float(np.mean(values)) for values in by_seed.values()] if len(by_seed) > 1 else next(iter(by_seed.values()))
        sd = float(np.std(several, ddof=1)) if len(several) > 1 else None
        return SeedSpread(mean=float(np.mean(several)), sd=sd, low=min(several), high=max(several), each=tuple(several))


def by_seeds(entries: Sequence[Entry], labels: Callable[[Entry], tuple[str, ...]] | None = None) -> list[Seeds]:
    """The results, those that differ only in their training seed or noise seed together, in the order of the first of each.

    labels: what stands beside a title and tells it from equal ones. Without them, the data do, and every title is another.
    """
    labels_of = labels or (lambda entry: (entry.data,))
    groups: list[tuple[str, list[Entry]]] = []
    for entry in entries:
        shared = _identity(entry, labels_of(entry))
        fits = [members for identity, members in groups if identity == shared and all(_joins(entry, each) for each in members)]
        if fits:  # of those, one with the same conditions, if any
            min(fits, key=lambda members: _conditions(members[0].result) != _conditions(entry.result)).append(entry)
        else:
            groups.append((shared, [entry]))
    found, seen = list[Seeds](), Counter[tuple[str, ...]]()
    for _, members in groups:
        title, beside = _shared_title(members), labels_of(members[0])
        own = (title, *(beside if labels else ()))
        seen[own] += 1
        number = f", recipe {seen[own]}" if seen[own] > 1 else ""
        found.append(Seeds(title + number, beside, tuple(members)))
    return found


def _joins(one: Entry, other: Entry) -> bool:
    """Whether two results of one model are of different seeds, and under the same conditions where both have any."""
    seeds = [(_training_seed(each.result), each.result.run.seed) for each in (one, other)]
    conditions = zip(_conditions(one.result), _conditions(other.result), strict=True)
    return seeds[0] != seeds[1] and all(a == b for a, b in conditions if a and b)


def _conditions(result: Result) -> tuple[Any, Any]:
    """The corruptions and the attacks of a result."""
    table = result.corruptions.table if result.corruptions else {}
    corruptions = {name: [rate is not None for rate in rates] for name, rates in table.items()}
    return corruptions, sorted({record.full_name for record in result.attacks})


def _identity(entry: Entry, labels: tuple[str, ...]) -> str:
    """What the seeds of one model share. Without a known recipe, the weights are part of it, so that only noise seeds differ."""
    result, trained = entry.result, entry.result.model.trained_on
    used = result.model.checkpoint
    model: Mapping[str, Any] = result.model.model_dump(mode="json", exclude={"name", "checkpoint", "trained_on", "plugin_version"})
    weights = (trained and trained.recipe) or (used.sha256 if used else None)
    return json.dumps([weights, model, result.data.settings, labels, result.run.limit], sort_keys=True)


def _training_seed(result: Result) -> int | None:
    return result.model.trained_on.seed if result.model.trained_on else None


def _shared_title(entries: Sequence[Entry]) -> str:
    """The common title of several seeds, without what differs; the whole title of a single result."""
    if len(entries) == 1:
        return entries[0].title
    models, suffixes = zip(*((model, rest) for model, *rest in (entry.title.split(", ") for entry in entries)), strict=True)
    model = min((_SEED.sub("", model) for model in models), key=len)
    return ", ".join([model, *(suffix for suffix in suffixes[0] if all(suffix in others for others in suffixes))])


def repeated(entries: Sequence[Entry]) -> list[Seeds]:
    """The models with several seeds."""
    return [each for each in by_seeds(entries) if len(each.entries) > 1]


def members(recipes: Sequence[Seeds]) -> set[str]:
    """The names of all trainings of some recipes, as pairs have them."""
    return {name for each in recipes for entry in each.entries for name in (entry.name, entry.result.model.name)}


def recipe_pairs(entries: Sequence[Entry], rows: Sequence[Rows | None], notes: list[str]) -> Iterator[RecipePair]:
    """Every ordered pair of models, at least one of which has several training seeds. rows: one per entry.

    What cannot be tested becomes a note.
    """
    known = {id(entry): each for entry, each in zip(entries, rows, strict=True) if each is not None and len(each)}
    groups = [(group, _trainings(group, known)) for group in by_seeds([entry for entry in entries if id(entry) in known])]
    for one, a in groups:
        for other, b in groups:
            if one is not other and one.labels == other.labels and max(len(a.rows), len(b.rows)) > 1:
                try:
                    yield recipe_pair(a, b)
                except GlimpseZooError as error:
                    notes.append(str(error))


def with_recipes(comparison: Comparison | None, results: Sequence[Result], bench: Bench | None, notes: list[str]) -> Comparison | None:
    """The comparison of a run, with the tests between its recipes. results: one per model of the bench."""
    if comparison is None or bench is None:
        return comparison
    entries, rows = [Entry(each.model.name, each) for each in results], [*map(bench.clean_rows, range(len(results)))]
    return comparison.model_copy(update={"recipes": tuple(recipe_pairs(entries, rows, notes))})


def _trainings(group: Seeds, rows: Mapping[int, Rows]) -> Trainings:
    found: dict[int, list[Rows]] = {}
    for entry in group.entries:
        found.setdefault(_training_seed(entry.result) or 0, []).append(rows[id(entry)])
    return Trainings(group.name, found)


def board_of(groups: Sequence[Seeds], headings: Sequence[str]) -> Table:
    """One row per model: mean and spread over its seeds, at the last step, of what a small screen shows. headings: of the labels."""
    shown = [column for column in columns_of([entry.result for each in groups for entry in each.entries], "board") if not column.minor]
    rows = [(Cell(each.name), *map(Cell, each.labels), Cell(each.text), *(_cell(column, each) for column in shown)) for each in groups]
    heads = ("model", *headings, "seeds", *(column.heading for column in shown))
    words = frozenset({*heads[: 2 + len(headings)], *(column.heading for column in shown if column.words)})
    kept = [k for k in range(len(heads)) if k < 2 + len(headings) or any(row[k].text for row in rows)]
    return Table("", tuple(heads[k] for k in kept), tuple(tuple(row[k] for k in kept) for row in rows), words)


def numbers_of(group: Seeds) -> dict[str, SeedSpread]:
    """Heading -> the number at the last step, over the seeds; those that every seed has."""
    columns = [column for column in columns_of([each.result for each in group.entries], "board") if not column.words]
    found = {column.heading: group.spread(lambda result, column=column: column.cell(result, -1).value) for column in columns}
    return {heading: spread for heading, spread in found.items() if spread is not None}


def seeds_table(entries: Sequence[Entry]) -> Table | None:
    """Mean and spread of the models with several seeds; None if there is none."""
    groups = repeated(entries)
    if not groups:
        return None
    found = board_of(groups, ("data",))
    return Table(CAPTION, found.headings, found.rows, found.words)


def as_recipes(
    entries: Sequence[Entry], pairs: Sequence[Pair], recipes: Sequence[RecipePair]
) -> tuple[list[Entry], list[Pair | RecipePair]]:
    """The results with one entry per recipe in place of its trainings, and the tests between these: what a sentence about recipes needs.

    The accuracy of a recipe is the mean over its seeds, with an interval for new seeds and new images.
    """
    if not recipes:
        return list(entries), list(pairs)
    found: list[Entry] = []
    titles = {}
    for group in by_seeds(entries):
        first = group.entries[0]
        if len(group.training) > 1 and first.result.accuracy:
            first = Entry(f"{group.title} ({group.text})", _with_mean(group))
        titles[group.name] = first.name
        found.append(first)
    named = {entry.name for entry in found}
    own = [pair.model_copy(update={"a": titles[pair.a], "b": titles[pair.b]}) for pair in recipes if {pair.a, pair.b} <= set(titles)]
    return found, [*(pair for pair in pairs if {pair.a, pair.b} <= named), *own]


def _with_mean(group: Seeds) -> Result:
    """The first result of a recipe with the mean accuracy over its seeds."""
    trainings: dict[int | None, list[Estimate]] = {}
    for each in group.entries:
        trainings.setdefault(_training_seed(each.result), []).append(each.result.accuracy.top1)
    top1 = mean_over_seeds([_mean(of_noise) for of_noise in trainings.values()])
    result = group.entries[0].result
    return result.model_copy(update={"accuracy": result.accuracy.model_copy(update={"top1": top1})})


def _mean(several: Sequence[Estimate]) -> Estimate:
    """The mean over noise seeds, on the same images: so is that of the ends of their intervals."""
    value, low, high = (float(np.mean([getattr(each, key) for each in several])) for key in ("value", "low", "high"))
    return several[0].model_copy(update={"value": value, "low": low, "high": high})


def _cell(column: Column, seeds: Seeds) -> Cell:
    """One text that all seeds share, or mean and spread; empty if a seed lacks the number."""
    cells = [column.cell(each.result, -1) for each in seeds.entries]
    if not all(cell.text for cell in cells):
        return Cell("")
    if len({cell.text for cell in cells}) == 1 and cells[0].low is None:  # or else it would say how sure one seed is
        return cells[0]
    found = None if column.words else seeds.spread(lambda result: column.cell(result, -1).value)
    return Cell(" / ".join(dict.fromkeys(cell.text for cell in cells))) if found is None else Cell(spread_text(found), found.mean)


def spread_text(spread: SeedSpread) -> str:
    """Mean, standard deviation and range.

    >>> spread_text(SeedSpread(mean=97.5, sd=0.5, low=97.0, high=98.0, each=(97.0, 97.5, 98.0)))
    '97.50 ± 0.50 (97.00 to 98.00)'
    """
    deviation = "" if spread.sd is None else f" ± {_number(spread.sd)}"
    return f"{_number(spread.mean)}{deviation} ({_number(spread.low)} to {_number(spread.high)})"


def _number(value: float) -> str:
    return macs_text(value) if value >= 1000 else f"{value:.2f}"
