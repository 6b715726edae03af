"""`run --config FILE`: a file's keys are the options of the command, and what a run leaves makes the same run again."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Answer, make_card, photo_card, photos, tree

Ask = Callable[..., Answer]
OF_TIME = ("started", "finished", "units")


@pytest.fixture(autouse=True)
def as_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No `--measure` is added to a command that has none."""
    monkeypatch.setattr("command_line.quickly", lambda texts: texts)


@pytest.fixture
def cards(here: Path) -> Path:
    make_card(here / "zoo_cards" / "mgnet.digits", "mgnet", glimpses=2, backbone="cnn4", downsample=4)
    make_card(here / "zoo_cards" / "cnn4.digits")
    return here


def results(folder: Path) -> dict[str, Any]:
    """The results of a run without time and environment, by model."""
    found = {}
    for path in folder.glob("*/result.json"):
        content = json.loads(path.read_text())
        run = {key: value for key, value in content.pop("run").items() if key not in OF_TIME}
        found[path.parent.name] = {**content, "run": run, "environment": None, "hashes": None}
    return found


def test_command_toml_makes_the_run_again(say: Ask, cards: Path):
    settings = ("--set", "mgnet.alpha=0.25", "--set", "data.seed=2")
    words = ("mgnet", "cnn4", "--limit", "30", "--seed", "3", *settings, "--measure", "accuracy,fog:2")
    assert say("run", *words).status == 0
    (folder,) = (path.parent for path in (cards / "runs").glob("*/command.toml"))
    first, file = results(folder), (folder / "command.toml").read_text()
    assert set(first) == {"mgnet.digits", "cnn4.digits"}
    again = say("run", "--config", folder / "command.toml", "--fresh")
    assert (again.status, again.err.count(f"results in {folder.relative_to(cards)}")) == (0, 1)
    kept = results(folder)
    for result in kept.values():
        result["run"]["command"] = result["run"]["command"].removesuffix(" --fresh")
    assert kept == first
    assert (folder / "command.toml").read_text() == file


def test_a_file_has_all_kinds_of_values_and_what_is_typed_wins(say: Ask, here: Path):
    photos(here / "photos")
    photo_card(here / "zoo_cards" / "small")
    photo_card(here / "zoo_cards" / "other", seed=1)
    (here / "mine.toml").write_text(
        'models = ["small"]\ndata = "folder:photos"\nlimit = 6\nseed = 4\nmeasure = ["accuracy", "flops"]\ncompile = false\n'
        'output = "out"\njson = true\n[set]\ndata = { size = 24, seed = 5 }\n'
    )
    first = say("run", "--config", "mine.toml").json["results"]
    assert [(each["model"]["name"], each["run"]["seed"], each["data"]["image_size"]) for each in first] == [("small", 4, [24, 24])]
    assert first[0]["run"]["command"] == (
        "glimpsezoo run small --data folder:photos --limit 6 --seed 4 --set data.size=24 --set data.seed=5 "
        "--measure accuracy,flops --output out --json"
    )
    typed = ("other", "small", "--seed", "1", "--set", "data.size=16", "-o", "second")
    second = say("run", *typed, "--config", "mine.toml").json["results"]
    assert [(each["model"]["name"], each["run"]["seed"], each["data"]["image_size"]) for each in second] == [
        ("other", 1, [16, 16]),
        ("small", 1, [16, 16]),
    ]
    left = tomllib.loads((here / "second" / "command.toml").read_text())
    assert left == {
        "models": ["other", "small"],
        "data": "folder:photos",
        "limit": 6,
        "seed": 1,
        "measure": "accuracy,flops",
        "compile": False,
        "set": {"data.seed": "5", "data.size": "16"},
    }


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("limt = 3", ("got 'limt'", "did you mean 'limit'")),
        ("model = ['cnn4']", ("got 'model'", "'models'")),
        ("debug = true", ("got 'debug'",)),
        ("limit = ", ("expects a TOML file, got 'mine.toml'",)),
        ("limit = 'many'", ("--limit", "'many'")),
        ("limit = 1.5", ("--limit", "'1.5'")),
        ("limit = true", ("expects text, a number or a list for 'limit', got True",)),
        ("compile = 'yes'", ("expects true or false for 'compile', got 'yes'",)),
        ("models = 'cnn4'", ("expects a list for 'models', got 'cnn4'",)),
        ("set = ['glimpses=3']", ("expects a table for 'set'",)),
        ("models = ['cnn5']", ("got 'cnn5'", "'cnn4'")),
        ("models = ['cnn4']\n[set]\nglimpse = 3", ("--set glimpse expects a setting of cnn4",)),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(say: Ask, here: Path, text: str, parts: tuple[str, ...]):
    (here / "mine.toml").write_text(text)
    before = tree(here)
    answer = say("run", "--config", "mine.toml")
    assert (answer.status, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert all(part in answer.err for part in parts), answer.err
    assert tree(here) == before


def test_a_file_that_is_not_there_is_one_line(say: Ask):
    answer = say("run", "--config", "nowhere.toml")
    assert (answer.status, answer.err.count("\n")) == (2, 1)
    assert "--config expects a TOML file, got 'nowhere.toml'" in answer.err
