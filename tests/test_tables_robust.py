"""The table of a run with robustness: every step under every condition, verdicts, and footnotes on the columns."""

import io
import re
from typing import Any

import pytest
from rich.console import Console
from test_records import RESULT

from glimpsezoo.measures.anytime import anytime_text
from glimpsezoo.measures.pairs import Comparison, Pair
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.shown import Cell, Table
from glimpsezoo.measures.threats import attack_text
from glimpsezoo.reports.paired import print_comparison
from glimpsezoo.reports.table import print_results, terminal
from glimpsezoo.zoo.results import result_type


def estimate(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02, "n": 100, "groups": 100}


def result(name: str, *, attacks: tuple[str, ...] = ("pgd",), verdict: str = "not found", eot: int = 1, **changes: Any) -> Result:
    step = RESULT["accuracy"]["steps"][0]
    steps = [{**step, "step": t, "top1": estimate(0.8 + t / 20)} for t in (1, 2)]
    corrupted = {**RESULT["corruptions"], "by_step": [estimate(0.41), estimate(0.42)], "n": 77, "preset": "64"}
    found = [
        {
            **RESULT["attacks"][0],
            "members": [],
            "attack_converged": None,
            "name": each,
            "by_step": [estimate(0.31), estimate(0.32)],
            "eot": eot,
            "exit_rule": None,
            "looks": None,
            "eps": 8 / 255,
        }
        for each in attacks
    ]
    content = {
        **RESULT,
        "model": {**RESULT["model"], "name": name},
        "accuracy": {**RESULT["accuracy"], "steps": steps},
        "flops": {**RESULT["flops"], "steps": [{"step": 1, "macs": 5e6}, {"step": 2, "macs": 9e6}]},
        "corruptions": corrupted,
        "attacks": found,
        "masking": {"found": verdict == "found", "sure": not verdict.endswith("?"), "checks": {"margin": {"found": verdict == "found"}}},
        **changes,
    }
    return result_type().model_validate(content)


