"""`glimpsezoo compare`: results side by side in every format, with paired tests where possible."""

import csv
import io
import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from command_line import ask
from result_files import put, result, rows

from glimpsezoo.measures.result import Data
from glimpsezoo.measures.shown import Entry
from glimpsezoo.measures.threats import Convergence, masking_text
from glimpsezoo.reports.leaderboard import leaderboard
from glimpsezoo.reports.paired import pair_texts
from glimpsezoo.reports.seeds import by_seeds
from glimpsezoo.reports.table import board, comma_separated, latex, markdown
from glimpsezoo.workflows.comparing import read_runs
from glimpsezoo.zoo.results import read_result, result_type

ZOO = Path(__file__).parent.parent / "zoo_cards"
A, B = [1, 1, 1, 1, 0, 1, 1, 1], [1, 0, 0, 1, 1, 0, 0, 0]  # a alone is right five times, b once


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with two models."""
    put(tmp_path / "run" / "mgnet", result("mgnet", eps=8 / 255), rows(A))
    put(tmp_path / "run" / "cnn4", result("cnn4", top1=0.8, eps=8 / 255, verdict="not found?"), rows(B))
    return tmp_path / "run"


def test_a_run_a_model_of_it_a_file_and_a_card_are_read(run: Path):
    named = {
        "the run": (str(run), ["cnn4", "mgnet"]),
        "a model of it": (str(run / "mgnet"), ["mgnet"]),
        "its file": (str(run / "mgnet" / "result.json"), ["mgnet"]),
        "a card's name": ("cnn4.digits", ["cnn4.digits"]),
        "a card's folder": (str(ZOO / "mgnet.digits"), ["mgnet.digits"]),
    }
    for what, (name, names) in named.items():
        assert [entry.name for entry in read_runs([name]).entries] == names, what
    assert len(read_runs([str(run), str(run / "mgnet")]).entries) == 2  # named twice, shown once


def test_pairs_are_tested_image_by_image(run: Path):
    (comparison,) = read_runs([str(run)]).comparisons
    pair = next(pair for pair in comparison.pairs if (pair.a, pair.b) == ("cnn4", "mgnet"))
    assert (pair.n, pair.only_a, pair.only_b, pair.difference) == (8, 1, 5, -0.5)
    assert pair.p == pytest.approx((1 + 6) / 2**6)  # at most one head in six tosses
    assert {(pair.a, pair.b) for pair in comparison.pairs} == {("cnn4", "mgnet"), ("mgnet", "cnn4")}


def test_a_smaller_run_is_tested_on_the_images_that_both_have(run: Path, tmp_path: Path):
    smaller = result("ranzato")
    data = smaller.data.model_copy(update={"fingerprint": "00-limit3"})
    put(tmp_path / "few" / "ranzato", smaller.model_copy(update={"data": data}), rows([0, 0, 1], ids=[1, 2, 20]))
    compared = read_runs([str(run / "mgnet"), str(tmp_path / "few")])
    (pair, _) = compared.pairs
    assert (pair.a, pair.b, pair.n, pair.only_a) == ("mgnet", "ranzato", 2, 2)


def test_what_cannot_be_tested_is_said(run: Path, tmp_path: Path):
    other: Data = result("x").data.model_copy(update={"name": "mnist"})
    put(tmp_path / "mnist" / "far", result("far").model_copy(update={"data": other}), rows(A))
    put(tmp_path / "bare" / "bare", result("bare"))
    put(tmp_path / "apart" / "apart", result("apart"), rows([1, 0], ids=[90, 91]))
    compared = read_runs([str(run), *(str(tmp_path / name) for name in ("mnist", "bare", "apart"))])
    assert {name for pair in compared.pairs for name in (pair.a, pair.b)} == {"mgnet", "cnn4"}
    said = " ".join(compared.notes)
    assert "no paired test: bare" in said
    assert "expected cnn4 and apart measured on the same images, got none in common" in said
    assert "different images are not tested" in said


def test_the_same_model_of_several_runs_is_told_apart(run: Path, tmp_path: Path):
    put(tmp_path / "second" / "mgnet", result("mgnet", run="def"), rows(B))
    untrained = result("mgnet", run="ghi")
    put(tmp_path / "third" / "mgnet", untrained.model_copy(update={"model": untrained.model.model_copy(update={"checkpoint": None})}))
    names = [entry.name for entry in read_runs([str(tmp_path / name) for name in ("run", "second", "third")]).entries]
    assert names == ["cnn4", "mgnet, run", "mgnet, second", "mgnet (untrained)"]
    shutil.copytree(run, tmp_path / "copy")
    names = [entry.name for entry in read_runs([str(run / "mgnet"), str(tmp_path / "copy" / "mgnet")]).entries]
    assert names == ["mgnet, run", "mgnet, copy"]


def test_cells_of_a_grid_are_named_by_what_tells_them_apart(tmp_path: Path):
    cells = ["mgnet,digits,clean,noise-seed=0", "mgnet,digits,clean,noise-seed=1", "mgnet,digits,fog_3,noise-seed=0"]
    for place, cell in enumerate(cells):
        one = result("mgnet", run=str(place))
        put(tmp_path / cell / "mgnet", one.model_copy(update={"run": one.run.model_copy(update={"seed": place % 2})}))
    entries = read_runs([str(tmp_path / cell) for cell in cells]).entries
    assert [entry.name for entry in entries] == ["mgnet, clean, noise-seed=0", "mgnet, clean, noise-seed=1", "mgnet, fog_3, noise-seed=0"]
    assert next(group.name for group in by_seeds(entries)) == "mgnet, clean"


def test_a_model_is_not_tested_against_itself(run: Path, tmp_path: Path):
    put(tmp_path / "again" / "mgnet", result("mgnet", run="def"), rows(B))
    pairs = {(pair.a, pair.b) for pair in read_runs([str(run), str(tmp_path / "again")]).pairs}
    mine = {"mgnet, run", "mgnet, again"}
    assert pairs == {(a, b) for a in {"cnn4", *mine} for b in {"cnn4", *mine} if a != b and not {a, b} <= mine}


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "latex", "json"])
def test_attacked_accuracy_never_stands_without_its_verdict(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path, form: str):
    put(tmp_path / "old" / "old", result("old", eps=8 / 255, verdict=None))
    answer = ask(capsys, "compare", run, tmp_path / "old", "--format", form)
    assert answer.status == 0, answer.err
    if form == "json":
        assert [each["masking"] and each["masking"]["sure"] for each in answer.json["results"]] == [False, True, None]
    else:
        assert "masking" in answer.out
        assert "not found?" in answer.out
        assert "not checked" in answer.out


def test_a_csv_has_the_results_numbers(run: Path):
    compared = read_runs([str(run), "mgnet.digits"])
    lines = list(csv.DictReader(io.StringIO(comma_separated(board(compared.entries)))))
    assert [line["model"] for line in lines] == ["cnn4", "mgnet", "mgnet.digits"]
    for line, entry in zip(lines, compared.entries, strict=True):
        accuracy = entry.result.accuracy
        assert accuracy is not None
        assert [float(line[f"top-1 %{end}"]) for end in ("", " low", " high")] == pytest.approx(
            [100 * accuracy.top1.value, 100 * accuracy.top1.low, 100 * accuracy.top1.high]
        )
    assert [line["pgd Linf 8/255, 10 steps %"] for line in lines[:2]] == ["31.0", "31.0"]
    assert [line["masking of pgd Linf 8/255, 10 steps"] for line in lines[:2]] == ["not found?", "not found"]
    card = compared.entries[2].result
    assert card.corruptions is not None
    assert card.corruptions.mce is not None
    assert float(lines[2]["mCE %"]) == pytest.approx(card.corruptions.mce.value)
    assert card.masking is not None
    assert lines[2][f"masking of {card.attacks[0].full_name}"] == masking_text(card, card.attacks[0])
    assert float(lines[1]["MACs"]) == 1e7


def test_csv_says_which_attack_has_not_converged(capsys: pytest.CaptureFixture[str], run: Path):
    """Where other formats mark the number '<='."""
    assert "upper bound" not in ask(capsys, "compare", run, "--format", "csv").out
    taken = {"value": 0.3, "low": 0.2, "high": 0.4, "n": 100, "groups": 100}
    for name, converged in (("weak", False), ("strong", True)):
        found = result(name, eps=8 / 255)
        gain = {**taken, "value": 0.01, "low": 0.0, "high": 0.05} if converged else taken
        told = Convergence.model_validate({"converged": converged, "gain": gain})
        attack = found.attacks[0].model_copy(update={"attack_converged": told})
        put(run / name, found.model_copy(update={"attacks": (attack,)}), rows(A))
    lines = {line["model"]: line for line in csv.DictReader(io.StringIO(ask(capsys, "compare", run, "--format", "csv").out))}
    column = "pgd Linf 8/255, 10 steps % is an upper bound"
    assert {name: line[column] for name, line in lines.items()} == {"weak": "yes", "strong": "no", "cnn4": "no", "mgnet": "no"}
    assert float(lines["weak"]["pgd Linf 8/255, 10 steps %"]) == pytest.approx(31)
    assert f'"{column}"' in unquote(leaderboard(read_runs([str(run)]).entries))  # what its page saves


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "latex"])
def test_lower_bounds_are_marked_and_never_divided(capsys: pytest.CaptureFixture[str], tmp_path: Path, form: str):
    put(tmp_path / "run" / "mgnet", result("mgnet").model_copy(update={"anytime": None}), rows(A))
    lacking = result("fnet").model_copy(update={"missing": ("fft",), "anytime": None})
    put(tmp_path / "run" / "fnet", lacking, rows(B))
    answer = ask(capsys, "compare", tmp_path / "run", "--format", form)
    assert answer.status == 0, answer.err
    assert "fft" in answer.out
    assert ">= 10.000 M" in answer.out or form == "csv"
    assert "times its MACs" not in answer.out


def test_markdown_has_a_cell_for_every_column_and_a_line_for_every_pair(capsys: pytest.CaptureFixture[str], run: Path):
    compared = read_runs([str(run)])
    lines = ask(capsys, "compare", run, "--format", "markdown").out.splitlines()
    assert {line.count("|") for line in lines[:4]} == {len(board(compared.entries).headings) + 1}
    assert lines[4] == ""
    assert lines[5].startswith("- cnn4 against mgnet: -50.00 points")
    assert len(lines) == 6


def test_two_models_in_the_cells_of_a_grid_are_compared_in_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Unless other noise led to another outcome."""
    for cell in ("clean", "fog"):
        for name, hits in (("cnn4", B), ("mgnet", A)):
            put(tmp_path / cell / name, result(name, run=cell), rows(hits))
    compared = read_runs([str(tmp_path / cell) for cell in ("clean", "fog")])
    (said,) = pair_texts(compared.entries, compared.pairs)
    assert said.startswith("cnn4, clean against mgnet, clean: -50.00 points")
    assert len(compared.pairs) == 8
    put(tmp_path / "noisy" / "mgnet", result("mgnet", run="noisy"), rows([1, *A[1:-1], 0]))
    compared = read_runs([str(tmp_path / cell) for cell in ("clean", "fog", "noisy")])
    assert len(pair_texts(compared.entries, compared.pairs)) == 2


