"""The site: it builds without a warning, its links lead somewhere, its commands exist, and what is generated is up to date."""

import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from urllib.parse import unquote, urlsplit

import click
import pytest
from command_line import COMMANDS
from rich.console import Console
from row_files import read_rows

from glimpsezoo.commands import cli
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.measures.pairs import Comparison, every_pair
from glimpsezoo.reports.paired import print_comparison
from glimpsezoo.reports.table import print_results
from glimpsezoo.run.grid import Axes
from glimpsezoo.zoo.results import read_result

pytestmark = pytest.mark.repository

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
OUTSIDE = [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("plugins/*/README.md")]  # not part of the site
WRITTEN = [*DOCS.rglob("*.md"), *OUTSIDE]
STALE = "is out of date: python docs/generate.py"


@pytest.fixture(scope="module")
def generate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """docs/generate.py as a module. Cards in the folder of whoever runs the tests are no part of the documentation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLIMPSEZOO_HOME", str(tmp_path_factory.mktemp("home")))
        patch.syspath_prepend(DOCS)
        import generate  # pyright: ignore[reportMissingImports]

        patch.setattr(generate, "generated", cache(generate.generated))
        yield generate


def test_what_is_generated_is_up_to_date(generate: ModuleType):
    pages = generate.generated()
    lying = {path.relative_to(DOCS).as_posix() for folder in generate.FOLDERS for path in (DOCS / folder).glob("*.md")}
    assert lying == set(pages), f"docs/ {STALE}"
    for path, text in pages.items():
        assert (DOCS / path).read_text(encoding="utf-8") == text, f"docs/{path} {STALE}"


def test_every_card_has_a_page_of_its_own():
    """The seeds of a recipe have one name, and lie in folders of their own."""
    folders = [folder.name for home in ("zoo_cards", "benchmarks/cards") for folder in (ROOT / home).iterdir() if folder.is_dir()]
    for name in folders:
        assert f"# {name}\n" in (DOCS / "cards" / f"{name}.md").read_text(encoding="utf-8"), f"docs/cards {STALE}"


def test_the_pictures_are_what_trace_draws(generate: ModuleType):
    """Up to a pixel and a per cent, and the colours of small pixels: another processor rounds otherwise."""
    pictures = generate.pictures()
    lying = {path.relative_to(DOCS).as_posix() for folder in generate.FOLDERS for path in (DOCS / folder).glob("*.svg")}
    assert lying == set(pictures), f"docs/ {STALE}"
    for path, drawn in pictures.items():
        (lines, numbers), (old_lines, old_numbers) = _measured(drawn), _measured((DOCS / path).read_text(encoding="utf-8"))
        assert lines == old_lines, f"docs/{path} {STALE}"
        assert numbers == pytest.approx(old_numbers, abs=1), f"docs/{path} {STALE}"


def _measured(svg: str) -> tuple[str, list[float]]:
    """An SVG without its embedded pixels: what is not a number, and the numbers."""
    bare = re.sub(r"data:image/[^\"]*", "", svg)
    return re.sub(r"\d+(\.\d+)?", "#", bare), [float(number) for number in re.findall(r"\d+(?:\.\d+)?", bare)]


def test_everything_that_is_registered_has_its_place(generate: ModuleType):
    pages = generate.generated()
    for name, command in COMMANDS.items():
        part = pages["reference/commands.md"].partition(f"## `{name}`\n")[2].partition("\n## ")[0]
        options = [option for parameter in command.params if isinstance(parameter, click.Option) for option in parameter.opts]
        assert not [option for option in options if option not in part], name
    for name in [config.parent.name for config in ROOT.glob("zoo_cards/*/config.json")]:
        assert f"cards/{name}.md" in pages
        assert name in pages["models/index.md"]


def test_every_measured_card_is_compared_on_its_data(generate: ModuleType):
    pages, models = generate.generated(), generate.models
    for card in models.cards():
        result = models.evidence(card)
        if result and result.accuracy:
            page = pages[f"comparisons/{result.data.name}.md"]
            assert f"](../cards/{card.folder.name}.md) | {100 * result.accuracy.top1.value:.1f}<br>(" in page, card.folder.name
            assert f"(../comparisons/{result.data.name}.md)" in pages[f"models/{models.page_of(models.spec_of(card))}"]


def test_a_comparison_says_what_the_paired_tests_say(generate: ModuleType):
    page = generate.generated()["comparisons/digits.md"]
    names = re.findall(r"^\| \d+ \| \[([^\]]+)\].*<br>", page, re.MULTILINE)
    assert (names[0], len(names)) == ("cnn4.digits", 9)
    for worse in ("mgnet.digits", "ranzato.digits"):
        rows = {name: unit.rows for name in (worse, names[0]) if (unit := read_rows(ROOT / "zoo_cards" / name / "rows.parquet"))}
        pair = every_pair(rows)[0]
        said = f"{100 * pair.difference:+.2f}"
        line = re.search(rf"^\| \d+ \| \[{worse}\][^|]*\| (\S+) ", page.partition("Paired tests")[2], re.MULTILINE)
        assert line
        assert line[1] == (f"**{said}**" if pair.p < 0.05 else said)
    assert "mgnet.digits is not significantly worse than cnn4.digits" in page


def test_the_gallery_says_how_its_images_were_chosen(generate: ModuleType):
    page = generate.generated()["gallery/index.md"]
    for name in ("mgnet.digits", "pyramid-m3.digits", "ranzato.digits"):
        part = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        captions = re.findall(r"<figcaption>(.*?)</figcaption>", part)
        assert [caption.split(":")[0] for caption in captions[:3]] == ["Right early", "Right late", "Wrong"]
        assert captions[3].startswith("Flipped by ")
        unit = read_rows(ROOT / "zoo_cards" / name / "rows.parquet")
        assert unit
        assert f"one of {int((~unit.rows.hits[:, -1]).sum())} such images of 2,980, drawn at random" in captions[2]


@pytest.mark.parametrize("name", ["results", "hooks", "settings"])
def test_every_key_has_a_meaning(generate: ModuleType, name: str):
    rows = [line for line in generate.generated()[f"reference/{name}.md"].splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    assert [row for row in rows if row.endswith("|  |")] == [], "say it in the docstring of its class"


# The built site


@dataclass
class Page(HTMLParser):
    """What a page of the site names. links: where it leads; loads: what a browser fetches to show it; anchors: where one may lead."""

    path: Path
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value for key, value in attrs if value is not None}
        self.anchors |= {values[key] for key in ("id", "name") if key in values}
        self.links += [values["href"]] if tag == "a" and "href" in values else []
        fetched = tag == "link" and values.get("rel") in {"stylesheet", "icon", "preload"}
        self.loads += [values["src"]] if "src" in values else [values["href"]] if fetched else []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from a copy."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    built = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_page_is_built_and_no_source_goes_along(site: Path, pages: dict[Path, Page]):
    names = {path.relative_to(DOCS).with_suffix("").as_posix().removesuffix("index").rstrip("/") for path in DOCS.rglob("*.md")}
    built = {path.parent.relative_to(site).as_posix().removeprefix(".") for path in pages if path.name == "index.html"}
    assert built == names
    assert not list(site.rglob("*.py"))


def test_every_link_and_picture_of_the_site_leads_somewhere(site: Path, pages: dict[Path, Page]):
    broken = []
    for page in pages.values():
        if page.path.name != "404.html":  # its links begin at the root of wherever the site is
            broken += [(page.path.relative_to(site), link) for link in page.links + page.loads if not _leads(link, page, pages)]
    assert broken == []


def _leads(link: str, page: Page, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True  # another host's
    target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
    target = target / "index.html" if target.is_dir() else target
    if not parts.fragment or target not in pages:
        return target.is_file()
    return unquote(parts.fragment) in pages[target].anchors


def test_a_page_loads_nothing_from_another_host(pages: dict[Path, Page]):
    foreign = {load for page in pages.values() for load in page.loads if urlsplit(load).netloc}
    assert foreign == set()


def test_every_page_is_named_in_the_navigation(site: Path, pages: dict[Path, Page]):
    """All but those that .nav.yml forgets would do."""
    index = pages[site / "index.html"]
    reached = {(site / link).resolve() for link in index.links if not urlsplit(link).netloc and not link.startswith("#")}
    assert {path.parent for path in pages if path.name == "index.html"} - reached == set()


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    """The site on this machine, as search needs it."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_menu_is_short_and_search_finds(served: str):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        menu = page.locator(".md-sidebar--primary .md-nav__link:visible")
        page.goto(served)
        shown = list(dict.fromkeys(filter(None, menu.all_inner_texts())))
        assert shown[1] == "Gallery"
        assert len(shown) < 10
        page.goto(f"{served}/cards/mgnet.digits/")
        cards = [text for text in menu.all_inner_texts() if text.endswith(".digits")]
        assert "mgnet.digits" in cards
        assert "ranzato.digits" not in cards  # folded under its own model
        page.keyboard.press("Control+k")
        page.keyboard.type("frozen glimpses")
        page.get_by_text("worst-case").first.wait_for()
        browser.close()