def printed(*results: Result) -> str:
    console = Console(file=io.StringIO(), width=100, highlight=False)
    print_results(results, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_every_step_has_its_accuracy_under_every_condition_and_the_verdict() -> None:
    lines = printed(result("mgnet", verdict="not found?"), result("cnn4")).splitlines()
    assert lines[0].split("  ")[0] == "model"
    assert [word for word in lines[0].split() if word not in "%"] == [
        "model",
        "step",
        "top-1",
        "(95",
        "%)",
        "corrupted",
        "pgd",
        "masking",
        "MACs",
    ]
    assert lines[1].split() == [
        "mgnet",
        "1",
        "85.0",
        "(83.0-87.0)",
        "41.0",
        "(39.0-43.0)",
        "31.0",
        "(29-33)",
        "not",
        "found?",
        "5.000",
        "M",
    ]
    assert lines[2].split() == ["2", "90.0", "(88.0-92.0)", "42.0", "(40.0-44.0)", "32.0", "(30-34)", "9.000", "M"]
    assert lines[3].split()[0] == "cnn4"
    assert "not found " in lines[3]


def test_the_notes_say_what_the_columns_are() -> None:
    text = " ".join(printed(result("mgnet", verdict="found"), result("cnn4")).split())
    assert "corrupted: 77 images under 1 corruption (x; constants for 64 px)." in text
    assert "pgd: Linf 8/255 in pixels, 10 steps, 500 images." in text
    assert "masking: mgnet hides its gradient (margin)." in text
    assert "might turn" not in text
    unsure = " ".join(printed(result("mgnet", verdict="not found?"), result("cnn4")).split())
    assert "other images might turn the verdict on mgnet (?)" in unsure
    assert "The papers' conventions count 6 MACs for mgnet, 6 MACs for cnn4." in text


def test_an_attack_that_differs_by_model_is_told_by_model() -> None:
    text = " ".join(printed(result("mgnet"), result("pyramid", eot=5)).split())
    assert "pgd of mgnet: Linf 8/255 in pixels, 10 steps, 500 images." in text
    assert "pgd of pyramid: Linf 8/255 in pixels, 10 steps, 500 images, 5 samples per gradient." in text


def test_an_attack_in_other_units_than_pixels_is_not_what_the_verdict_is_about() -> None:
    paper = result("mgnet")
    (attack,) = paper.attacks
    text = attack_text(attack.model_copy(update={"space": "normalised"}))
    assert text == "Linf 8/255 in normalised, 10 steps, 500 images, not what masking judges"
    assert "masking" not in attack_text(attack)


def test_many_attacks_have_a_table_of_their_own() -> None:
    names = ("pgd", "apgd-ce", "apgd-dlr", "square", "slowdown")
    results = [result(name, attacks=names) for name in ("mgnet.digits", "cnn4.digits", "ranzato.digits", "pyramid-m3.digits")]
    lines = printed(*results).splitlines()
    assert max(map(len, lines)) <= 100
    for name in names:
        (row,) = [line for line in lines if line.startswith(f"{name} ") and not line.startswith(f"{name} %")]
        assert row.count("32.0 (30-34)") == 4
    (verdicts,) = [line for line in lines if line.startswith("masking of ")]
    assert verdicts.startswith("masking of pgd ")  # only the first attack was judged


def test_equal_accuracy_is_told_with_the_curve() -> None:
    point = RESULT["anytime"]["curve"][0]
    curve = [{**point, "top1": estimate(0.7), "macs_mean": 4e6}, {**point, "rule": "fixed", "top1": estimate(0.9), "macs_mean": 9e6}]
    anytime = {"curve": curve, "area": 0.83, "calibrated_on": "calibration", "equal_accuracy": {"baseline": "cnn4", "macs_ratio": 0.3}}
    text = " ".join(printed(result("mgnet", anytime=anytime)).split())
    assert "mgnet with confidence exits: 70.0 % at 4.000 M MACs to 90.0 % at 9.000 M, mean 83.0 %; as accurate as cnn4 at 0.3" in text
    never = {**anytime, "equal_accuracy": {"baseline": "cnn4", "macs_ratio": None}}
    assert "no point of the curve has the accuracy of cnn4." in " ".join(printed(result("mgnet", anytime=never)).split())


@pytest.mark.parametrize("left_out", [("corruptions",), ("attacks", "masking"), ()])
def test_robustness_alone_has_its_numbers_without_accuracy_and_costs(left_out: tuple[str, ...]) -> None:
    empty = {name: () if name == "attacks" else None for name in ("accuracy", "flops", *left_out)}
    lines = printed(result("mgnet", **empty)).splitlines()
    corrupted, attacked = ([word] if name not in left_out else [] for name, word in (("corruptions", "41.0"), ("attacks", "31.0")))
    assert lines[1].split()[:2] == ["mgnet", "1"]
    assert [word for word in lines[1].split() if word in ("41.0", "31.0")] == [*corrupted, *attacked]
    assert lines[2].split()[0] == "2"
    assert "MACs" not in lines[0]


@pytest.mark.parametrize("name", ["m", "pyramid-imagenet-m1.imagenet100-cmc.a-long-variant.28"])
def test_it_fits_100_columns_whatever_the_name(name: str) -> None:
    assert max(map(len, printed(result(name)).splitlines())) <= 100


# Lower bounds, and which attack a verdict is about


LACKING = {"missing": ("_fft_r2c",)}


def test_a_total_that_lacks_an_operation_is_at_least() -> None:
    text = " ".join(printed(result("fnet", **LACKING), result("cnn4")).split())
    assert ">= 5.000 M" in text
    assert ">= 9.000 M" in text
    assert "The papers' conventions count >= 6 MACs for fnet, 6 MACs for cnn4." in text
    assert "fnet: MACs are lower bounds (>=), for _fft_r2c has no formula." in text
    assert ">=" not in printed(result("cnn4"))


def test_no_ratio_is_made_of_a_lower_bound() -> None:
    point = RESULT["anytime"]["curve"][0]
    curve = [point, {**point, "rule": "fixed"}]
    equal = {"baseline": "fnet", "macs_ratio": None, "missing": ["_fft_r2c", "_fft_c2r"]}
    anytime = {"curve": curve, "area": 0.83, "calibrated_on": "calibration", "equal_accuracy": equal}
    text = " ".join(printed(result("mgnet", anytime=anytime)).split())
    assert "no ratio to the MACs of fnet, for _fft_r2c, _fft_c2r have no formula." in text
    pair = Pair(a="mgnet", b="fnet", n=10, only_a=1, only_b=2, difference=-0.1, low=-0.3, high=0.1, p=0.5)
    for lacking in ({}, LACKING):
        console = Console(file=io.StringIO(), width=200)
        comparison = Comparison(run="abc", data="digits", pairs=(pair,))
        print_comparison(comparison, [result("mgnet"), result("fnet", **lacking)], console)
        assert ("times its MACs" in console.file.getvalue()) == (not lacking)  # type: ignore[attr-defined]


def test_the_interval_of_the_ratio_is_told() -> None:
    def told(**equal: Any) -> str:
        point = RESULT["anytime"]["curve"][0]
        anytime = {"curve": [point, point], "area": 0.8, "calibrated_on": "calibration", "equal_accuracy": {"baseline": "cnn4", **equal}}
        return anytime_text(result("mgnet", anytime=anytime)).partition("; ")[2]

    assert told(macs_ratio=0.335, low=0.29, high=0.41, reached=1.0) == "as accurate as cnn4 at 0.335 times its MACs (0.29 to 0.41)."
    no_end = "as accurate as cnn4 at 0.335 times its MACs (0.29 or more: 12 % of the samples never reach it)."
    assert told(macs_ratio=0.335, low=0.29, high=None, reached=0.88) == no_end
    assert (
        told(macs_ratio=None, low=0.4, high=None, reached=0.1)
        == "no point of the curve has the accuracy of cnn4 (10 % of the samples reach it)."
    )
    assert told(macs_ratio=0.335) == "as accurate as cnn4 at 0.335 times its MACs."  # a result of an older version


def test_a_verdict_stands_beside_no_attack_that_it_did_not_judge() -> None:
    frozen = [attack.model_copy(update={"path": "frozen"}) for attack in result("mgnet").attacks]
    row = printed(result("mgnet", attacks=("pgd",)).model_copy(update={"attacks": tuple(frozen)})).splitlines()[1]
    assert "not checked" in row
    assert "not found" not in row
    assert "not what masking judges" in attack_text(frozen[0])


@pytest.mark.parametrize("how", ["frozen", "L2", "any-step", "normalised"])
def test_the_verdict_stands_behind_the_attack_that_was_judged(how: str) -> None:
    change = {"frozen": {"path": how}, "L2": {"norm": how}, "any-step": {"target": how}, "normalised": {"space": how}}[how]
    one, other = result("mgnet", attacks=("pgd", "square"), verdict="not found?").attacks
    lines = printed(
        result("mgnet", verdict="not found?").model_copy(update={"attacks": (one.model_copy(update=change), other)})
    ).splitlines()
    assert [word for word in lines[0].split() if word in {"pgd", "square", "masking"}] == ["pgd", "square", "masking"]
    assert "not found?" in lines[1]
    swapped = printed(result("mgnet", verdict="not found?").model_copy(update={"attacks": (one, other.model_copy(update=change))}))
    assert [word for word in swapped.splitlines()[0].split() if word in {"pgd", "square", "masking"}] == ["pgd", "masking", "square"]


def test_a_narrow_terminal_folds_cells_and_cuts_off_no_number() -> None:
    names = ("pgd", "apgd-ce", "apgd-dlr", "square", "slowdown")
    results = [result(name, attacks=names) for name in ("mgnet.digits", "cnn4.digits", "ranzato.digits", "pyramid-m3.digits")]
    console = Console(file=io.StringIO(), width=70, highlight=False)
    print_results(results, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert text.count("(30-34)") >= 4 * len(names)


def test_a_table_that_is_too_wide_breaks_neither_numbers_nor_words() -> None:
    name, setting, spread, share = "mgnet.digits", "glimpses=2", "31.67 ± 2.36 (30.00 to 33.33)", "96.7 (89.7-100.0)"
    row = (Cell(name), Cell(setting), Cell(share, 96.7, 89.7, 100.0), Cell("20.721 M", 2.0), Cell(spread, 31.67), Cell("not found?"))
    table = Table(
        "", ("model", "settings", "top-1 %", "MACs", "corrupted %", "masking"), (row,), frozenset({"model", "settings", "masking"})
    )
    wide, narrow = Console(file=io.StringIO(), width=120), Console(file=io.StringIO(), width=80)
    for console in (wide, narrow):
        console.print(terminal(table, console.width))
    whole, lines = wide.file.getvalue(), narrow.file.getvalue().splitlines()
    assert all(text in whole for text in (name, setting, spread, share, "top-1 % (95 %)"))
    assert max(map(len, lines)) <= 80
    pieces = {piece for line in lines for piece in re.split(r"\s\s+", line.strip())}
    assert {"20.721 M", "(30.00 to 33.33)", "31.67 ± 2.36"} <= pieces
    assert not pieces & {"mgnet.digit", "s", "(89.7-100.", "0)"}
