"""Pages of the data sets: every card that was measured on one, beside the others and tested against them."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

from generating.checkout import called, card_link, cards
from generating.markdown import joined, shown, slug, table
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.files import file_name
from glimpsezoo.measures.accuracy import AccuracyMeasure
from glimpsezoo.measures.anytime import AnytimePoint
from glimpsezoo.measures.costs import cost_text, mean_macs
from glimpsezoo.measures.pairs import Pair, paired_rows
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.shown import Entry
from glimpsezoo.measures.text import budget_text, macs_text, percent, with_interval
from glimpsezoo.measures.threats import cell_of, masking_text
from glimpsezoo.reports.finding import SIGNIFICANT, findings
from glimpsezoo.reports.pictures.svg import svg_file
from glimpsezoo.reports.plots import plot
from glimpsezoo.reports.table import measured_lines
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.results import evidence, rows_of

HEADINGS = ("#", "card", "top-1 %", "MACs/image", "with early exits", "corrupted %", "attacked %", "masking")
READING = (
    "At the last step, with 95 % intervals, the most accurate first. *With early exits*: the cheapest exit whose accuracy is within the "
    "interval of the whole run. *Attacked*: the headline attack of the card, if one was measured; [can it be believed?]"
    "(../measuring.md#can-the-attacked-accuracy-be-believed)"
)
TESTS = (
    "Points of top-1 accuracy by which the card of the row is behind the card of the column, paired image by image. **Bold**: "
    f"significantly worse, one-sided p < {SIGNIFICANT:g}, not corrected for the number of tests. Empty: the rows have no image in common."
)


@dataclass(frozen=True)
class Group:
    """The cards that were measured on the same images, the most accurate first."""

    data: str
    """Name of the data set."""
    settings: str
    """Those of the data that tell its images from those of the set's other groups."""
    cards: tuple[Card, ...]
    entries: tuple[Entry, ...]
    pairs: tuple[Pair, ...]
    """Each card against those above it, and the best against all."""

    @property
    def name(self) -> str:
        return f"{self.data} ({self.settings})" if self.settings else self.data


@cache
def groups() -> dict[str, list[Group]]:
    """Data set -> its groups, in the order of their names."""
    found: dict[str, dict[tuple[str, str], list[tuple[Card, Result]]]] = {}
    for card in cards():
        result = evidence(card)
        if result and result.accuracy:
            images = (result.data.split or "", (result.data.fingerprint or "").partition("-limit")[0])
            found.setdefault(result.data.name, {}).setdefault(images, []).append((card, result))
    return {name: [_group(name, members, len(several) > 1) for members in several.values()] for name, several in sorted(found.items())}


def _group(data: str, members: list[tuple[Card, Result]], several: bool) -> Group:
    members.sort(key=lambda member: -member[1].accuracy.top1.value)
    alike = [dict(result.data.settings or {}) for _, result in members]
    settings = {key: value for key, value in alike[0].items() if all(each.get(key) == value for each in alike)} if several else {}
    words = ", ".join(f"{key} {shown(value)}" for key, value in settings.items())
    entries = tuple(Entry(called(card), result) for card, result in members)
    rows = [rows_of(card.folder, result) for card, result in members]
    pairs = []
    for better, worse in combinations(range(len(members)), 2):
        for one, other in [(worse, better), *([(better, worse)] if better == 0 else [])]:
            pairs += _tested(entries[one].name, rows[one], entries[other].name, rows[other])
    return Group(data, words, tuple(card for card, _ in members), entries, tuple(pairs))


def _tested(a: str, rows_a: Rows | None, b: str, rows_b: Rows | None) -> Iterator[Pair]:
    """Nothing without rows of the same images."""
    if rows_a is not None and rows_b is not None:
        with suppress(GlimpseZooError):
            yield paired_rows(a, rows_a, b, rows_b)


def pages() -> dict[str, str]:
    found = {"comparisons/index.md": index()}
    return found | {f"comparisons/{file_name(name)}.md": page(name, several) for name, several in groups().items()}


def pictures() -> dict[str, str]:
    """Accuracy against MACs of every group, as SVG."""
    return {f"comparisons/{picture_of(group)}": drawn(group) for several in groups().values() for group in several}


def picture_of(group: Group) -> str:
    return f"{slug(group.name)}.svg"


def link_to(name: str, folder: str = "../comparisons/") -> str:
    return f"[{name}]({folder}{file_name(name)}.md)"


