"""Where no terminal shows a bar, a training says a line per epoch and a run a line per minute; loggers are told of every epoch."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import RECIPE, TINY, Answer, make_card

from glimpsezoo.commands import progress
from glimpsezoo.specs import LoggerSpec, Provenance
from glimpsezoo.training.loggers import TrainingLogger
from glimpsezoo.zoo.cards import training_log
from glimpsezoo.zoo.plugins import LoadedPlugin, Registry, registry

Ask = Callable[..., Answer]
TRAIN = ("train", "mgnet", "--recipe", "tiny.toml", *TINY)


@pytest.fixture
def here(here: Path) -> Path:
    (here / "tiny.toml").write_text(RECIPE)
    return here


# Lines


def test_a_training_says_a_line_per_epoch(say: Ask, here: Path):
    lines = say(*TRAIN, "-o", "mine").err.splitlines()
    epochs = [line for line in lines if line.startswith("joint epoch ")]
    assert [line.partition(":")[0] for line in epochs] == ["joint epoch 1 of 2", "joint epoch 2 of 2"]
    for line, logged, share in zip(epochs, training_log(here / "mine"), ("50%", "100%"), strict=True):
        assert all(f"{name} {value:.3f}" in line for name, value in logged["losses"].items())
        assert f"calibration {100 * logged['calibration_top1']:.1f} %, {share} done, about " in line


def test_a_run_says_a_line_per_minute(capsys: pytest.CaptureFixture[str]):
    now = iter([0.0, 30.0, 61.0, 90.0, 122.0, 190.0])
    lines = progress.RunLines(clock=lambda: next(now))
    for label, seconds in (("a", 0.5), ("b", 1), ("c", 1.5), ("d", 2), ("e", 0)):
        lines.show(label, seconds, 4)
    assert capsys.readouterr().err.splitlines() == [
        "25% after 61 s, about 3 min left: b",
        "50% after 2 min, about 2 min left: d",
        "0% after 3 min: e",
    ]


def test_a_run_whose_output_is_redirected_says_what_it_does(say: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    make_card(here / "zoo_cards" / "cnn4.digits")
    monkeypatch.setattr(progress, "MINUTE", 0)
    lines = say("run", "cnn4", "--limit", "20", "--measure", "accuracy,fog:1").err.splitlines()
    assert [line.rpartition(": ")[2] for line in lines if " after " in line][-1] == "fog 1"
    monkeypatch.setattr(progress, "MINUTE", 60)
    assert not [line for line in say("run", "cnn4", "--limit", "10").err.splitlines() if " after " in line]


# Loggers


class Recorder(TrainingLogger):
    """Keeps what it is told."""

    told: list[Any]

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        print("hello")
        self.told.append((folder.name, name, json.loads(json.dumps(settings))))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.told.append((step, dict(values)))

    def close(self) -> None:
        self.told.append("closed")


class Stuck(Recorder):
    """Cannot be closed."""

    def close(self) -> None:
        self.told.append("stuck")
        raise ConnectionError("nobody listens")


class Broken(Recorder):
    """Fails after the first epoch."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        raise ConnectionError("nobody\nlistens")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the logger `recorder` is told, which is registered like `broken`, and `absent`, whose package is not here."""
    Recorder.told = []
    specs = [
        LoggerSpec(name=name, description="", logger=f"{__name__}:{kind}", unavailable=why)
        for name, kind, why in (
            ("recorder", "Recorder", ""),
            ("broken", "Broken", ""),
            ("stuck", "Stuck", ""),
            ("absent", "A", "pip install absent"),
        )
    ]
    kinds = SimpleNamespace(Recorder=Recorder, Broken=Broken, Stuck=Stuck)
    monkeypatch.setitem(sys.modules, __name__, kinds)  # as pytest imports files, it is not there
    source = Provenance("test", "test", "1")
    made = Registry([*registry().plugins, LoadedPlugin(source, specs=tuple(replace(spec, provenance=source) for spec in specs))])
    for user in ("target", "prepare"):
        monkeypatch.setattr(f"glimpsezoo.training.{user}.registry", lambda: made)
    return Recorder.told


