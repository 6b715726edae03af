"""`run`: it measures, writes what it measured, goes on where it was stopped, and says what it did where it belongs."""

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import TINY, Answer, make_card, rewrite, tree
from jsonschema import Draft202012Validator
from PIL import Image
from row_files import read_rows
from test_records import RESULT

from glimpsezoo.conditions.base import Clean
from glimpsezoo.measures.pairs import Comparison
from glimpsezoo.measures.result import Result
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.models import create_model
from glimpsezoo.zoo.results import read_result, result_type

ROOT = Path(__file__).parents[1]
SCHEMA = Draft202012Validator(json.loads((ROOT / "docs" / "result.schema.json").read_text()))
SMALL = ("--limit", "30")
UNTRAINED = ("--checkpoint", "none")

Ask = Callable[..., Answer]


@pytest.fixture
def units_of_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glimpsezoo.evaluation.jobs.UNIT", 10)


def misbehave(patch: pytest.MonkeyPatch, error: BaseException, block: int = 2) -> None:
    """Let the images of the n-th block of ten (in the data's order) raise."""
    seen: list[int] = []
    plain = Clean.apply

    def apply(self: Clean, images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor, model: Any) -> torch.Tensor:
        seen.append(len(ids))
        if sum(seen) > 10 * (block - 1) and sum(seen) <= 10 * block:
            raise error
        return plain(self, images, labels, ids, model)

    patch.setattr(Clean, "apply", apply)


def result(folder: Path, model: str) -> Result:
    return read_result((folder / model / "result.json").read_bytes())


def test_a_measure_or_a_model_that_breaks_fails_alone(run: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    """The rest is measured, and each result says what is missing from it and why."""

    def breaks(*given: Any, **more: Any) -> None:
        raise ValueError("broke")

    with monkeypatch.context() as patch:
        patch.setattr("glimpsezoo.measures.speed.speed_section", breaks)
        answer = run("cnn4", *UNTRAINED, *SMALL, "--measure", "accuracy,speed", "-o", "one")
    assert answer.status == 1
    assert "1 unit FAILED (broke; all errors are in result.json)" in answer.err
    found = result(here / "one", "cnn4")
    assert [(each.measure, each.unit, each.error) for each in found.errors] == [("speed", "speed", "broke")]
    assert (found.run.status, found.accuracy is None, found.speed) == ("failed", False, None)

    with monkeypatch.context() as patch:  # what is made of the measured units at the end
        patch.setattr("glimpsezoo.measures.speed.SpeedMeasure.section", breaks)
        answer = run("cnn4", *UNTRAINED, *SMALL, "--measure", "accuracy,speed", "-o", "end")
    assert (answer.status, "unexpected" in answer.err) == (1, False), answer.err
    found = result(here / "end", "cnn4")
    (failure,) = found.errors
    assert re.search(r"the measure speed of glimpsezoo \S+ gave no section \(ValueError: broke\)", failure.error)
    assert failure.error in answer.err
    assert (failure.measure, found.run.status, found.accuracy is None, found.speed) == ("speed", "failed", False, None)

    mgnet = type(create_model("mgnet", data="digits"))
    monkeypatch.setattr(mgnet, "fuse", breaks)
    answer = run("cnn4", "mgnet", *UNTRAINED, *SMALL, "--measure", "accuracy,anytime,flops", "-o", "two")
    assert (answer.status, "unexpected" in answer.err) == (1, False), answer.err
    assert result(here / "two", "cnn4").run.status == "done"
    broken = result(here / "two", "mgnet")
    assert (broken.run.status, broken.accuracy) == ("failed", None)
    assert "mgnet: no thresholds of early exits (broke)" in broken.notes


def only_run(here: Path) -> Path:
    """The one folder in runs/."""
    (folder,) = (path for path in (here / "runs").iterdir() if path.name != ".units")
    return folder


def numbers(folder: Path, model: str) -> tuple[Any, ...]:
    """All that was measured, without who measured it and when."""
    found, unit = result(folder, model), read_rows(folder / model / "rows.parquet")
    assert unit is not None
    return found.accuracy, found.flops, unit.rows.to_table()


def violations(content: Any) -> list[str]:
    """Where a JSON value breaks the schema of result.json."""
    return [f"{error.json_path}: {error.message}" for error in SCHEMA.iter_errors(content)]


def test_several_models_give_a_table_their_results_and_a_comparison(run: Ask, here: Path):
    answer = run("cnn4", "mgnet", *UNTRAINED, *TINY, *SMALL)
    assert answer.status == 0
    lines = answer.out.splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split()[:3] for line in lines if line.startswith(("cnn4 (", "mgnet ("))] == [
        ["cnn4", "(untrained)", "1"],
        ["mgnet", "(untrained)", "1"],
    ]
    assert "cnn4 against mgnet: " in answer.out
    assert "accuracy, flops of cnn4, mgnet on digits test: 30 images per model, about" in answer.err
    assert f"2 units measured, 0 reused; results in {only_run(here).relative_to(here)}" in answer.err

    folder = only_run(here)
    for name, steps in (("cnn4", 1), ("mgnet", 2)):
        found = result(folder, name)
        assert violations(json.loads((folder / name / "result.json").read_text())) == []
        assert (found.run.id, found.run.status, found.run.limit, found.model.checkpoint) == (folder.name, "done", 30, None)
        assert found.accuracy is not None
        assert found.flops is not None
        assert (found.accuracy.top1.n, len(found.accuracy.steps), len(found.flops.steps)) == (30, steps, steps)
        assert f" {100 * found.accuracy.top1.value:.1f} " in answer.out
    comparison = Comparison.model_validate_json((folder / "comparison.json").read_bytes())
    assert [(pair.a, pair.b, pair.n) for pair in comparison.pairs] == [("cnn4", "mgnet", 30), ("mgnet", "cnn4", 30)]


