"""Reads earlier results from folders and cards, gives them unique names, and tests them against each other, paired by image."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from glimpsezoo.errors import GlimpseZooError, one_line, why_not
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.files import finish_replacing
from glimpsezoo.measures.pairs import Comparison, Pair, every_pair
from glimpsezoo.measures.result import Data, Result, model_identity
from glimpsezoo.measures.seeds import RecipePair
from glimpsezoo.measures.shown import Entry
from glimpsezoo.reports.seeds import recipe_pairs
from glimpsezoo.schema import why_invalid
from glimpsezoo.untrusted import JSON_SIZE, read_regular
from glimpsezoo.zoo.card_config import CONFIG
from glimpsezoo.zoo.cards import LOG, RESULT, Card, card_with_weights, find_card, training_log
from glimpsezoo.zoo.result_folders import result_folders
from glimpsezoo.zoo.results import evidence, read_result, rows_of


@dataclass(frozen=True)
class StoredResult:
    """A result on disk."""

    entry: Entry
    """The result with its unique name."""
    folder: Path
    """The folder of its result.json."""
    rows: Rows | None = field(repr=False)
    """The rows behind the result; None if the folder has none."""


@dataclass(frozen=True)
class Compared:
    """Several results and the paired tests between them."""

    measured: tuple[StoredResult, ...]
    """The results, in the order of the command."""
    comparisons: tuple[Comparison, ...]
    """One for each set of images that several models were measured on."""
    notes: tuple[str, ...]
    """What was left out or could not be tested, and why."""

    @property
    def entries(self) -> list[Entry]:
        return [each.entry for each in self.measured]

    @property
    def pairs(self) -> list[Pair]:
        return [pair for comparison in self.comparisons for pair in comparison.pairs]

    @property
    def recipes(self) -> list[RecipePair]:
        return [pair for comparison in self.comparisons for pair in comparison.recipes]


def read_runs(names: Sequence[str]) -> Compared:
    """Read the results of runs: a folder of `run` (with one result or several), a result.json, or a measured card by name or path.

    Raises `GlimpseZooError` for a name that is none of these or cannot be read.
    """
    folders, others = result_folders(names)
    measured = _told_apart([_read(folder) for folder in folders])
    comparisons, notes = _tested(measured)
    left_out = [f"left out, without a {RESULT}: {', '.join(others)}"] if others else []
    return Compared(tuple(measured), tuple(comparisons), (*left_out, *notes))


@contextmanager
def presented() -> Iterator[None]:
    """Turn errors from the display of a modified result into a one-line `GlimpseZooError`."""
    try:
        yield
    except (ArithmeticError, LookupError, ValueError) as error:
        why = f"{type(error).__name__}: {one_line(error):.100}"
        raise GlimpseZooError(f"expected a {RESULT} as a run writes it, got one with other values ({why}): measure it again") from error


def _read(folder: Path) -> StoredResult:
    with suppress(OSError):  # of a folder that cannot be written
        finish_replacing(folder)
    try:
        result = read_result(read_regular(folder / RESULT, JSON_SIZE))
    except (OSError, ValidationError) as error:
        why = why_invalid(error) if isinstance(error, ValidationError) else why_not(error)
        where = "/".join(folder.parts[-2:])
        raise GlimpseZooError(f"expected a {RESULT} of schema 1 in {where!r}, got none ({why:.150}): measure again") from None
    if (folder / CONFIG).is_file() and evidence(Card.read(folder)) is None:
        raise GlimpseZooError(f"the {RESULT} of card {folder.name!r} is not of its weights: measure it again with --update-card")
    rows = rows_of(folder, result)
    title = result.model.name
    if (folder / CONFIG).is_file():
        card = find_card(str(folder))
        title = card.called if card else title
    return StoredResult(Entry(title, _with_recipe(folder, result), _training(folder, result)), folder, rows)


def _with_recipe(folder: Path, result: Result) -> Result:
    """The result with the recipe and the training seed of its card, for one that is older than these keys."""
    trained = result.model.trained_on
    if trained is None or trained.recipe is not None:
        return result
    with suppress(GlimpseZooError):
        card = Card.read(folder) if (folder / CONFIG).is_file() else card_of(result)
        known = trained.model_copy(update={"recipe": card.config.recipe_id, "seed": card.config.seed})
        return result.model_copy(update={"model": result.model.model_copy(update={"trained_on": known})})
    return result


def _training(folder: Path, result: Result) -> tuple[dict[str, Any], ...]:
    """The training log of the result's card: from the result's folder, or from the local card with the measured weights."""
    used = result.model.checkpoint
    if not (folder / LOG).is_file() and used is not None:
        with suppress(GlimpseZooError):
            folder = card_of(result).folder
    return training_log(folder)


def card_of(result: Result) -> Card:
    """The local card with the measured weights. Raises `GlimpseZooError` if there is none."""
    used = result.model.checkpoint
    if used is None:
        raise GlimpseZooError("it was measured untrained")
    where = f"{used.uri}@{used.revision}" if used.revision else used.uri
    return card_with_weights([where, result.model.name], used.sha256)


def _told_apart(measured: list[StoredResult]) -> list[StoredResult]:
    """The results with unique names. Equal names get a suffix: the first of data set, noise seed, folder, weights and run that tells them
    all apart, else all that differ, else a number.
    """
    extras: list[Callable[[StoredResult], str]] = [
        lambda each: each.entry.data,
        lambda each: f"noise seed {each.entry.result.run.seed}",
        lambda each: _file_name(each.folder),
        lambda each: f"weights {used.sha256[:8]}" if (used := each.entry.result.model.checkpoint) else "untrained",
        lambda each: f"run {each.entry.result.run.id}",
        lambda each: "/".join(each.folder.parts[-3:-1]),
    ]
    enough: dict[str, list[Callable[[StoredResult], str]]] = {}
    for name, members in _alike(measured).items():
        alone = [extra for extra in extras if len({extra(each) for each in members}) == len(members)]
        enough[name] = alone[:1] or extras
    names = [each.entry.name for each in measured]
    for extra in extras:
        alike = _alike(measured)
        suffixes = {id(each): suffix for members in alike.values() for each, suffix in _suffixes(members, extra)}
        measured = [
            _titled(each, f"{each.entry.title}, {suffixes[id(each)]}") if suffixes.get(id(each)) and extra in enough[name] else each
            for each, name in zip(measured, names, strict=True)
        ]
    seen: Counter[str] = Counter()
    found = []
    for each in measured:
        seen[each.entry.name] += 1
        count = seen[each.entry.name]
        found.append(each if count == 1 else _titled(each, f"{each.entry.title}, {count}"))
    return found


def _alike(measured: Sequence[StoredResult]) -> dict[str, list[StoredResult]]:
    """The results by name."""
    found: dict[str, list[StoredResult]] = {}
    for each in measured:
        found.setdefault(each.entry.name, []).append(each)
    return found


def _suffixes(members: Sequence[StoredResult], extra: Callable[[StoredResult], str]) -> Iterator[tuple[StoredResult, str]]:
    """What tells results apart: without the parts that all share, as cells of a grid have them. '' if nothing does."""
    parts = [extra(each).split(",") for each in members]
    shared = set[str].intersection(*map(set, parts))
    for each, own in zip(members, parts, strict=True):
        yield each, ", ".join(part.strip() for part in own if part not in shared)


def _file_name(folder: Path) -> str:
    """What a user calls a result: the folder of a card, of a run, or of a grid's cell."""
    return folder.name if (folder / CONFIG).is_file() else folder.parent.name


