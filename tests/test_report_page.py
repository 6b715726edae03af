"""The report: one page with the results' numbers, in which no text becomes markup."""

import base64
import csv
import hashlib
import io
import re
import shutil
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from command_line import ask
from result_files import put, result, rows

from glimpsezoo.measures.shown import Axis, Entry, Figure, Line, Point
from glimpsezoo.measures.threats import curves
from glimpsezoo.reports.figures import figures, training_curves, training_picture
from glimpsezoo.reports.page import LARGEST, Reported, report_page
from glimpsezoo.reports.pictures.scene import Dot, Words
from glimpsezoo.reports.pictures.scene import Path as Polyline
from glimpsezoo.reports.pictures.traced import Glimpse, Traced, TracedLook
from glimpsezoo.reports.plots import HEIGHT, LEFT, WIDTH, plot, with_legend
from glimpsezoo.reports.plotted import figure_data

ZOO = Path(__file__).parent.parent / "zoo_cards"
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
EMPTY = {"meta", "input", "br", "wbr"}
FILE = ("data:image/svg+xml;", "data:text/csv;")  # what a link may hold


class Reader(HTMLParser):
    """Collects elements in order with their attributes, and checks that each is closed in the right place."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def entries() -> list[Entry]:
    log = tuple({"epoch": k, "losses": {"loss": 2.0 / k}, "calibration_top1": None if k % 2 else k / 1000} for k in range(1, 501))
    return [
        Entry("mgnet", result("mgnet", eps=4 / 255), log),
        Entry("mgnet, run def", result("mgnet", eps=8 / 255, run="def", verdict="not found?")),
        Entry("cnn4", result("cnn4", top1=0.8, eps=8 / 255, verdict=None)),
    ]


def trace(side: int = 8, name: str = "one") -> Traced:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    look = TracedLook(1, (Glimpse(1, 0, 0, 0, 1, 1, (pixels,)),), name, 0.5, True)
    return Traced(name, name, "clean", name, pixels, (look,), 1, "", 10)


def test_a_page_is_whole_and_asks_for_nothing():
    page = report_page(Reported(entries(), (), [trace()]))
    reader = Reader(page)
    names = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes in reader.elements:
        assert (attributes.get("src") or attributes.get("href") or "#").startswith(("#", "data:image/", *FILE))
        for name in (attributes.get("aria-labelledby") or attributes.get("aria-controls") or "").split():
            assert name in names
        assert not [key for key in attributes if key.startswith("on")]
    assert {link["href"] for link in reader.all("a") if "download" not in link} <= {f"#{name}" for name in names}
    assert "url(" not in page
    assert "@import" not in page


def test_figures_of_sections_in_any_order_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch):
    made = figures(entries())[0]
    monkeypatch.setattr("glimpsezoo.reports.page.figures", lambda _: [replace(made, section=section) for section in "ABAB"])
    reader = Reader(report_page(Reported(entries(), (), [])))
    names = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(names) == len(set(names))


def test_only_the_page_s_own_script_may_run():
    page = report_page(Reported(entries(), ()))
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(meta["content"] for meta in Reader(page).all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")


def test_nothing_that_the_page_is_told_becomes_markup():
    plain, evil = (_reported(name) for name in ("harmless", EVIL))
    breaks = {("wbr", None), ("span", "whole")}  # where a name may break
    found = [Reader(report_page(each)).elements for each in (plain, evil)]
    counts = [[tag for tag, values in elements if (tag, values.get("class")) not in breaks] for elements in found]
    assert counts[0] == counts[1]
    page = report_page(evil)
    assert page.count("<script") == 1
    assert "<img" not in page
    assert EVIL in unescape(page)


def _reported(name: str) -> Reported:
    """A report in which every text is `name`."""
    found = result(name, eps=0.1)
    attack = found.attacks[0].model_copy(update={"name": name, "norm": name, "space": name})
    data = found.data.model_copy(update={"name": name, "split": name, "source": name, "fingerprint": name})
    corruptions = found.corruptions
    assert corruptions is not None
    changed = found.model_copy(
        update={
            "data": data,
            "attacks": (attack, attack.model_copy(update={"eps": 0.2})),
            "corruptions": corruptions.model_copy(update={"table": {name: corruptions.table["fog"]}, "implementation": name}),
            "run": found.run.model_copy(update={"command": name}),
            "environment": found.environment.model_copy(update={"platform": name, "packages": {name: name}}),
            "model": found.model.model_copy(update={"config": {name: name}}),
        }
    )
    training = ({"losses": {name: 1.0}, "calibration_top1": 0.1},)
    return Reported([Entry(name, changed, training)], (), [trace(name=name)], [name])


def test_the_leaderboard_has_the_numbers_and_every_verdict():
    page = report_page(Reported(entries(), ()))
    board = re.search(r'<table id="board">.*?</table>', page, re.DOTALL)
    assert board
    heads = [re.sub("<.*?>", "", head) for head in re.findall(r"<button[^>]*>(.*?)</button>", board[0])]
    lines = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line) for line in re.findall(r"<tr>(.*?)</tr>", board[0].split("<tbody>")[1])]
    cells = [{head: re.sub("<.*?>", "", cell) for head, cell in zip(heads, line, strict=True)} for line in lines]
    assert [line["top-1 %"] for line in cells] == ["90.0 (88.0-92.0)", "90.0 (88.0-92.0)", "80.0 (78.0-82.0)"]
    assert [line["masking of pgd Linf 4/255, 10 steps"] for line in cells] == ["not found", "", ""]
    assert [line["masking of pgd Linf 8/255, 10 steps"] for line in cells] == ["", "not found?", "not checked"]
    assert [line["pgd Linf 4/255, 10 steps %"] for line in cells] == ["31.0 (29.0-33.0)", "", ""]
    assert "masking: other images might turn the verdict on mgnet, run def (?)" in page
    assert "masking: not checked for cnn4." in page


def test_plots_are_pictures_with_words():
    reader = Reader(report_page(Reported(entries(), (), [trace()])))
    pictures = [svg for svg in reader.all("svg") if svg.get("role") == "img"]
    assert len(pictures) > 5
    assert all(svg.get("aria-labelledby") for svg in pictures)
    assert len(reader.all("caption")) == len(reader.all("table")) > 3
    assert all(cell.get("scope") in {"col", "row"} for cell in reader.all("th"))


def files(page: str) -> dict[str, str]:
    """The files that a page's links save, by name."""
    links = [link for link in Reader(page).all("a") if "download" in link]
    return {str(link["download"]): unquote(str(link["href"]).partition(",")[2]) for link in links}


