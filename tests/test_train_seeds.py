"""`train --seeds`: a card for each seed, by one recipe."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import glimpsezoo_mgnet.training
import pytest
import torch
from command_line import RECIPE, TINY, Answer, tree

from glimpsezoo.commands.training import parse_seeds
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.training.job import TrainingPhase
from glimpsezoo.zoo.cards import Card

Ask = Callable[..., Answer]
QUICK = ("train", "mgnet", "--recipe", "tiny.toml", *TINY, "--set", "train.steps=1")


@pytest.fixture
def here(here: Path) -> Path:
    (here / "tiny.toml").write_text(RECIPE)
    return here


@pytest.mark.parametrize(
    ("text", "seeds"), [("0..4", (0, 1, 2, 3, 4)), ("0,3,7", (0, 3, 7)), ("5", (5,)), ("7, 1..2", (7, 1, 2)), ("3..3", (3,))]
)
def test_ranges_and_lists(text: str, seeds: tuple[int, ...]):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "4..0", "0..", "a", "-1", "1.5", "0,1,0", "0..4,3", "0..1000", "0..4294967296", "1,,2", "0...3", "٣"])
def test_what_is_no_range_is_refused(text: str):
    with pytest.raises(GlimpseZooError, match=r"^--seeds expects "):
        parse_seeds(text)


def test_a_card_for_each_seed_that_run_measures(say: Ask, here: Path):
    answer = say(*QUICK, "--seeds", "3..4")
    assert [line.partition(",")[0] for line in answer.err.splitlines() if "training images" in line] == [
        f"seed {seed}: mgnet.digits: 1" for seed in (3, 4)
    ]
    folders = [f"runs/train/mgnet.digits.seed-{seed}" for seed in (3, 4)]
    assert answer.status == 0
    assert answer.out.splitlines() == [
        *(f"mgnet.digits -> {folder}" for folder in folders),
        f"measure them: glimpsezoo run {' '.join(folders)}",
    ]
    configs = [Card.read(here / folder).config for folder in folders]
    assert [config.seed for config in configs] == [3, 4]
    assert configs[0].recipe_id == configs[1].recipe_id
    assert configs[0].trained["recipe_name"] == "tiny.toml"
    assert say(*QUICK, "--seed", "4", "-o", "alone").status == 0
    assert Card.read(here / "alone").config.weights == configs[1].weights
    assert len(say(*answer.out.splitlines()[-1].split()[3:], "--limit", "20", "--json").json["results"]) == 2

    before = tree(here / "runs")
    again = say(*QUICK, "--seeds", "3..4", "--json")
    assert again.err.count("is finished") == 2
    assert [config["trained"]["recipe"].get("seed", 0) for config in again.json] == [3, 4]
    assert tree(here / "runs") == before

    other = say(*QUICK, "--lr", "0.001", "--seeds", "4..5")  # one folder has another card
    assert other.status == 1
    assert "seed 4 failed: " in other.err
    assert "--output" in other.err
    assert (here / "runs" / "train" / "mgnet.digits.seed-5" / "config.json").is_file()


def test_a_seed_that_fails_does_not_stop_the_others(say: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    plain = glimpsezoo_mgnet.training.mgnet_step
    failing = [True]

    def step(model: Any, images: torch.Tensor, labels: torch.Tensor, phase: TrainingPhase) -> dict[str, torch.Tensor]:
        seed = json.loads((here / "now").read_text())
        factor = float("nan") if failing and seed == 0 else 1.0
        (here / "now").write_text(str(seed + 1))
        return {name: factor * loss for name, loss in plain(model, images, labels, phase).items()}

    monkeypatch.setattr(glimpsezoo_mgnet.training, "mgnet_step", step)
    (here / "now").write_text("0")
    answer = say(*QUICK, "--seeds", "0..1", "-o", "cards/mine")
    assert answer.status == 1
    assert [line for line in answer.err.splitlines() if "failed" in line] == [
        line for line in answer.err.splitlines() if line.startswith("seed 0 failed: the loss is not finite")
    ]
    assert answer.out.splitlines()[-1] == "measure it: glimpsezoo run cards/mine.seed-1"
    failing.clear()
    (here / "now").write_text("0")
    assert say(*QUICK, "--seeds", "0..1", "-o", "cards/mine").status == 0
    assert (here / "now").read_text() == "1"  # one step, of the seed that failed


def test_seeds_and_a_seed(say: Ask, here: Path):
    answer = say(*QUICK, "--seeds", "0..2", "--seed", "3")
    assert answer.status == 2
    assert "--seed or --seeds" in answer.err
    assert say(*QUICK, "--seeds", "2..0").status == 2
    assert not (here / "runs").exists()
