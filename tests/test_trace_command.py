"""`glimpsezoo trace`: one command to a picture of any kind, and one line for anything that is wrong."""

import json
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from command_line import COMMANDS, Answer, ask, photo_card
from PIL import Image

from glimpsezoo.commands.tracing import _numbers
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.reports.pictures.layout import HEAD
from glimpsezoo.reports.pictures.regions import LONGER, MARGIN


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_picture_of_each_kind_by_its_ending(capsys: pytest.CaptureFixture[str], here: Path):
    for name, format_ in (("t.png", "PNG"), ("t.gif", "GIF")):
        answer = ask(capsys, "trace", "cnn4", "--index", "3", "-o", name)
        assert answer.status == 0, answer.err
        assert Image.open(here / name).format == format_
    ask(capsys, "trace", "cnn4", "--index", "3", "-o", "t.svg")
    assert ElementTree.parse(here / "t.svg").getroot().tag.endswith("svg")
    ask(capsys, "trace", "cnn4", "--index", "3", "--html")
    assert (here / "cnn4-3.html").read_text().startswith("<!doctype html>")


def test_it_says_what_the_picture_shows(capsys: pytest.CaptureFixture[str]):
    answer = ask(capsys, "trace", "mgnet", "--index", "3", "7")
    assert answer.status == 0, answer.err
    lines = answer.out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["digits test 3, clean", "digits test 7, clean"]
    assert all("took all 3 steps, 2.484 M MACs" in line for line in lines)
    assert "picture in mgnet-3-7.png" in answer.err


def test_under_a_condition_both_are_shown(capsys: pytest.CaptureFixture[str]):
    answer = ask(capsys, "trace", "mgnet", "--index", "3", "--under", "fog:3", "--json", "-o", "t.png")
    clean, fog = answer.json
    assert (clean["condition"], fog["condition"]) == ("clean", "fog 3")
    assert clean["label"] == fog["label"] == "0"
    assert clean["looks"][0]["confidence"] != fog["looks"][0]["confidence"]
    attacked = ask(capsys, "trace", "mgnet", "--under", "pgd:4/255", "--set", "pgd.steps=1", "--json", "-o", "a.png").json
    assert attacked[1]["condition"] == "pgd, Linf 4/255"


def test_the_exit_is_that_of_the_rule(capsys: pytest.CaptureFixture[str]):
    (early,) = ask(capsys, "trace", "mgnet", "--set", "anytime.threshold=0.5", "--json", "-o", "t.png").json
    assert len(early["looks"]) == 1
    assert early["exit"] == "exit after step 1 of 3 (confidence 0.5)"
    patient = ("--set", "anytime.rule=patience", "--set", "anytime.threshold=1")
    (later,) = ask(capsys, "trace", "mgnet", *patient, "--json", "-o", "u.png").json
    assert later["exit"] == "exit after step 2 of 3 (patience 1)"


def test_another_policy_is_named_with_the_model_and_an_upper_bound_marked(capsys: pytest.CaptureFixture[str], here: Path):
    for policy, marks in (("oracle", "upper bound"), ("scan", "(scan)")):
        answer = ask(capsys, "trace", "mgnet", "--set", f"policy={policy}", "-o", f"{policy}.svg")
        assert answer.status == 0, answer.err
        assert marks in (here / f"{policy}.svg").read_text()