def test_the_schema_is_one_and_refuses_what_no_run_writes():
    Draft202012Validator.check_schema(SCHEMA.schema)
    found = violations({"schema": 2, "run": {"colour": "red"}})
    assert any(line.startswith("$: 'model' is a required property") for line in found)
    assert any("'colour' was unexpected" in line for line in found)
    assert any(line.startswith("$.schema: ") for line in found)


def test_a_result_with_every_section_fits_the_schema():
    assert violations(json.loads(result_type().model_validate(RESULT).to_json())) == []


def test_json_alone_is_on_standard_output(run: Ask, here: Path):
    printed = run("cnn4", "mgnet", *UNTRAINED, *TINY, *SMALL, "--json").json
    folder = only_run(here)
    assert printed["results"] == [json.loads((folder / name / "result.json").read_text()) for name in ("cnn4", "mgnet")]
    assert printed["comparison"] == json.loads((folder / "comparison.json").read_text())


def test_one_model_has_no_comparison(run: Ask, here: Path):
    assert run("cnn4", *UNTRAINED, *SMALL, "--json").json["comparison"] is None
    assert not (only_run(here) / "comparison.json").exists()


@pytest.mark.usefixtures("units_of_ten")
def test_stopped_and_run_again_it_goes_on_and_ends_with_the_same_numbers(run: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    words = ("mgnet", *UNTRAINED, *TINY, *SMALL, "--batch-size", "5")
    with monkeypatch.context() as patch:
        misbehave(patch, KeyboardInterrupt())
        stopped = run(*words)
    assert (stopped.status, stopped.out) == (130, "")
    assert stopped.err.endswith("glimpsezoo: stopped; finished units are kept: the same command resumes here\n")
    assert [name for name in tree(here) if name.endswith(("result.json", "rows.parquet"))] == []

    again = run(*words)
    assert "30 images per model" in again.err
    assert "(1 unit measured already)" in again.err
    assert "2 units measured, 1 reused" in again.err
    folder = only_run(here)
    assert (result(folder, "mgnet").run.units.done, result(folder, "mgnet").run.units.reused) == (2, 1)

    whole = run(*words, "--fresh", "-o", "whole")
    assert "3 units measured, 0 reused" in whole.err
    assert numbers(folder, "mgnet") == numbers(here / "whole", "mgnet")
    assert again.out == whole.out


@pytest.mark.usefixtures("units_of_ten")
def test_what_is_measured_is_reused_whatever_the_batch(run: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    words = ("mgnet", *UNTRAINED, *TINY, *SMALL)
    first = run(*words)
    with monkeypatch.context() as patch:
        misbehave(patch, AssertionError("measured again"), block=1)
        second = run(*words, "--batch-size", "7")
    assert (second.status, second.out) == (0, first.out)
    assert "(3 units measured already)" in second.err
    assert "0 units measured, 3 reused" in second.err
    assert "3 units measured, 0 reused" in run(*words, "--fresh").err
    seeded = run(*words, "--seed", "1")
    assert "3 units measured, 0 reused" in seeded.err
    assert seeded.out != first.out  # other weights


@pytest.mark.usefixtures("units_of_ten")
def test_a_block_that_fails_is_status_1_and_the_others_are_done(run: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    words = ("cnn4", "mgnet", *UNTRAINED, *TINY, *SMALL, "--batch-size", "10")
    with monkeypatch.context() as patch:
        misbehave(patch, RuntimeError("the second block\nis cursed"))
        failed = run(*words)
    assert failed.status == 1
    assert "5 units measured, 0 reused, 1 unit FAILED (the second block is cursed; all errors are in result.json)" in failed.err
    assert "mgnet (untrained)" in failed.out
    folder = only_run(here)
    broken, whole = result(folder, "cnn4"), result(folder, "mgnet")
    assert broken.run.status == "failed"
    assert [(error.images, error.error) for error in broken.errors] == [((10, 20), "the second block is cursed")]
    assert broken.accuracy is not None
    assert broken.accuracy.top1.n == 20
    assert (whole.run.status, whole.errors) == ("done", ())

    mended = run(*words)
    assert mended.status == 0
    assert "1 unit measured, 5 reused" in mended.err
    assert result(folder, "cnn4").run.status == "done"


def test_a_model_that_fails_on_every_image_is_named_in_the_table(run: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        misbehave(patch, RuntimeError("cursed"), block=1)
        failed = run("cnn4", "mgnet", *UNTRAINED, *TINY, "--limit", "10")
    assert failed.status == 1
    assert "cnn4 (untrained)   failed" in failed.out
    assert "mgnet (untrained)" in failed.out
    assert sorted(path.name for path in (only_run(here) / "cnn4").iterdir()) == ["result.json"]
    assert not (only_run(here) / "comparison.json").exists()


def test_force_clears_away_another_run_and_its_comparison(run: Ask, here: Path):
    flops = ("--measure", "flops")
    run("cnn4", "mgnet", *UNTRAINED, *TINY, *SMALL, "-o", "mine")
    assert run("cnn4", *UNTRAINED, *flops, "-o", "mine").status == 2
    assert run("cnn4", *UNTRAINED, *flops, "-o", "mine", "--force").status == 0
    assert [name for name, content in tree(here / "mine").items() if content != "folder"] == ["cnn4/result.json", "command.toml"]
    assert run("cnn4", *UNTRAINED, *flops, "-o", "mine").status == 0  # its own results are no other's


def test_flops_of_untrained_models_need_neither_data_nor_network(run: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr("glimpsezoo.run.prepare.open_data", refuse)
    words = ("--data", "imagenet100", "--set", "backbone=resnet50", "--set", "glimpses=1", "--measure", "flops")
    answer = run("mgnet", *words, *UNTRAINED)
    assert answer.status == 0, answer.err
    assert "on images of noise, as imagenet100 declares them" in answer.err
    found = result(only_run(here), "mgnet")
    assert violations(json.loads(found.to_json())) == []
    assert found.accuracy is None
    assert found.flops is not None
    assert (found.data.name, found.data.split, found.data.examples, found.data.image_size) == ("imagenet100", None, 0, (224, 224))
    assert found.flops.images == "noise"
    assert found.flops.paper_macs is not None
    # One glimpse at 224 px costs 4.104174 G (the paper's FF-Net); all but the fusion and the classifiers shrinks with the glimpse's area.
    d, classes = 2051, 100
    fixed = 4 * d * d + (classes + 3) * d
    assert found.flops.paper_macs.value == pytest.approx((4.104174e9 - fixed) * (96 / 224) ** 2 + fixed, rel=1e-6)
    assert not (here / "runs" / ".units").exists()


def test_flops_on_data_that_declare_no_size_are_counted_on_noise_of_their_size(run: Ask, here: Path):
    for place in range(12):
        folder = here / "photos" / ("cat", "dog")[place % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (20 * place, 0, 0)).save(folder / f"{place}.png")
    words = ("--data", "folder:photos", "--set", "data.size=32", "--measure", "flops", "--json")
    found = run("cnn4", *UNTRAINED, *words).json["results"][0]
    assert (found["flops"]["images"], found["data"]["image_size"], found["data"]["classes"]) == ("noise", [32, 32], 2)


def test_declared_sizes_follow_the_data_s_settings(run: Ask):
    words = ("cnn4", *UNTRAINED, "--data", "imagenet100", "--measure", "flops", "--json")
    small = run(*words, "--set", "data.size=64").json["results"][0]
    assert small["data"]["image_size"] == [64, 64]
    assert small["flops"]["macs"]["mean"] < 0.1 * run(*words).json["results"][0]["flops"]["macs"]["mean"]


def test_a_card_by_name_model_path_or_checkpoint_is_the_same(run: Ask, here: Path):
    card = make_card(here / "zoo_cards" / "mgnet.digits", "mgnet", glimpses=2)
    assert card.config.weights is not None
    found = [
        run(*words, *SMALL, "--json").json["results"][0]
        for words in (["mgnet"], ["mgnet.digits"], ["zoo_cards/mgnet.digits"], ["mgnet", "--checkpoint", "mgnet.digits"])
    ]
    for each in found:
        assert each["model"]["name"] == "mgnet.digits"
        assert each["model"]["checkpoint"] == {"uri": "mgnet.digits", "revision": None, "sha256": card.config.weights.sha256}
        assert each["accuracy"] == found[0]["accuracy"]
    assert found[1]["run"]["units"] == {"done": 0, "reused": 1}


def test_an_exact_card_name_wins_over_a_model_s(run: Ask, here: Path):
    make_card(here / "zoo_cards" / "cnn4.digits", seed=1)
    make_card(here / "zoo_cards" / "cnn4", seed=2)
    assert run("cnn4", *SMALL, "--json").json["results"][0]["model"]["name"] == "cnn4"
    assert run("cnn4.digits", *SMALL, "--json").json["results"][0]["model"]["name"] == "cnn4.digits"


def test_two_cards_of_one_name_are_told_apart(run: Ask, here: Path):
    make_card(here / "zoo_cards" / "cnn4.digits", seed=1)
    make_card(here / "mine" / "cnn4.digits", seed=2)
    answer = run("cnn4.digits", "mine/cnn4.digits", *SMALL, "--json").json
    assert [each["model"]["name"] for each in answer["results"]] == ["cnn4.digits", "mine/cnn4.digits"]
    assert {pair["a"] for pair in answer["comparison"]["pairs"]} == {"cnn4.digits", "mine/cnn4.digits"}
    assert {path.name for path in only_run(here).iterdir()} == {"cnn4.digits", "mine_cnn4.digits", "comparison.json", "command.toml"}


def test_a_card_of_one_s_own_beside_the_shipped_one(run: Ask, here: Path):
    """The argument that is a path takes its path, the other keeps the card's name."""
    make_card(here / "zoo_cards" / "cnn4.digits", seed=1)
    make_card(here / "mine", seed=2)
    rewrite(Card.read(here / "mine"), name="cnn4.digits")
    answer = run("cnn4", "mine", *SMALL, "--json").json
    assert [each["model"]["name"] for each in answer["results"]] == ["cnn4.digits", "mine"]


def test_what_was_changed_of_a_card_is_said(run: Ask, here: Path):
    make_card(here / "zoo_cards" / "mgnet.digits", "mgnet", glimpses=2)
    answer = run("mgnet", "--set", "policy=random", "--set", "glimpses=2", *SMALL)
    assert "accuracy, flops of mgnet.digits (policy=random) on digits test" in answer.err
    assert answer.out.splitlines()[1].startswith("mgnet.digits (random)  ")


def test_settings_reach_the_models_that_know_them(run: Ask, here: Path):
    make_card(here / "zoo_cards" / "mgnet.digits", "mgnet", glimpses=3)
    make_card(here / "zoo_cards" / "cnn4.digits")
    flops = ("--measure", "flops", "--limit", "3", "--json")

    def settings(*words: str) -> list[dict[str, Any]]:
        return [each["model"]["config"] for each in run(*words, *flops).json["results"]]

    assert [config.get("glimpses") for config in settings("cnn4", "mgnet", "--set", "glimpses=2")] == [None, 2]
    assert settings("mgnet.digits", "--set", "mgnet.glimpses=1")[0]["glimpses"] == 1
    assert settings("mgnet.digits", "--set", "mgnet.digits.glimpses=2", "--set", "glimpses=1")[0]["glimpses"] == 2
    assert settings("mgnet", "--set", "policy=centre")[0]["policy"] == "centre"


def test_another_split_is_measured(run: Ask):
    found = run("cnn4", *UNTRAINED, *SMALL, "--split", "calibration", "--json").json["results"][0]
    assert (found["data"]["split"], found["data"]["examples"]) == ("calibration", 30)


def test_the_recorded_command_has_no_folders_of_this_machine(run: Ask, here: Path):
    make_card(here / "zoo_cards" / "cnn4.digits")
    words = (here / "zoo_cards" / "cnn4.digits", "--limit", "3", f"--output={here / 'far' / 'out'}", "--data", "digits")
    found = run(*words, "--json").json["results"][0]
    assert found["run"]["command"] == "glimpsezoo run cnn4.digits --limit 3 --output=out --data digits --json --measure quick"
    assert str(here) not in json.dumps(found)