# What is not on the site


def _anchors(path: Path) -> set[str]:
    """The anchors of a Markdown file, as forges make them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading)).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", OUTSIDE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_the_other_pages_leads_somewhere(page: Path):
    for link in re.findall(r"\]\(((?!\w+:)[^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or target.suffix != ".md" or anchor in _anchors(target), link


# Commands


def _commands(page: Path) -> list[str]:
    """The commands in the blocks of a page: fenced without a language or as console, or indented."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fenced if language in {"", "console"}] + re.findall(r"(?:^    \S.*\n)+", text, re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [found for line in lines for found in re.findall(r"(?:^ *(?:\$ )?|&& )(glimpsezoo [a-z].*)$", line)]


def _mentioned(page: Path) -> list[str]:
    """The commands in its sentences, which need not be complete."""
    return re.findall(r"`(glimpsezoo [a-z][^`\n]*)`", page.read_text(encoding="utf-8"))


def test_screenshots_are_small():
    sizes = {path.name: path.stat().st_size for path in (DOCS / "screens").glob("*.png")}
    assert sizes.keys() == {"report-light.png", "report-dark.png"}
    assert max(sizes.values()) < 150_000


def _parse(line: str, *, complete: bool = True) -> None:
    """Parse a command as click does, and raise what that raises; of an incomplete one, its name and options alone."""
    words = shlex.split(line, comments=True)
    end = next((index for index, word in enumerate(words) if word in {"&&", "|", ">", ";"}), len(words))
    _, name, *arguments = words[:end]
    _, command, _ = cli.resolve_command(click.Context(cli), [name])
    assert command is not None
    context = click.Context(command, info_name=name, **cli.context_settings)  # click keeps the help option of the first context
    if complete:
        command.parse_args(context, arguments)
    else:
        command.make_parser(context).parse_args(arguments)


