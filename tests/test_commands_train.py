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
from command_line import RECIPE, TINY, Answer, ask, photos, tree

import glimpsezoo as gz
from glimpsezoo.commands import progress
from glimpsezoo.data.placed import PlacedDigits
from glimpsezoo.reports.readme import card_text
from glimpsezoo.training.folder import CHECKPOINT, locked
from glimpsezoo.training.job import TrainingPhase
from glimpsezoo.zoo.cards import CURVE, LOG, Card
from glimpsezoo.zoo.results import result_type

Ask = Callable[..., Answer]
QUICK = ("--recipe", "tiny.toml", *TINY, "--set", "train.steps=4")


@pytest.fixture
def here(here: Path) -> Path:
    (here / "tiny.toml").write_text(RECIPE)
    return here


@pytest.fixture
def train(here: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    return lambda *words: ask(capsys, "train", *words)


def sha256(folder: Path) -> str:
    weights = Card.read(folder).config.weights
    assert weights is not None
    return weights.sha256


def stop_bar(patch: pytest.MonkeyPatch, after: int) -> None:
    """Ctrl-C between two steps: while progress is shown for the n-th time."""
    shown: list[int] = []
    plain = progress.training_line

    def show(line: Any) -> None:
        plain(line)
        shown.append(1)
        if len(shown) == after:
            raise KeyboardInterrupt

    patch.setattr(progress, "training_line", show)


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
        stop_bar(patch, after=2)
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
        stop_bar(patch, after=2)
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
        stop_bar(patch, after=2)
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


def start_and_stop(train: Ask, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a training says that is stopped after its first step."""
    with monkeypatch.context() as patch:
        stop_bar(patch, after=1)
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


def test_an_import_gives_a_card_that_run_accepts(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """The workflow around a converter: names of classes from --data, notes in the README, force for a second time."""
    import glimpsezoo_mgnet.importer as importer

    model = gz.create_model("mgnet", data="digits", glimpses=2, seed=3)
    unnamed = gz.Task((64, 64), 1, tuple(f"class {n}" for n in range(10)))
    monkeypatch.setattr(importer, "importer", lambda path, sets: (model.config, unnamed, model.state_dict(), ["seen nowhere"]))
    (here / "released.ckpt").write_bytes(b"")
    words = ("import", "mgnet", here / "released.ckpt", "-o", "zoo_cards/mgnet.digits", "--data", "digits")
    answer = ask(capsys, *words)
    assert answer.status == 0
    assert answer.out.splitlines()[0] == "mgnet.digits -> zoo_cards/mgnet.digits"
    readme = (here / "zoo_cards" / "mgnet.digits" / "README.md").read_text()
    assert "Imported from `released.ckpt`" in readme
    assert "- seen nowhere" in readme
    assert str(here) not in readme
    found = ask(capsys, "run", "mgnet", "--limit", "20", "--json").json["results"][0]
    assert result_type().model_validate(found).model.checkpoint is not None
    assert ask(capsys, *words).status == 2
    (here / "zoo_cards" / "mgnet.digits" / LOG).write_text("of weights that were here before")
    assert ask(capsys, *words, "--force").status == 0
    assert not (here / "zoo_cards" / "mgnet.digits" / LOG).exists()
    other = ask(capsys, *words[:-1], "imagenet100", "--force")
    assert "10 classes, got imagenet100 with 100" in other.err


def test_an_imported_card_has_the_authors_numbers_beside_its_own_and_the_size_of_its_data(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    import glimpsezoo_mgnet.importer as importer
    from test_tables_robust import result

    from glimpsezoo.measures.text import macs_text
    from glimpsezoo.reports.readme import card_text
    from glimpsezoo.zoo.cards import Card

    task = gz.Task((28, 28), 1, tuple(map(str, range(10))))
    model = gz.create_model("mgnet", task=task, backbone="cnn4", glimpses=2)
    exits = (gz.PublishedExits(thresholds=(0.9, 0.0), top1=0.8, macs=3e6),)
    published = gz.Published(top1=(0.7512, 0.8125), macs=(2e6, 4e6), exits=exits)
    monkeypatch.setattr(importer, "importer", lambda path, sets: (model.config, task, model.state_dict(), [], published))
    (here / "released.ckpt").write_bytes(b"")
    assert ask(capsys, "import", "mgnet", here / "released.ckpt", "-o", "card", "--data", "plain-mnist").status == 0
    card = Card.read(here / "card")
    assert card.config.published() == published
    assert card.config.data.settings == {"size": 28}
    unmeasured = (here / "card" / "README.md").read_text()
    assert "| 1 | 75.12 | 2.000 M |" in unmeasured
    assert "thresholds of early exits, for 1 budgets" in unmeasured
    ours = result("mgnet")
    assert ours.accuracy is not None
    first = ours.accuracy.steps[0]
    assert f"| 1 | 75.12 | {100 * first.top1.value:.2f} | 2.000 M | {macs_text(first.macs)} |" in card_text(card, ours)


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
