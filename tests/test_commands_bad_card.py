"""A card that is damaged, incomplete or does not fit is refused in one line that says what is wrong with it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import make_card, put_weights, rewrite
from safetensors.torch import load, save

from glimpsezoo.zoo.card_config import CardConfig
from glimpsezoo.zoo.cards import Card

Refuse = Callable[..., str]


@pytest.fixture
def card(here: Path) -> Card:
    return make_card(here / "zoo_cards" / "cnn4.digits")


def test_a_card_of_neither_weights_nor_a_hub_repository(card: Card, refused: Refuse):
    rewrite(card, weights=None)
    assert "has neither weights nor a Hub repository: train it, or measure it untrained" in refused("run", "cnn4")


def test_a_card_whose_weights_are_on_the_hub_says_how_to_get_them(card: Card, refused: Refuse):
    rewrite(card, weights=None, hub="somebody/cnn4")
    assert "somebody/cnn4 was not downloaded before, and HF_HUB_OFFLINE forbids" in refused("run", "cnn4")


def test_weights_that_are_not_in_the_folder(card: Card, refused: Refuse):
    (card.folder / "model.safetensors").unlink()
    assert "'model.safetensors', which is not in its folder" in refused("run", "cnn4")


def test_another_hash(card: Card, refused: Refuse):
    content = (card.folder / "model.safetensors").read_bytes()
    (card.folder / "model.safetensors").write_bytes(content[:-4] + b"oops")
    assert "another sha256): get the card again" in refused("run", "cnn4")
    (card.folder / "model.safetensors").write_bytes(content[:1000])
    assert f"another sha256, 1000 bytes of {len(content)}): get the card again" in refused("run", "cnn4")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a pickle in a zip", b"\xff" * 64, None])
def test_a_truncated_file_or_one_of_another_kind(card: Card, refused: Refuse, content: bytes | None):
    """The hash is the file's own, so that the file itself is what is wrong."""
    whole = (card.folder / "model.safetensors").read_bytes()
    put_weights(card, whole[: len(whole) // 2] if content is None else content)
    assert "as safetensors, got a damaged file (" in refused("run", "cnn4")


def test_tensors_missing_extra_or_of_another_shape(card: Card, refused: Refuse):
    whole = load((card.folder / "model.safetensors").read_bytes())
    put_weights(card, save({name: value for name, value in whole.items() if name != "head.bias"}))
    assert "do not fit its model: tensor head.bias is missing" in refused("run", "cnn4")
    put_weights(card, save({**whole, "tail.bias": torch.zeros(2)}))
    assert "tensor tail.bias is not in the model" in refused("run", "cnn4")
    put_weights(card, save({**whole, "head.weight": torch.zeros(10, 64)}))
    assert "tensor head.weight is [10, 64], the model's is [10, 128]" in refused("run", "cnn4")
    put_weights(card, save({"head.weight": torch.zeros(10, 64), "a": torch.zeros(1), "b": torch.zeros(1)}))
    assert "(and 11 more)" in refused("run", "cnn4")


def test_classes_or_channels_that_differ(card: Card, refused: Refuse, here: Path):
    task = card.config.task.model_dump(mode="json")
    rewrite(card, task={**task, "classes": [*task["classes"][:9], "nine"]})
    line = refused("run", "cnn4")
    assert "10 classes (0, 1, 2, ...), got 10 (0, 1, 2, ...): " in line
    make_card(here / "zoo_cards" / "cnn4.imagenet100", data="imagenet100")
    assert "images with 3 channel(s), got data with 1:" in refused("run", "cnn4.imagenet100", "--data", "digits")


def test_a_setting_that_contradicts_the_trained_card(refused: Refuse, here: Path):
    make_card(here / "zoo_cards" / "mgnet.digits", "mgnet", glimpses=2)
    line = refused("run", "mgnet", "--set", "biases=true")
    assert "--set biases=true contradicts the trained card 'mgnet.digits' (tensor query.bias is missing)" in line


def test_a_card_of_another_model(card: Card, refused: Refuse):
    line = refused("run", "mgnet", "--checkpoint", "cnn4.digits")
    assert "--checkpoint expects a card of 'mgnet', got 'cnn4.digits', a card of 'cnn4'" in line


def test_one_card_under_two_names(card: Card, refused: Refuse):
    assert "expected each model once, got cnn4 cnn4.digits" in refused("run", "cnn4", "cnn4.digits")


def test_a_card_whose_plugin_is_not_installed_names_the_package(card: Card, refused: Refuse):
    rewrite(card, model="saccader", plugin="glimpsezoo-saccader")
    line = refused("run", "cnn4.digits")
    assert "needs the model 'saccader', which no installed plugin has: install its plugin, glimpsezoo-saccader" in line


@pytest.mark.parametrize(
    ("content", "part"),
    [("{", "Invalid JSON"), ("{}", "Field required"), (b"\xff\xfe", "Invalid JSON"), ("[1]", "should be an object")],
)
def test_a_config_that_is_none(card: Card, refused: Refuse, content: str | bytes, part: str):
    (card.folder / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refused("run", "cnn4.digits")
    assert "config.json in the card 'cnn4.digits'" in line
    assert part in line
    assert "did you mean" in refused("run", "mgnt")  # a broken card breaks nothing else


@pytest.mark.parametrize(
    ("field", "value"),
    [("mean", [float("nan")]), ("std", [float("inf")]), ("image_size", [0]), ("classes", None), ("channels", "x")],
)
def test_no_value_of_a_config_is_unexpected(card: Card, refused: Refuse, field: str, value: object):
    rewrite(card, task={**card.config.task.model_dump(mode="json"), field: value})
    assert f"config.json in the card 'cnn4.digits', got an invalid one (task.{field}" in refused("run", "cnn4")


def test_every_config_says_what_it_does_not_know(card: Card):
    """The format is fixed: a key that this version does not know is an error, not a loss."""
    content = json.loads((card.folder / "config.json").read_text())
    with pytest.raises(ValueError, match="colour"):
        CardConfig.model_validate(content | {"colour": "red"})
