"""`--dry-run`: the plan of a run or a training, what is done already and the time; nothing is started or written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import RECIPE, TINY, Answer, make_card, tree

Ask = Callable[..., Answer]
TRAIN = ("train", "mgnet", "--recipe", "tiny.toml", *TINY, "-o", "mine")


@pytest.fixture
def cards(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("command_line.quickly", lambda texts: texts)
    monkeypatch.setenv("GLIMPSEZOO_HOME", str(here / "home"))
    make_card(here / "zoo_cards" / "mgnet.digits", "mgnet", glimpses=2, backbone="cnn4", downsample=4)
    make_card(here / "zoo_cards" / "cnn4.digits")
    (here / "tiny.toml").write_text(RECIPE)
    return here


def planned(say: Ask, *words: str) -> dict[str, Any]:
    answer = say("run", *words, "--dry-run", "--json")
    assert answer.status == 0, answer.err
    return answer.json


def shares(plan: dict[str, Any]) -> dict[tuple[str, str], tuple[int, int]]:
    return {(share["model"], share["measure"]): (share["units"], share["stored"]) for share in plan["plan"]}


def test_a_dry_run_counts_the_units_that_are_stored_and_writes_nothing(say: Ask, cards: Path):
    words = ("mgnet", "cnn4", "--limit", "20", "--measure", "accuracy,fog:1,fog:3")
    before = tree(cards)
    plan = planned(say, *words)
    assert tree(cards) == before
    nothing = {
        (f"{model}.digits", measure): (units, 0) for model in ("mgnet", "cnn4") for measure, units in (("accuracy", 1), ("corruptions", 2))
    }
    assert shares(plan) == nothing
    assert (plan["units"], plan["stored"], plan["seconds"]) == (6, 0, None)

    assert say("run", "cnn4", "--limit", "20", "--measure", "accuracy,fog:1").status == 0
    before = tree(cards)
    plan = planned(say, *words)
    assert shares(plan) == nothing | {("cnn4.digits", "accuracy"): (1, 1), ("cnn4.digits", "corruptions"): (2, 1)}
    assert plan["seconds"] is None  # nothing of mgnet is measured
    assert 0 < planned(say, "cnn4", *words[2:])["seconds"] < 60
    assert shares(planned(say, *words, "--fresh")) == nothing
    told = say("run", *words, "--dry-run")
    assert "6 units, 2 stored; time: unknown, because no unit of mgnet.digits has been measured" in told.out
    assert tree(cards) == before

    done = say("run", *words)
    assert "4 units measured, 2 reused" in done.err
    assert planned(say, *words)["stored"] == 6
    assert "6 units, 6 stored; time: none" in say("run", *words, "--dry-run").out


def test_thresholds_that_are_not_found_yet_are_said(say: Ask, cards: Path):
    words = ("mgnet", "--limit", "20", "--measure", "accuracy,anytime")
    plan = planned(say, *words)
    assert shares(plan) == {("mgnet.digits", "calibration"): (1, 0), ("mgnet.digits", "accuracy"): (1, 0)}
    assert "anytime may have more units" in plan["notes"][-1]
    say("run", *words)
    after = planned(say, *words)
    assert ("mgnet.digits", "anytime") in shares(after)
    assert after["units"] == after["stored"] > 2
    assert after["notes"] == []


def test_thresholds_are_found_only_for_attacks_on_the_exit(say: Ask, cards: Path):
    found = {attack: shares(planned(say, "mgnet", "--limit", "20", "--measure", attack)) for attack in ("fgsm", "slowdown")}
    assert {attack: ("mgnet.digits", "calibration") in plan for attack, plan in found.items()} == {"fgsm": False, "slowdown": True}


def test_a_dry_run_deletes_nothing_and_refuses_what_a_run_refuses(say: Ask, cards: Path):
    assert say("run", "cnn4", "--limit", "20", "--measure", "accuracy", "-o", "out").status == 0
    before = tree(cards)
    other = ("run", "cnn4", "--limit", "10", "--measure", "accuracy", "-o", "out", "--dry-run")
    assert "expected a folder of this run" in say(*other).err
    assert say(*other, "--force").status == 0
    assert tree(cards) == before
    assert "nothing of it is stored" in say("run", "cnn4", "--checkpoint", "none", "--measure", "flops", "--dry-run").err


def test_a_dry_training_says_what_the_folder_has_and_writes_nothing(say: Ask, cards: Path, monkeypatch: pytest.MonkeyPatch):
    before = tree(cards)
    plan = say(*TRAIN, "--dry-run", "--json").json
    assert tree(cards) == before
    assert (plan["card"], plan["folder"], plan["images"]) == ("mgnet.digits", "mine", 1084)
    assert plan["phases"] == [{"name": "joint", "epochs": 2, "steps": 34, "done": 0}]
    assert (plan["steps"], plan["done"], plan["seconds"]) == (34, 0, None)
    assert plan["recipe"]["phase"][0]["optimiser"] == "adamw"

    stop_after(monkeypatch, 5)
    assert say(*TRAIN).status == 130
    before = tree(cards)
    plan = say(*TRAIN, "--dry-run", "--json").json
    assert (plan["phases"][0]["done"], plan["done"]) == (5, 5)
    assert plan["seconds"] > 0
    told = say(*TRAIN, "--dry-run").out
    assert "34 steps, 5 done: it would resume from its checkpoint; time: about" in told
    assert say(*TRAIN, "--dry-run", "--fresh", "--json").json["done"] == 0
    assert "holds the checkpoint of another training" in say(*TRAIN, "--seed", "5", "--dry-run").err
    assert tree(cards) == before


def stop_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Ctrl-C between two steps of a training."""
    import glimpsezoo.training.work as work

    plain = work.train

    def train(job: Any, *more: Any) -> Any:
        lines = plain(job, *more)
        try:
            for number, line in enumerate(lines, 1):
                yield line
                if number == steps:
                    raise KeyboardInterrupt
        finally:
            lines.close()

    patch.setattr(work, "train", train)
