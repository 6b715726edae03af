"""`train` and `import`, killed at changes of the file system: the same command again ends as if nothing had happened."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import RECIPE, TINY, tree
from killed import KILLED, kill_everywhere

from glimpsezoo.zoo.card_config import CONFIG
from glimpsezoo.zoo.cards import LOG, README, WEIGHTS

pytestmark = pytest.mark.repository

TRAIN = ("train", "mgnet", "--recipe", "../tiny.toml", *TINY, "-o", "mine", "--set", "train.steps=2")
# A checkpoint after every step.
OFTEN = "from glimpsezoo.training.job import TrainingJob; TrainingJob.__init__.__kwdefaults__['checkpoint_seconds'] = 0"
IMPORT = ("import", "mgnet", "../released.ckpt", "-o", "mine", "--data", "digits")
IMPORTER = """
import glimpsezoo as gz, glimpsezoo_mgnet.importer
model = gz.create_model("mgnet", data="digits", glimpses=2, backbone="cnn4", seed=3)
task = gz.Task((64, 64), 1, tuple(f"class {n}" for n in range(10)))
glimpsezoo_mgnet.importer.importer = lambda path, sets: (model.config, task, model.state_dict(), [])
"""
COMMANDS = pytest.mark.parametrize(("words", "setup"), [(TRAIN, OFTEN), (IMPORT, IMPORTER)], ids=["train", "import"])


def contents(folder: Path) -> dict[str, Any]:
    """Every file of a card, without how long the training took."""
    config = json.loads((folder / CONFIG).read_text())
    config["trained"].pop("minutes", None)
    found = tree(folder)
    del found[README]  # which says the minutes, too
    return {**found, CONFIG: config}


def check_everywhere(here: Path, words: tuple[str, ...], setup: str, most: int | None) -> None:
    (here / "tiny.toml").write_text(RECIPE)
    (here / "released.ckpt").write_bytes(b"")
    whole, cases = kill_everywhere(here, words, setup=setup, most=most)
    assert whole.status == 0
    expected = contents(here / "whole" / "mine")
    assert {WEIGHTS, CONFIG, *({LOG} if words is TRAIN else ())} <= expected.keys()
    for folder, killed, again in cases:
        assert killed.status == KILLED, folder
        finished = (folder / "mine" / CONFIG).is_file()
        assert again.status == 0 or (finished and "with one: choose another --output" in again.err), (folder, again.err)
        assert contents(folder / "mine") == expected, folder
        assert (folder / "mine" / README).is_file()


@COMMANDS
def test_killed_at_changes_of_the_file_system(tmp_path: Path, words: tuple[str, ...], setup: str):
    check_everywhere(tmp_path, words, setup, most=6)


@pytest.mark.slow
@COMMANDS
def test_killed_at_every_change_of_the_file_system(tmp_path: Path, words: tuple[str, ...], setup: str):
    check_everywhere(tmp_path, words, setup, most=None)