EVIL = "<b>|`a_b*c` & 100% \\ #1 {x}"


def test_names_are_quoted_as_each_format_asks():
    entries = [Entry(EVIL, result(EVIL)), Entry('=1+"1",2', result("x"))]
    table = markdown(board(entries))
    assert "&lt;b>\\|\\`a_b\\*c\\` &amp; 100% \\\\ \\#1 {x}" in table
    assert "<b" not in table
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()} == {len(board(entries).headings) + 1}
    text = latex(board(entries))
    assert r"<b>|`a\_b*c` \& 100\% \textbackslash{} \#1 \{x\}" in text
    assert [line.count(" & ") for line in text.splitlines() if line.endswith("\\\\")] == [len(board(entries).headings) - 1] * 3
    first, second = list(csv.reader(io.StringIO(comma_separated(board(entries)))))[1:]
    assert (first[0], second[0]) == (EVIL, '\'=1+"1",2')  # nothing that a spreadsheet runs


def test_json_is_the_results_and_the_pairs(capsys: pytest.CaptureFixture[str], run: Path):
    content = ask(capsys, "compare", run, "--json").json
    first = content["results"][0]
    assert first.pop("name") == "cnn4"
    assert result_type().model_validate(first) == read_result((run / "cnn4" / "result.json").read_bytes())
    assert len(content["comparisons"][0]["pairs"]) == 2


