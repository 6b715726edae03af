"""Cards: where they are found, what of them is read, and how they are written; every shipped card is what it says."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import make_card, rewrite
from row_files import read_rows
from safetensors.torch import load_file
from torch import nn

import glimpsezoo as gz
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.files import write_whole
from glimpsezoo.reports.figures import training_picture
from glimpsezoo.reports.pictures.svg import svg_file
from glimpsezoo.reports.readme import card_text
from glimpsezoo.zoo import cards
from glimpsezoo.zoo.cards import CURVE, LOG, Card, card_folders, card_paths, find_card, training_log, write_card
from glimpsezoo.zoo.recipes import Recipe
from glimpsezoo.zoo.results import evidence, read_result

SHIPPED, LARGE = (
    sorted(path.parent for path in (Path(__file__).parent.parent / folder).glob("*/config.json"))
    for folder in ("zoo_cards", "benchmarks/cards")
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLIMPSEZOO_HOME", str(tmp_path / "home"))
    return tmp_path


def place(folder: Path, name: str = "cnn4.made-up", **changes: Any) -> Path:
    """A card's config.json that says where it lies; without weights, which finding does not need."""
    folder = folder / name
    folder.mkdir(parents=True)
    task = {"image_size": [8, 8], "channels": 1, "classes": ["a"], "mean": [0.0], "std": [1.0]}
    config = {"name": name, "model": "cnn4", "plugin": "p", "config": {}, "task": task, "data": {"name": "made-up"}, "weights": None}
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


@pytest.mark.parametrize("model", ["a_package.model:A", "a_package:A"])
def test_a_card_is_looked_for_here_then_in_the_user_s_folder_then_in_packages(here: Path, monkeypatch: pytest.MonkeyPatch, model: str):
    package = here / "site" / "a_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(here / "site")
    spec = gz.ModelSpec(name="a", description="", model=model, config="a_package.model:C")
    monkeypatch.setattr(cards, "registry", lambda: type("R", (), {"all": lambda self, kind: [spec]})())

    assert find_card("cnn4.made-up") is None
    for folder in (package / "zoo_cards", here / "home" / "cards", here / "zoo_cards"):
        placed = place(folder)
        found = find_card("cnn4.made-up")
        assert found is not None
        assert found.folder.resolve() == placed
        assert card_paths()["cnn4.made-up"].resolve() == placed
    assert [folder.resolve() for folder in card_folders()][:2] == [here / "zoo_cards", here / "home" / "cards"]
    assert package / "zoo_cards" in card_folders()


def test_a_path_wins_over_a_name(here: Path):
    place(here / "zoo_cards", "x.digits", license="by-name")
    place(here, "x.digits", license="by-path")
    found = find_card("x.digits")
    assert found is not None
    assert found.config.license == "by-path"


def test_a_checkout_finds_its_own_cards_from_anywhere(here: Path):
    assert {folder.name for folder in SHIPPED} <= set(card_paths())


def test_a_colon_in_a_name_is_none_in_a_folder_s(here: Path):
    place(here / "zoo_cards", "timm_resnet18.digits")
    assert find_card("timm:resnet18.digits") is not None


def test_a_folder_without_a_config_is_no_card(here: Path):
    (here / "zoo_cards" / "half.digits").mkdir(parents=True)
    assert find_card("half.digits") is None
    with pytest.raises(GlimpseZooError, match=r"expected a card \(a folder with config.json\)"):
        Card.read(here / "zoo_cards" / "half.digits")


def test_a_card_read_in_its_own_folder_is_named_in_errors(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place(here, "mine.digits", weights=1))
    with pytest.raises(GlimpseZooError, match=r"config\.json in the card 'mine\.digits', got .* \(weights: "):
        Card.read(Path())


def test_what_is_written_is_read_again(here: Path):
    card = make_card(here / "cnn4.digits", seed=4)
    assert card.config.weights is not None
    content = (card.folder / "model.safetensors").read_bytes()
    assert (card.config.weights.sha256, card.config.weights.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert Card.read(card.folder) == card
    model = gz.load(str(card.folder))
    for name, value in gz.create_model("cnn4", data="digits", seed=4).state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_tensors_that_share_memory_or_are_not_contiguous_are_written(here: Path):
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False))
    model[1].weight = model[0].weight
    model[0].weight = nn.Parameter(torch.arange(6.0).view(3, 2).T)
    config = make_card(here / "cnn4.digits").config
    write_card(here / "tied", config, nn.Sequential(model[0], model[0], model[1]))
    stored = load_file(here / "tied" / "model.safetensors")
    assert stored["0.weight"].tolist() == stored["1.weight"].tolist() == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]


