"""A paper's tables with the zoo's numbers beside the printed ones: as Markdown with plots, CSV and JSON."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from glimpsezoo.pages.plots import Axis, Line, Point, plot, with_legend
from glimpsezoo.papers import PrintedRow, PrintedTable
from glimpsezoo.pictures.scene import Scene, series
from glimpsezoo.records import Estimate
from glimpsezoo.specs import PaperSpec
from glimpsezoo.tables import interval, macs_text, percent

INTRODUCTION = """\
# Reproduction

Every table of the papers whose models are in the zoo, with the printed numbers and ours. Written by

```
glimpsezoo compare --paper benchmarks/cards/* -o docs/REPRODUCTION.md
```

from the evidence of the cards (`result.json`, whole test splits); a test holds it against them. The cards are those of `zoo_cards`, and of
`benchmarks/cards`, whose weights are too large for this repository: they have all but those. *Reached*: ours is no worse than the
printed number; *within the interval*: it is worse, but not beyond our 95 % interval; *short by*: so many points beyond it. The models are
the papers', the trainings often are not: each recipe says what is not as printed, and these words compare numbers, not methods. *-*: a
row that is no model of the zoo. Costs: "ours" counts by the paper's convention, for
models without a card too, and "MACs that ran" is what the harness measured.
"""
NUMBERS = {"top-1": "top-1 %", "error": "error %", "corrupted": "corrupted %", "attacked": "attacked %"}


@dataclass(frozen=True)
class Answer:
    """What the zoo has beside a printed row.

    ours: its number, a share in [0, 1]. cost: in the unit of the printed one, by the paper's convention. measured: MACs of what ran, an
    image. locations: where images were looked at beyond the first look, on average. masking: the verdict on attacked accuracy. data: what
    `ours` was measured on. missing: why there is no number.
    """

    row: PrintedRow
    ours: Estimate | None = None
    cost: float | None = None
    measured: float | None = None
    parameters: int | None = None
    locations: float | None = None
    masking: str = ""
    data: str = ""
    missing: str = ""

    def verdict(self, table: PrintedTable) -> str:
        """Whether the printed number is reached: 'reached', 'within the interval' or 'short by' so many points; '' without both."""
        printed = self.row.printed
        if self.ours is None or not isinstance(printed, float):
            return ""
        better = (printed - 100 * self.ours.value) * (1 if table.number == "error" else -1)
        if better > -1e-9:  # 1.2 is no worse than 1.2, whatever floating point makes of it
            return "reached"
        if 100 * self.ours.low <= printed <= 100 * self.ours.high:
            return "within the interval"
        return f"short by {abs(100 * self.ours.value - printed):.2f}"


@dataclass(frozen=True)
class AnsweredTable:
    printed: PrintedTable
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Reproduction:
    """A paper's tables, answered."""

    paper: PaperSpec
    tables: tuple[AnsweredTable, ...]


@dataclass(frozen=True)
class Column:
    heading: str
    text: Callable[[Answer], str]
    words: bool = False


def columns(table: AnsweredTable) -> list[Column]:
    """The columns that any row fills."""
    printed = table.printed
    number, cost = NUMBERS[printed.number], "speed-up" if printed.speed_up_over else "MACs"
    found = [
        Column("method", lambda answer: answer.row.method, words=True),
        Column(f"{number}, printed", lambda answer: _printed(answer.row.printed)),
        Column(f"{number}, ours (95 %)", _ours),
        Column("masking", lambda answer: answer.masking, words=True),
        Column("", lambda answer: answer.verdict(printed), words=True),
        Column("parameters, printed", lambda answer: _count(answer.row.parameters)),
        Column("ours", lambda answer: _count(answer.parameters)),
        Column(f"{cost}, printed", lambda answer: _cost(table, answer.row.cost)),
        Column(f"{cost}, ours", lambda answer: _cost(table, answer.cost)),
        Column("MACs that ran", lambda answer: "" if answer.measured is None else macs_text(answer.measured)),
        Column("locations, printed", lambda answer: "" if answer.row.locations is None else f"{answer.row.locations:g}"),
        Column("locations, ours", lambda answer: "" if answer.locations is None else f"{answer.locations:.2f}"),
        Column("card", lambda answer: answer.row.card or "", words=True),
    ]
    return [column for column in found if any(column.text(answer) for answer in table.answers)]


def _printed(printed: float | str | None) -> str:
    return printed if isinstance(printed, str) else "" if printed is None else f"{printed:.2f}"


def _ours(answer: Answer) -> str:
    if answer.ours is None:
        return "not run" if answer.missing and answer.row.card else "-" if answer.missing else ""
    return ", ".join(filter(None, (f"{percent(answer.ours, 2)} ({interval(answer.ours, 2)})", answer.row.note)))


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _cost(table: AnsweredTable, cost: float | None) -> str:
    """Whole MACs where a table is of single calls."""
    if cost is None:
        return ""
    if table.printed.speed_up_over:
        return f"{cost:.2f}"
    return f"{cost:,.0f}" if any(answer.row.module for answer in table.answers) else macs_text(cost)


