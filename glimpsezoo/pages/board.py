"""The board: a row a model, at its last look, in columns that name their unit. What tables of any format, and the leaderboard, show."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from glimpsezoo.records import UNCHECKED, Attack, Estimate, Result
from glimpsezoo.tables import counted, display_name, eps_text, macs_text, with_interval


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
    """heading: what it shows and in which unit. words: whether it holds no numbers. higher: whether more is better."""

    heading: str
    cell: Callable[[Entry], Cell]
    words: bool = False
    higher: bool = True


def columns(entries: Sequence[Entry]) -> list[Column]:
    """The columns that anybody fills. Wherever attacked accuracy is shown, the verdict on the attacks stands beside it."""
    found = [
        Column("model", lambda entry: Cell(entry.name), words=True),
        Column("data", lambda entry: Cell(entry.data), words=True),
        Column("top-1 %", _accuracy("top1")),
        Column("NLL", lambda entry: _plain(entry.result.accuracy.nll, 3) if entry.result.accuracy else Cell(""), higher=False),
        Column("ECE %", _accuracy("ece"), higher=False),
        Column("corrupted %", lambda entry: _percent(entry.result.corruptions.mean) if entry.result.corruptions else Cell("")),
        Column("mCE %", _mce, higher=False),
        *(Column(f"{name} %", _attacked(name)) for name in attack_names(entries)),
        Column("masking", lambda entry: Cell(verdict(entry)), words=True),
        Column("anytime mean %", _anytime),
        Column("MACs", _macs, higher=False),
        Column("paper's MACs", _paper_macs, higher=False),
        Column("parameters", lambda entry: Cell(macs_text(entry.result.model.parameters), entry.result.model.parameters), higher=False),
        Column("steps", lambda entry: Cell(str(entry.result.model.steps), entry.result.model.steps), higher=False),
    ]
    return [column for column in found if any(column.cell(entry).text for entry in entries)]


def attack_name(attack: Attack) -> str:
    """An attack with its budget: accuracies under other budgets do not compare."""
    aimed = "" if attack.target == "final" else f", {attack.target}"
    return f"{attack.name} {attack.norm} {eps_text(attack.eps)}, {counted(attack.steps, 'step')}{aimed}"


def attack_names(entries: Sequence[Entry]) -> list[str]:
    return list(dict.fromkeys(attack_name(attack) for entry in entries for attack in entry.result.attacks))


def verdict(entry: Entry) -> str:
    """Whether the model's attacked accuracy can be believed; '' where it was not attacked."""
    result = entry.result
    return result.masking.verdict if result.masking else UNCHECKED if result.attacks else ""


def _percent(estimate: Estimate) -> Cell:
    return Cell(with_interval(estimate), 100 * estimate.value, 100 * estimate.low, 100 * estimate.high)


def _plain(estimate: Estimate, digits: int) -> Cell:
    return Cell(f"{estimate.value:.{digits}f}", estimate.value, estimate.low, estimate.high)


def _accuracy(what: str) -> Callable[[Entry], Cell]:
    return lambda entry: _percent(getattr(entry.result.accuracy, what)) if entry.result.accuracy else Cell("")


def _attacked(name: str) -> Callable[[Entry], Cell]:
    def cell(entry: Entry) -> Cell:
        attack = next((attack for attack in entry.result.attacks if attack_name(attack) == name), None)
        return _percent(attack.top1) if attack else Cell("")

    return cell


def _mce(entry: Entry) -> Cell:
    found = entry.result.corruptions.mce if entry.result.corruptions else None
    return Cell(f"{found.value:.1f} (of {found.baseline})", found.value) if found else Cell("")


def _anytime(entry: Entry) -> Cell:
    found = entry.result.anytime
    return Cell(f"{100 * found.area:.1f}", 100 * found.area) if found and len(found.curve) > 1 else Cell("")


def _macs(entry: Entry) -> Cell:
    macs = mean_macs(entry.result)
    return Cell("") if macs is None else Cell(macs_text(macs), macs)


def mean_macs(result: Result) -> float | None:
    """MACs of an image, on average; None if they were not counted."""
    if result.flops:
        return result.flops.macs.mean
    return result.accuracy.steps[-1].macs if result.accuracy else None


def _paper_macs(entry: Entry) -> Cell:
    found = entry.result.flops.paper_macs if entry.result.flops else None
    return Cell(macs_text(found.value), found.value) if found else Cell("")
