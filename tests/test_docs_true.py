"""What cards and commands tell a reader to do works as it stands; nothing is promised that is not there."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Answer, photos

from glimpsezoo.zoo.cards import Card

ROOT = Path(__file__).parent.parent
FLOPS = ("--measure", "flops", "--json")


def told(text: str, pattern: str = r"^(?:measure it: )?(glimpsezoo run .*)$") -> list[str]:
    """The words of the first command that a text tells."""
    found = re.search(pattern, text, re.MULTILINE)
    assert found, text
    return shlex.split(found[1])[1:]


@pytest.mark.parametrize("folder", ["mine", "deep/down/mine", "zoo_cards/mgnet.photos", "zoo_cards/other.name"])
def test_the_command_in_the_readme_of_a_trained_card_measures_that_card(say: Callable[..., Answer], here: Path, folder: str):
    photos(here / "photos")
    words = ("--data", "folder:photos", "--set", "data.size=32", "--epochs", "2", "-o", folder)
    trained = say("train", "cnn4", *words)
    assert trained.status == 0, trained.err
    card = Card.read(Path(folder))
    readme = (Path(folder) / "README.md").read_text(encoding="utf-8")
    assert card.config.weights
    for command in (told(readme), told(trained.out)):
        answer = say(*command, *FLOPS)
        assert answer.status == 0, answer.err
        assert card.config.weights.sha256 in answer.out, command


def test_the_tests_behind_the_promises_exist():
    """And each part of the page has its row in the table of tests."""
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    promises, table = page.split("## The tests")
    named = re.findall(r"`(test_\w+\.py|\.ci/\w+)`", table)
    assert named
    assert not [name for name in named if not ((ROOT / name).exists() or (ROOT / "tests" / name).exists())]
    assert table.count("\n| ") == 1 + 1 + promises.count("\n## ")  # the head, the line below it, and the parts


def test_nothing_is_installed_from_an_index_that_is_not_on_one():
    """Neither glimpsezoo nor its plugins are on an index, so no page, card or message says to install them by name."""
    texts = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("*/**/*.py"),
        *ROOT.glob("plugins/**/*.md"),
        *ROOT.glob("*/*/README.md"),
    ]
    promise = re.compile(r"pip install\s+(?:-\S+\s+)*'?glimpsezoo(?:-\w+)?(?:\[|\b(?![-/]))")
    found = [path.relative_to(ROOT).as_posix() for path in texts if promise.search(path.read_text(encoding="utf-8"))]
    assert found == []


def test_a_card_says_what_it_needs_before_its_command():
    for path in [
        *ROOT.glob("zoo_cards/*/README.md"),
        *ROOT.glob("benchmarks/cards/*/README.md"),
        *ROOT.glob("plugins/*/*/zoo_cards/*/README.md"),
    ]:
        text = path.read_text(encoding="utf-8").split("---\n", 2)[2]
        before, _, _ = text.partition("```")
        kept = "are not in this folder" in before
        assert kept or "It needs glimpsezoo with the plugin" in before, path
        if not kept and ".digits" not in path.parent.name:
            assert "data set" in before, path
