"""The report: one page with everything that was measured of some models, which opens without a network."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from glimpsezoo.pages.board import Column, Entry, columns, verdict
from glimpsezoo.pages.figures import Figure, accuracy_against_macs, attack_curves, robustness_against_budget, training_curves
from glimpsezoo.pages.flip import trace_figure
from glimpsezoo.pages.formats import pair_texts
from glimpsezoo.pages.html import Html, captioned, element, join, page, scrolling, table
from glimpsezoo.pages.plots import Line, plot, swatch
from glimpsezoo.pictures.svg import svg_part
from glimpsezoo.pictures.traced import Traced
from glimpsezoo.records import Estimate, Pair
from glimpsezoo.tables import at_least_text, attack_text, counted, eps_text, footnotes, macs_text, with_interval

FEW = 6  # paired tests that are shown at once
LARGEST = 2_900_000  # bytes of a page: below 3 MB


@dataclass(frozen=True)
class Reported:
    """What is reported. traces: some images. notes: what was left out, and why."""

    entries: Sequence[Entry]
    pairs: Sequence[Pair]
    traces: Sequence[Traced] = ()
    notes: Sequence[str] = ()


def report_page(reported: Reported) -> str:
    """The page, below 3 MB: traces that would make it larger are left out, which it says."""
    sections = _sections(reported)

    def whole(traces: Sequence[Html], *left_out: str) -> str:
        """Only the traces are drawn anew."""
        return _page(reported, {**sections, "traces": _Section("Where they look", _traces(traces, [*reported.notes, *left_out]))})

    room, figures = LARGEST - len(whole([]).encode()), []
    for number, traced in enumerate(reported.traces):
        figure = trace_figure(traced, f"trace-{number}")
        room -= len(figure.encode())
        if room < 0:
            break
        figures.append(figure)
    missing = len(reported.traces) - len(figures)
    return whole(figures, *([f"{counted(missing, 'trace')} left out: the page would be larger than 3 MB"] if missing else []))


class _Section(NamedTuple):
    title: str
    content: Html


def _page(reported: Reported, sections: Mapping[str, _Section]) -> str:
    """The leaderboard, then the sections that have something to show."""
    entries, shown = reported.entries, {key: section for key, section in sections.items() if section.content}
    names = {"leaderboard": "Leaderboard", **{key: section.title for key, section in shown.items()}}
    contents = [element("a", title, href=f"#{key}") for key, title in names.items()]
    data = ", ".join(dict.fromkeys(entry.data for entry in entries))
    title = f"{counted(len(entries), 'model')} on {data}"
    parts = [_leaderboard(entries, reported.pairs)]
    for key, (heading, content) in shown.items():
        parts.append(element("section", element("h2", heading, id=f"{key}-title"), content, id=key, aria_labelledby=f"{key}-title"))
    body = join(
        element("a", "Skip to the leaderboard", href="#leaderboard", class_="skip"),
        element("header", element("h1", title), element("nav", *contents, class_="contents", aria_label="Contents")),
        element("main", *parts),
    )
    return page(f"glimpsezoo report: {title}", body, _SCRIPT)


def _sections(reported: Reported) -> dict[str, _Section]:
    """All in their order, without the traces."""
    entries = reported.entries
    return {
        "cost": _Section("Accuracy against cost", _plots("cost", accuracy_against_macs(entries))),
        "robustness": _Section("Robustness against budget", _plots("robustness", robustness_against_budget(entries))),
        "corruptions": _Section("Corruptions", _heat_maps(entries)),
        "attacks": _Section("Attacks", join(_plots("attacks", attack_curves(entries)), _attacks(entries))),
        "traces": _Section("Where they look", Html("")),
        "training": _Section(
            "Training",
            _plots("training", (figure for entry in entries for figure in training_curves(entry.name, entry.training))),
        ),
        "environment": _Section("Environment and commands", join(*(_environment(entry) for entry in entries))),
    }


def _leaderboard(entries: Sequence[Entry], pairs: Sequence[Pair]) -> Html:
    """A table that is sorted by the buttons in its head and filtered by words."""
    shown = columns(entries)
    head = [
        element("th", element("button", column.heading, type="button"), scope="col", class_=_kind(column), data_first=_first(column))
        for column in shown
    ]
    rows = [element("tr", *(_board_cell(column, entry, first=k == 0) for k, column in enumerate(shown))) for entry in entries]
    caption = "At each model's last step, with 95 % intervals. A button in the head sorts by its column."
    whole = element("table", captioned(caption), element("thead", element("tr", *head)), element("tbody", *rows), id="board")
    search = element("input", type="search", id="filter", autocomplete="off", aria_controls="board")
    words = element("label", "Show only rows with ", search)
    status = element("span", counted(len(entries), "model"), id="count", role="status", class_="note")
    return element(
        "section",
        element("h2", "Leaderboard", id="leaderboard-title"),
        element("div", words, status, class_="filter"),
        scrolling(whole, "Leaderboard"),
        *(element("p", text, class_="note") for text in _board_notes(entries)),
        *_paired(entries, pairs),
        id="leaderboard",
        aria_labelledby="leaderboard-title",
    )


def _kind(column: Column) -> str | None:
    return "words" if column.words else None


def _first(column: Column) -> str:
    """The direction that a first press sorts in: the best on top."""
    return "descending" if column.higher and not column.words else "ascending"


def _board_cell(column: Column, entry: Entry, *, first: bool) -> Html:
    cell = column.cell(entry)
    number, bracket, rest = cell.text.partition(" (")
    said: str = cell.text
    if column.verdict:
        said = element("span", cell.text, class_=f"verdict {cell.text.replace(' ', '-')}")
    elif bracket and not column.words:  # an interval stands below its number
        said = join(number, " ", element("span", f"({rest}", class_="beside"))
    tag, scope = ("th", "row") if first else ("td", None)
    return element(tag, said, scope=scope, class_=_kind(column), data_value=cell.value)


def _board_notes(entries: Sequence[Entry]) -> Iterator[str]:
    yield from footnotes([entry.renamed for entry in entries])
    yield from (f"{at_least_text(entry.renamed)}." for entry in entries if entry.result.at_least)
    doubted = [entry.name for entry in entries if verdict(entry) not in {"", "ok"}]
    if doubted:
        yield f"Masking doubts the attacked accuracy, or was not looked for: {', '.join(doubted)}."


def _paired(entries: Sequence[Entry], pairs: Sequence[Pair]) -> Iterator[Html]:
    texts = pair_texts(entries, pairs)
    if texts:
        listed = element("ul", *(element("li", text) for text in texts))
        yield element("details", element("summary", f"Paired tests, image by image ({len(texts)})"), listed, open=len(texts) <= FEW)


def _plots(key: str, figures: Iterable[Figure]) -> Html:
    drawn = [_figure(f"{key}-{number}", figure) for number, figure in enumerate(figures)]
    return element("div", *drawn, class_="plots") if drawn else Html("")


def _figure(name: str, figure: Figure) -> Html:
    scene = plot(figure.title, figure.lines, figure.x, figure.y)
    legend = [element("li", _mark(f"{name}-{k}", line), line.name) for k, line in enumerate(figure.lines)]
    caption = element("figcaption", element("strong", figure.title), ". " if figure.note else "", figure.note)
    return element("figure", caption, Html(svg_part(scene, name)), element("ul", *legend, class_="legend"), class_="plot")


def _mark(name: str, line: Line) -> Html:
    return element("span", Html(svg_part(swatch(line), name)), aria_hidden="true")


def _heat_maps(entries: Sequence[Entry]) -> Html:
    """Accuracy under every corruption: the mean of each model, and every severity behind it."""
    found = [entry for entry in entries if entry.result.corruptions]
    if not found:
        return Html("")
    names = list(dict.fromkeys(name for entry in found for name in entry.result.corruptions.table))  # type: ignore[union-attr]
    rows = [[name, *(_heat(_mean(_severities(entry, name))) for entry in found)] for name in names]
    parts = [table("Top-1 % under each corruption, mean over its severities.", ["corruption", *(entry.name for entry in found)], rows)]
    for entry in found:
        section = entry.result.corruptions
        assert section is not None
        rows = [[name, *(_heat(each.value if each else None, each) for each in _severities(entry, name))] for name in section.table]
        caption = f"{entry.name}: top-1 % by severity on {section.n} images ({section.implementation}; constants for {section.preset} px)."
        severities = table(caption, ["corruption", "1", "2", "3", "4", "5"], rows)
        parts.append(element("details", element("summary", f"{entry.name}: every severity"), severities))
    return join(*parts)


def _severities(entry: Entry, name: str) -> Sequence[Estimate | None]:
    assert entry.result.corruptions is not None
    return entry.result.corruptions.table.get(name, ())


def _mean(cells: Sequence[Estimate | None]) -> float | None:
    values = [cell.value for cell in cells if cell]
    return sum(values) / len(values) if values else None


def _heat(value: float | None, estimate: Estimate | None = None) -> Html:
    """A cell as dark as its share is large; its number says the same."""
    if value is None:
        return element("td", "not measured", class_="note")
    tip = f"{with_interval(estimate)} %" if estimate else None
    return element("td", f"{100 * value:.1f}", class_="heat", style=f"--share:{value:.3f}", title=tip)


def _attacks(entries: Sequence[Entry]) -> Html:
    rows = [
        [entry.name, attack.name, f"{attack.norm} {eps_text(attack.eps)}", with_interval(attack.top1), with_interval(attack.clean.top1),
         entry.result.verdict_on(attack), attack_text(attack, at_least=entry.result.at_least)]
        for entry in entries for attack in entry.result.attacks
    ]  # fmt: skip
    if not rows:
        return Html("")
    headings = ["model", "attack", "budget", "top-1 %", "unattacked %", "masking", "how"]
    return table("Every attack, with the verdict on whether it can be believed.", headings, rows, {"attack", "budget", "masking", "how"})


def _traces(traces: Sequence[Html], notes: Sequence[str]) -> Html:
    shown = [element("div", *traces, class_="traces")] if traces else []
    return join(*shown, *(element("p", f"{note}.", class_="note") for note in notes))


def _environment(entry: Entry) -> Html:
    result, env = entry.result, entry.result.environment
    used = result.model.checkpoint
    facts = {
        "parameters": macs_text(result.model.parameters),
        "weights": f"{used.uri}, sha256 {used.sha256}" if used else "untrained",
        "plugin": f"{result.model.plugin} {result.model.plugin_version}",
        "settings": ", ".join(f"{key}={value}" for key, value in result.model.config.items()),
        "data": f"{entry.data}, {result.data.source or 'not opened'}, fingerprint {result.data.fingerprint or 'none'}",
        "seed": str(result.run.seed),
        "started": result.run.started.isoformat(timespec="seconds"),
        "status": result.run.status + "".join(f"; {failure.error}" for failure in result.errors),
        "machine": f"{env.platform}, {env.cpu}, {env.device}, {counted(env.threads, 'thread')}",
        "packages": ", ".join([f"python {env.python}", *(f"{name} {version}" for name, version in env.packages.items())]),
        "commit": env.commit or "installed from a wheel",
        "not counted as MACs": ", ".join(result.flops.uncounted) if result.flops else "",
        "MACs are lower bounds for": ", ".join(result.missing),
    }
    listed = [element("li", element("strong", f"{key}: "), value) for key, value in facts.items() if value]
    return element("details", element("summary", entry.name), element("pre", result.run.command), element("ul", *listed))


_SCRIPT = """
'use strict';
const board = document.getElementById('board'), body = board.tBodies[0], heads = [...board.tHead.rows[0].cells];
function key(row, column) {
  const cell = row.cells[column], value = cell.dataset.value;
  return value === undefined ? cell.textContent : Number(value);
}
function sort(column) {
  const head = heads[column], now = head.getAttribute('aria-sort'), first = head.dataset.first;
  const other = first === 'ascending' ? 'descending' : 'ascending', order = now === first ? other : first;
  const sign = order === 'ascending' ? 1 : -1;
  const rows = [...body.rows].sort((one, two) => {
    const a = key(one, column), b = key(two, column);
    if (a === '' || b === '') return (a === '') - (b === '');
    return sign * (typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b)));
  });
  heads.forEach(each => each.removeAttribute('aria-sort'));
  head.setAttribute('aria-sort', order);
  body.append(...rows);
}
heads.forEach((head, column) => head.querySelector('button').addEventListener('click', () => sort(column)));
document.getElementById('filter').addEventListener('input', event => {
  const words = event.target.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0;
  for (const row of body.rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
    shown += !row.hidden;
  }
  document.getElementById('count').textContent = shown + ' of ' + body.rows.length + ' models';
});
"""
