"""`train`: from a recipe to a card that `run` accepts; stopped and run again, it ends with the same weights."""

import errno
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import glimpsezoo_mgnet.training
import pytest
import torch
from command_line import RECIPE, TINY, Answer, ask, photos, sha256, stop_training, tree

from glimpsezoo.data.placed import PlacedDigits
from glimpsezoo.reports.readme import card_text
from glimpsezoo.training.folder import CHECKPOINT, locked
from glimpsezoo.training.job import TrainingPhase
from glimpsezoo.zoo.cards import CURVE, LOG, Card

Ask = Callable[..., Answer]
QUICK = ("--recipe", "tiny.toml", *TINY, "--set", "train.steps=4")


@pytest.fixture
def here(here: Path) -> Path:
    (here / "tiny.toml").write_text(RECIPE)
    return here


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_a_later_phase_without_parameters_to_train_is_refused_before_any_training(train: Ask, here: Path, words: tuple[str, ...]):
    (here / "two.toml").write_text(RECIPE + '[[phase]]\nname = "second"\nsteps = 2\noptimiser = "sgd"\nlr = 0.1\ntrainable = ["heads.*"]\n')
    answer = train("mgnet", "--recipe", "two.toml", *TINY, "-o", "mine", *words)
    assert answer.status == 2
    assert "expected parameters to train in phase 'second', got none that match heads.*: correct 'trainable' in the recipe" in answer.err
    assert not (here / "mine").exists()


def test_a_training_gives_a_card_that_run_accepts(train: Ask, here: Path, capsys: pytest.CaptureFixture[str]):
    answer = train("mgnet", *QUICK, "-o", "zoo_cards/mgnet.digits")
    assert answer.status == 0
    assert answer.out.splitlines() == [
        "mgnet.digits -> zoo_cards/mgnet.digits",
        "measure it: glimpsezoo run zoo_cards/mgnet.digits",
    ]
    assert "mgnet.digits: 1,084 training images, batches of 64: joint (4 steps)" in answer.err
    assert "resumes" not in answer.err
    assert "global" in answer.err  # the loss's terms, as progress
    folder = here / "zoo_cards" / "mgnet.digits"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors", LOG, CURVE]

    card = Card.read(folder)
    assert (card.config.model, card.config.plugin, card.config.data.name) == ("mgnet", "glimpsezoo-mgnet", "digits")
    assert card.config.config["glimpses"] == 2
    assert card.config.trained["recipe"]["phase"][0]["steps"] == 4
    assert card.config.trained["command"].startswith("glimpsezoo train mgnet --recipe tiny.toml --set glimpses=2")
    assert (folder / "README.md").read_text() == card_text(card, None)
    assert "Not measured yet: `glimpsezoo run mgnet.digits --update-card`." in card_text(card, None)

    measured = ask(capsys, "run", "mgnet", "--limit", "30", "--json").json["results"][0]
    assert measured["model"]["checkpoint"]["sha256"] == sha256(folder)
    assert [len(line) for line in (folder / LOG).read_text().splitlines()] != []
    assert f"and its accuracy on the calibration split, by epochs]({CURVE})" in card_text(card, None)
    assert all(loss in (folder / CURVE).read_text() for loss in ("global", "glimpse", "calibration split"))


def test_data_settings_are_kept_and_said(train: Ask, here: Path):
    answer = train("mgnet", *QUICK, "--set", "data.seed=3", "-o", "mine")
    assert Card.read(here / "mine").config.data.settings == {"seed": 3}
    assert answer.out.splitlines()[-1] == "measure it: glimpsezoo run mine"


def test_json_is_the_card_s_config(train: Ask, here: Path):
    answer = train("mgnet", *QUICK, "--json")
    assert answer.json == json.loads((here / "runs" / "train" / "mgnet.digits" / "config.json").read_text())