def test_the_table_has_every_step_and_fits(capsys: pytest.CaptureFixture[str], run: Path):
    lines = ask(capsys, "compare", run).out.splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split()[:2] for line in lines if re.match(r"(cnn4|mgnet) +1 +\d+\.\d \(", line)] == [["cnn4", "1"], ["mgnet", "1"]]
    assert any(line.startswith("cnn4 against mgnet: -50.00 points") for line in lines)


def test_what_is_no_run_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "result.json").write_text(json.dumps({"schema": 1, "run": 3}))
    unmeasured = shutil.copytree(ZOO / "cnn4.digits", tmp_path / "cnn4.digits")
    (unmeasured / "result.json").unlink()
    stale = shutil.copytree(ZOO / "cnn4.digits", tmp_path / "stale")
    content = json.loads((stale / "result.json").read_text())
    content["model"]["checkpoint"]["sha256"] = "0" * 64
    (stale / "result.json").write_text(json.dumps(content))
    wrong = {
        (): "expected a run or a card, got none",
        ("nothing-like-it",): "expected a folder with result.json, or a card, got 'nothing-like-it'",
        (str(broken),): "expected a result.json of schema 1",
        (str(unmeasured),): "expected a measured card",
        (str(stale),): "the result.json of card 'stale' is not of its weights",
        (str(tmp_path / "broken"), "--format", "word"): "'word' is not one of",
    }
    for words, said in wrong.items():
        answer = ask(capsys, "compare", *words)
        assert (answer.status, answer.err.count("\n")) == (2, 1), answer.err
        assert said in answer.err
