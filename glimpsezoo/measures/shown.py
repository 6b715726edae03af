"""What measures hand to the reports: cells and columns of tables, and figures. Plain data; the reports write and draw it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from glimpsezoo.measures.result import Result
from glimpsezoo.measures.statistics import Estimate
from glimpsezoo.measures.text import with_interval

Layout = Literal["steps", "details", "board"]
"""Where columns stand: in a table with a row per step beside other measures, in one of accuracy and cost alone, or at the last step."""

ACCURACY_AXIS = "top-1 %"


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    value: float | None = None
    """In the unit of the heading; None for words and for what was not measured."""
    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None
    """Upper end of that interval."""
    heat: bool = False
    """Whether it is shaded by its value, a share in per cent."""
    at_most: bool = False
    """Whether the value is only an upper bound, which the text marks by '<='."""


@dataclass(frozen=True)
class Column:
    """A column of a table of results: what it shows of a result at a step (counted from 0; -1 is the last)."""

    heading: str
    cell: Callable[[Result, int], Cell]
    words: bool = False
    """Whether it holds no numbers."""
    higher: bool = True
    """Whether more is better."""
    verdict: bool = False
    """Whether it is a verdict on the column before it."""
    after: str = ""
    """Heading of the column that it follows; '' for its usual place."""
    last: bool = False
    """Whether it follows the columns of all other measures, in a table of steps."""
    minor: bool = False
    """Whether a page's leaderboard shows it after the others, because a phone shows only the first few."""


@dataclass(frozen=True)
class Table:
    """A table that is laid out already."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: frozenset[str] = frozenset()
    """Headings of columns without numbers."""
    markdown: bool = False
    """Whether its texts are Markdown; otherwise they are escaped there."""
    folded: str = ""
    """Title under which it is folded away on a page; '' for one that is always open."""


@dataclass(frozen=True)
class Entry:
    """A measured model beside others."""

    title: str
    """Its name, with what tells it from the others."""
    result: Result
    training: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    """Lines of its card's training log."""

    @property
    def renamed(self) -> Result:
        """The result with the title as its model's name."""
        return self.result.renamed(self.title)

    @property
    def name(self) -> str:
        """The title, marked as `Result.display_name` is."""
        return self.renamed.display_name

    @property
    def data(self) -> str:
        """The data set and the split; two results can be compared where it is the same."""
        return " ".join(part for part in (self.result.data.name, self.result.data.split) if part)


@dataclass(frozen=True)
class Point:
    """A point of a plot."""

    x: float
    y: float
    low: float | None = None
    """Lower end of the interval of y."""
    high: float | None = None
    """Upper end of that interval."""
    tip: str = ""
    """Shown when a reader points at it."""


@dataclass(frozen=True)
class Line:
    """Points in the order in which they are joined."""

    name: str
    series: int
    """Which series it belongs to: each has a colour."""
    points: tuple[Point, ...]
    dashed: bool = False
    dots: bool = True
    mark: str = ""
    """A few letters beside its last point, where a legend would be too long."""


@dataclass(frozen=True)
class Axis:
    """An axis of a plot."""

    label: str
    """What it shows, with its unit."""
    logarithmic: bool = False
    low: float | None = None
    """What it shows at least; None for the lowest value of the data."""
    high: float | None = None
    """What it shows at least; None for the highest value of the data."""

    def text(self, value: float) -> str:
        """The number of a tick, with k, M and G for thousands.

        >>> Axis("MACs").text(2_500_000)
        '2.5M'
        """
        for letter, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
            if abs(value) >= size:
                return f"{value / size:.3g}{letter}"
        return f"{value:.4g}"


@dataclass(frozen=True)
class Figure:
    """A plot. Figures of one title, which several measures may draw lines of, become one."""

    section: str
    """Heading of the page's section that it stands in."""
    title: str
    lines: tuple[Line, ...]
    x: Axis
    y: Axis
    note: str = ""
    """What a reader must know of it."""


def percent_cell(estimate: Estimate | None) -> Cell:
    """A share as per cent with its interval; empty for None."""
    if estimate is None:
        return Cell("")
    return Cell(with_interval(estimate), 100 * estimate.value, 100 * estimate.low, 100 * estimate.high)


def accuracy_point(x: float, top1: Estimate, what: str) -> Point:
    """An accuracy in per cent with its interval. what: shown before its numbers."""
    return Point(x, 100 * top1.value, 100 * top1.low, 100 * top1.high, what)


def macs_axis(lines: Sequence[Line]) -> Axis:
    """Logarithmic if the dearest point costs at least four times the cheapest."""
    costs = [point.x for line in lines for point in line.points if point.x > 0]
    return Axis("MACs per image", logarithmic=bool(costs) and max(costs) >= 4 * min(costs))
