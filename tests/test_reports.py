"""Tables and texts agree with result.json and fit their space."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from command_line import make_card
from rich.console import Console

from glimpsezoo.measures.pairs import Comparison, Pair, pair_text
from glimpsezoo.measures.result import Failure, Result
from glimpsezoo.measures.text import macs_text
from glimpsezoo.reports.paired import print_comparison
from glimpsezoo.reports.readme import card_text, run_command
from glimpsezoo.reports.table import print_results
from glimpsezoo.run.answers import combined
from glimpsezoo.zoo.card_config import CardData
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.results import read_result, result_type

ZOO = Path(__file__).parent.parent / "zoo_cards"


@pytest.fixture
def results() -> list[Result]:
    """Results of the shipped mgnet (three steps) and cnn4 (one step), without robustness."""
    bare = {"anytime": None, "corruptions": None, "attacks": (), "masking": None}
    found = [read_result((ZOO / name / "result.json").read_bytes()) for name in ("mgnet.digits", "cnn4.digits")]
    return [result.model_copy(update=bare) for result in found]


def printed(results: list[Result]) -> str:
    console = Console(file=io.StringIO(), width=100, highlight=False)
    print_results(results, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def renamed(result: Result, name: str) -> Result:
    return result.model_copy(update={"model": result.model.model_copy(update={"name": name})})


def test_the_table_has_a_row_for_every_step_with_the_result_s_numbers(results: list[Result]):
    lines = printed(results).splitlines()
    assert re.split(r"  +", lines[0].strip()) == [
        "model",
        "step",
        "top-1 %",
        "95 % interval",
        "top-5 %",
        "NLL",
        "ECE %",
        "MACs/image",
        "paper's MACs",
    ]
    rows = [line.split() for line in lines[1:5]]
    assert [row[0] for row in rows] == ["mgnet.digits", "2", "3", "cnn4.digits"]
    mgnet = results[0].accuracy
    assert mgnet is not None
    for row, step in zip(rows[:3], mgnet.steps, strict=True):
        cells = row[row.index(str(step.step)) + 1 :]
        low, high = f"{100 * step.top1.low:.1f}", f"{100 * step.top1.high:.1f}"
        assert cells[:4] == [f"{100 * step.top1.value:.1f}", low, "to", high]
        assert cells[4:7] == [f"{100 * step.top5.value:.1f}", f"{step.nll.value:.3f}", f"{100 * step.ece.value:.1f}"]
        assert " ".join(cells[7:9]) == macs_text(step.macs)
    assert results[0].flops is not None
    assert results[0].flops.paper_macs is not None
    assert " ".join(rows[2][-2:]) == macs_text(results[0].flops.paper_macs.value)
    assert "digits test: 2,980 images of 596 sources" in printed(results)


@pytest.mark.parametrize(
    "name", ["m", "mine[red]", "pyramid-imagenet-m1.imagenet100-cmc.a-long-variant.28", "timm:" + "very_long_name_" * 5]
)
def test_the_table_fits_100_columns_whatever_the_name(results: list[Result], name: str):
    lines = printed([renamed(result, name) for result in results]).splitlines()
    assert max(map(len, lines)) <= 100
    numbers = [line for line in lines if re.search(r"\d\.\d to \d", line)]
    assert len(numbers) == 4
    assert len({line.index(" to ") for line in numbers}) == 1  # only the name is wrapped or cut
    words = "".join(line[:30].split("  ")[0].strip() for line in lines[1:-2])
    assert words.startswith(name[:12])


def test_untrained_and_failed_models_are_marked(results: list[Result]):
    untrained = results[0].model_copy(update={"model": results[0].model.model_copy(update={"checkpoint": None, "name": "mgnet"})})
    error = Failure(measure="accuracy", unit="u", images=(0, 10), error="cursed")
    failed = results[1].model_copy(update={"accuracy": None, "flops": None, "errors": (error,)})
    text = printed([failed, untrained])
    assert "mgnet (untrained)" in text
    assert re.search(r"^cnn4.digits +failed", text, re.MULTILINE)
    assert "2,980 images of 596 sources" in text  # of the model that was measured for accuracy


def test_a_model_measured_under_exit_rules_alone_has_not_failed(results: list[Result]):
    text = printed([results[0].model_copy(update={"accuracy": None, "flops": None})])
    assert re.search(r"^mgnet.digits +- *$", text, re.MULTILINE)
    assert "failed" not in text


def test_flops_alone_are_a_narrower_table(results: list[Result]):
    text = printed([result.model_copy(update={"accuracy": None}) for result in results])
    assert text.splitlines()[0].split() == ["model", "step", "MACs/image", "paper's", "MACs"]
    assert "digits: 64 x 64 px, 10 classes." in text


def test_a_column_that_nobody_fills_is_left_out(results: list[Result]):
    assert "paper's MACs" not in printed(results[1:])


def test_skipped_images_are_told(results: list[Result]):
    for count, words in ((1, "1 unreadable image skipped."), (3, "3 unreadable images skipped.")):
        data = results[0].data.model_copy(update={"skipped": count})
        assert words in " ".join(printed([results[0].model_copy(update={"data": data})]).split())


PAIR = Pair(a="m", b="n", n=100, only_a=1, only_b=4, difference=-0.03, low=-0.0612, high=0.001, p=0.04)


def test_a_pair_is_a_sentence():
    assert (
        pair_text(PAIR, 1e6, 4e6)
        == "m against n: -3.00 points (-6.12 to +0.10), significantly worse (one-sided p = 0.040), at 0.25 times its MACs"
    )
    calm = PAIR.model_copy(update={"p": 0.05})
    ahead = calm.model_copy(update={"difference": 0.02, "low": 0.01, "high": 0.03, "p": 1.0})
    assert pair_text(ahead, None, None) == "m against n: +2.00 points (+1.00 to +3.00), better"
    assert pair_text(calm, None, None) == "m against n: -3.00 points (-6.12 to +0.10), not significantly worse (one-sided p = 0.050)"
    assert "(one-sided p < 0.001)" in pair_text(PAIR.model_copy(update={"p": 0.0004}), 1, 1)


def test_each_pair_is_printed_once_in_the_order_of_the_command(results: list[Result]):
    names = [result.model.name for result in results]
    pairs = tuple(PAIR.model_copy(update={"a": a, "b": b}) for a in names for b in names if a != b)
    console = Console(file=io.StringIO(), width=100)
    print_comparison(Comparison(run="r", data="digits", pairs=pairs), results, console)
    print_comparison(None, results, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.startswith("mgnet.digits against cnn4.digits: ")
    assert text.count("against") == 1


def test_json_holds_everything(results: list[Result]):
    content = json.loads(combined([result.to_json() for result in results], None))
    assert [result_type().model_validate(each) for each in content["results"]] == results
    assert content["comparison"] is None


@pytest.mark.parametrize("macs", [0, 12, 999, 1000, 67_957_707, 1_343_234_000])
def test_a_unit_keeps_three_digits(macs: int):
    value, _, unit = macs_text(macs).partition(" ")
    assert float(value) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[unit] == pytest.approx(macs, rel=5e-4)


def test_a_readme_repeats_the_result_s_numbers(results: list[Result]):
    """The front matter is parsed as YAML, the table into cells."""
    result = results[0]
    text = card_text(Card.read(ZOO / "mgnet.digits"), result)
    front = yaml.safe_load(text.split("---\n")[1])
    assert result.accuracy is not None
    assert result.flops is not None
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == result.accuracy.top1.value
    assert (front["license"], front["datasets"], front["library_name"]) == ("apache-2.0", ["digits"], "glimpsezoo")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if re.match(r"\| \d", line)]
    assert [row[:2] for row in rows] == [[str(step.step), f"{100 * step.top1.value:.1f}"] for step in result.accuracy.steps]
    assert [row[-1] for row in rows] == [macs_text(step.macs) for step in result.flops.steps]
    assert f"```\n{result.run.command}\n```" in text


def test_a_readme_says_what_is_not_known(tmp_path: Path, results: list[Result]):
    card = make_card(tmp_path / "cnn4.digits")
    text = card_text(card, None)
    assert "Not measured yet: `glimpsezoo run cnn4.digits --update-card`." in text
    assert "Unknown: the card does not say." in text
    assert "model-index" not in text
    counted = results[1].model_copy(update={"accuracy": None})
    assert "It takes 20.721 M MACs per image." in card_text(card, counted)


def test_a_card_s_command_names_the_data_that_the_card_does_not_know_how_to_find(tmp_path: Path):
    made = make_card(tmp_path / "net", "mgnet")

    def trained_on(name: str, **settings: object) -> Card:
        return replace(made, config=made.config.model_copy(update={"data": CardData(name=name, settings=settings)}))

    assert run_command(trained_on("tmnist", zoom=0.1, seed=3), "net") == "glimpsezoo run net"
    assert run_command(trained_on("somebody-s", seed=3), "net") == "glimpsezoo run net"
    assert run_command(trained_on("folder:photos"), "net") == "glimpsezoo run net --data folder:photos"
    assert run_command(trained_on("folder:photos"), "net", data="folder:/a/photos") == "glimpsezoo run net --data folder:/a/photos"
    assert run_command(trained_on("mnist"), "net", data_dir="here it is") == "glimpsezoo run net --data-dir 'here it is'"
    assert run_command(trained_on("unknown"), "net") == "glimpsezoo run net --data NAME"