@pytest.fixture(autouse=True)
def no_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command in the docs may name a file that the reader has."""
    monkeypatch.setattr("glimpsezoo.commands.configuring.read_config", lambda *given: {})
    monkeypatch.setattr("glimpsezoo.run.grid.Axes.read", lambda *given: (Axes(models=("mgnet",)), {}))


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_that_is_written_down_is_one(page: Path):
    for line in _commands(page):
        _parse(line)
    for line in _mentioned(page):
        _parse(line, complete=False)


def test_commands_are_found_and_wrong_ones_refused():
    assert sum(len(_commands(page)) for page in WRITTEN) > 100
    assert any(line.endswith("--set glimpses=2") for line in _commands(DOCS / "own-data.md"))  # one that goes on in the next line
    assert "glimpsezoo train mgnet --data digits" in _commands(ROOT / "plugins" / "glimpsezoo-mgnet" / "README.md")  # indented
    for wrong in ("glimpsezoo walk", "glimpsezoo run mgnet --speed", "glimpsezoo compare a --format odt", "glimpsezoo show a b"):
        with pytest.raises((GlimpseZooError, click.UsageError)):
            _parse(wrong)
    with pytest.raises(click.NoSuchOption):
        _parse("glimpsezoo import --date today", complete=False)


# Outputs


def test_the_python_of_early_exits_runs(capsys: pytest.CaptureFixture[str]):
    names: dict[str, object] = {}
    rollout, stream = re.findall(r"```python\n(.*?)```", (DOCS / "exits.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(rollout, "exits.md", "exec"), names)
    assert re.fullmatch(r"tensor\(\[([123](, )?){8}\]\)\n", capsys.readouterr().out)
    exec(compile(stream, "exits.md", "exec"), names)
    done = re.findall(r"^tensor\(\[([\d, \n]+)\]\) tensor", capsys.readouterr().out, re.MULTILINE)
    assert sorted(int(place) for places in done for place in places.split(",")) == list(range(64))


def _quick(*names: str) -> str:
    """What `glimpsezoo run NAMES --measure quick` prints of the digits cards, from their evidence."""
    folders = [ROOT / "zoo_cards" / f"{name}.digits" for name in names]
    alone = {"anytime": None, "corruptions": None, "attacks": (), "masking": None}
    results = [read_result((folder / "result.json").read_bytes()).model_copy(update=alone) for folder in folders]
    rows = {folder.name: unit.rows for folder in folders if (unit := read_rows(folder / "rows.parquet"))}
    console = Console(file=(file := io.StringIO()), width=100, highlight=False, color_system=None)
    print_results(results, console)
    print_comparison(Comparison(run="docs", data="digits", pairs=every_pair(rows)), results, console)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


@pytest.mark.parametrize("page", ["index.md", "tutorial.md"])
def test_the_first_table_is_what_the_command_prints(page: str):
    found = re.search(r"<!-- quick (.*?) -->\n```text\n(.*?)\n?```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert found
    assert found[2] == _quick(*found[1].split())


def test_examples_that_only_evaluate_compute_no_gradients():
    """A snippet that rolls a trained model out does so within `inference`, as one that is copied should."""
    for path in (ROOT / "README.md", *DOCS.glob("*.md"), *ROOT.glob("plugins/*/README.md")):
        for snippet in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            evaluates = re.search(r"^ *.*gz\.rollout\(", snippet, re.MULTILINE) and not re.search(r"attack|loss|backward", snippet)
            assert not evaluates or "gz.inference(" in snippet, f"{path.relative_to(ROOT)}:\n{snippet}"
