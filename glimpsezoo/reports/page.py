"""The report: one page with all results of some models. It works offline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from glimpsezoo.errors import counted
from glimpsezoo.measures.costs import uncounted
from glimpsezoo.measures.pairs import Pair
from glimpsezoo.measures.seeds import RecipePair
from glimpsezoo.measures.shown import Entry
from glimpsezoo.measures.text import macs_text
from glimpsezoo.reports.figures import figures, training_curves
from glimpsezoo.reports.finding import findings, headline
from glimpsezoo.reports.flip import trace_figure
from glimpsezoo.reports.html import Html, element, join, named, page, table
from glimpsezoo.reports.leaderboard import leaderboard, paired_tests
from glimpsezoo.reports.pictures.traced import Traced
from glimpsezoo.reports.plotted import plotted
from glimpsezoo.reports.seeds import as_recipes, seeds_table
from glimpsezoo.reports.templates import source
from glimpsezoo.zoo.results import measure_classes

LARGEST = 2_900_000  # bytes of a page: below 3 MB
HALF = 5  # up to so many models, a table fits half of a wide screen
COST = "Accuracy against cost"  # the section in which the paired tests stand


@dataclass(frozen=True)
class Reported:
    """The content of a report."""

    entries: Sequence[Entry]
    """One per model."""
    pairs: Sequence[Pair]
    """Paired tests."""
    traces: Sequence[Traced] = ()
    """Of a few images per model."""
    notes: Sequence[str] = ()
    """Which traces are missing, and why."""
    recipes: Sequence[RecipePair] = ()
    """Tests between recipes with several training seeds."""


def report_page(reported: Reported) -> str:
    """The page, below 3 MB. Files to save and traces that would exceed that are left out, and the page says so."""
    sections, left_out = _sections(reported, files=True), list(reported.notes)
    if len(_page(reported, sections).encode()) > LARGEST:
        sections = _sections(reported, files=False)
        left_out.append("plots cannot be saved: the page would be larger than 3 MB")

    def whole(traces: Sequence[tuple[Traced, Html]], *more: str) -> str:
        """The page with these traces; all other sections are reused."""
        looks = _Section("Where they look", _traces(traces, [*left_out, *more]), wide=True)
        return _page(reported, {**sections, "traces": looks})

    room, drawn = LARGEST - len(whole([]).encode()), []
    for number, traced in enumerate(reported.traces):
        figure = trace_figure(traced, f"trace-{number}")
        room -= len(figure.encode())
        if room < 0:
            break
        drawn.append((traced, figure))
    missing = len(reported.traces) - len(drawn)
    return whole(drawn, *([f"{counted(missing, 'trace')} left out: the page would be larger than 3 MB"] if missing else []))


class _Section(NamedTuple):
    """A section of the page."""

    title: str
    """Its heading."""
    content: Html
    """Empty if there is nothing to show."""
    wide: bool = False
    """Whether it takes the whole width of a wide screen."""


def _page(reported: Reported, sections: Mapping[str, _Section]) -> str:
    """The page: what was measured, when, and what was found; then every section with content."""
    entries, shown = reported.entries, {key: section for key, section in sections.items() if section.content}
    contents = [element("a", section.title, href=f"#{key}") for key, section in shown.items()]
    data = list(dict.fromkeys(entry.data for entry in entries))
    title = f"{counted(len(entries), 'model')} on {', '.join(data) if len(data) < 4 else f'{len(data)} data sets'}"
    found = [element("p", text) for text in findings(*as_recipes(entries, reported.pairs, reported.recipes))]
    header = element(
        "header",
        element("h1", title),
        element("p", ", ".join(filter(None, headline(entries))), class_="note"),
        element("div", *found, class_="finding"),
        element("nav", *contents, class_="contents", aria_label="Contents"),
    )
    parts = []
    for key, (heading, content, wide) in shown.items():
        words = element("h2", heading, id=f"{key}-title")
        parts.append(element("section", words, content, id=key, class_="wide" if wide else None, aria_labelledby=f"{key}-title"))
    body = join(element("a", "Skip to the leaderboard", href="#leaderboard", class_="skip"), header, element("main", *parts))
    return page(f"glimpsezoo report: {title}", body, source("board.js"))


def _sections(reported: Reported, *, files: bool) -> dict[str, _Section]:
    """All sections in order: leaderboard, figures and tables of the measures, traces (still empty), training curves, environment."""
    entries, parts = reported.entries, dict[str, list[Html]]()
    for number, figure in enumerate(figures(entries)):
        parts.setdefault(figure.section, []).append(plotted(f"figure-{number}", figure, files=files))
    if tests := paired_tests(entries, reported.pairs, reported.recipes):
        parts.setdefault(COST, []).append(tests)
    parts = {heading: [element("div", *drawn, class_="plots")] for heading, drawn in parts.items()}
    for kind in measure_classes().values():
        for heading, tables in kind.tables(entries).items():
            parts.setdefault(heading, []).extend(map(table, tables))
    curves = [figure for entry in entries for figure in training_curves(entry.name, entry.training)]
    drawn = [plotted(f"training-{number}", figure, files=files) for number, figure in enumerate(curves)]
    wide = len(entries) > HALF
    spread = seeds_table(entries)
    return {
        "leaderboard": _Section("Leaderboard", leaderboard(entries), wide=True),
        "seeds": _Section("Over seeds", Html("") if spread is None else table(spread), wide=True),
        **{_key(heading): _Section(heading, join(*content), wide) for heading, content in parts.items()},
        "traces": _Section("Where they look", Html("")),
        "training": _Section("Training", element("div", *drawn, class_="plots") if drawn else Html(""), wide=True),
        "environment": _Section("Environment and commands", join(*(_environment(entry) for entry in entries)), wide=True),
    }


def _key(heading: str) -> str:
    """The anchor of a section on the page."""
    return heading.lower().replace(" ", "-")


def _traces(traces: Sequence[tuple[Traced, Html]], notes: Sequence[str]) -> Html:
    """The traces by model. Those of one image stay side by side."""
    shown = []
    for model, those in groupby(traces, key=lambda pair: pair[0].model):
        images = [[figure for _, figure in alike] for _, alike in groupby(those, key=lambda pair: pair[0].image)]
        kept = [element("div", *several, class_="alike") if len(several) > 1 else several[0] for several in images]
        shown += [element("h3", named(model)), element("div", *kept, class_="traces")]
    return join(*shown, *(element("p", f"{note}.", class_="note") for note in notes))


def _environment(entry: Entry) -> Html:
    result, env = entry.result, entry.result.environment
    used, trained = result.model.checkpoint, result.model.trained_on
    facts = {
        "parameters": macs_text(result.model.parameters),
        "weights": f"{used.uri}, sha256 {used.sha256}" if used else "untrained",
        "plugin": f"{result.model.plugin} {result.model.plugin_version}",
        "settings": ", ".join(f"{key}={value}" for key, value in result.model.config.items()),
        "data": f"{entry.data}, {result.data.source or 'not opened'}, fingerprint {result.data.fingerprint or 'none'}",
        "training seed": "" if trained is None or trained.seed is None else str(trained.seed),
        "noise seed": str(result.run.seed),
        "started": result.run.started.isoformat(timespec="seconds"),
        "status": result.run.status + "".join(f"; {failure.error}" for failure in result.errors),
        "machine": f"{env.platform}, {env.cpu}, {env.device}, {counted(env.threads, 'thread')}",
        "packages": ", ".join([f"python {env.python}", *(f"{name} {version}" for name, version in env.packages.items())]),
        "commit": env.commit or "installed from a wheel",
        "not counted as MACs": ", ".join(uncounted(result)),
        "MACs are lower bounds for": ", ".join(result.missing),
    }
    listed = [element("li", element("strong", f"{key}: "), value) for key, value in facts.items() if value]
    return element("details", element("summary", named(entry.name)), element("pre", result.run.command), element("ul", *listed))
