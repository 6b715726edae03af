"""`glimpsezoo compare --paper`: printed numbers beside the evidence of cards, and nothing else."""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from command_line import ask
from installed_plugins import installed

from glimpsezoo import GlimpseZooError, PaperSpec
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.statistics import Estimate
from glimpsezoo.measures.threats import masking_text
from glimpsezoo.reports.paper import OurNumbers, markdown
from glimpsezoo.workflows.evidence import Zoo
from glimpsezoo.workflows.reproducing import reproduce, write_reproduction
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.papers import PrintedTable, PrintedTables
from glimpsezoo.zoo.plugins import registry
from glimpsezoo.zoo.results import read_result

ROOT = Path(__file__).parent.parent
PROJECT = """
[project]
name = "glimpsezoo-made"
version = "0.1"
[project.entry-points.glimpsezoo]
made = "glimpsezoo_made"
"""
PLUGIN = """
from glimpsezoo import PaperSpec, hookimpl

@hookimpl
def register_papers():
    return [PaperSpec(name="made-2020", description="Made up", authors="Nobody, 2020", tables="glimpsezoo_made")]
"""


def evidence(card: str) -> Result:
    return read_result((ROOT / "zoo_cards" / card / "result.json").read_bytes())


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The path for the tables of a plugin's paper."""
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "glimpsezoo_made").mkdir()
    (tmp_path / "glimpsezoo_made" / "__init__.py").write_text(PLUGIN)
    with installed(tmp_path, monkeypatch):
        yield tmp_path / "glimpsezoo_made" / "made-2020.toml"


def table(rows: str, head: str = "") -> str:
    return f'[[table]]\ntitle = "Table 1"\ncaption = "Digits"\nneeds = "time"\n{head}\nrow = [\n{rows}\n]\n'


def test_a_row_has_its_cards_number_at_its_step_and_the_cost_of_the_papers_convention(tables: Path) -> None:
    tables.write_text(
        table(
            '{ method = "two", card = "mgnet.digits", step = 2, printed = 99.9 },\n'
            '{ method = "last", card = "mgnet.digits", printed = 98.0 },'
        )
    )
    two, last = reproduce(["made-2020"])[0].tables[0].answers
    accuracy = evidence("mgnet.digits").accuracy
    assert accuracy is not None
    assert (two.ours, last.ours) == (accuracy.steps[1].top1, accuracy.steps[2].top1)
    assert two.measured == accuracy.steps[1].macs
    # The small CNN at 16 px: maps of 12, 6, 3 and 1 px a side.
    d, backbone = 131, 25 * 16 * 12**2 + 25 * 16 * 32 * 6**2 + 9 * 32 * 64 * 3**2 + 9 * 64 * 128
    assert two.cost == sum(backbone + 4 * d * d * t + 13 * d for t in (1, 2))
    assert last.verdict(reproduce(["made-2020"])[0].tables[0].printed) == "better"


def test_a_row_of_another_policy_has_its_number_from_the_measure_of_policies(tables: Path, tmp_path: Path) -> None:
    tables.write_text(
        table(
            '{ method = "a", card = "mgnet.digits", step = 2, printed = 90.0, policy = "random" },\n'
            '{ method = "b", card = "mgnet.digits", printed = 90.0, policy = "scan" },',
            "costs = false",
        )
    )
    card = tmp_path / "mgnet.digits"
    shutil.copytree(ROOT / "zoo_cards" / "mgnet.digits", card)
    result = json.loads((card / "result.json").read_text())
    looks = result["accuracy"]["steps"]
    followed = [{"step": k, "top1": look["top1"], "macs": 1.0} for k, look in enumerate(reversed(looks), 1)]
    result["policies"] = [{"policy": "random", "upper_bound": False, "steps": followed, "against_own": None}]
    (card / "result.json").write_text(json.dumps(result))
    random, scan = reproduce(["made-2020", str(card)])[0].tables[0].answers
    assert random.ours == Estimate.model_validate(looks[-2]["top1"])
    assert (random.cost, random.measured) == (None, None)
    assert (scan.ours, scan.missing) == (None, "needs time")


