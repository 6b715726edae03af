"""Run commands in this process as users do, and make small cards and photographs for them."""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
import pytest
import torch
from PIL import Image

import glimpsezoo as gz
from glimpsezoo.commands import cli, main, progress
from glimpsezoo.measures.result import Result
from glimpsezoo.specs import Task
from glimpsezoo.zoo.card_config import CONFIG, CardConfig, CardData, CardTask
from glimpsezoo.zoo.cards import Card, write_card
from glimpsezoo.zoo.names import spec_of
from glimpsezoo.zoo.results import read_result

TRACES = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 14)  # torch's compiler and exporter followed less Python before

RECIPE = """
batch_size = 64
[[phase]]
name = "joint"
epochs = 2
optimiser = "adamw"
lr = 0.01
"""
COMMANDS = {name: cast(click.Command, cli.get_command(click.Context(cli), name)) for name in cli.list_commands(click.Context(cli))}
TINY = ("--set", "glimpses=2", "--set", "backbone=cnn4", "--set", "downsample=4")  # mgnet with two glimpses of 16 x 16


@dataclass(frozen=True)
class Answer:
    """The outcome of a command: exit status, standard output and standard error."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def results(answer: Answer) -> list[Result]:
    """The results that `run --json` prints."""
    assert answer.status == 0, answer.err
    return [read_result(json.dumps(each)) for each in answer.json["results"]]


def one_line(answer: Answer) -> str:
    """The one line of a command that was refused."""
    assert answer.status == 2, answer.err
    assert answer.out == ""
    assert answer.err.startswith("glimpsezoo: ")
    assert answer.err.count("\n") == 1
    assert answer.err.endswith("\n")
    return answer.err


def quickly(texts: list[str]) -> list[str]:
    """Let `run` measure accuracy and flops only, unless the words name measures."""
    said = any(text.startswith("--measure") for text in texts)
    return [*texts, "--measure", "quick"] if texts[:1] == ["run"] and not said else texts


def ask(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Answer:
    """Run `glimpsezoo WORDS...`; `run` measures accuracy and flops only, unless the words name measures."""
    capsys.readouterr()
    texts = quickly([str(word) for word in words])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["glimpsezoo", *texts])
        status: Any = None
        try:
            main()
        except SystemExit as stop:
            status = stop.code
    said = capsys.readouterr()
    return Answer(status or 0, said.out, said.err)


def stop_training(patch: pytest.MonkeyPatch, after: int) -> None:
    """Ctrl-C between two steps of a training: while progress is shown for the n-th time."""
    shown: list[int] = []
    plain = progress.training_line

    def show(line: Any) -> None:
        plain(line)
        shown.append(1)
        if len(shown) == after:
            raise KeyboardInterrupt

    patch.setattr(progress, "training_line", show)


def lonely(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Make `folder` the working directory and its zoo_cards the only place for cards. Returns zoo_cards."""
    monkeypatch.chdir(folder)
    cards = folder / "zoo_cards"
    cards.mkdir()
    monkeypatch.setattr("glimpsezoo.zoo.cards.card_folders", lambda: [cards])
    return cards


def photos(folder: Path, per_class: int = 25, side: int = 40, split: str = "") -> Path:
    """A folder with two classes of images, dark and light."""
    for label, shade in (("dark", 40), ("light", 200)):
        place = folder / split / label
        place.mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            Image.new("RGB", (side, side), (shade + number, shade, shade)).save(place / f"{number}.png")
    return folder


def photo_card(folder: Path, *, data: str = "folder:photos", size: int = 32, seed: int = 0, classes: str = "dark light") -> Card:
    """A card with untrained weights for images of that size."""
    task = Task((size, size), 3, tuple(classes.split()))
    return make_card(folder, data=data, seed=seed, task=task, data_settings={"size": size})


def make_card(
    folder: Path,
    model: str = "cnn4",
    *,
    data: str = "digits",
    seed: int = 0,
    task: Task | None = None,
    data_settings: dict[str, Any] | None = None,
    **settings: Any,
) -> Card:
    """A card with untrained weights."""
    built = gz.create_model(model, task=task, data=data, seed=seed, **settings)
    provenance = spec_of(model, None).provenance
    assert provenance is not None
    config = CardConfig(
        name=folder.name,
        model=model,
        plugin=provenance.distribution,
        config=built.config.model_dump(mode="json"),
        task=CardTask.model_validate(vars(built.task)),
        data=CardData(name=data, settings=data_settings or {}),
        weights=None,
    )
    return write_card(folder, config, built)


def rewrite(card: Card, **changes: Any) -> None:
    """Change values in a card's config.json."""
    path = card.folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def put_weights(card: Card, content: bytes, *, sha256: str | None = None) -> None:
    """Replace the weights of a card, and its hash by theirs (default) or by `sha256`."""
    digest = sha256 or hashlib.sha256(content).hexdigest()
    (card.folder / "model.safetensors").write_bytes(content)
    rewrite(card, weights={"file": "model.safetensors", "sha256": digest, "bytes": len(content)})


def sha256(folder: Path) -> str:
    """The hash of the weights of the card in a folder."""
    weights = Card.read(folder).config.weights
    assert weights is not None
    return weights.sha256


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its content, and every folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }
