"""A paper's tables with our numbers beside the printed ones, as Markdown with plots, CSV and JSON."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from glimpsezoo import escaping
from glimpsezoo.measures.shown import Axis, Cell, Line, Point, Table
from glimpsezoo.measures.statistics import Effect, Estimate
from glimpsezoo.measures.text import interval, macs_text, percent
from glimpsezoo.reports.claims import HEADINGS, RULES, JudgedClaim, claim_cells, left_out_lines
from glimpsezoo.reports.pictures.scene import Scene
from glimpsezoo.reports.plots import plot, with_legend
from glimpsezoo.reports.table import markdown as table_text
from glimpsezoo.specs import PaperSpec
from glimpsezoo.zoo.papers import LeftOut, PrintedRow, PrintedTable

INTRODUCTION = f"""\
# Reproduction

What the papers of the zoo's models claim and print, next to our tests and numbers. This page is written by

```
glimpsezoo compare --paper benchmarks/cards/* -o docs/REPRODUCTION.md
```

from the evidence of the cards (`result.json` and `rows.parquet`, whole test splits); a test checks that it is up to date. The cards are in
`zoo_cards`, and in `benchmarks/cards` without their weights: cards whose weights are too large for this repository, and other seeds
(`CARD.seed-N`) of cards in `zoo_cards`.

## How to read it

Claims come first, each with its test:

{RULES}
The tables have every printed row. *Better*: the printed number is outside our 95 % interval, and ours is better. *Within the interval*: it
is inside. *Short by*: it is outside and better than ours, by so many points. A row is reached if it is *better* or *within the interval*
and its cost is at most 2 % above the printed one; the verdict names a speed-up or a cost that is not reached. *Far better*: the whole
interval is below half the printed error. This is not a success: our inputs or our training differ from the paper's. Shares of images
cannot be better or worse, so they are *off by* so many points. With several seeds, the number is that of the card in `zoo_cards`, and
*seeds* shows their range.

The models are the papers', but the trainings often are not: *trained* shows the epochs of every stage, starting with the cards that the
training started from, and what differs from the paper; the recipes say more. The verdicts compare numbers, not methods. *-*: a row of a
model that is not in the zoo. Costs: "ours" follows the paper's convention, also for models without a card; "MACs that ran" is what the
harness measured.
"""
NUMBERS = {"top-1": "top-1 %", "error": "error %", "corrupted": "corrupted %", "attacked": "attacked %", "share": "share %"}
FAR = 0.5  # below this share of the printed error, inputs or training must differ from the paper's
DEARER = 1.02  # times the printed cost: tolerance for its rounding


@dataclass(frozen=True)
class OurNumbers:
    """The zoo's numbers for a printed row."""

    row: PrintedRow
    ours: Estimate | None = None
    """Our value of the printed number, as a share in [0, 1]."""
    seeds: tuple[Estimate, ...] = ()
    """The value of every training of the card, including `ours`."""
    epochs: str = ""
    """How long the card was trained."""
    training: str = ""
    """How its training differs from the paper's."""
    cost: float | None = None
    """In the unit of the printed cost, by the paper's convention."""
    measured: float | None = None
    """MACs per image that ran."""
    parameters: int | None = None
    """Number of parameters of the model or module."""
    locations: float | None = None
    """Mean number of regions per image after the first step."""
    masking: str = ""
    """The gradient-masking verdict on attacked accuracy."""
    data: str = ""
    """What `ours` was measured on."""
    missing: str = ""
    """Why there is no number."""
    unknown_cost: str = ""
    """Why there is no cost."""

    def verdict(self, table: PrintedTable) -> str:
        """How the printed number compares with our interval, and whether its cost is reached; '' if either number is missing."""
        printed = self.row.printed
        if self.ours is None or not isinstance(printed, float):
            return ""
        word = self._word(table, self.ours, printed)
        dear = self._too_dear(table)
        return f"{word}, but {dear}" if dear and not word.startswith("short") else word

    def _word(self, table: PrintedTable, ours: Estimate, printed: float) -> str:
        low, high, off = 100 * ours.low, 100 * ours.high, f"{abs(100 * ours.value - printed):.2f}"
        if low - 1e-9 <= printed <= high + 1e-9:  # tolerates rounding errors of floating point
            return "within the interval"
        if table.number == "share":
            return f"off by {off}"
        errors = (printed, high) if table.number == "error" else (100 - printed, 100 - low)
        if (high < printed) != (table.number == "error"):
            return f"short by {off}"
        return "far better" if errors[1] < FAR * errors[0] else "better"

    def _too_dear(self, table: PrintedTable) -> str:
        """How our cost misses the printed one; '' if it does not."""
        if self.row.cost is None or self.cost is None or self.row.module is not None:
            return ""
        if table.speed_up_over:
            return f"a speed-up of {self.cost:.2f} for {self.row.cost:g}" if self.cost * DEARER < self.row.cost else ""
        return f"{macs_text(self.cost)} for {macs_text(self.row.cost)}" if self.cost > DEARER * self.row.cost else ""