def index() -> str:
    rows = [
        (link_to(name, ""), str(sum(len(group.cards) for group in several)), " ".join(said(group) for group in several))
        for name, several in groups().items()
    ]
    return joined(
        "# Compare by data set",
        "Every card that was measured on a data set, beside the others, from the evidence in the cards. The sentence is what the paired "
        "tests show; a data set whose images differ by a setting has a sentence for each.",
        table(("data set", "cards", "what the tests show"), rows),
    )


def said(group: Group) -> str:
    return f"{group.settings}: {finding(group)}" if group.settings else finding(group)


def finding(group: Group) -> str:
    (text,) = findings(group.entries, group.pairs)
    return text


def filled(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """A table without its empty columns."""
    places = [k for k in range(len(headings)) if any(row[k] for row in rows)]
    return [headings[k] for k in places], [[row[k] for k in places] for row in rows]


def page(name: str, several: Sequence[Group]) -> str:
    head = f"The cards that were measured on [`{name}`](../reference/data.md#{slug(name)})."
    return joined(f"# {name}", head, READING + ".", *(part for group in several for part in section(group)))


def section(group: Group) -> list[str]:
    members = enumerate(zip(group.cards, group.entries, strict=True), 1)
    rows = [(str(k), card_link(card), *cells(entry.result)) for k, (card, entry) in members]
    picture = f"![Accuracy of the cards on {group.name} against their MACs per image]({picture_of(group)})"
    return [
        f"## {group.name}" if group.settings else "",
        f"**{finding(group)}**",
        compared(table(*filled(HEADINGS, rows))),
        compared(f"{picture}\n\nEvery step of every card; the numbers are those of the table. Bars are 95 % intervals."),
        tests(group),
        measured_lines([group.entries[0].result])[0],
    ]


def compared(text: str) -> str:
    """A block that docs/site.css gives the room it needs."""
    return f'<div class="compare" markdown>\n\n{text}\n\n</div>' if text else ""


def cells(result: Result) -> tuple[str, ...]:
    """What a card's result says, under the headings after its name. What belongs to a number stands below it."""
    attack, cost = next(iter(result.attacks), None), mean_macs(result)
    attacked = (
        f"{cell_of(attack.full_name, 'steps')(result, -1).text}<br>{attack.name} {budget_text(attack.norm, attack.eps)}" if attack else ""
    )
    return (
        below(with_interval(result.accuracy.top1)),
        cost_text(result, cost) if cost is not None else "",
        exits_text(result),
        below(with_interval(result.corruptions.mean)) if result.corruptions else "",
        attacked,
        masking_text(result, attack) if attack else "",
    )


def below(text: str) -> str:
    return text.replace(" (", "<br>(")


def exits_text(result: Result) -> str:
    found = result.anytime
    if found is None or len(found.exits) < 2:
        return ""
    enough: list[AnytimePoint] = [each for each in found.exits if each.top1.value >= result.accuracy.top1.low]
    point = min(enough or [found.exits[-1]], key=lambda each: each.macs_mean)
    return f"{percent(point.top1)} at {macs_text(point.macs_mean, at_least=result.at_least)}<br>{point.steps_mean:.2f} steps"


def drawn(group: Group) -> str:
    (figure,) = AccuracyMeasure.figures(group.entries)
    lines = [replace(line, mark=str(k)) for k, line in enumerate(figure.lines, 1)]
    return svg_file(plot(figure.title, lines, figure.x, figure.y))


def tests(group: Group) -> str:
    """The paired tests: a row per card, a column per card above it."""
    found = {(pair.a, pair.b): pair for pair in group.pairs}
    names = [entry.name for entry in group.entries]
    if not found:
        return ""
    rows = []
    for k in range(1, len(names)):
        above = [difference(found.get((names[k], better))) for better in names[:k]]
        rows.append((str(k + 1), card_link(group.cards[k]), *above, *[""] * (len(names) - 1 - k)))
    heading = "### Paired tests" if group.settings else "## Paired tests"
    return joined(heading, TESTS, compared(table(("#", "card", *(f"{k}" for k in range(1, len(names)))), rows)))


def difference(pair: Pair | None) -> str:
    if pair is None:
        return ""
    text = f"{100 * pair.difference:+.2f}"
    return f"**{text}**" if pair.p < SIGNIFICANT else text