def test_an_error_is_what_is_left_of_accuracy_and_a_speed_up_is_over_the_tables_reference(tables: Path) -> None:
    tables.write_text(
        table(
            '{ method = "a", card = "ranzato.digits", printed = 3.2 },\n{ method = "b", card = "ranzato.digits", printed = 0.1 },',
            'number = "error"\nspeed_up_over = "ranzato-fc.mnist"',
        )
    )
    found = reproduce(["made-2020"])[0].tables[0]
    top1 = evidence("ranzato.digits").accuracy.top1  # type: ignore[union-attr]
    ours = found.answers[0].ours
    assert ours is not None
    assert (ours.value, ours.low, ours.high) == pytest.approx((1 - top1.value, 1 - top1.high, 1 - top1.low))
    fully_connected, paper = 28 * 28 * 500 + 500 * 10, evidence("ranzato.digits").flops.paper_macs  # type: ignore[union-attr]
    assert paper is not None
    assert found.answers[0].cost == pytest.approx(fully_connected / paper.value)
    assert found.answers[1].verdict(found.printed) == f"short by {100 * ours.value - 0.1:.2f}"


@pytest.mark.parametrize(
    ("number", "printed", "ours", "verdict"),
    [
        ("error", 1.2, 1.2, "within the interval"),
        ("error", 1.2, 1.25, "within the interval"),
        ("error", 1.2, 1.15, "within the interval"),  # a better value, but not significantly
        ("error", 1.2, 2.0, "short by 0.80"),
        ("error", 1.2, 1.0, "better"),
        ("error", 7.7, 2.08, "far better"),
        ("top-1", 99.0, 99.2, "better"),
        ("top-1", 98.0, 99.2, "far better"),
        ("top-1", 99.0, 98.8, "short by 0.20"),
        ("share", 78.0, 44.0, "off by 34.00"),
        ("share", 44.05, 44.0, "within the interval"),
    ],
)
def test_a_verdict_says_where_the_printed_number_lies_to_the_interval(number: str, printed: float, ours: float, verdict: str) -> None:
    table = PrintedTable.parse({"title": "t", "caption": "", "number": number, "row": [{"method": "m", "printed": printed}]}, owner="paper")
    found = Estimate(value=ours / 100, low=(ours - 0.1) / 100, high=(ours + 0.1) / 100, n=10_000, groups=10_000)
    assert OurNumbers(table.row[0], ours=found).verdict(table) == verdict


@pytest.mark.parametrize(
    ("head", "cost", "ours", "verdict"),
    [
        ({"speed_up_over": "x"}, 12.0, 6.83, "better, but a speed-up of 6.83 for 12"),
        ({"speed_up_over": "x"}, 3.6, 3.576, "better"),
        ({}, 1e6, 2e6, "better, but 2.000 M for 1.000 M"),
        ({}, 1e6, 1.01e6, "better"),
    ],
)
def test_a_row_whose_cost_is_not_reached_says_so(head: dict[str, str], cost: float, ours: float, verdict: str) -> None:
    row = {"method": "m", "printed": 1.7, "cost": cost}
    table = PrintedTable.parse({"title": "t", "caption": "", "number": "error", "row": [row], **head}, owner="paper")
    found = Estimate(value=0.013, low=0.012, high=0.014, n=10_000, groups=10_000)
    assert OurNumbers(table.row[0], ours=found, cost=ours).verdict(table) == verdict


def test_early_exits_corruptions_and_locations_come_from_their_sections(tables: Path) -> None:
    result = evidence("pyramid-m3.digits")
    assert result.anytime is not None
    assert result.corruptions is not None
    assert result.accuracy is not None
    point = result.anytime.curve[1]
    tables.write_text(
        table(
            f'{{ method = "exits", card = "pyramid-m3.digits", confidence = {point.threshold!r}, locations = 2.2 }},\n'
            '{ method = "beside it", card = "pyramid-m3.digits" },\n{ method = "of one look", card = "cnn4.digits" },'
        )
        + table('{ method = "corrupted", card = "pyramid-m3.digits", step = 1 },', 'number = "corrupted"')
    )
    (exits, beside, one_look), (corrupted,) = (each.answers for each in reproduce(["made-2020"])[0].tables)
    assert (exits.ours, exits.measured) == (point.top1, point.macs_mean)
    assert exits.locations == beside.locations == sum(step.regions_mean for step in result.accuracy.steps[1:])
    assert (one_look.locations, corrupted.locations) == (None, None)
    assert corrupted.ours == result.corruptions.by_step[0]