@dataclass(frozen=True)
class ComparedTable:
    """A printed table and our numbers for it."""

    printed: PrintedTable
    answers: tuple[OurNumbers, ...]
    """One per printed row."""


@dataclass(frozen=True)
class Reproduction:
    """A paper's tables and claims with our numbers."""

    paper: PaperSpec
    tables: tuple[ComparedTable, ...]
    """The printed tables with our numbers."""
    claims: tuple[JudgedClaim, ...] = ()
    """The claims with the outcomes of their tests."""
    left_out: tuple[LeftOut, ...] = ()
    """What the paper prints and the zoo has no row for."""


def laid_out(table: ComparedTable) -> Table:
    """The table, with the columns that at least one row fills."""
    printed = table.printed
    number, cost = NUMBERS[printed.number], "speed-up" if printed.speed_up_over else "MACs"
    texts: list[tuple[str, Callable[[OurNumbers], str], bool]] = [  # heading, text, whether it holds words
        ("method", lambda answer: answer.row.method, True),
        (f"{number}, printed", lambda answer: _printed(answer.row.printed), False),
        (f"{number}, ours (95 %)", _ours, False),
        ("seeds", _seeds, True),
        ("masking", lambda answer: answer.masking, True),
        ("", lambda answer: answer.verdict(printed), True),
        ("parameters, printed", lambda answer: _count(answer.row.parameters), False),
        ("ours", lambda answer: _count(answer.parameters), False),
        (f"{cost}, printed", lambda answer: _cost(table, answer.row.cost), False),
        (f"{cost}, ours", lambda answer: _cost(table, answer.cost), False),
        ("MACs that ran", lambda answer: "" if answer.measured is None else macs_text(answer.measured), False),
        ("locations, printed", lambda answer: "" if answer.row.locations is None else f"{answer.row.locations:g}", False),
        ("locations, ours", lambda answer: "" if answer.locations is None else f"{answer.locations:.2f}", False),
        ("card", lambda answer: answer.row.card or "", True),
        ("trained", lambda answer: _trained(table, answer), True),
    ]
    shown = [(heading, text, words) for heading, text, words in texts if any(map(text, table.answers))]
    rows = tuple(tuple(Cell(text(answer)) for _, text, _ in shown) for answer in table.answers)
    words = frozenset(heading for heading, _, words in shown if words)
    return Table(f"{printed.title}: {printed.caption}", tuple(heading for heading, _, _ in shown), rows, words, markdown=True)


def _printed(printed: float | str | None) -> str:
    return printed if isinstance(printed, str) else "" if printed is None else f"{printed:.2f}"


