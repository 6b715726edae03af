"""Weights that are NaN or infinite are an error that names the tensor, in every command that loads a card."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Answer, make_card, put_weights
from PIL import Image
from safetensors.torch import load_file, save

from glimpsezoo.zoo.cards import not_finite


@pytest.fixture
def tensor(here: Path) -> str:
    """The name of a tensor with two bad values, in the card 'mine'."""
    card = make_card(here / "zoo_cards" / "mine")
    tensors = load_file(card.folder / "model.safetensors")
    name = max(tensors, key=lambda each: tensors[each].numel())
    tensors[name].view(-1)[:2] = torch.tensor([torch.nan, -torch.inf])
    put_weights(card, save(tensors))
    Image.new("L", (64, 64)).save("image.png")
    return name


@pytest.mark.parametrize("words", ["run mine", "predict mine image.png", "trace mine", "export mine -o mine.onnx", "check mine"])
def test_a_card_with_weights_that_are_not_finite_names_the_tensor(say: Callable[..., Answer], tensor: str, words: str) -> None:
    answer = say(*words.split())
    assert answer.status != 0
    line = next(line for line in (answer.out + answer.err).splitlines() if tensor in line)
    assert "2 of" in line
    assert "NaN or infinite" in line
    assert "unexpected" not in answer.err


def test_large_finite_values_and_every_type_are_read() -> None:
    fine = {
        "overflows": torch.full((9,), 3e38),
        "half": torch.full((9,), 6e4, dtype=torch.float16),
        "eight": torch.ones(3).to(torch.float8_e4m3fn),
        "whole": torch.arange(3),
        "empty": torch.zeros(0),
    }
    assert not_finite(fine) == []
    wrong = {"bf16": torch.tensor([1, torch.inf]).bfloat16(), "eight": torch.tensor([torch.nan, 1]).to(torch.float8_e4m3fn)}
    assert sorted(line.split()[1] for line in not_finite({**fine, **wrong})) == ["bf16", "eight"]
