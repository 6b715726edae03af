"""A model may appear several times in a run, and a setting may be the number at which two models cost the same."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import TINY, Answer, make_card, photos

import glimpsezoo as gz
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.measures.flops import flops_of
from glimpsezoo.zoo.arguments import split_argument
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.matching import largest_within

Say = Callable[..., Answer]
FEW = ("--limit", "10", "--measure", "accuracy,flops")


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("mgnet", "mgnet", {}),
        ("mgnet@glimpses=2", "mgnet", {"glimpses": "2"}),
        ("mgnet.digits@scale=0.2,0.5,glimpses=2", "mgnet.digits", {"scale": "0.2,0.5", "glimpses": "2"}),
        ("hf-hub:me/mine@v1", "hf-hub:me/mine@v1", {}),
        ("hf-hub:me/mine@v1@glimpses=2", "hf-hub:me/mine@v1", {"glimpses": "2"}),
        ("hf-hub:me/mine@glimpses=2", "hf-hub:me/mine", {"glimpses": "2"}),
        ("timm:resnet18@image_size=auto:mgnet@glimpses=2", "timm:resnet18", {"image_size": "auto:mgnet@glimpses=2"}),
        ("me@home/card", "me@home/card", {}),
    ],
)
def test_settings_begin_at_the_at_sign_before_a_key(text: str, name: str, settings: dict[str, str]):
    assert split_argument(text) == (name, settings)


def test_a_setting_twice_is_refused_and_a_card_s_own_name_wins(here: Path):
    with pytest.raises(GlimpseZooError, match="got glimpses twice in 'mgnet@glimpses=2,glimpses=3'"):
        split_argument("mgnet@glimpses=2,glimpses=3")
    make_card(here / "zoo_cards" / "odd@glimpses=2")
    make_card(here / "there" / "odd@size=3")
    assert [split_argument(name).settings for name in ("odd@glimpses=2", "there/odd@size=3", "odd@glimpses=3")] == [
        {},
        {},
        {"glimpses": "3"},
    ]


def test_one_card_in_two_settings_is_told_apart_everywhere(say: Say, here: Path):
    make_card(here / "zoo_cards" / "mgnet.digits", "mgnet", backbone="cnn4", glimpses=3)
    names = ["mgnet.digits@glimpses=2", "mgnet.digits@glimpses=4", "mgnet.digits"]
    answer = say("run", "mgnet@glimpses=2", "mgnet.digits@glimpses=4", "mgnet", "--set", "alpha=0.5", *FEW, "-o", "r", "--json")
    assert answer.status == 0, answer.err
    found = answer.json["results"]
    assert [(each["model"]["name"], each["model"]["steps"], each["model"]["config"]["alpha"]) for each in found] == [
        (name, steps, 0.5) for name, steps in zip(names, (2, 4, 3), strict=True)
    ]
    assert sorted(path.name for path in Path("r").iterdir()) == sorted([*names, "command.toml", "comparison.json"])
    pairs = json.loads(Path("r/comparison.json").read_text())["pairs"]
    assert {(pair["a"], pair["b"]) for pair in pairs} == {(a, b) for a in names for b in names if a != b}
    first = answer.err.splitlines()[0]
    assert "mgnet.digits@glimpses=2 (alpha=0.5), mgnet.digits@glimpses=4 (alpha=0.5), mgnet.digits (alpha=0.5)" in first
    table = say("run", "mgnet@glimpses=2", "mgnet", *FEW).out
    assert "mgnet.digits@glimpses=2 against mgnet.digits: " in " ".join(table.split())
    assert say("report", "r", "--traces", "1", "-o", "r.html").status == 0
    page = Path("r.html").read_text()
    assert all(name in page for name in names)
    assert say("compare", "r", "--format", "csv").out.count("mgnet.digits@glimpses=") >= 2


def test_untrained_models_too(say: Say):
    answer = say("run", "mgnet@glimpses=2", "mgnet@glimpses=4", *TINY[2:], "--checkpoint", "none", "--measure", "flops", "--json")
    assert [(each["model"]["name"], each["model"]["steps"]) for each in answer.json["results"]] == [
        ("mgnet@glimpses=2", 2),
        ("mgnet@glimpses=4", 4),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("mgnet@glimpse=2",), "mgnet@glimpse=2 has no setting 'glimpse': did you mean 'glimpses'?"),
        (("mgnet@glimpses=0",), "--set glimpses=0 for mgnet@glimpses=0: "),
        (("mgnet@glimpses",), "got 'mgnet@glimpses' (settings of its own are MODEL@KEY=VALUE): did you mean 'mgnet'"),
        (("mgnet", "patch=8"), "expected a model or a card, got 'patch=8' (each setting is an option of its own)"),
        (("mgnet@glimpses=2", "mgnet@glimpses=2"), "name each once, or with other settings (MODEL@KEY=VALUE)"),
    ],
)
def test_errors_name_the_argument_as_it_was_typed(say: Say, words: tuple[str, ...], message: str):
    answer = say("run", *words, "--checkpoint", "none", "--measure", "flops")
    assert answer.status == 2
    assert message in answer.err


def test_the_other_commands_take_such_a_name(say: Say, here: Path):
    make_card(here / "zoo_cards" / "mgnet.digits", "mgnet", backbone="cnn4", glimpses=3)
    answer = say("trace", "mgnet@glimpses=2", "-o", "t.svg")
    assert answer.status == 0, answer.err
    assert "mgnet.digits@glimpses=2" in Path("t.svg").read_text()
    assert gz.load("mgnet@glimpses=2").steps == 2


def test_the_largest_number_within_a_limit():
    asked: list[int] = []

    def cost(size: int) -> float | None:
        asked.append(size)
        return None if size % 16 else float(size * size)

    assert largest_within(cost, 100.0**2, start=224) == 96
    assert largest_within(cost, 96.0**2, start=16) == 96
    assert largest_within(cost, 1.0, start=64) == 0
    assert largest_within(lambda size: size, 5000, start=3) == 4096
    assert largest_within(lambda size: None, 5.0, start=7) == 0
    assert len(set(asked)) < 200


def macs(model: str, **settings: int) -> float:
    return flops_of(gz.create_model(model, data="digits", **settings)).macs.mean


def test_auto_is_the_largest_size_that_costs_no_more_by_the_house_s_meter(say: Say):
    words = (
        "run",
        "ranzato-fc@low_size=auto:ranzato",
        "ranzato",
        "--checkpoint",
        "none",
        "--set",
        "ranzato.glimpses=1",
        "--measure",
        "flops",
    )
    answer = say(*words, "--json")
    assert answer.status == 0, answer.err
    first, second = answer.json["results"]
    size, limit = first["model"]["config"]["low_size"], second["flops"]["macs"]["mean"]
    assert first["model"]["name"] == f"ranzato-fc@low_size={size}"
    assert macs("ranzato-fc", low_size=size) == first["flops"]["macs"]["mean"] <= limit < macs("ranzato-fc", low_size=size + 1)
    (line,) = (line for line in answer.err.splitlines() if line.startswith(f"low_size={size}: ranzato-fc costs "))
    assert "and ranzato " in line
    shared = say("run", "ranzato-fc", "ranzato", *words[3:], "--set", "low_size=auto:ranzato", "--json").json["results"]
    assert [each["model"]["config"]["low_size"] for each in shared] == [size, 16]  # ranzato, which has the key as well, keeps its own


def test_a_training_has_such_a_size_and_the_card_keeps_the_number(say: Say, here: Path):
    photos(here / "photos")
    make_card(here / "small", "ranzato", task=gz.Task((40, 40), 3, ("dark", "light")), glimpses=1, low_size=8)
    words = ("train", "ranzato-fc", "--data", "folder:photos", "--set", "low_size=auto:small", "--set", "train.steps=1", "-o", "fc")
    answer = say(*words)
    assert answer.status == 0, answer.err
    size = Card.read(here / "fc").config.config["low_size"]
    assert f"low_size={size}: ranzato-fc costs " in answer.err
    assert say("run", "fc").status == 0
    assert f"low_size = {size}" in say(*words, "--print-recipe").out


def test_no_number_is_an_error_with_both_costs(say: Say):
    words = ("--checkpoint", "none", "--measure", "flops")
    answer = say("run", "timm:resnet18@image_size=auto:ranzato", *words)
    assert (answer.status, "got none: give image_size a number" in answer.err) == (2, True)
    assert "cnn4@image_size=auto:mgnet has no setting 'image_size'" in say("run", "cnn4@image_size=auto:mgnet", *words).err