def test_every_plot_is_saved_as_svg_and_csv():
    page = report_page(Reported(entries(), ()))
    saved, data = files(page), entries()[0].result.data.name
    plots = page.count('class="plot"')
    assert len(saved) == 2 * plots + 1
    drawing = ElementTree.fromstring(saved[f"accuracy-against-cost-{data}-test.svg"])
    texts = {each.text for each in drawing.iter() if each.tag.endswith("text")}
    assert {"mgnet", "cnn4", "MACs per image"} <= texts  # with its legend
    table = list(csv.DictReader(io.StringIO(saved[f"accuracy-against-cost-{data}-test.csv"])))
    (last,) = (row for row in table if row["line"] == "cnn4" and float(row["MACs per image"]) == 1e7)
    assert [float(last[key]) for key in ("top-1 %", "top-1 % low", "top-1 % high")] == pytest.approx([80, 78, 82])
    assert len(list(csv.DictReader(io.StringIO(saved["leaderboard.csv"])))) == 3


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\t=1", '"a",b\nc', "<b>"])
def test_no_name_is_a_formula_or_another_cell(name: str):
    figure = Figure("s", name, (Line(name, 0, (Point(1, -2.5),)),), Axis(name), Axis("y"))
    head, row = csv.reader(io.StringIO(figure_data(figure)))
    safe = re.sub(r"\s", " ", f"'{name}" if name[0] in "=+-@\t" else name)
    assert head == ["line", safe, "y"]
    assert row == [safe, "1", "-2.5"]