def test_files_are_looked_at_too(capsys: pytest.CaptureFixture[str], here: Path):
    """A file's noise belongs to its content: the same picture is looked at in the same places whatever stands beside it."""
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100), dtype=np.uint8)
    Image.fromarray(pixels).save(here / "one.png")
    Image.fromarray(255 - pixels).save(here / "two.png")
    drawn = ("--set", "policy=random")  # whose looks are all noise
    both = ask(capsys, "trace", "pyramid-m3", "--image", "two.png", "one.png", *drawn, "--json", "-o", "t.svg").json
    (one,) = ask(capsys, "trace", "pyramid-m3", "--image", "one.png", *drawn, "--json", "-o", "u.svg").json
    assert [trace["image"] for trace in both] == ["two.png", "one.png"]
    assert both[1] == one
    assert one["label"] is None
    assert {look["right"] for look in one["looks"]} == {None}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mgnet", "--index", "99999"], "--index expects an image of the 2980 of digits test (from 0), got 99999"),
        (["mgnet", "--index", "7-3"], "--index expects numbers from 0 (3, 3,7 or 3-7), got '7-3'"),
        (["mgnet", "--index", "x"], "--index expects numbers from 0 (3, 3,7 or 3-7), got 'x'"),
        (["mgnet", "7"], "expected one model, got mgnet 7: name images by --index or --image"),
        (["mgnet", "--index", "1", "--image", "x.png"], "got both: leave one out"),
        (["mgnet", "-o", "x.bmp"], "--output expects a name that ends in .png, .svg, .gif, .html, got 'x.bmp'"),
        (["mgnet", "--html", "-o", "x.png"], "--output expects a name that ends in .html, got 'x.png'"),
        (["mgnet", "-o", "there.png"], "got 'there.png', which exists: choose another --output, or --force"),
        (["mgnet", "--under", "fogg"], "got 'fogg': did you mean 'fog'?"),
        (["mgnet", "--under", "fog:9"], "fog expects a severity from 1 to 5, got '9'"),
        (["mgnet", "--set", "pgd.steps=3"], "--set pgd.steps expects pgd to be named by --under"),
        (["mgnet", "--set", "attacks.steps=3", "--under", "fog"], "--set attacks.steps expects attacks to be named by --under"),
        (["mgnet", "--set", "attacks.stepz=3", "--under", "pgd"], "--set attacks.stepz expects a setting of pgd: did you mean 'steps'"),
        (["mgnet", "--set", "anytime.rule=margin"], "got anytime.rule alone: add one, for example --set anytime.threshold=0.9"),
        (["mgnet", "--set", "anytime.accuracy=0.9"], "got anytime.accuracy: add one, for example --set anytime.threshold=0.9"),
        (["mgnet", "--image", "none.png"], "expected an image file, got 'none.png'"),
        (["mgnet", "--image", "text.png"], "expected an image file, got 'text.png'"),
        (["mgnt"], "did you mean 'mgnet'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_is_one_line(capsys: pytest.CaptureFixture[str], here: Path, words: list[str], said: str):
    for name in ("there.png", "text.png"):
        (here / name).write_text("no image")
    answer: Answer = ask(capsys, "trace", *words)
    assert answer.status == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert sorted(path.name for path in here.iterdir()) == ["text.png", "there.png"]  # nothing was written


def test_a_file_that_is_there_is_replaced_by_force(capsys: pytest.CaptureFixture[str], here: Path):
    (here / "t.png").write_text("old")
    assert ask(capsys, "trace", "cnn4", "-o", "t.png", "--force").status == 0
    assert Image.open(here / "t.png").format == "PNG"


def test_numbers_are_given_one_by_one_or_as_a_range():
    assert _numbers(["3", "5,7", "1-3"]) == (3, 5, 7, 1, 2, 3)
    with pytest.raises(GlimpseZooError, match="got '-3'"):
        _numbers(["-3"])


def test_regions_are_told_in_shares_of_the_image(capsys: pytest.CaptureFixture[str]):
    answer = ask(capsys, "trace", "mgnet", "--json", "-o", "t.svg")
    first, *others = json.loads(answer.out)[0]["looks"]
    assert first["regions"] == [{"number": 1, "parent": None, "left": 0.0, "top": 0.0, "width": 1.0, "height": 1.0}]
    assert [look["regions"][0]["number"] for look in others] == [2, 3]
    svg = Path("t.svg").read_text()
    second = others[0]["regions"][0]
    edge = re.search(r'<rect x="([\d.]+)" y="([\d.]+)"[^>]*class="s-s1"', svg)
    assert edge
    assert float(edge[1]) == pytest.approx(16 + MARGIN + LONGER * second["left"] + 1, abs=0.01)  # within the margin, one px inside the edge
    assert float(edge[2]) == pytest.approx(16 + HEAD + LONGER * second["top"] + 1, abs=0.01)


def test_the_commands_of_the_how_to_exist_with_their_options():
    page = (Path(__file__).parent.parent / "docs" / "pictures.md").read_text(encoding="utf-8")
    lines = re.findall(r"^glimpsezoo (.*)$", page, re.MULTILINE)
    assert {shlex.split(line)[0] for line in lines} == {"trace", "compare", "report"}
    for line in lines:
        name, *words = shlex.split(line)
        options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, line
    options = {option for name in ("trace", "report") for parameter in COMMANDS[name].params for option in parameter.opts}
    assert set(re.findall(r"`(--?[a-z-]+)", page)) <= options | {"--format"}


def test_a_file_is_looked_at_in_the_size_that_is_asked_for(capsys: pytest.CaptureFixture[str], here: Path):
    photo_card(here / "card")
    Image.new("RGB", (80, 80)).save(here / "one.png")
    for size, given in (("32 x 32", ()), ("48 x 48", ("--set", "data.size=48"))):
        assert ask(capsys, "trace", "card", "--image", "one.png", *given, "-o", f"{len(given)}.svg").status == 0
        assert size in (here / f"{len(given)}.svg").read_text()