def test_what_was_not_measured_says_what_it_needs_and_has_its_cost_all_the_same(tables: Path) -> None:
    tables.write_text(
        table(
            '{ method = "no card", card = "mgnet.tiny-imagenet", printed = 57.72 },\n'
            '{ method = "no such attack", card = "mgnet.digits", printed = 50.0 },\n{ method = "theirs", printed = 1.0 },',
            'number = "attacked"',
        )
    )
    no_card, no_attack, theirs = reproduce(["made-2020"])[0].tables[0].answers
    assert (no_card.ours, no_card.missing) == (None, "needs time")
    assert no_card.cost == pytest.approx(0.430e9, rel=0.01)
    assert (no_attack.ours, no_attack.missing) == (None, "needs time")
    assert (theirs.ours, theirs.cost, theirs.missing) == (None, None, "not a model of the zoo")
    text = markdown(reproduce(["made-2020"]), "figures")
    assert "| no card | 57.72 | not run |" in text
    assert "Not run: needs time." in text


def test_a_picture_is_named_where_it_is_and_by_a_link_that_works(tmp_path: Path) -> None:
    found = reproduce(["pyramid-traversal-2020"])
    assert "![" not in markdown(found, "")
    written = {path.name for path in write_reproduction(found, tmp_path / "my report.md")}
    links = re.findall(r"!\[[^]]*\]\(([^)]*)\)", (tmp_path / "my report.md").read_text())
    assert links
    assert all(" " not in link and (tmp_path / unquote(link)).is_file() for link in links)
    assert {Path(unquote(link)).name for link in links} | {"my report.md"} == written


def test_a_card_that_is_named_answers_before_the_zoos_and_needs_no_weights(tables: Path, tmp_path: Path) -> None:
    mine, shipped = tmp_path / "mine", ROOT / "zoo_cards" / "mgnet.digits"
    mine.mkdir()
    (mine / "result.json").write_bytes((shipped / "result.json").read_bytes())
    (mine / "config.json").write_text((shipped / "config.json").read_text().replace('"mgnet.digits"', '"cnn4.digits"'))
    tables.write_text(table('{ method = "a", card = "cnn4.digits", printed = 99.9, note = "of another model" },'))
    for names, card in ((["made-2020"], "cnn4.digits"), (["made-2020", str(mine)], "mgnet.digits")):
        (answer,) = reproduce(names)[0].tables[0].answers
        assert answer.ours == evidence(card).accuracy.top1  # type: ignore[union-attr]
    assert "), of another model | " in markdown(reproduce(["made-2020"]), "figures")


def test_a_card_that_looks_less_often_than_a_row_does_not_answer_for_it(tables: Path) -> None:
    tables.write_text(table('{ method = "a", card = "mgnet.digits", step = 4, printed = 99.9 },'))
    (answer,) = reproduce(["made-2020"])[0].tables[0].answers
    assert (answer.ours, answer.missing) == (None, "takes 4 looks, and the card mgnet.digits has 3")


def test_a_module_alone_costs_what_one_call_of_it_takes(tables: Path) -> None:
    tables.write_text(
        table('{ method = "location", card = "pyramid-m3.plain-mnist.28", module = "location", parameters = 5193, cost = 5184 },')
    )
    answer = reproduce(["made-2020"])[0].tables[0].answers[0]
    assert (answer.parameters, answer.cost) == (3 * 3 * 64 * 9 + 9, 3 * 3 * 64 * 9)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ('{ method = "a", card = "mgnet.nothing" },', "a card or a recipe, got 'mgnet.nothing'"),
        ('{ method = "a", card = "mgnet.digits", module = "nothing" },', "nothing"),
        ('{ method = "a", step = 0 },', "step"),
        ('{ method = "a", way = "b" },', "way"),
        ("{ method = ", "made-2020.toml, got none"),
    ],
)
def test_tables_that_name_what_is_not_there_are_errors(tables: Path, rows: str, told: str) -> None:
    tables.write_text(table(rows))
    with pytest.raises(GlimpseZooError, match=told):
        reproduce(["made-2020"])