def test_the_headline_says_what_when_and_which_is_better():
    page = report_page(Reported(entries(), ()))
    header = unescape(page.partition("<header>")[2].partition("</header>")[0])
    assert "3 models on " in header
    assert f"measured {entries()[0].result.run.started.date().isoformat()}" in header
    assert "mgnet classifies 90.0 (88.0-92.0) % of the images correctly" in header  # no rows, no test


def test_columns_that_matter_come_first():
    page = report_page(Reported(entries(), ()))
    heads = [re.sub("<.*?>", "", head) for head in re.findall(r"<button[^>]*>(.*?)</button>", page)]
    assert heads[:4] == ["model", "top-1 %", "MACs", "corrupted %"]
    assert heads[-2:] == ["parameters", "steps"]
    other = entries()[0]
    data = other.result.data.model_copy(update={"name": "other"})
    both = report_page(Reported([other, Entry("b", other.result.model_copy(update={"data": data}))], ()))
    assert ">data</button>" in both
    assert "data" not in heads  # the title says it


def test_without_room_nothing_can_be_saved_and_the_page_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("glimpsezoo.reports.page.LARGEST", 60_000)
    page = report_page(Reported(entries(), ()))
    assert "plots cannot be saved" in page
    assert not [name for name in files(page) if name.endswith(".svg")]


def test_the_heat_map_has_every_corruption_and_says_what_is_missing():
    page = report_page(Reported(entries(), ()))
    summary, severities = re.findall(r"<tr><th scope=\"row\">fog</th>(.*?)</tr>", page)[:2]
    assert re.findall(r"--share:([\d.]+)\"[^>]*>([\d.]+)<", summary) == [("0.650", "65.0")] * 3
    assert re.findall(r">([\d.]+)<", severities) == ["80.0", "70.0", "60.0", "50.0"]
    assert severities.count("not measured") == 1


def test_attack_curves_join_what_differs_in_eps_alone():
    (figure,) = curves(entries())
    (line,) = figure.lines
    assert [point.x for point in line.points] == [0, 4 / 255, 8 / 255]
    assert [point.y for point in line.points] == pytest.approx([50.0, 31.0, 31.0])
    assert "masking: not found, not found?" in line.name


def test_attack_curves_join_what_differs_in_steps_alone():
    (attack,) = result("mgnet", eps=4 / 255).attacks
    several = tuple(attack.model_copy(update={"steps": steps}) for steps in (100, 1, 10))
    found = result("mgnet", eps=4 / 255).model_copy(update={"attacks": several})
    (figure,) = curves([Entry("mgnet", found)])
    assert figure.title == "Accuracy under pgd by steps, eps 4/255 in pixels"
    assert [point.x for point in figure.lines[0].points] == [0, 1, 10, 100]


def test_attack_curves_do_not_join_other_attacks_or_other_models():
    one, other = (result("mgnet", eps=eps) for eps in (4 / 255, 8 / 255))
    longer = other.model_copy(update={"attacks": tuple(each.model_copy(update={"steps": 99}) for each in other.attacks)})  # and eps
    random = other.model_copy(update={"model": other.model.model_copy(update={"config": {"policy": "random"}})})
    assert not list(curves([Entry("a", one), Entry("b", longer), Entry("c", random)]))
    assert list(curves([Entry("a", one), Entry("b", other)]))