def _titled(each: StoredResult, title: str) -> StoredResult:
    return replace(each, entry=replace(each.entry, title=title))


def _images(data: Data) -> tuple[str, str | None, str]:
    """The key of a result's images. A limited run has the same key as the whole split, as it measured some of these images."""
    return data.name, data.split, (data.fingerprint or "").partition("-limit")[0]


def _tested(measured: Sequence[StoredResult]) -> tuple[list[Comparison], list[str]]:
    """Paired tests of all models with the same images, and notes on models without rows or with rows that do not match."""
    comparisons, notes = [], []
    groups = dict.fromkeys(_images(each.entry.result.data) for each in measured if each.entry.result.accuracy)
    for group in groups:
        members = [each for each in measured if each.entry.result.accuracy and _images(each.entry.result.data) == group]
        rows = {each.entry.name: each.rows for each in members if each.rows is not None and len(each.rows)}
        missing = [each.entry.name for each in members if each.entry.name not in rows]
        if missing and len(members) > 1:
            notes.append(f"without rows beside the result, no paired test: {', '.join(missing)}")
        pairs: list[Pair] = []
        identities = {each.entry.name: model_identity(each.entry.result) for each in members}
        for a in rows:
            for b in rows:
                try:
                    pairs += () if identities[a] == identities[b] else every_pair({a: rows[a], b: rows[b]})[:1]
                except GlimpseZooError as error:
                    notes.append(str(error))
        if pairs:
            ids = dict.fromkeys(each.entry.result.run.id for each in members)
            recipes = tuple(recipe_pairs([each.entry for each in members], [each.rows for each in members], notes))
            comparisons.append(Comparison(run=", ".join(ids), data=group[0], pairs=tuple(pairs), recipes=recipes))
    if len(groups) > 1:
        notes.append("models that were measured on different images are not tested against each other")
    return comparisons, list(dict.fromkeys(notes))