def test_stopped_between_two_steps_it_goes_on_from_there(train: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    train("mgnet", *QUICK, "-o", "whole")
    with monkeypatch.context() as patch:
        stop_training(patch, after=2)
        stopped = train("mgnet", *QUICK, "-o", "cut")
    assert (stopped.status, stopped.out) == (130, "")
    assert stopped.err.endswith("glimpsezoo: stopped; the last checkpoint is kept: the same command resumes here\n")
    assert sorted(path.name for path in (here / "cut").iterdir()) == [CHECKPOINT]  # and no card

    with monkeypatch.context() as patch:
        steps = count_steps(patch)
        again = train("mgnet", *QUICK, "-o", "cut")
    assert "; resumes from its checkpoint" in again.err
    assert len(steps) == 2
    assert sha256(here / "cut") == sha256(here / "whole")
    assert (here / "cut" / LOG).read_text() == (here / "whole" / LOG).read_text()


def test_stopped_with_fresh_it_goes_on_without(train: Ask, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        stop_training(patch, after=2)
        stopped = train("mgnet", *QUICK, "-o", "cut", "--fresh")
    assert stopped.err.endswith(": the same command without --fresh resumes here, with --fresh it starts over\n")
    assert "; resumes from its checkpoint" in train("mgnet", *QUICK, "-o", "cut").err


@pytest.fixture
def default_ctrl_c() -> Iterator[None]:
    """As in a shell: workers of pytest-xdist ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_ctrl_c")
def test_ctrl_c_waits_for_the_step_in_hand_and_a_second_one_does_not(train: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    train("mgnet", *QUICK, "-o", "whole")
    for folder, signals, left in (("once", 1, 2), ("twice", 2, 4)):
        with monkeypatch.context() as patch:
            interrupt(patch, step=1, signals=signals)
            assert train("mgnet", *QUICK, "-o", folder).status == 130
        with monkeypatch.context() as patch:
            steps = count_steps(patch)
            assert train("mgnet", *QUICK, "-o", folder).status == 0
        assert len(steps) == left
        assert sha256(here / folder) == sha256(here / "whole")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def interrupt(patch: pytest.MonkeyPatch, step: int, signals: int) -> None:
    """Send this process so many Ctrl-C in the middle of a step."""
    plain = glimpsezoo_mgnet.training.mgnet_step

    def struck(model: Any, images: torch.Tensor, labels: torch.Tensor, phase: TrainingPhase) -> dict[str, torch.Tensor]:
        for _ in range(signals if phase.step == step else 0):
            handler = signal.getsignal(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            while signal.getsignal(signal.SIGINT) is handler:  # until it is handled: two at once would be one
                time.sleep(0.001)
        return plain(model, images, labels, phase)

    patch.setattr(glimpsezoo_mgnet.training, "mgnet_step", struck)


def count_steps(patch: pytest.MonkeyPatch) -> list[int]:
    """The number of every step of a phase that is taken from now on."""
    taken: list[int] = []
    plain = glimpsezoo_mgnet.training.mgnet_step

    def step(model: Any, images: torch.Tensor, labels: torch.Tensor, phase: TrainingPhase) -> dict[str, torch.Tensor]:
        taken.append(phase.step)
        return plain(model, images, labels, phase)

    patch.setattr(glimpsezoo_mgnet.training, "mgnet_step", step)
    return taken


def test_stopped_within_a_step_it_ends_with_the_same_weights(train: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    """What half a step did (to running statistics, to a phase's memory) must not be gone on from."""
    plain = glimpsezoo_mgnet.training.mgnet_step
    stops: list[int] = []

    def step(model: Any, images: torch.Tensor, labels: torch.Tensor, phase: TrainingPhase) -> dict[str, torch.Tensor]:
        phase.memory["seen"] = phase.memory.get("seen", torch.zeros(())) + 1
        if phase.step in stops:
            stops.remove(phase.step)
            raise KeyboardInterrupt
        return {name: loss * phase.memory["seen"] for name, loss in plain(model, images, labels, phase).items()}

    monkeypatch.setattr(glimpsezoo_mgnet.training, "mgnet_step", step)
    train("mgnet", *QUICK, "-o", "whole")
    stops.append(2)
    assert train("mgnet", *QUICK, "-o", "cut").status == 130
    assert train("mgnet", *QUICK, "-o", "cut").status == 0
    assert sha256(here / "cut") == sha256(here / "whole")


def test_a_finished_card_is_not_overwritten_but_by_force(train: Ask, here: Path, capsys: pytest.CaptureFixture[str]):
    train("mgnet", *QUICK, "-o", "mine")
    assert ask(capsys, "run", "mine", "--update-card").status == 0
    before = tree(here)
    refused = train("mgnet", *QUICK, "-o", "mine")
    assert refused.status == 2
    assert tree(here) == before

    assert train("mgnet", *QUICK, "-o", "mine", "--seed", "5", "--force").status == 0
    after = tree(here / "mine")
    assert after["model.safetensors"] != before["mine/model.safetensors"]
    assert "result.json" not in after  # the old weights' evidence
    assert "Not measured yet" in (here / "mine" / "README.md").read_text()
    assert len((here / "mine" / LOG).read_text().splitlines()) == 1  # of this training alone


def test_evidence_of_other_weights_is_none(train: Ask, here: Path, capsys: pytest.CaptureFixture[str]):
    train("mgnet", *QUICK, "-o", "one")
    train("mgnet", *QUICK, "--seed", "5", "-o", "other")
    ask(capsys, "run", "one", "--update-card")
    (here / "other" / "result.json").write_bytes((here / "one" / "result.json").read_bytes())
    assert "not measured yet" in ask(capsys, "show", "other").out
    assert "% (" in ask(capsys, "show", "one").out


def test_the_seed_decides_the_weights_and_fresh_starts_anew(train: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    train("mgnet", *QUICK, "-o", "a")
    train("mgnet", *QUICK, "--set", "train.seed=1", "-o", "b")
    assert sha256(here / "a") != sha256(here / "b")
    with monkeypatch.context() as patch:
        stop_training(patch, after=2)
        train("mgnet", *QUICK, "--seed", "1", "-o", "c")
    other = train("mgnet", *QUICK, "--seed", "2", "-o", "c")
    assert other.status == 2
    assert "c holds the checkpoint of another training: choose another --output, or --fresh" in other.err
    assert train("mgnet", *QUICK, "--seed", "1", "-o", "c", "--fresh").status == 0
    assert sha256(here / "c") == sha256(here / "b")


def test_a_folder_that_another_training_writes_is_left_alone(train: Ask, here: Path):
    folder = here / "mine"
    folder.mkdir()
    (folder / LOG).write_text("of the other")
    with locked(folder):
        for more in ((), ("--fresh",)):
            answer = train("mgnet", *QUICK, "-o", "mine", *more)
            assert (answer.status, answer.out) == (2, "")
            assert answer.err == "glimpsezoo: another command writes to 'mine': choose another --output\n"
    assert [path.name for path in folder.iterdir()] == [LOG]


def test_a_disk_that_is_full_at_the_end_ends_in_one_line_and_loses_nothing(train: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*given: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("glimpsezoo.training.work.write_card", full)
        answer = train("mgnet", *QUICK, "-o", "mine")
    assert answer.status == 2
    assert answer.err.splitlines()[-1] == (
        "glimpsezoo: expected an output folder that can be written, got 'mine' (No space left on device): make room, or choose "
        "another --output"
    )
    assert sorted(path.name for path in (here / "mine").iterdir()) == [CHECKPOINT, LOG]


@pytest.mark.parametrize("counts", [{"train": 1, "calibration": 585}, {"train": 1084, "calibration": 0}])
@pytest.mark.parametrize("length", ["train.steps=4", "train.epochs=1"])
def test_data_that_make_no_batch_are_refused(train: Ask, here: Path, monkeypatch: pytest.MonkeyPatch, counts: dict[str, int], length: str):
    monkeypatch.setattr(PlacedDigits, "__len__", lambda self: counts[self.info.split])
    answer = train("mgnet", *QUICK[:-2], "--set", length, "-o", "mine")
    assert answer.status == 2
    assert answer.err == (
        f"glimpsezoo: expected two images of digits to train on and one to calibrate with, got {counts['train']} and "
        f"{counts['calibration']}: add images, or choose other data\n"
    )
    assert not (here / "mine").exists()


def test_a_loss_that_is_not_finite_ends_in_one_line(train: Ask, here: Path):
    answer = train("mgnet", *QUICK, "--set", "train.lr=1e30", "-o", "wild")
    assert answer.status == 2
    assert answer.err.splitlines()[-1].startswith("glimpsezoo: the loss is not finite in step")
    assert not (here / "wild" / "config.json").exists()


def test_a_plugin_s_own_recipe_by_its_whole_name(train: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    """MODEL.DATA.VARIANT says the data; the card has that name."""
    digits = "batch_size = 64\n[settings]\nglimpses = 1\n[[phase]]\nname = 'p'\nsteps = 1\noptimiser = 'sgd'\nlr = 0.1\n"
    package = here / "recipes_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mgnet.digits.quick.toml").write_text(digits)
    (package / "timm_test_resnet.digits.quick.toml").write_text(digits.replace("[settings]\nglimpses = 1\n", ""))
    monkeypatch.syspath_prepend(here)
    lend_recipes(monkeypatch, "recipes_of_a_test")
    assert "mgnet.digits.quick -> runs/train/mgnet.digits.quick" in train("mgnet.digits.quick").out
    assert Card.read(here / "runs" / "train" / "mgnet.digits.quick").config.config["glimpses"] == 1
    for name in ("timm:test_resnet.digits.quick", "timm_test_resnet.digits.quick"):
        assert "timm:test_resnet.digits.quick -> runs/train/timm_test_resnet.digits.quick" in train(name, "--force").out
    config = Card.read(here / "runs" / "train" / "timm_test_resnet.digits.quick").config
    assert (config.model, config.data.name, config.config["architecture"]) == ("timm:test_resnet", "digits", "test_resnet")


def lend_recipes(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Every model's recipes are those of `package`."""
    from dataclasses import replace

    from glimpsezoo.zoo import plugins

    found = [
        replace(p, specs=tuple(replace(s, recipes=package) if hasattr(s, "recipes") else s for s in p.specs))
        for p in plugins.registry().plugins
    ]
    lent = plugins.Registry(found)
    for user in ("glimpsezoo.training.target", "glimpsezoo.zoo.names", "glimpsezoo.zoo.cards"):
        monkeypatch.setattr(f"{user}.registry", lambda: lent)


def test_a_damaged_image_is_named_and_training_goes_on_without_its_file(train: Ask, here: Path, capsys: pytest.CaptureFixture[str]):
    words = ("cnn4", "--data", "folder:photos", "--set", "data.size=16", "--epochs", "2", "-o", "mine")
    for split in ("train", "test"):
        photos(here / "photos", per_class=12, side=16, split=split)
    bad = here / "photos/train/dark/7.png"
    bad.write_bytes(bad.read_bytes()[:60])
    found = train(*words)
    assert found.status == 2
    line = found.err.splitlines()[-1]
    assert "dark/7.png: expected an image, got one that cannot be decoded" in line
    assert "remove or repair it ('glimpsezoo show folder:photos' looks for more), then repeat the command with --fresh" in line
    assert not (here / "mine/config.json").exists()
    assert "dark/7.png" in ask(capsys, "show", "folder:photos").out
    bad.unlink()
    assert train(*words, "--fresh").status == 0