def test_a_logger_is_told_what_the_training_log_says(say: Ask, here: Path, told: list[Any]):
    answer = say(*TRAIN, "-o", "mine", "--log", "recorder", "--json")
    assert answer.json["name"] == "mgnet.digits"  # what a logger prints is on standard error
    assert "hello" in answer.err.splitlines()
    first, *epochs, last = told
    assert first[:2] == ("mine", "mgnet.digits")
    assert (first[2]["model"], first[2]["settings"]["glimpses"], first[2]["data"]["name"]) == ("mgnet", 2, "digits")
    assert first[2]["recipe"]["phase"][0]["epochs"] == 2
    assert last == "closed"
    expected = [
        (line["step"], {**{f"loss/{name}": value for name, value in line["losses"].items()}, "lr": line["lr"], "epoch": line["epoch"]})
        for line in training_log(here / "mine")
    ]
    assert [(step, {key: value for key, value in values.items() if key != "calibration_top1"}) for step, values in epochs] == expected
    assert all(0 <= values["calibration_top1"] <= 1 for _, values in epochs)


def test_a_logger_is_not_told_of_a_recipe_that_trains_nothing(say: Ask, here: Path, told: list[Any]):
    assert say(*TRAIN, "-o", "mine").status == 0
    (here / "same.toml").write_text("start = 'mine'\nbatch_size = 64\n")
    assert say("train", "mgnet", "--recipe", "same.toml", *TINY, "-o", "same", "--log", "recorder").status == 0
    assert told == []


def test_a_logger_that_fails_or_is_not_there_is_one_line(say: Ask, here: Path, told: list[Any]):
    answer = say(*TRAIN, "-o", "mine", "--log", "broken", "--log", "recorder")
    assert answer.status == 2
    assert "the logger 'broken' failed (ConnectionError: nobody listens): repeat the command without it" in answer.err.splitlines()[-1]
    assert told[-1] == "closed"
    assert "1 of 2" not in answer.err  # the training stopped there
    again = say(*TRAIN, "-o", "mine")
    assert again.status == 0
    assert "resumes from its checkpoint" in again.err
    assert say(*TRAIN, "--log", "absent").err == "glimpsezoo: pip install absent\n"
    assert "did you mean 'recorder'" in say(*TRAIN, "--log", "recoder").err


def test_a_logger_that_cannot_be_closed_keeps_no_other_open(say: Ask, here: Path, told: list[Any]):
    answer = say(*TRAIN, "-o", "mine", "--log", "recorder", "--log", "stuck")
    assert "the logger 'stuck' failed (ConnectionError: nobody listens)" in answer.err.splitlines()[-1]
    assert sorted(told[-2:]) == ["closed", "stuck"]


def test_a_built_in_logger_without_its_package_says_how_to_install_it(say: Ask, monkeypatch: pytest.MonkeyPatch):
    from importlib.metadata import PackageNotFoundError

    from glimpsezoo.zoo import builtin

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(builtin, "version", missing)
    assert {spec.name: spec.unavailable.partition(": ")[2] for spec in builtin.register_loggers()} == {
        "tensorboard": "pip install tensorboard",
        "wandb": "pip install wandb",
        "trackio": "pip install trackio",
    }


def test_tensorboard_reads_what_was_logged(say: Ask, here: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert say(*TRAIN, "-o", "mine", "--log", "tensorboard").status == 0
    events = EventAccumulator(str(here / "mine" / "tensorboard"))
    events.Reload()
    lines = training_log(here / "mine")
    for tag, values in {"loss/global": [line["losses"]["global"] for line in lines], "lr": [line["lr"] for line in lines]}.items():
        found = events.Scalars(tag)
        assert [event.step for event in found] == [line["step"] for line in lines]
        assert [event.value for event in found] == pytest.approx(values)


def test_wandb_keeps_a_run_on_this_machine(say: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert say(*TRAIN, "-o", "mine", "--log", "wandb").status == 0
    (run,) = (here / "mine" / "wandb").glob("offline-run-*/run-*.wandb")
    assert all(name.encode() in run.read_bytes() for name in ("loss/global", "calibration_top1", "mgnet.digits"))


def test_trackio_keeps_a_run_on_this_machine(say: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACKIO_DIR", str(here / "trackio"))  # trackio reads it when it is imported
    pytest.importorskip("trackio")
    answer = say(*TRAIN, "-o", "mine", "--log", "trackio", "--json")
    assert answer.json["name"] == "mgnet.digits"
    assert any(b"calibration_top1" in path.read_bytes() for path in (here / "trackio").rglob("*") if os.path.isfile(path))