def test_unknown_papers_and_formats_are_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, told in (
        (["--paper", "mgnet-2020"], "expected a paper or a card, got 'mgnet-2020': did you mean 'mgnet-2021'"),
        (["--paper", "ranzato-2014", "--format", "latex"], "got --format latex"),
        (["mgnet.digits", "-o", str(tmp_path / "a.md")], "-o expects --paper"),
        (["--paper", "ranzato-2014", "-o", str(tmp_path / "out")], "-o expects a Markdown file, got 'out'"),
    ):
        answer = ask(capsys, "compare", *arguments)
        assert answer.status == 2
        assert told in answer.err


def test_every_format_has_every_row(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    spec = registry().find(PaperSpec, "ranzato-2014")
    printed = PrintedTables.of(spec)
    methods = [row.method for each in printed.table for row in each.row] + [claim.quote for claim in printed.claim]
    assert [row["method"] for row in ask(capsys, "compare", "--paper", "ranzato-2014", "--json").json] == methods
    text = ask(capsys, "compare", "--paper", "ranzato-2014", "--format", "csv").out
    assert [row["method"] for row in csv.DictReader(io.StringIO(text))] == methods
    shown = ask(capsys, "compare", "--paper", "ranzato-2014")
    assert "Table 3: MNIST" in shown.out
    assert all(claim.quote[:30] in shown.out for claim in printed.claim)


def test_plots_have_the_printed_points_and_ours(tables: Path, tmp_path: Path) -> None:
    tables.write_text(table('{ method = "a", card = "mgnet.digits", printed = 99.9, cost = 2e6, series = "MGNet" },'))
    page, drawing = write_reproduction(reproduce(["made-2020"]), tmp_path / "out.md")
    assert drawing == tmp_path / "out" / "made-2020-table-1.svg"
    assert "(out/made-2020-table-1.svg)" in page.read_text()
    picture = drawing.read_text()
    top1 = evidence("mgnet.digits").accuracy.top1  # type: ignore[union-attr]
    assert "MGNet, printed: 99.9 at 2M" in picture
    assert f"MGNet, ours: {100 * top1.value:.4g} at" in picture


def test_attacked_accuracy_is_of_the_attack_and_steps_of_the_row_and_is_drawn_over_steps(tables: Path, tmp_path: Path) -> None:
    tables.write_text(
        table(
            '{ method = "a", card = "mgnet.digits", printed = 44.2, attack = "worst-case", attack_steps = 32, series = "MGNet" },\n'
            '{ method = "b", card = "mgnet.digits", attack = "worst-case", attack_steps = 33 },\n'
            '{ method = "c", card = "mgnet.digits", attack = "fgsm", attack_steps = 32 },',
            'number = "attacked"',
        )
    )
    answers = reproduce(["made-2020"])[0].tables[0].answers
    attack = next(attack for attack in evidence("mgnet.digits").attacks if attack.name == "worst-case")
    assert [answer.ours for answer in answers] == [attack.by_step[-1], None, None]
    found = evidence("mgnet.digits")
    assert found is not None
    assert answers[0].masking == masking_text(found, found.attacks[0])
    _, drawing = write_reproduction(reproduce(["made-2020"]), tmp_path / "out.md")
    assert "MGNet, printed: 44.2 at 32" in drawing.read_text()
    assert "steps of the attack" in drawing.read_text()


def test_the_sessions_of_a_start_that_has_other_weights_by_now_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cnn4.digits", "cnn4.digits.augmix"):
        shutil.copytree(ROOT / "zoo_cards" / name, tmp_path / "zoo_cards" / name)
    assert Zoo().epochs("cnn4.digits.augmix") == "60 + 10"
    config = tmp_path / "zoo_cards" / "cnn4.digits" / "config.json"
    content = json.loads(config.read_text())
    content["weights"]["sha256"] = "0" * 64  # trained anew
    config.write_text(json.dumps(content))
    assert Zoo().epochs("cnn4.digits.augmix") == "? + 10"


def test_a_given_card_that_no_recipe_trained_has_the_default_seed(tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "zoo_cards" / "cnn4.digits", tmp_path / "given")
    content = json.loads((folder / "config.json").read_text())
    content["trained"]["recipe"] = None
    (folder / "config.json").write_text(json.dumps(content))
    given = Card.read(folder)
    assert Zoo([given]).card("cnn4.digits") is given
