"""`check`: a line for every rule, for people and as JSON, and an exit status that says whether any failed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, Answer, make_card, photos, put_weights
from safetensors.torch import load_file, save

from glimpsezoo.testing import rules

Ask = Callable[..., Answer]


def test_every_rule_has_a_line_with_its_numbers(say: Ask):
    answer = say("check", "mgnet", *TINY)
    *findings, verdict = answer.out.splitlines()
    lines = [line.split(maxsplit=2) for line in findings]
    assert answer.status == 0
    assert [rule for _, rule, _ in lines] == list(rules())
    assert {rule: status for status, rule, _ in lines if status != "ok"} == dict.fromkeys(("card", "log-prob", "noise"), "skipped")
    assert "full count" in dict(line[1:] for line in lines)["macs"]
    assert (verdict, answer.err) == ("mgnet conforms", "")


def test_json_has_every_finding(say: Ask):
    answer = say("check", "ranzato", "--json", "--set", "hidden=8", "--data", "digits")
    assert answer.status == 0
    assert (answer.json["name"], answer.json["passed"]) == ("ranzato", True)
    findings = {finding["rule"]: finding for finding in answer.json["findings"]}
    assert set(findings) == set(rules())
    assert findings["regions"]["numbers"]["padding"] == "zeros"
    assert all(finding["sentence"] for finding in findings.values())


def test_a_size_that_a_model_does_not_take_is_refused_and_no_failure(say: Ask):
    answer = say("check", "ranzato", "--set", "hidden=8", "--set", "low_size=50", "--set", "patch=8")
    assert answer.status == 0
    assert "refused odd-size      ranzato: expected low_size to fit into images of 65 x 49 px, got 50" in answer.out


def test_a_card_is_checked_with_its_weights(say: Ask, here: Path):
    card = make_card(here / "zoo_cards" / "cnn4.digits")
    answer = say("check", "cnn4.digits", "--json")
    assert answer.status == 0
    assert next(f["status"] for f in answer.json["findings"] if f["rule"] == "card") == "ok"
    assert card.name == "cnn4.digits"


def test_a_failure_is_exit_status_1_and_is_named(say: Ask, here: Path):
    card = make_card(here / "zoo_cards" / "cnn4.digits")
    assert card.config.weights is not None
    tensors = load_file(card.folder / card.config.weights.file)
    tensors["head.weight"] = tensors["head.weight"].sign() * 3e38  # finite, but no sum of them is
    put_weights(card, save(tensors))
    answer = say("check", "cnn4.digits")
    assert answer.status == 1
    assert "FAILED  shapes        expected finite logits at step 1, got " in answer.out
    assert answer.out.splitlines()[-1].startswith("cnn4.digits breaks ")
    assert answer.err == ""
    as_json: Any = say("check", "cnn4.digits", "--json")
    assert as_json.status == 1
    assert not as_json.json["passed"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("mgnt",), "expected a model or a card, got 'mgnt': did you mean 'mgnet'"),
        (("mgnet", "--set", "glimpse=3"), "--set glimpse expects a setting of mgnet"),
        (("mgnet", "--data", "digit"), "expected the name of a data set, got 'digit': did you mean 'digits'?"),
        (("mgnet", "--set", "data.seed=3"), "--set data.KEY expects a data set, got none: name one by --data"),
    ],
)
def test_what_is_wrong_with_the_command_is_one_line(say: Ask, words: tuple[str, ...], line: str):
    answer = say("check", *words)
    assert (answer.status, answer.out) == (2, "")
    assert line in answer.err
    assert answer.err.count("\n") == 1


def test_data_can_be_read_from_a_folder(say: Ask, here: Path):
    photos(here / "photos", per_class=20, side=64, split="train")
    answer = say("check", "cnn4", "--json", "--data", "folder:photos")
    assert answer.status == 0
    two = {finding["rule"]: finding for finding in answer.json["findings"]}["shapes"]["numbers"]["logits"]
    assert two[1] == 2
    missing = say("check", "cnn4", "--data", "imagenet", "--data-dir", "nowhere")
    assert missing.status == 2
    assert "--data-dir expects a folder, got 'nowhere'" in missing.err
    alone = say("check", "cnn4", "--data-dir", "photos")
    assert "--data-dir expects a data set, got none: name one by --data" in alone.err
