"""docs/shell.md: the keys of JSON outputs are those that it lists, and its file is one that `run` takes."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import RECIPE, Answer, make_card

Ask = Callable[..., Answer]
TEXT = (Path(__file__).parents[1] / "docs" / "shell.md").read_text(encoding="utf-8")
OPEN = {"defaults", "splits", "recipe"}  # values with keys of their own


def documented(title: str) -> set[str]:
    """The keys in the section of a command."""
    found = re.search(rf"^### `{re.escape(title)}`\n(.*?)(?=^##|\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found, title
    cells = re.findall(r"^\| (`.*?) \|", found[1], re.MULTILINE)
    above = re.findall(r"^As above: (.*)", found[1], re.MULTILINE)
    return {key for cell in [*cells, *above] for key in re.findall(r"`(.+?)`", cell)}


def keys(value: Any, path: str = "") -> Iterator[str]:
    """The keys of a JSON value, as the page writes them."""
    if isinstance(value, dict) and path not in OPEN:
        for key, inner in value.items():
            yield from keys(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, f"{path}[]")
    else:
        yield path


def without_lists(found: set[str]) -> set[str]:
    """Without the lists that may be empty."""
    return found - {"notes[]", "clashes[]", "plugins[].registers[]"}


def test_the_keys_of_lists_are_documented(say: Ask):
    assert {key.replace("models", "KIND") for key in keys(say("list", "models", "--json").json)} == documented("list --json")
    assert without_lists(set(keys(say("plugins", "--json").json))) == without_lists(documented("plugins --json"))


def test_the_keys_of_models_and_data_are_documented(say: Ask):
    model = {re.sub(r"default\[\]$", "default", key) for key in keys(say("show", "mgnet", "--json").json)}
    assert model == documented("show MODEL --json")
    data = {key.partition("[]")[0] for key in keys(say("show", "digits", "--json").json)}
    assert data == documented("show DATA --json")


def test_the_keys_of_plans_are_documented(say: Ask, here: Path):
    make_card(here / "zoo_cards" / "cnn4.digits")
    (here / "tiny.toml").write_text(RECIPE)
    run = set(keys(say("run", "cnn4", "--limit", "10", "--dry-run", "--json").json))
    assert without_lists(run) == without_lists(documented("run --dry-run --json"))
    training = set(keys(say("train", "cnn4", "--recipe", "tiny.toml", "--dry-run", "--json").json))
    assert without_lists(training) == without_lists(documented("train --dry-run --json"))


def test_the_page_s_file_is_one_that_run_takes(say: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("command_line.quickly", lambda texts: texts)
    make_card(here / "zoo_cards" / "mgnet.digits", "mgnet")
    make_card(here / "zoo_cards" / "cnn4.digits")
    (file,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    (here / "mine.toml").write_text(file)
    plan = say("run", "--config", "mine.toml", "--dry-run", "--limit", "20", "--json").json
    assert {(share["model"], share["measure"]) for share in plan["plan"]} >= {("mgnet.digits", "corruptions"), ("cnn4.digits", "attacks")}
    assert "mgnet.digits (glimpses=2)" in plan["subject"]
