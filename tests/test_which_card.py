"""Cards are identified by their place, evidence is never reduced silently, and results are not mixed up."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Answer, make_card, photo_card, photos, rewrite, sha256, tree
from row_files import read_rows

import glimpsezoo as gz
from glimpsezoo.measures.base import Update
from glimpsezoo.measures.result import Result
from glimpsezoo.reports.readme import card_text
from glimpsezoo.run.parse import parse_measures, scopes
from glimpsezoo.workflows.comparing import read_runs
from glimpsezoo.zoo.cards import Card, find_card
from glimpsezoo.zoo.names import Assignments
from glimpsezoo.zoo.public_names import published_word
from glimpsezoo.zoo.results import evidence, read_result

Say = Callable[..., Answer]
ACCURACY = ("--measure", "accuracy")
FEW = ("--limit", "10", *ACCURACY)
ZOO = Path(__file__).parent.parent / "zoo_cards"


@pytest.fixture
def twins(here: Path) -> Path:
    """Two cards named cnn4.digits with different weights: in the zoo, and at ./c."""
    make_card(here / "zoo_cards" / "cnn4.digits", seed=1)
    rewrite(make_card(here / "c", seed=2), name="cnn4.digits")
    return here


def results(folder: Path) -> dict[str, Result]:
    return {path.parent.name: read_result(path.read_bytes()) for path in folder.glob("*/result.json")}


def test_two_cards_of_one_name_stay_apart_from_run_to_report(say: Say, twins: Path):
    """FAULTS N3."""
    answer = say("run", "c", "cnn4.digits", *FEW, "-o", "r")
    assert answer.status == 0, answer.err
    assert [line.split()[0] for line in answer.out.splitlines()[1:3]] == ["c", "cnn4.digits"]
    found = results(twins / "r")
    uris = {
        name: (each.model.name, each.model.checkpoint.uri, each.model.checkpoint.sha256)
        for name, each in found.items()
        if each.model.checkpoint
    }
    assert uris == {
        "c": ("c", "c", sha256(twins / "c")),
        "cnn4.digits": ("cnn4.digits", "cnn4.digits", sha256(twins / "zoo_cards" / "cnn4.digits")),
    }
    reported = say("report", "r", "--traces", "1", "-o", "r.html")
    assert (reported.status, reported.err) == (0, "")
    assert {entry.name for entry in read_runs(["r"]).entries} == {"c", "cnn4.digits"}


@pytest.mark.parametrize("typed", ["c", "./c", "c/", "{here}/c", "../{name}/c"])
def test_a_card_s_address_is_its_path_from_here_however_it_was_typed(twins: Path, typed: str):
    card = find_card(typed.format(here=twins, name=twins.name))
    assert card is not None
    assert card.called == "c"


def test_a_card_outside_of_the_working_folder_is_named_without_the_machine(say: Say, here: Path, tmp_path_factory: pytest.TempPathFactory):
    far = tmp_path_factory.mktemp("far")
    make_card(far / "x" / "net", seed=1)
    make_card(far / "y" / "net", seed=2)
    answer = say("run", far / "x" / "net", far / "y" / "net", *FEW, "-o", "r", "--json")
    assert [each["model"]["name"] for each in answer.json["results"]] == ["x/net", "y/net"]
    assert [each["model"]["checkpoint"]["uri"] for each in answer.json["results"]] == ["net", "net"]
    assert str(far) not in answer.out
    # command.toml makes the run again, on this machine
    results = [path for path in (here / "r").rglob("*") if path.is_file() and path.name != "command.toml"]
    assert all(str(far).encode() not in path.read_bytes() for path in results)
    reported = say("report", "r", "--traces", "1", "-o", "r.html")  # they are found by their weights
    assert (reported.status, reported.err) == (0, "")
    assert str(far) not in (here / "r.html").read_text()


def test_a_card_that_has_other_weights_by_now_is_not_taken_for_the_one_that_was_measured(say: Say, twins: Path):
    assert say("run", "c", *FEW, "-o", "r").status == 0
    shutil.rmtree(twins / "c")
    rewrite(make_card(twins / "c", seed=3), name="cnn4.digits")
    reported = say("report", "r", "--traces", "1", "-o", "r.html")
    assert reported.status == 0
    assert "c is not shown looking: the card at 'c' has other weights now than those that were measured (another sha256)" in reported.err
    shutil.rmtree(twins / "c")
    reported = say("report", "r", "--traces", "1", "-o", "r.html", "--force")
    assert "c is not shown looking: the card that was measured is not on this machine" in reported.err


def test_results_of_one_name_and_other_weights_are_told_apart(say: Say, here: Path):
    for seed, folder in ((1, "one"), (2, "two")):
        rewrite(make_card(here / folder / "net", seed=seed), name="net")
        assert say("run", here / folder / "net", *FEW, "-o", f"r{folder}").status == 0
    assert [entry.name for entry in read_runs(["rone", "rtwo"]).entries] == ["one/net", "two/net"]
    alike = {name: read_result((here / name).read_bytes()) for name in ("rone/one_net/result.json", "rtwo/two_net/result.json")}
    for path, result in alike.items():
        (here / path).write_text(result.renamed("net").to_json())
    assert [entry.name for entry in read_runs(["rone", "rtwo"]).entries] == ["net, rone", "net, rtwo"]


def test_results_whose_folders_would_have_one_name_have_two(say: Say, here: Path):
    make_card(here / "a" / "b", seed=1)
    make_card(here / "a_b", seed=2)
    answer = say("run", "a/b", "a_b", *FEW, "-o", "r")
    assert answer.status == 0, answer.err
    assert {name: each.model.name for name, each in results(here / "r").items()} == {"a_b": "a/b", "a_b-2": "a_b"}


def test_a_card_s_folder_is_called_by_its_path_in_a_comparison(say: Say, here: Path):
    shutil.copytree(ZOO / "cnn4.digits", here / "mine")
    assert [entry.name for entry in read_runs(["mine"]).entries] == ["mine"]
    assert "mine" in say("compare", "mine").out


def test_a_path_that_was_typed_goes_before_a_training_of_that_name(say: Say, here: Path):
    from glimpsezoo.training.start import find_start

    make_card(here / "runs" / "train" / "c", seed=1)
    make_card(here / "c", seed=2)
    assert sha256(find_start("c").folder) == sha256(here / "c")


# --update-card


@pytest.fixture
def card(here: Path) -> Card:
    """A card trained on a few pictures, at ./zoo_cards/net."""
    photos(here / "photos")
    return photo_card(here / "zoo_cards" / "net")


def test_evidence_is_written_beside_the_weights_under_the_card_s_own_name(say: Say, card: Card, here: Path):
    assert say("run", "zoo_cards/net", *ACCURACY, "--update-card", "-o", "r").status == 0
    found = read_result((card.folder / "result.json").read_bytes())
    assert (card.folder / "README.md").read_text() == card_text(card, found)
    assert found == results(here / "r")["net"]
    unit = read_rows(card.folder / "rows.parquet")
    assert unit is not None
    assert len(unit.rows) == 10
    shutil.move(card.folder, here / "elsewhere")
    assert say("run", "elsewhere", *ACCURACY, "--update-card").status == 0
    found = read_result((here / "elsewhere" / "result.json").read_bytes())
    assert found.model.checkpoint is not None
    assert (found.model.name, found.model.checkpoint.uri) == ("net", "net")


def test_a_part_of_the_images_is_no_evidence(say: Say, card: Card):
    """FAULTS N4."""
    before = tree(card.folder)
    for words in (("--limit", "3"), ("--limit", "3", "--force")):
        answer = say("run", "net", *ACCURACY, "--update-card", *words)
        assert answer.status == 2
        assert answer.err.startswith("glimpsezoo: --update-card expects all images")
        assert ("got --limit 3:" in answer.err, answer.err.count("\n")) == (True, 1)
    assert tree(card.folder) == before


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data", "folder:others"), "got --data folder:others: leave"),
        (("--split", "calibration"), "got --split calibration: leave"),
        (("--set", "data.size=40"), "got data.size=40: leave"),
    ],
)
def test_evidence_is_of_the_card_s_own_data_and_settings(say: Say, here: Path, words: tuple[str, ...], said: str):
    photos(here / "others")
    answer = say("run", "net", *ACCURACY, "--update-card", *words)
    assert answer.status == 2
    assert said in answer.err
    make_card(here / "zoo_cards" / "mgnet.digits", "mgnet", glimpses=2)
    answer = say("run", "mgnet", *ACCURACY, "--update-card", "--set", "policy=centre", "--force")
    assert "--update-card expects mgnet.digits with its own settings, got policy=centre: leave" in answer.err


def test_fewer_measures_than_the_evidence_has_are_refused_and_named(say: Say, card: Card):
    whole = ("--measure", "accuracy,flops,fog,fgsm:4/255,fgsm")
    assert say("run", "net", *whole, "--update-card").status == 0
    before = tree(card.folder)
    answer = say("run", "net", "--measure", "accuracy,fog:3,fgsm", "--update-card")
    assert answer.status == 2
    for lost in ("flops", "corrupted by fog", "fgsm (Linf 4/255 in pixels, 1 step"):
        assert lost in answer.err
    assert "Linf 8/255" not in answer.err
    assert "(it was measured by 'glimpsezoo run net --measure accuracy,flops,fog" in answer.err
    assert tree(card.folder) == before
    assert say("run", "net", *whole, "--update-card").status == 0  # the same measures lose nothing
    assert say("run", "net", "--measure", "accuracy", "--update-card", "--force").status == 0
    left = read_result((card.folder / "result.json").read_bytes())
    assert (left.flops, left.corruptions, left.attacks) == (None, None, ())


def test_the_attacks_of_the_evidence_are_kept_by_the_same_command_and_by_no_weaker_one():
    """The model is stochastic, so its evidence has more samples per gradient than the setting says."""
    card = find_card(str(ZOO / "pyramid-m3.digits"))
    assert card is not None
    known = evidence(card)
    assert known is not None

    def lost(*sets: str) -> list[str]:
        measure, *_ = parse_measures(["attacks"], Assignments.parse(sets, [], scopes=scopes()))
        return list(measure.lost(known.attacks, Update(gz.load(str(card.folder)), baseline=False, published=False)))

    assert (known.attacks[0].n, known.attacks[0].settings["rounds"]) == (64, 3)
    for same in ((), ("worst-case.images=64", "worst-case.rounds=3"), ("worst-case.eps=8/255",)):
        assert lost(*same) == []
    for weaker in (
        "worst-case.images=63",
        "worst-case.rounds=2",
        "worst-case.rounds=1",
        "worst-case.eps=7/255",
        "worst-case.evaluations=1",
    ):
        (said,) = lost(weaker)
        assert said.startswith("worst-case (Linf 8/255 in pixels, worst of 7 attacks of 32 + 64 + 128 steps, 64 images")


def test_a_table_never_prints_the_images_of_another_run(say: Say, here: Path):
    """FAULTS N4: `compare` of two results of the same split, one of them limited."""
    make_card(here / "zoo_cards" / "cnn4.digits")
    make_card(here / "zoo_cards" / "cnn4.other", seed=2)
    measure = ("--measure", "accuracy,brightness:3")
    assert say("run", "cnn4.digits", "--limit", "20", *measure, "-o", "a").status == 0
    assert say("run", "cnn4.other", "--limit", "10", *measure, "-o", "b").status == 0
    out = " ".join(say("compare", "a", "b").out.split())
    assert "cnn4.digits: digits test: 20 images" in out
    assert "cnn4.other: digits test: 10 images" in out
    assert "corrupted of cnn4.digits: 20 images" in out
    assert "corrupted of cnn4.other: 10 images" in out


def test_a_pattern_over_runs_takes_the_runs_and_says_what_is_none(say: Say, here: Path):
    """FAULTS F21: the example of `compare --help`, after a training and a run."""
    make_card(here / "runs" / "train" / "cnn4.digits")
    assert say("run", "runs/train/cnn4.digits", *FEW).status == 0
    (here / "runs" / "report.html").write_text("")
    every = sorted(str(path.relative_to(here)) for path in (here / "runs").glob("*") if not path.name.startswith("."))
    answer = say("compare", *every, "--format", "csv")
    assert answer.status == 0, answer.err
    assert answer.out.splitlines()[1].startswith("runs/train/cnn4.digits,")
    (note,) = answer.err.splitlines()
    assert note.startswith("left out")
    assert note.endswith("result.json: runs/report.html, runs/train")
    alone = say("compare", "runs/train")
    assert (alone.status, "expected a folder with result.json, or a card, got 'runs/train'" in alone.err) == (2, True)
    missing = say("compare", *every, "runs/nothing")
    assert (missing.status, "got 'runs/nothing'" in missing.err) == (2, True)


def test_two_cards_of_one_name_cannot_stand_in_one_row_of_a_paper(say: Say, twins: Path):
    answer = say("compare", "--paper", "c", "zoo_cards/cnn4.digits")
    assert answer.status == 2
    assert "expected one card 'cnn4.digits' for each seed, got two of seed 0" in answer.err


@pytest.mark.parametrize(
    ("typed", "published"),
    [
        ("folder:/home/me/coin", "folder:coin"),
        ("--data=folder:photos/coin", "--data=folder:coin"),
        ("hf:me/set", "hf:me/set"),
        ("hf-hub:me/net@v1", "hf-hub:me/net@v1"),
        ("runs/train/net", "runs/train/net"),
        ("-o/home/me/out", "-oout"),
        ("--output=/home/me/out", "--output=out"),
        ("~/out", "out"),
        ("../out", "out"),
        ("a/../../out", "out"),
        ("corruptions.baseline=/home/me/result.json", "corruptions.baseline=result.json"),
        ("train.start=/home/me/card", "train.start=card"),
        ("pgd:4/255", "pgd:4/255"),
        ("accuracy,pgd:4/255:100", "accuracy,pgd:4/255:100"),
    ],
)
def test_what_was_typed_is_published_without_the_machine(here: Path, typed: str, published: str):
    (here / "me" / "set").mkdir(parents=True)  # a folder of a data set's name changes nothing
    assert published_word(typed) == published
    assert json.dumps(published)
