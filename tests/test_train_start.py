"""`start` in a recipe: a training begins with the weights of a card, if they fit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import TINY, Answer, sha256, stop_training

from glimpsezoo.zoo.cards import Card

Ask = Say = Callable[..., Answer]


def test_a_training_begins_with_another_s_networks_and_makes_the_missing_ones(train: Ask, here: Path):
    """As greedy stages do: the second glimpse's networks begin anew beside the first's, which are not trained any more."""
    text = "batch_size = 64\n[settings]\nglimpses = {}\n[[phase]]\nname = 'p'\nsteps = 1\noptimiser = 'sgd'\nlr = 0.1\n"
    (here / "one.toml").write_text(text.format(1))
    (here / "two.toml").write_text("start = 'ranzato.digits'\n" + text.format(2) + "trainable = ['*.1.*']\noptions = {glimpse = 2}\n")
    assert "which is not here: train it first" in train("ranzato", "--recipe", "two.toml", "-o", "two").err
    assert train("ranzato", "--recipe", "one.toml").status == 0  # found where `train` puts it
    assert train("ranzato", "--recipe", "two.toml", "-o", "two").status == 0
    one, two = Card.read(here / "runs" / "train" / "ranzato.digits").weights(), Card.read(here / "two").weights()
    assert {name: tensor.tolist() for name, tensor in one.items()} == {name: two[name].tolist() for name in one}
    assert {name.split(".")[1] for name in two.keys() - one.keys()} == {"1"}


def test_a_training_begins_with_the_card_that_was_just_trained_and_says_so(train: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    text = "batch_size = 64\n[settings]\nglimpses = 1\n[[phase]]\nname = 'p'\nsteps = 2\noptimiser = 'sgd'\nlr = 0.1\n"
    (here / "one.toml").write_text(text)
    (here / "next.toml").write_text("start = 'ranzato.digits'\n" + text)
    shipped, mine = "zoo_cards/ranzato.digits", "runs/train/ranzato.digits"
    assert train("ranzato", "--recipe", "one.toml", "-o", shipped, "--seed", "1").status == 0
    assert f"starts with the weights of ranzato.digits ({here / shipped})" in start_and_stop(train, monkeypatch)
    assert train("ranzato", "--recipe", "one.toml").status == 0
    again = train("ranzato", "--recipe", "next.toml", "-o", "next")
    assert "next holds the checkpoint of another training" in again.err  # which began with the other card
    answer = train("ranzato", "--recipe", "next.toml", "-o", "next", "--fresh")
    assert f"starts with the weights of ranzato.digits ({mine})" in answer.err
    trained = Card.read(here / "next").config.trained
    assert trained["start"] == {"card": "ranzato.digits", "sha256": sha256(here / mine)}
    assert trained["recipe"]["start"] == "ranzato.digits"

    answer = train("ranzato", "--recipe", "one.toml", "--set", f"train.start={here / shipped}", "-o", "third")
    trained = Card.read(here / "third").config.trained
    assert (trained["start"]["sha256"], trained["recipe"]["start"]) == (sha256(here / shipped), "ranzato.digits")
    assert str(here) not in (here / "third" / "config.json").read_text()


def test_a_card_is_not_replaced_by_a_training_that_begins_with_it(train: Ask, here: Path):
    """Killed in between, the training could not go on without it."""
    text = "batch_size = 64\n[settings]\nglimpses = 1\n[[phase]]\nname = 'p'\nsteps = 2\noptimiser = 'sgd'\nlr = 0.1\n"
    (here / "one.toml").write_text(text)
    assert train("ranzato", "--recipe", "one.toml", "-o", "mine").status == 0
    before = sha256(here / "mine")
    for more in (("--force",), ("--fresh",)):
        answer = train("ranzato", "--recipe", "one.toml", "--set", "train.start=mine", "-o", "mine", *more)
        assert answer.status == 2
        assert "expected another folder than that of the card to start from, got 'mine' for both" in answer.err
        assert sha256(here / "mine") == before


def start_and_stop(train: Ask, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a training says that is stopped after its first step."""
    with monkeypatch.context() as patch:
        stop_training(patch, after=1)
        return train("ranzato", "--recipe", "next.toml", "-o", "next").err


def test_a_training_does_not_begin_with_what_is_not_its_own(train: Ask, here: Path):
    text = "start = 'ranzato.digits'\nbatch_size = 64\n[[phase]]\nname = 'p'\nsteps = 1\noptimiser = 'sgd'\nlr = 0.1\n"
    (here / "recipe.toml").write_text(text)
    (here / "first.toml").write_text(text.partition("\n")[2])
    assert train("ranzato", "--recipe", "first.toml", "--set", "hidden=20").status == 0
    for words, why in ((("ranzato", "--set", "hidden=30"), "tensor"), (("cnn4",), "they have no tensor in common")):
        answer = train(*words, "--recipe", "recipe.toml", "-o", "other")
        assert answer.status == 2
        assert f"starts from the card 'ranzato.digits', which does not fit: {why}" in answer.err
        assert not (here / "other" / "config.json").exists()


