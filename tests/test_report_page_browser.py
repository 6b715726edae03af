"""The pages in a real Chromium: they open without a network, sort, filter, flip, fit a phone, and log nothing."""

import io
import shutil
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from command_line import ask
from PIL import Image
from result_files import result
from test_report_page import EVIL, entries, trace
from test_trace_pictures import traced

from glimpsezoo.measures.pairs import Pair
from glimpsezoo.measures.shown import Entry
from glimpsezoo.reports.flip import flip_page
from glimpsezoo.reports.page import Reported, report_page
from glimpsezoo.reports.pictures.layout import panel
from glimpsezoo.reports.pictures.scene import DARK, LIGHT
from glimpsezoo.reports.pictures.svg import svg_file

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.repository,
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a page at a size and in a mode; at the end, nothing may have been logged or asked for."""
    said: list[str] = []
    contexts: list[Any] = []

    def opened(text: str, width: int = 1200, mode: str = "light", *, scripts: bool = True) -> Any:
        path = tmp_path / "page.html"
        path.write_text(text, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=mode, java_script_enabled=scripts)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message) or dialog.dismiss())
        page.on("request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None)
        page.goto(path.as_uri())
        contexts.append(context)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not said


def test_the_leaderboard_of_the_shipped_cards_fits_a_desktop(show: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cards = [folder.name for folder in (Path(__file__).parent.parent / "zoo_cards").iterdir() if folder.name.endswith(".digits")]
    assert ask(capsys, "report", *cards, "--traces", "0", "-o", tmp_path / "cards.html").status == 0
    page = show((tmp_path / "cards.html").read_text(), width=1280)
    wide, there = page.locator("#board").evaluate("table => [table.scrollWidth, table.parentElement.clientWidth]")
    assert wide <= there


@pytest.fixture(scope="module")
def report() -> str:
    evil = Entry(EVIL, result(EVIL, top1=0.95, eps=8 / 255))
    return report_page(Reported([*entries(), evil], (), [trace(), trace()]))


def column(page: Any, number: int) -> list[str]:
    return page.locator(f"#board tbody tr:visible > :nth-child({number})").all_inner_texts()


def test_it_sorts_by_every_column_and_says_so(show: Any, report: str):
    page = show(report)
    heads = page.locator("#board thead th")
    names = [text.strip() for text in heads.all_inner_texts()]
    place = names.index("top-1 %") + 1
    head = heads.nth(place - 1)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert [text.split()[0] for text in column(page, place)] == ["95.0", "90.0", "90.0", "80.0"]
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert [text.split()[0] for text in column(page, place)] == ["80.0", "90.0", "90.0", "95.0"]
    attacked = names.index("pgd Linf 4/255, 10 steps %")
    for _ in range(2):  # what was not measured stays below
        heads.nth(attacked).locator("button").click()
        assert [text.split()[:1] for text in column(page, attacked + 1)] == [["31.0"], [], [], []]
    heads.nth(0).locator("button").focus()
    page.keyboard.press("Enter")
    assert column(page, 1) == sorted(column(page, 1), key=str.lower)
    assert page.locator("[aria-sort]").count() == 1


def test_it_filters_by_words_and_counts(show: Any, report: str):
    page = show(report)
    page.get_by_label("Show only rows with").fill("found? MGNET")
    assert column(page, 1) == ["mgnet, run def"]
    assert page.locator("#count").inner_text() == "1 of 4 models"
    page.get_by_label("Show only rows with").fill("")
    assert page.locator("#count").inner_text() == "4 of 4 models"


def test_a_hostile_name_is_a_text(show: Any, report: str):
    page = show(report)
    assert page.locator("#board").get_by_text(EVIL).count() == 1
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1


@pytest.mark.parametrize(("width", "mode"), [(390, "light"), (390, "dark"), (1200, "dark")])
def test_it_fits_the_screen_and_its_mode(show: Any, report: str, width: int, mode: str):
    page = show(report, width, mode)
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # only tables and trees scroll, each by itself
    red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (red + green + blue > 600) == (mode == "light")
    plots = page.locator("figure.plot > svg")
    assert plots.count() >= 5
    boxes = [plots.nth(k).bounding_box() for k in range(plots.count())]
    assert all(box["width"] > 300 and 0.6 < box["height"] / box["width"] < 0.8 for box in boxes)
    words = page.locator("figure.plot > svg text").first
    assert words.bounding_box()["height"] >= 11  # px: readable


def test_the_keyboard_reaches_what_scrolls(show: Any, report: str):
    page = show(report, 390)
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()"))
    assert {"Skip to the leaderboard", "top-1 %", "Leaderboard"} <= reached
    assert page.locator(".scroll:not([tabindex])").count() == 0


def test_everything_is_there_without_scripts(show: Any, report: str):
    page = show(report, scripts=False)
    assert len(column(page, 1)) == 4
    assert page.locator("figure.plot > svg").count() >= 5
    page = show(flip_page([[trace()], [trace()]]), scripts=False)
    assert page.locator(".slide:visible").count() == 2


def test_traces_are_flipped_by_buttons_and_keys(show: Any):
    page = show(flip_page([[trace(name="first"), trace(name="first")], [trace(name="second")], [trace(name="third")]]), 390, "dark")
    place, slides = page.locator("#place"), page.locator(".slide:visible")
    assert (place.inner_text(), slides.count(), slides.get_attribute("aria-label")) == ("Image 1 of 3", 1, "first")
    page.get_by_role("button", name="Next").click()
    assert (place.inner_text(), slides.get_attribute("aria-label")) == ("Image 2 of 3", "second")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert place.inner_text() == "Image 1 of 3"
    page.get_by_role("button", name="Previous").click()
    assert place.inner_text() == "Image 3 of 3"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_later_steps_are_hidden_until_they_are_asked_for(show: Any):
    page = show(flip_page([[traced(True, False, True)]]))
    shown = "[...document.querySelectorAll('[data-step]')].filter(e => e.style.display !== 'none').map(e => e.dataset.step)"
    assert set(page.evaluate(shown)) == {"1", "2", "3"}
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert set(page.evaluate(shown)) == {"1"}
    page.get_by_label("Up to step").fill("2")
    assert set(page.evaluate(shown)) == {"1", "2"}
    assert page.locator("#shown").inner_text() == "2"


@pytest.mark.parametrize("scripts", [True, False])
def test_a_plot_and_its_data_are_saved_from_a_file_on_disk(show: Any, report: str, tmp_path: Path, scripts: bool):
    page = show(report, scripts=scripts)
    plot = page.locator("figure.plot").first
    for name, start in (("SVG", "<?xml"), ("data as CSV", "line,MACs per image,top-1 %")):
        with page.expect_download() as waiting:
            plot.get_by_role("link", name=name).click()
        saved = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(saved)
        assert saved.read_text(encoding="utf-8").startswith(start)
        assert saved.stem.startswith("accuracy-against-cost")
    assert {path.suffix for path in tmp_path.iterdir()} == {".html", ".svg", ".csv"}


LONG = "ranzato.jittered-mnist.2-no-diversity-finetuned"
BROKEN = """names => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), broken = [];
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    if (!node.parentElement.closest('th,td,li,summary,h3,figcaption') || !node.parentElement.checkVisibility()) continue;
    for (const found of node.data.matchAll(/\\d+\\.\\d+|[\\w-]+/g)) {
      if (!/^[\\d.]+$/.test(found[0]) && !names.some(name => name.split('.').includes(found[0]))) continue;
      const range = document.createRange();
      range.setStart(node, found.index);
      range.setEnd(node, found.index + found[0].length);
      if (new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1) broken.push(found[0]);
    }
  }
  return broken;
}"""


@pytest.mark.parametrize("width", [375, 1280, 1920])
def test_names_do_not_break_within_a_word(show: Any, width: int):
    names = [LONG, "pyramid-m3.digits", "mgnet.tiny-imagenet.ff-net-short"]
    pairs = [Pair(a=a, b=b, n=9, only_a=1, only_b=1, difference=0.01, low=-0.013, high=0.03, p=0.5) for a, b in combinations(names, 2)]
    page = show(report_page(Reported([Entry(name, result(name, eps=8 / 255)) for name in names], pairs)), width)
    assert page.evaluate(BROKEN, names) == []


def test_a_phone_shows_the_columns_that_matter_and_that_there_are_more(show: Any, report: str):
    page = show(report, 375)
    inside = "cell => { const box = cell.getBoundingClientRect(); return box.left >= 0 && box.right <= innerWidth }"
    heads = page.locator("#board thead th")
    seen = [heads.nth(k).inner_text().split()[0] for k in range(heads.count()) if heads.nth(k).evaluate(inside)]
    assert seen[:2] == ["model", "top-1"]
    board = page.locator(".scroll", has=page.locator("#board"))
    assert board.evaluate("box => box.scrollWidth > box.clientWidth")
    assert shade(board, "right") > 20  # a shadow at the edge that hides columns
    assert shade(board, "left") < 10
    board.evaluate("box => box.scrollTo(box.scrollWidth, 0)")
    assert shade(board, "right") < 10
    name = page.locator("#board tbody th").first
    assert name.evaluate(inside)  # the names stay


def shade(box: Any, side: str) -> float:
    """How much darker a scrolling box is at an edge than its page is, in levels of 255."""
    image = Image.open(io.BytesIO(box.screenshot())).convert("L")
    x = image.width - 2 if side == "right" else 1
    return 255 - median(image.getpixel((x, y)) for y in range(image.height))


def test_a_wide_screen_is_used(show: Any, report: str):
    def across(width: int) -> list[float]:
        page = show(report, width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        return page.locator("main > section").evaluate_all("all => all.map(each => each.getBoundingClientRect().left)")

    assert len(set(across(1920))) == 2
    assert len(set(across(1280))) == 1
    page = show(report, 1920)
    assert page.locator("main").bounding_box()["width"] > 1700


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080)])
def test_a_page_of_traces_fills_the_screen_and_needs_no_scrolling(show: Any, width: int, height: int):
    for row in ([traced(True, False, True)], [traced(True, False, True), traced(True, False, False)]):
        page = show(flip_page([row]), width)
        page.set_viewport_size({"width": width, "height": height})
        drawn = page.locator(".slide svg").evaluate_all("all => all.map(each => each.getBoundingClientRect().toJSON())")
        assert len({box["top"] for box in drawn}) == 1
        assert page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [width, height]
        assert drawn[-1]["right"] - drawn[0]["left"] > 0.9 * width
        assert drawn[0]["height"] > 0.6 * height or len(row) > 1


@pytest.mark.parametrize(("mode", "paper"), [("light", LIGHT["paper"]), ("dark", DARK["paper"])])
def test_a_picture_on_a_page_is_light_or_dark_as_the_page(show: Any, mode: str, paper: str, tmp_path: Path):
    (tmp_path / "trace.svg").write_text(svg_file(panel(traced(True, True))), encoding="utf-8")
    page = show(f"<body style='color-scheme:{mode}'><img src='trace.svg'>")  # whatever the system prefers
    image = Image.open(io.BytesIO(page.locator("img").screenshot())).convert("RGB")
    assert f"#{bytes(image.getpixel((20, 90))).hex()}" == paper


def test_no_script_and_no_address_in_a_page_but_its_own_is_used(browser: Any, report: str, tmp_path: Path) -> None:
    """Even if text became markup: the policy stops it."""
    injected = "<script>document.title='owned'</script><img src='http://127.0.0.1:9/x' onerror=\"document.title='owned'\">"
    injected += "<link rel=stylesheet href='http://127.0.0.1:9/x.css'><iframe src='http://127.0.0.1:9/'></iframe>"
    for text in (report, flip_page([[traced(None)]])):
        (tmp_path / "page.html").write_text(text.replace("</body>", f"{injected}</body>"), encoding="utf-8")
        page, blocked = browser.new_page(), []
        page.on("console", lambda message, blocked=blocked: blocked.append(message.text))
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_timeout(200)
        assert page.title() != "owned"
        assert len([line for line in blocked if "Content Security Policy" in line]) >= 4, blocked
        assert all("Content Security Policy" in line for line in blocked), blocked
        page.close()