def test_the_curves_are_those_of_the_results():
    (figure,) = (each for each in figures(entries()) if each.section == "Accuracy against cost")
    steps, exits = figure.lines[:2]
    assert [(point.x, point.y, point.low) for point in steps.points] == [pytest.approx((5e6, 80, 78)), pytest.approx((1e7, 90, 88))]
    assert [(point.x, point.y) for point in exits.points] == [pytest.approx((7e6, 85)), pytest.approx((1e7, 90))]
    assert exits.dashed
    assert steps.series == exits.series != figure.lines[2].series
    corrupted, weak, strong = (each for each in figures(entries()) if each.section == "Robustness against budget")
    assert [len(each.lines) for each in (corrupted, weak, strong)] == [3, 1, 2]
    assert [(point.x, point.y) for point in corrupted.lines[0].points] == [pytest.approx((5e6, 60)), pytest.approx((1e7, 65))]
    assert [line.name for line in strong.lines] == ["mgnet, run def (masking: not found?)", "cnn4 (masking: not checked)"]


def test_training_curves_are_thinned_and_keep_their_end():
    (entry,) = (entry for entry in entries() if entry.training)
    losses, accuracy = training_curves(entry.name, entry.training)
    points = losses.lines[0].points
    assert len(points) <= 200
    assert (points[-1].x, points[-1].y) == (500, pytest.approx(2 / 500))
    assert all(point.y == pytest.approx(2.0 / point.x) for point in points)
    assert (accuracy.lines[0].points[-1].x, accuracy.lines[0].points[-1].y) == (500, pytest.approx(50))
    (single,) = training_curves("x", [{"losses": {"loss": 1.0}}])
    assert single.lines[0].dots  # a line with one point would be invisible
    assert not losses.lines[0].dots
    assert training_picture("x", []) is None
    strange = [{"losses": {"loss": float("nan")}}, {"losses": {"loss": "high"}}, {"losses": {"loss": 1.0}}]
    (figure,) = training_curves("x", strange)
    assert [(point.x, point.y) for point in figure.lines[0].points] == [(3, 1.0)]


@pytest.mark.parametrize(
    ("x", "values", "places"),
    [
        (Axis("x", low=0, high=10), (0, 5, 10), (0, 0.5, 1)),
        (Axis("x", logarithmic=True), (1, 10, 100), (0.05 / 1.1, 0.5, 1.05 / 1.1)),
    ],
    ids=["even", "logarithmic"],
)
def test_a_point_stands_at_its_share_of_the_axis(x: Axis, values: tuple[float, ...], places: tuple[float, ...]):
    line = Line("a", 0, tuple(Point(value, value, value - 1, value + 1) for value in values))
    scene = plot("t", [line], x, Axis("y", low=-5, high=105))
    dots = [shape for shape in scene.shapes if isinstance(shape, Dot)]
    assert [(dot.x - LEFT) / (WIDTH - LEFT - 14) for dot in dots] == pytest.approx(places)
    assert [(HEIGHT - 46 - dot.y) / (HEIGHT - 46 - 12) for dot in dots] == pytest.approx([(value + 5) / 110 for value in values])
    numbers = {shape.text: shape.y - 4 for shape in scene.shapes if isinstance(shape, Words) and shape.anchor == "end"}
    assert (HEIGHT - 46 - numbers["40"]) / (HEIGHT - 46 - 12) == pytest.approx(45 / 110)
    bars = [shape for shape in scene.shapes if isinstance(shape, Polyline) and shape.stroke == "s0" and shape.points[-1][0] == 0]
    assert len(bars) == 3


@pytest.mark.parametrize("values", [(), ((0.0, 0.0),), ((5.0, 1.0), (5.0, 1.0)), ((0.0, 1.0), (1e9, 1.0))])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_any_points_can_be_plotted(values: tuple[tuple[float, float], ...], logarithmic: bool):
    line = Line("a", 0, tuple(Point(*value) for value in values))
    scene = plot("t", [line], Axis("x", logarithmic=logarithmic), Axis("y"))
    assert all(0 <= shape.x <= WIDTH and 0 <= shape.y <= HEIGHT for shape in scene.shapes)