def plots(reproduction: Reproduction) -> dict[str, Scene]:
    """The tables whose rows have series, by file name: printed points dashed, ours with their intervals.

    Against cost, attacked accuracy against the steps of the attack.
    """
    drawn = (_plot(reproduction, table) for table in reproduction.tables)
    return {file: scene for each in drawn for file, scene in each.items()}


def _plot(reproduction: Reproduction, table: AnsweredTable) -> dict[str, Scene]:
    """The plot of a table by its file's name; nothing of one without series."""
    lines = [line for line in _lines(table) if line.points]
    if not lines:
        return {}
    title = f"{reproduction.paper.name}, {table.printed.title}"
    drawing = plot(title, lines, Axis(_across(table.printed), logarithmic=True), Axis(NUMBERS[table.printed.number]))
    return {f"{title.lower().replace(', ', '-').replace(' ', '-')}.svg": with_legend(drawing, lines)}


def _lines(table: AnsweredTable) -> Iterator[Line]:
    names = dict.fromkeys(answer.row.series for answer in table.answers if answer.row.series)
    for k, name in enumerate(names):
        rows = [answer for answer in table.answers if answer.row.series == name]
        steps = table.printed.number == "attacked"
        places = [(a, a.row.attack_steps, a.row.attack_steps) if steps else (a, a.row.cost, a.cost) for a in rows]
        printed = [Point(x, a.row.printed) for a, x, _ in places if x and isinstance(a.row.printed, float)]
        ours = [(x, _in_per_cent(a.ours)) for a, _, x in places if x and a.ours]
        yield Line(f"{name}, printed", series(k), tuple(printed), dashed=True)
        yield Line(f"{name}, ours", series(k), tuple(Point(x, each.value, each.low, each.high) for x, each in ours))


def _across(table: PrintedTable) -> str:
    """What a plot's points lie over."""
    return "steps of the attack" if table.number == "attacked" else "speed-up" if table.speed_up_over else "MACs an image"


def _in_per_cent(ours: Estimate) -> Estimate:
    return ours.model_copy(update={key: 100 * getattr(ours, key) for key in ("value", "low", "high")})


def missing(table: AnsweredTable) -> list[str]:
    """Why rows were not run, each reason once."""
    return list(dict.fromkeys(answer.missing for answer in table.answers if answer.missing and answer.row.card))


def markdown(reproductions: Sequence[Reproduction], folder: str) -> str:
    """All tables, with lines below each for what was not run and why. folder: where the files of `plots` lie, seen from the text."""
    return "\n".join([INTRODUCTION, *(line for each in reproductions for line in _paper(each, folder))])


def _paper(reproduction: Reproduction, folder: str) -> Iterator[str]:
    spec = reproduction.paper
    yield from (f"## {spec.description}", "", f"{spec.authors}{f', <{spec.url}>' if spec.url else ''}.", "")
    for table in reproduction.tables:
        shown = columns(table)
        yield from (f"### {table.printed.title}: {table.printed.caption}", "")
        yield _row([column.heading for column in shown])
        yield _row(["---" if column.words else "---:" for column in shown])
        for answer in table.answers:
            yield _row([column.text(answer) for column in shown])
        yield ""
        for reason in missing(table):
            yield from (f"Not run: {reason}.", "")
        yield from (line for note in table.printed.notes for line in (f"Note: {note}.", ""))
        for name, scene in _plot(reproduction, table).items():
            yield from (f"![{scene.title}: {scene.description}]({folder}/{name})", "")


def as_rows(reproductions: Sequence[Reproduction]) -> list[dict[str, Any]]:
    """A flat record for every row: shares in [0, 1], costs in MACs or as speed-ups, null for what is not there."""
    return [
        {
            "paper": each.paper.name,
            "table": table.printed.title,
            "method": answer.row.method,
            "number": table.printed.number,
            "printed": answer.row.printed / 100 if isinstance(answer.row.printed, float) else answer.row.printed,
            "ours": answer.ours.value if answer.ours else None,
            "low": answer.ours.low if answer.ours else None,
            "high": answer.ours.high if answer.ours else None,
            "images": answer.ours.n if answer.ours else None,
            "masking": answer.masking or None,
            "verdict": answer.verdict(table.printed),
            "cost": "speed-up" if table.printed.speed_up_over else "MACs",
            "cost_printed": answer.row.cost,
            "cost_ours": answer.cost,
            "macs_measured": answer.measured,
            "parameters_printed": answer.row.parameters,
            "parameters_ours": answer.parameters,
            "locations_printed": answer.row.locations,
            "locations_ours": answer.locations,
            "card": answer.row.card,
            "note": answer.row.note or None,
            "data": answer.data,
            "missing": answer.missing,
        }
        for each in reproductions
        for table in each.tables
        for answer in table.answers
    ]


def as_json(reproductions: Sequence[Reproduction]) -> str:
    return json.dumps(as_rows(reproductions), indent=2)


def comma_separated(reproductions: Sequence[Reproduction]) -> str:
    rows, file = as_rows(reproductions), io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