def test_mgnet_may_begin_with_the_backbone_of_a_plain_classifier(train: Ask, here: Path):
    phase = "batch_size = 64\n[[phase]]\nname = 'p'\nsteps = 1\noptimiser = 'sgd'\nlr = 0.1\n"
    (here / "plain.toml").write_text(phase)
    (here / "mgnet.toml").write_text("start = 'cnn4.digits'\n" + phase + "trainable = ['global_classifier.*']\n")
    assert train("cnn4", "--recipe", "plain.toml", "-o", "runs/train/cnn4.digits").status == 0
    assert train("mgnet", *TINY, "--recipe", "mgnet.toml", "-o", "mgnet").status == 0
    plain, whole = Card.read(here / "runs" / "train" / "cnn4.digits").weights(), Card.read(here / "mgnet").weights()
    backbone = {name for name in plain if name.startswith("backbone.")}
    assert len(backbone) == 8
    assert all(torch.equal(plain[name], whole[name]) for name in backbone)
    assert whole.keys() - backbone
    assert "head.bias" not in whole


def test_a_recipe_without_phases_takes_a_card_s_weights_under_other_settings(train: Ask, say: Say, here: Path):
    text = "start = 'ranzato.digits'\nbatch_size = 64\n"
    (here / "same.toml").write_text(text + "[settings]\nhidden = 20\npolicy = 'centre'\n")
    (here / "first.toml").write_text(text.partition("\n")[2] + "[[phase]]\nname = 'p'\nsteps = 1\noptimiser = 'sgd'\nlr = 0.1\n")
    assert train("ranzato", "--recipe", "first.toml", "--set", "hidden=20").status == 0
    assert (
        "would train nothing: ranzato.digits has the weights of ranzato.digits"
        in train("ranzato", "--recipe", "same.toml", "-o", "same", "--dry-run").out
    )
    (here / "printed.toml").write_text(train("ranzato", "--recipe", "same.toml", "--print-recipe").out)
    for recipe, folder in (("same.toml", "same"), ("printed.toml", "printed")):
        answer = train("ranzato", "--recipe", recipe, "-o", folder)
        assert (answer.status, "nothing to train: the weights of ranzato.digits (runs/train" in answer.err) == (0, True)
    one, same = (Card.read(here / folder) for folder in ("runs/train/ranzato.digits", "same"))
    assert same.config.weights == one.config.weights
    assert (one.config.config["policy"], same.config.config["policy"]) == ("learned", "centre")
    assert same.config.trained["recipe"] == {"batch_size": 64, "start": "ranzato.digits", "settings": {"hidden": 20, "policy": "centre"}}
    assert sorted(path.name for path in same.folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    made = (same.folder / "README.md").read_text().partition("## How it was made")[2]
    assert "Nothing was trained: these are the weights of `ranzato.digits` under other settings" in made
    assert "training.jsonl" not in made
    assert say("run", "same", "--limit", "20", "--measure", "accuracy").status == 0


def test_a_recipe_without_phases_needs_every_weight_and_nothing_to_train_with(train: Ask, here: Path):
    phase = "[[phase]]\nname = 'p'\nsteps = 1\noptimiser = 'sgd'\nlr = 0.1\n"
    (here / "one.toml").write_text(f"batch_size = 64\n[settings]\nglimpses = 1\n{phase}")
    (here / "two.toml").write_text("batch_size = 64\nstart = 'ranzato.digits'\n[settings]\nglimpses = 2\n")
    (here / "none.toml").write_text("batch_size = 64\n")
    assert train("ranzato", "--recipe", "one.toml").status == 0
    for words, why in (
        (("two.toml",), "starts from the card 'ranzato.digits', which does not fit: tensor glimpses.1.first.weight is missing"),
        (("two.toml", "--epochs", "2"), "--epochs expects a recipe that trains, got one without training phases"),
        (("two.toml", "--lr", "2"), "--lr expects a recipe that trains, got one without training phases"),
        (("two.toml", "--set", "train.lr=1"), "to set train.lr in, got one without training phases"),
        (("two.toml", "--set", "train.adversarial.eps=1/255"), "to set train.adversarial in, got one without training phases"),
        (("none.toml",), "expected a training phase or a card to start from, got neither"),
    ):
        answer = train("ranzato", "--recipe", *words, "-o", "new")
        assert (answer.status, why in answer.err) == (2, True), answer.err
        assert not (here / "new" / "config.json").exists()
    (here / "same.toml").write_text("batch_size = 64\nstart = 'ranzato.digits'\n[settings]\nglimpses = 1\n")
    answer = train("ranzato", "--recipe", "same.toml", "-o", "new", "--seeds", "0..1")  # the cards would be equal
    assert (answer.status, "seed 1 failed: --seeds expects a recipe that trains" in answer.err) == (1, True)
    assert not [*here.glob("new.*/config.json")]
