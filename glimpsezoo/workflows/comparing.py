"""Results that were measured earlier, from folders and cards: read, told apart by name, and tested against each other image by image."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from glimpsezoo.cards import CONFIG, LOG, RESULT, ROWS, Card, card_with_weights, find_card, training_log
from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.pages.board import Entry
from glimpsezoo.records import Comparison, Data, Pair, Result
from glimpsezoo.reports import evidence
from glimpsezoo.sections import compare
from glimpsezoo.store import Rows, read_rows


@dataclass(frozen=True)
class Measured:
    """A result and where it lies. rows: what it comes from, None where they are not beside it."""

    entry: Entry
    folder: Path
    rows: Rows | None = field(repr=False)


@dataclass(frozen=True)
class Compared:
    """Results with the paired tests between those that were measured on the same images. notes: what could not be tested, and why."""

    measured: tuple[Measured, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    @property
    def entries(self) -> list[Entry]:
        return [each.entry for each in self.measured]

    @property
    def pairs(self) -> list[Pair]:
        return [pair for comparison in self.comparisons for pair in comparison.pairs]


def read_runs(names: Sequence[str]) -> Compared:
    """Read the results of runs: a folder of `run` (with one result or several), a result.json, or a measured card by name or path.

    Raises `GlimpseZooError` for what is none of these, or cannot be read.
    """
    if not names:
        raise GlimpseZooError("expected a run or a card, got none: name folders in runs/, or cards ('glimpsezoo list cards')")
    others = [name for name in names if _holds_no_run(Path(name))]
    if len(others) == len(set(names)):
        others = []  # then there is something wrong with each
    folders = dict.fromkeys(folder.resolve() for name in names if name not in others for folder in _folders(name))
    measured = _told_apart([_read(folder) for folder in folders])
    comparisons, notes = _tested(measured)
    left_out = [f"left out, for there is no {RESULT} in it: {', '.join(others)}"] if others else []
    return Compared(tuple(measured), tuple(comparisons), (*left_out, *notes))


def _holds_no_run(path: Path) -> bool:
    """Whether a path is there and is neither a run nor a card: what a pattern such as runs/* takes in with the runs (runs/train)."""
    if path.name == RESULT or (path / CONFIG).is_file() or (path / RESULT).is_file():
        return False
    return path.exists() and not any(path.glob(f"*/{RESULT}"))


@contextmanager
def presented() -> Iterator[None]:
    """What cannot be drawn or written of a result that somebody changed, as one line. Raises `GlimpseZooError`."""
    try:
        yield
    except (ArithmeticError, LookupError, ValueError) as error:
        why = f"{type(error).__name__}: {one_line(error):.100}"
        raise GlimpseZooError(f"expected the values that a run writes, got a {RESULT} with others ({why}): measure it again") from error


def _folders(name: str) -> list[Path]:
    """The folders of results that a name stands for."""
    path = Path(name)
    if path.is_file():
        path = path.parent if path.name == RESULT else path
    if (path / RESULT).is_file():
        return [path]
    found = sorted(each.parent for each in path.glob(f"*/{RESULT}")) if path.is_dir() else []
    if found:
        return found
    card = find_card(name)
    if card is None:
        raise GlimpseZooError(
            f"expected a folder with {RESULT}, or a card, got {name!r}, which has none: measure it by 'glimpsezoo run', and name the "
            "folder of its results"
        )
    if not (card.folder / RESULT).is_file():
        raise GlimpseZooError(f"expected a measured card, got {name!r} without {RESULT}: glimpsezoo run {name} --update-card")
    return [card.folder]