def test_a_mark_lies_beside_dots_and_not_on_them():
    curve = Line("a", 0, tuple(Point(x, y) for x, y in ((0, 0), (5, 5), (10, 10))), mark="1")
    beside = Line("b", 1, (Point(4.85, 5),), mark="2")  # a dot of the curve is to its right
    drawn = plot("p", [curve, beside], Axis("x"), Axis("y"))
    mark = next(shape for shape in drawn.shapes if isinstance(shape, Words) and shape.text == "2" and shape.bold)
    dots = [shape for shape in drawn.shapes if isinstance(shape, Dot)]
    assert all(dot.x <= mark.x - 4 or dot.x >= mark.x + 7 + 4 or dot.y <= mark.y - 13 or dot.y >= mark.y + 4 for dot in dots)
    own = min(dots, key=lambda dot: abs(dot.x - mark.x - 3.5) + abs(dot.y - mark.y))
    assert own.fill == mark.fill


@pytest.mark.parametrize("name", ["M3", "T-MNIST, FF-Net, the paper's PGD, printed"])
def test_names_in_a_legend_do_not_touch(name: str):
    lines = [Line(f"{name} {k}", 1, (Point(1, 2), Point(2, 3))) for k in range(3)]
    drawing = with_legend(plot("a plot", lines, Axis("x"), Axis("y")), lines)
    words = [(shape.x, shape.y, shape.text) for shape in drawing.shapes if isinstance(shape, Words) and shape.text.startswith(name)]
    assert len(words) == 3
    for x, y, text in words:
        end = x + 6.5 * len(text)
        assert end < drawing.width
        assert y < drawing.height
        assert not [other for other, line, _ in words if line == y and x < other < end]


def test_traces_that_make_the_page_too_large_are_left_out_and_it_says_so():
    page = report_page(Reported(entries(), (), [trace(1000) for _ in range(12)]))
    assert LARGEST / 2 < len(page.encode()) < 3_000_000
    assert re.search(r"\d+ traces? left out: the page would be larger than 3 MB", page)


def test_a_report_of_cards_shows_where_they_look_and_how_they_were_trained(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = tmp_path / "report.html"
    answer = ask(capsys, "report", "mgnet.digits", "pyramid-m3.digits", "-o", path, "--traces", "1")
    assert answer.status == 0, answer.err
    page = re.sub(r"<wbr>|</?span[^>]*>", "", path.read_text(encoding="utf-8"))
    assert len(re.findall(r'id="trace-\d+-title"', page)) == 2
    assert page.count("Right early: right after every step, one of ") == 2
    assert "Training losses of mgnet.digits" in page
    assert "glimpsezoo run mgnet cnn4 ranzato pyramid-m3 --update-card" in unescape(page)
    assert "Paired tests, image by image (1)" in page
    assert "left out" not in page
    assert f"2 models in {path}" in answer.out


def test_what_cannot_be_shown_is_said_and_the_rest_is_reported(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Neither the weights nor the data that were measured are on this machine."""
    put(tmp_path / "run" / "gone", result("gone"), rows([1, 0]))
    card = shutil.copytree(ZOO / "cnn4.digits", tmp_path / "card")
    text = (card / "result.json").read_text()
    (card / "result.json").write_text(re.sub(r'"fingerprint": "\w+"', '"fingerprint": "another"', text))
    answer = ask(capsys, "report", tmp_path / "run", card, "-o", tmp_path / "r.html")
    assert answer.status == 0, answer.err
    assert "gone is not shown looking: the card at 'mgnet.digits' has other weights now than those that were measured" in answer.err
    assert "card is not shown looking: digits test on this machine is not the data that was measured" in answer.err
    assert "is not the data that was measured." in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "expected a run or a card, got none"),
        (("cnn4.digits", "-o", "report.pdf"), "--output expects a name that ends in .html, got 'report.pdf'"),
        (("cnn4.digits", "-o", "there.html"), "got 'there.html', which exists: choose another --output, or --force"),
    ],
)
def test_what_is_wrong_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.html").write_text("old")
    answer = ask(capsys, "report", *words)
    assert (answer.status, answer.err.count("\n")) == (2, 1)
    assert said in answer.err
    assert (tmp_path / "there.html").read_text() == "old"