def _ours(answer: OurNumbers) -> str:
    if answer.ours is None:
        return "not run" if answer.missing and answer.row.card else "-" if answer.missing else ""
    return ", ".join(filter(None, (f"{percent(answer.ours, 2)} ({interval(answer.ours, 2)})", answer.row.note)))


def _seeds(answer: OurNumbers) -> str:
    """The number of trainings and the range of their values; '' for one training."""
    if len(answer.seeds) < 2:
        return ""
    values = [100 * each.value for each in answer.seeds]
    return f"{len(values)} seeds: {min(values):.2f} to {max(values):.2f}"


def _trained(table: ComparedTable, answer: OurNumbers) -> str:
    """How the card was trained; 'as above' if an earlier row of the table says so."""
    if answer.ours is None:
        return ""
    if next(each for each in table.answers if each.row.card == answer.row.card) is not answer:
        return "as above"
    epochs = answer.epochs if "steps" in answer.epochs or not answer.epochs else f"{answer.epochs} epochs"
    return "; ".join(filter(None, (epochs, answer.training)))


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _cost(table: ComparedTable, cost: float | None) -> str:
    """The cost as text: all digits of the MACs if the table is about single calls of modules."""
    if cost is None:
        return ""
    if table.printed.speed_up_over:
        return f"{cost:.2f}"
    return f"{cost:,.0f}" if any(answer.row.module for answer in table.answers) else macs_text(cost)


def plots(reproduction: Reproduction) -> dict[str, Scene]:
    """Plots of the tables that have series, by file name. Printed lines are dashed; ours have intervals.

    The x axis is the cost, or the number of attack steps for attacked accuracy.
    """
    drawn = (_plot(reproduction, table) for table in reproduction.tables)
    return {file: scene for each in drawn for file, scene in each.items()}


def _plot(reproduction: Reproduction, table: ComparedTable) -> dict[str, Scene]:
    """The plot of a table by its file name; empty for a table without series."""
    lines = [line for line in _lines(table) if line.points]
    if not lines:
        return {}
    title = f"{reproduction.paper.name}, {table.printed.title}"
    drawing = plot(title, lines, Axis(_across(table.printed), logarithmic=True), Axis(NUMBERS[table.printed.number]))
    return {f"{title.lower().replace(', ', '-').replace(' ', '-')}.svg": with_legend(drawing, lines)}


def _lines(table: ComparedTable) -> Iterator[Line]:
    names = dict.fromkeys(answer.row.series for answer in table.answers if answer.row.series)
    for k, name in enumerate(names):
        rows = [answer for answer in table.answers if answer.row.series == name]
        steps = table.printed.number == "attacked"
        places = [(a, a.row.attack_steps, a.row.attack_steps) if steps else (a, a.row.cost, a.cost) for a in rows]
        printed = [Point(x, a.row.printed) for a, x, _ in places if x and isinstance(a.row.printed, float)]
        ours = [(x, _in_per_cent(a.ours)) for a, _, x in places if x and a.ours]
        yield Line(f"{name}, printed", k, tuple(printed), dashed=True)
        yield Line(f"{name}, ours", k, tuple(Point(x, each.value, each.low, each.high) for x, each in ours))


def _across(table: PrintedTable) -> str:
    """The label of the plot's x axis."""
    return "steps of the attack" if table.number == "attacked" else "speed-up" if table.speed_up_over else "MACs per image"


def _in_per_cent(ours: Estimate) -> Estimate:
    return ours.model_copy(update={key: 100 * getattr(ours, key) for key in ("value", "low", "high")})


def missing(table: ComparedTable) -> list[str]:
    """The reasons why rows were not run, without repetition."""
    return list(dict.fromkeys(answer.missing for answer in table.answers if answer.missing and answer.row.card))


def unknown_costs(table: ComparedTable) -> list[str]:
    """The reasons why rows have no cost or speed-up, without repetition."""
    return list(dict.fromkeys(answer.unknown_cost for answer in table.answers if answer.unknown_cost))


