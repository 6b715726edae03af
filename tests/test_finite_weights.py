"""Weights that are NaN or infinite, or no numbers that a model has, are an error that names the tensor or what it is."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Answer, make_card, put_weights
from PIL import Image
from safetensors.torch import load_file, save

from glimpsezoo.zoo.cards import not_finite
from glimpsezoo.zoo.checkpoints import read_checkpoint


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
    wrong = {
        "bf16": torch.tensor([1, torch.inf]).bfloat16(),
        "eight": torch.tensor([torch.nan, 1]).to(torch.float8_e4m3fn),
        "too large for float32": torch.tensor([1e300, 1.0]).double(),
    }
    assert sorted(line.split()[1] for line in not_finite({**fine, **wrong})) == ["bf16", "eight", "too"]


def test_numbers_that_torch_or_a_model_does_not_have_are_refused(say: Callable[..., Answer], here: Path) -> None:
    card = make_card(here / "zoo_cards" / "mine")
    Image.new("L", (64, 64)).save("image.png")
    tensors = load_file(card.folder / "model.safetensors")
    name = max(tensors, key=lambda each: tensors[each].numel())
    odd = [(torch.complex(tensors[name], tensors[name] * torch.nan), f"tensor {name} is complex")]
    if (powers := getattr(torch, "float8_e8m0fnu", None)) is not None:  # torch 2.6 has no such type
        odd.append((tensors[name].to(powers), "got 'F8_E8M0'"))
    for value, part in odd:
        try:
            content = save({**tensors, name: value})
        except KeyError:
            continue  # an older safetensors cannot write it
        put_weights(card, content)
        answer = say("predict", "mine", "image.png")
        assert (answer.status, answer.out) == (2, "")
        assert part in answer.err
        assert len(answer.err.splitlines()) == 1


@pytest.mark.filterwarnings("ignore")  # torch warns of kinds of tensors that it may drop
def test_a_checkpoint_with_weights_that_no_model_has_makes_no_card(
    say: Callable[..., Answer], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import glimpsezoo_mgnet.importer as importer

    import glimpsezoo as gz

    model = gz.create_model("mgnet", data="digits")
    name, own = max(model.state_dict().items(), key=lambda item: item[1].numel())
    (here / "x.ckpt").write_bytes(b"")
    for value, part in (
        (own.to_sparse(), "is sparse"),
        (torch.quantize_per_tensor(own, 0.1, 0, torch.qint8), "is quantised"),
        (own.to("meta"), "is without values"),
        (torch.complex(own, own), "is complex"),
        (torch.nested.nested_tensor([own]), "is nested"),
        (own * torch.nan, "NaN or infinite"),
        (own.double() + 1e300, "NaN or infinite"),
    ):
        given = {**model.state_dict(), name: value}
        monkeypatch.setattr(importer, "importer", lambda checkpoint, settings, given=given: (model.config, model.task, given, []))
        answer = say("import", "mgnet", "x.ckpt", "-o", "new")
        assert (answer.status, answer.out) == (2, "")
        assert f"tensor {name} {part}" in answer.err.replace(f"with {own.numel():,} of {own.numel():,} values ", "")
        assert not (here / "new").exists()


def test_what_is_odd_in_a_file_is_said_by_us_alone(tmp_path: Path) -> None:
    """torch warns of sparse and quantised tensors while it reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odd = {"a": torch.eye(3).to_sparse_csr(), "b": torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8)}
        torch.save(odd, tmp_path / "odd.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {*read_checkpoint(tmp_path / "odd.pt", ("a",)).tensors} == {"a", "b"}