def _read(folder: Path) -> Measured:
    try:
        result = Result.model_validate_json((folder / RESULT).read_bytes())
    except (OSError, ValidationError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else one_line(error)
        where = "/".join(folder.parts[-2:])
        raise GlimpseZooError(f"expected a {RESULT} of schema 1 in {where!r}, got none ({why:.150}): measure again") from None
    if (folder / CONFIG).is_file() and evidence(Card.read(folder)) is None:
        raise GlimpseZooError(f"the {RESULT} of card {folder.name!r} is not of its weights: measure it again with --update-card")
    unit = read_rows(folder / ROWS)
    title = result.model.name
    if (folder / CONFIG).is_file():
        card = find_card(str(folder))
        title = card.called if card else title
    return Measured(Entry(title, result, _training(folder, result)), folder, unit.rows if unit else None)


def _training(folder: Path, result: Result) -> tuple[dict[str, Any], ...]:
    """The training log of the result's card: beside the result, or in the card of that name that has the weights that were measured."""
    used = result.model.checkpoint
    if not (folder / LOG).is_file() and used is not None:
        with suppress(GlimpseZooError):
            folder = card_of(result).folder
    return training_log(folder)


def card_of(result: Result) -> Card:
    """The card on this machine that has the very weights which were measured. Raises `GlimpseZooError` if there is none."""
    used = result.model.checkpoint
    if used is None:
        raise GlimpseZooError("it was measured untrained")
    where = f"{used.uri}@{used.revision}" if used.revision else used.uri
    return card_with_weights([where, result.model.name], used.sha256)


def _told_apart(measured: list[Measured]) -> list[Measured]:
    """With unique names: behind those that are alike stands the data set, else the weights, the run, the folder, else a number."""
    extras: list[Callable[[Measured], str]] = [
        lambda each: each.entry.data,
        lambda each: f"weights {used.sha256[:8]}" if (used := each.entry.result.model.checkpoint) else "untrained",
        lambda each: f"run {each.entry.result.run.id}",
        lambda each: "/".join(each.folder.parts[-2:]),
    ]
    for extra in extras:
        alike: dict[str, list[Measured]] = {}
        for each in measured:
            alike.setdefault(each.entry.name, []).append(each)
        differ = {name for name, members in alike.items() if len({extra(each) for each in members}) > 1}
        measured = [_titled(each, f"{each.entry.title}, {extra(each)}") if each.entry.name in differ else each for each in measured]
    seen: Counter[str] = Counter()
    found = []
    for each in measured:
        seen[each.entry.name] += 1
        count = seen[each.entry.name]
        found.append(each if count == 1 else _titled(each, f"{each.entry.title}, {count}"))
    return found


def _titled(each: Measured, title: str) -> Measured:
    return replace(each, entry=replace(each.entry, title=title))


def _images(data: Data) -> tuple[str, str | None, str]:
    """What two results must share to be of the same images; a limited run measured some of them."""
    return data.name, data.split, (data.fingerprint or "").partition("-limit")[0]


def _tested(measured: Sequence[Measured]) -> tuple[list[Comparison], list[str]]:
    """Every pair of models of the same images, and a note for those whose rows are not there or do not agree."""
    comparisons, notes = [], []
    groups = dict.fromkeys(_images(each.entry.result.data) for each in measured if each.entry.result.accuracy)
    for group in groups:
        members = [each for each in measured if each.entry.result.accuracy and _images(each.entry.result.data) == group]
        rows = {each.entry.name: each.rows for each in members if each.rows is not None and len(each.rows)}
        missing = [each.entry.name for each in members if each.entry.name not in rows]
        if missing and len(members) > 1:
            notes.append(f"without rows beside the result, no paired test: {', '.join(missing)}")
        pairs: list[Pair] = []
        for a in rows:
            for b in rows:
                try:
                    pairs += compare({a: rows[a], b: rows[b]})[:1] if a != b else ()
                except GlimpseZooError as error:
                    notes.append(str(error))
        if pairs:
            ids = dict.fromkeys(each.entry.result.run.id for each in members)
            comparisons.append(Comparison(run=", ".join(ids), data=group[0], pairs=tuple(pairs)))
    if len(groups) > 1:
        notes.append("models that were measured on different images are not tested against each other")
    return comparisons, list(dict.fromkeys(notes))