def markdown(reproductions: Sequence[Reproduction], folder: str) -> str:
    """All claims and tables. Below each table stands what was not run, and why.

    folder: path to the files of `plots`, relative to the text.
    """
    return "\n".join([INTRODUCTION, *(line for each in reproductions for line in _paper(each, folder))])


def _paper(reproduction: Reproduction, folder: str) -> Iterator[str]:
    spec = reproduction.paper
    yield from (f"## {spec.description}", "", f"{spec.authors}{f', <{spec.url}>' if spec.url else ''}.", "")
    if reproduction.claims:
        rows = tuple(tuple(map(Cell, claim_cells(each))) for each in reproduction.claims)
        yield from ("### Claims", "", table_text(Table("", HEADINGS, rows, frozenset(HEADINGS), markdown=True)), "")
    for table in reproduction.tables:
        found = laid_out(table)
        yield from (f"### {found.caption}", "", table_text(found), "")
        for reason in missing(table):
            yield from (f"Not run: {escaping.markdown(reason)}.", "")
        for reason in unknown_costs(table):
            yield from (f"No cost: {escaping.markdown(reason)}.", "")
        yield from (line for note in table.printed.notes for line in (f"Note: {note}.", ""))
        for name, scene in _plot(reproduction, table).items() if folder else ():
            yield from (f"![{scene.title}: {scene.description}]({quote(f'{folder}/{name}')})", "")
    yield from left_out_lines(reproduction.left_out)


def as_rows(reproductions: Sequence[Reproduction]) -> list[dict[str, Any]]:
    """A flat record per row, then per claim: shares in [0, 1], costs in MACs or as speed-ups, null for missing values.

    For a claim, `table` is 'claims', `method` the quotation, and `ours` the effect: a difference of accuracies or a ratio of costs.
    """
    rows = [_record(each, table, answer) for each in reproductions for table in each.tables for answer in table.answers]
    claims = [_claim_record(each, claim) for each in reproductions for claim in each.claims]
    return rows + [dict.fromkeys(rows[0]) | claim for claim in claims]


def _record(reproduction: Reproduction, table: ComparedTable, answer: OurNumbers) -> dict[str, Any]:
    return {
        "paper": reproduction.paper.name,
        "table": table.printed.title,
        "method": answer.row.method,
        "number": table.printed.number,
        "printed": answer.row.printed / 100 if isinstance(answer.row.printed, float) else answer.row.printed,
        **_numbers(answer.ours),
        "p": None,
        "images": answer.ours.n if answer.ours else None,
        "seeds": [each.value for each in answer.seeds],
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
        "epochs": answer.epochs or None,
        "training": answer.training or None,
        "note": answer.row.note or None,
        "data": answer.data,
        "missing": answer.missing,
    }


def _claim_record(reproduction: Reproduction, judged: JudgedClaim) -> dict[str, Any]:
    return {
        "paper": reproduction.paper.name,
        "table": "claims",
        "method": judged.claim.quote,
        "number": judged.claim.test,
        "printed": judged.claim.printed or None,
        **_numbers(judged.effect),
        "p": judged.effect.p if judged.effect else None,
        "images": judged.images,
        "seeds": [each.value for _, each in judged.seeds],
        "verdict": judged.verdict(),
        "note": judged.claim.note or None,
        "data": judged.data,
        "missing": judged.missing,
    }


def _numbers(found: Estimate | Effect | None) -> dict[str, float | None]:
    return {"ours": found.value, "low": found.low, "high": found.high} if found else {"ours": None, "low": None, "high": None}


def as_json(reproductions: Sequence[Reproduction]) -> str:
    return json.dumps(as_rows(reproductions), indent=2)


def comma_separated(reproductions: Sequence[Reproduction]) -> str:
    rows, file = as_rows(reproductions), io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: escaping.cell(value) if isinstance(value, str) else value for key, value in row.items()} for row in rows)
    return file.getvalue()