def test_the_config_comes_last_and_older_evidence_goes(here: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever stops the writing, no config.json names weights that are not there."""
    card = make_card(here / "cnn4.digits")
    (card.folder / "result.json").write_text("{}")
    (card.folder / "rows.parquet").write_text("")

    def full(path: Path, content: bytes) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(cards, "write_whole", full)
        with pytest.raises(OSError, match="no space"):
            make_card(here / "cnn4.digits", seed=1)
    assert [path.name for path in card.folder.iterdir()] == ["model.safetensors"]


def test_the_history_of_other_weights_goes(here: Path):
    card = make_card(here / "cnn4.digits")
    for kept in (False, True):
        for file in (LOG, CURVE):
            (card.folder / file).write_text("of a training")
        model = gz.create_model("cnn4", data="digits")
        write_card(card.folder, card.config, model, **({"keep_log": True} if kept else {}))
        assert ((card.folder / LOG).exists(), (card.folder / CURVE).exists()) == (kept, False)  # the curve is drawn again


def test_a_torn_line_of_a_log_is_left_out(tmp_path: Path):
    assert training_log(tmp_path) == ()
    (tmp_path / LOG).write_bytes(b'{"losses": {"a": 1.0}, "epoch": 1}\n\n{"losses": {"a": 0.5}, "epoch": 2}\n\xff\0\n{"losses": {"a"')
    assert [line["epoch"] for line in training_log(tmp_path)] == [1, 2]


def test_a_file_is_written_whole_or_not_at_all(here: Path, monkeypatch: pytest.MonkeyPatch):
    path = here / "file"
    write_whole(path, b"old")

    def fail(*places: Any) -> None:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError):  # noqa: PT011
            write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(here.iterdir()) == [path]
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def test_evidence_is_only_what_was_measured_with_these_weights(here: Path, shipped: Path):
    made = make_card(here / "mgnet.digits", "mgnet")
    assert evidence(made) is None
    (made.folder / "result.json").write_bytes((shipped / "result.json").read_bytes())
    assert evidence(made) is None
    (made.folder / "result.json").write_text("{}")
    assert evidence(made) is None
    weights = Card.read(shipped).config.weights
    assert weights is not None
    rewrite(made, weights=weights.model_dump())
    (made.folder / "result.json").write_bytes((shipped / "result.json").read_bytes())
    assert evidence(Card.read(made.folder)) is not None


@pytest.fixture
def shipped() -> Path:
    return next(folder for folder in SHIPPED if folder.name == "mgnet.digits")


@pytest.mark.parametrize("folder", SHIPPED + LARGE, ids=lambda folder: folder.name)
def test_a_shipped_card_is_what_it_says(folder: Path):
    """The README by its result, the result by its rows, the curve by the log; all of it small."""
    card = Card.read(folder)
    name, _, seed = folder.name.partition(".seed-")
    assert card.name == name
    assert str(card.config.trained["recipe"].get("seed", 0)) == (seed or "0")
    result = evidence(card)
    assert result is not None
    assert result == read_result((folder / "result.json").read_bytes())
    assert (folder / "README.md").read_text() == card_text(card, result)
    drawing = training_picture(card.name, training_log(folder))
    assert (drawing is None) == ("phase" not in card.config.trained["recipe"])  # a recipe may train nothing
    assert (folder / CURVE).exists() == (drawing is not None)
    if drawing is not None:
        assert (folder / CURVE).read_text() == svg_file(drawing)
    assert (result.run.status, result.run.limit, result.data.name, result.data.split) == ("done", None, card.config.data.name, "test")
    assert result.model.config == card.config.config
    Recipe.parse(card.config.trained["recipe"], owner=card.name)

    unit = read_rows(folder / "rows.parquet")
    assert unit is not None
    assert result.accuracy is not None
    assert result.accuracy.top1.n == len(unit.rows) == result.data.examples
    hits = (unit.rows.prediction == unit.rows.label[:, None]).mean(0)
    assert [step.top1.value for step in result.accuracy.steps] == pytest.approx(hits.tolist())
    assert result.flops is not None
    assert result.flops.macs.mean == pytest.approx(unit.rows.macs.mean())
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3e6


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_the_weights_of_a_card_of_the_zoo_fit_its_model(folder: Path):
    card = Card.read(folder)
    card.load_into(gz.create_model(card.config.model, task=card.config.task.task(), **card.config.config), changed={})


def test_a_card_without_its_weights_says_so_and_is_no_card_of_the_zoo(here: Path, shipped: Path):
    card = Card.read(shipped)
    moved = Card(place(here, "bare"), card.config)
    assert "Its weights, 0.7 MB, are not in this folder: train it as below" in card_text(moved, None)
    assert "not in this folder" not in card_text(card, None)
    with pytest.raises(GlimpseZooError, match=r"'model\.safetensors', which is not in its folder"):
        moved.weights()
    assert not {folder.name for folder in LARGE} & set(card_paths())
