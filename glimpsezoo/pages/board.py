"""The board: a row a model, at its last look, in columns that name their unit. What tables of any format, and the leaderboard, show."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from glimpsezoo.records import UNCHECKED, Attack, Estimate, Result
from glimpsezoo.tables import cost_text, counted, display_name, eps_text, macs_text, with_interval


@dataclass(frozen=True)
class Entry:
    """A measured model. title: its name, with what tells it from the others. training: the lines of its card's training log."""

    title: str
    result: Result
    training: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    @property
    def renamed(self) -> Result:
        """The result with the title as its model's name."""
        return self.result.model_copy(update={"model": self.result.model.model_copy(update={"name": self.title})})

    @property
    def name(self) -> str:
        """The title, marked where the numbers are not those of a trained model that looks where it has learned to."""
        return display_name(self.renamed)

    @property
    def data(self) -> str:
        """The data set and the split; two results can be compared where it is the same."""
        return " ".join(part for part in (self.result.data.name, self.result.data.split) if part)


@dataclass(frozen=True)
class Cell:
    """What stands in a column. value: in the unit of the heading, None for words and for what was not measured. low, high: of 95 %."""

    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Column:
    """heading: what it shows and in which unit. words: whether it holds no numbers. higher: whether more is better.

    verdict: whether it is that on an attack, whose column is the one before.
    """

    heading: str
    cell: Callable[[Entry], Cell]
    words: bool = False
    higher: bool = True
    verdict: bool = False


def columns(entries: Sequence[Entry]) -> list[Column]:
    """The columns that anybody fills. Behind the accuracy under the attack that was judged stands the verdict on it."""
    found = [
        Column("model", lambda entry: Cell(entry.name), words=True),
        Column("data", lambda entry: Cell(entry.data), words=True),
        Column("top-1 %", _accuracy("top1")),
        Column("NLL", lambda entry: _plain(entry.result.accuracy.nll, 3) if entry.result.accuracy else Cell(""), higher=False),
        Column("ECE %", _accuracy("ece"), higher=False),
        Column("corrupted %", lambda entry: _percent(entry.result.corruptions.mean) if entry.result.corruptions else Cell("")),
        Column("mCE %", _mce, higher=False),
        *_attack_columns(entries),
        Column("anytime mean %", _anytime),
        Column("MACs", _macs, higher=False),
        Column("MACs without a formula", lambda entry: Cell(", ".join(entry.result.missing)), words=True),
        Column("paper's MACs", _paper_macs, higher=False),
        Column("parameters", lambda entry: Cell(macs_text(entry.result.model.parameters), entry.result.model.parameters), higher=False),
        Column("steps", lambda entry: Cell(str(entry.result.model.steps), entry.result.model.steps), higher=False),
    ]
    return [column for column in found if any(column.cell(entry).text for entry in entries)]


def attack_name(attack: Attack) -> str:
    """An attack with its budget: accuracies under other budgets do not compare."""
    aimed = "" if attack.target == "final" else f", {attack.target}"
    looks = ", looks frozen" if attack.path == "frozen" else ""
    return f"{attack.name} {attack.norm} {eps_text(attack.eps)}, {counted(attack.steps, 'step')}{aimed}{looks}"


def attack_names(entries: Sequence[Entry]) -> list[str]:
    return list(dict.fromkeys(attack_name(attack) for entry in entries for attack in entry.result.attacks))


def verdict(entry: Entry) -> str:
    """Whether the model's accuracy under the attack that was judged can be believed; '' where it was not attacked."""
    judged = entry.result.judged
    return entry.result.verdict_on(judged) if judged else UNCHECKED if entry.result.attacks else ""


def _attack_columns(entries: Sequence[Entry]) -> Iterator[Column]:
    """Accuracy under every attack; behind those that any verdict is about, the verdicts. Behind the first, if none was judged."""
    names = attack_names(entries)
    judged = {attack_name(entry.result.judged) for entry in entries if entry.result.judged} or set(names[:1])
    for name in names:
        yield Column(f"{name} %", _attacked(name))
        if name in judged:
            heading = "masking" if len(judged) == 1 else f"masking of {name}"
            yield Column(heading, _judged(name), words=True, verdict=True)


def _percent(estimate: Estimate) -> Cell:
    return Cell(with_interval(estimate), 100 * estimate.value, 100 * estimate.low, 100 * estimate.high)


def _plain(estimate: Estimate, digits: int) -> Cell:
    return Cell(f"{estimate.value:.{digits}f}", estimate.value, estimate.low, estimate.high)


def _accuracy(what: str) -> Callable[[Entry], Cell]:
    return lambda entry: _percent(getattr(entry.result.accuracy, what)) if entry.result.accuracy else Cell("")


def _attacked(name: str) -> Callable[[Entry], Cell]:
    def cell(entry: Entry) -> Cell:
        attack = _named(entry, name)
        return _percent(attack.top1) if attack else Cell("")

    return cell


def _judged(name: str) -> Callable[[Entry], Cell]:
    def cell(entry: Entry) -> Cell:
        attack = _named(entry, name)
        return Cell(entry.result.verdict_on(attack) if attack else "")

    return cell


def _named(entry: Entry, name: str) -> Attack | None:
    return next((attack for attack in entry.result.attacks if attack_name(attack) == name), None)


def _mce(entry: Entry) -> Cell:
    found = entry.result.corruptions.mce if entry.result.corruptions else None
    return Cell(f"{found.value:.1f} (of {found.baseline})", found.value) if found else Cell("")


def _anytime(entry: Entry) -> Cell:
    found = entry.result.anytime
    return Cell(f"{100 * found.area:.1f}", 100 * found.area) if found and len(found.exits) > 1 else Cell("")


def _macs(entry: Entry) -> Cell:
    macs = mean_macs(entry.result)
    return Cell("") if macs is None else Cell(cost_text(entry.result, macs), macs)


def mean_macs(result: Result) -> float | None:
    """MACs of an image, on average; None if they were not counted."""
    if result.flops:
        return result.flops.macs.mean
    return result.accuracy.steps[-1].macs if result.accuracy else None


def _paper_macs(entry: Entry) -> Cell:
    found = entry.result.flops.paper_macs if entry.result.flops else None
    return Cell(cost_text(entry.result, found.value), found.value) if found else Cell("")
