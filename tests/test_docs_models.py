"""What the page of a model says in short is true of that very model, by its code, its cards and their evidence."""

import re
from functools import cache
from pathlib import Path

import pytest

from glimpsezoo import FeedForward, create_model
from glimpsezoo.files import file_name
from glimpsezoo.measures.flops import flops_of
from glimpsezoo.measures.text import macs_text
from glimpsezoo.specs import ModelSpec, load_string
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.plugins import registry
from glimpsezoo.zoo.results import read_result

pytestmark = pytest.mark.repository

ROOT = Path(__file__).parent.parent
PAGES = [path for path in sorted((ROOT / "docs" / "models").glob("*.md")) if path.stem != "index"]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@cache
def cards() -> dict[str, Card]:
    """The cards of the repository, by the names of their folders."""
    homes = (ROOT / "zoo_cards", ROOT / "benchmarks" / "cards", *ROOT.glob("plugins/*/*/zoo_cards"))
    return {path.parent.name: Card.read(path.parent) for home in homes for path in home.glob("*/config.json")}


def own(page: Path) -> dict[str, Card]:
    return {name: card for name, card in cards().items() if card.config.model == page.stem}


def spec_of(page: Path) -> ModelSpec:
    return next(spec for spec in registry().all(ModelSpec) if file_name(spec.name).rstrip("_") == page.stem)


def in_short(page: Path) -> dict[str, str]:
    """The rows of the section by their first cell."""
    text = page.read_text(encoding="utf-8").partition("## In short\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| (?!---)([^|]+?) \| (.*) \|$", text, re.MULTILINE))


def cost_of(page: Path) -> str:
    rows = in_short(page)
    return rows["its only look costs" if issubclass(load_string(spec_of(page).model), FeedForward) else "the first look costs"]


def linked(text: str) -> list[str]:
    return re.findall(r"\]\(\.\./cards/(\S+)\.md\)", text)


@every_page
def test_every_model_says_what_a_reader_asks_first(page: Path):
    rows = in_short(page)
    assert {"sees", "weights", "licence", "try it", "compared"} < rows.keys()
    assert cost_of(page)
    assert all(rows.values())
    command = rows["try it"].strip("`").split()
    assert command[:2] in (["glimpsezoo", "run"], ["glimpsezoo", "train"])
    assert command[2] in own(page) or command[2].startswith(spec_of(page).name)
    if issubclass(load_string(spec_of(page).model), FeedForward):
        assert rows["sees"].startswith("the whole image")
        assert not re.search("patch|glimpse|crop|cell", rows["sees"])


@every_page
def test_the_first_look_costs_what_was_counted(page: Path):
    said = cost_of(page)
    for entry in said.split("; "):
        names = linked(entry)
        if names:
            card = own(page)[names[0]]
            published = card.config.published()
            steps = [step.macs for step in result.flops.steps] if (result := _result(card)) else published.macs[:1] if published else ()
            assert re.findall(r"([\d.]+ [kMG])(?= (?:of|MACs))", entry) == [
                macs_text(macs) for macs in dict.fromkeys((steps[0], steps[-1]))
            ]


def _result(card: Card):
    path = card.folder / "result.json"
    return read_result(path.read_bytes()) if path.is_file() else None


@pytest.mark.parametrize(("name", "model"), [("pyramid-imagenet-bl1", "pyramid-imagenet-bl1"), ("timm", "timm:resnet18")])
def test_a_model_without_cards_costs_what_it_costs_untrained(name: str, model: str):
    first = flops_of(create_model(model, data="imagenet"), images=1).steps[0]
    assert cost_of(ROOT / "docs" / "models" / f"{name}.md") == f"imagenet: {macs_text(first.macs)} MACs (`{model}`, untrained)"


@every_page
def test_weights_and_licences_are_those_of_its_own_cards(page: Path):
    rows, mine = in_short(page), own(page)
    kept = [card for card in mine.values() if not card.config.released]
    named = {data for found in re.findall(r"cards? with [^(]*\(([^)]*)\)", rows["weights"]) for data in found.split(", ")}
    assert named == {card.config.data.name for card in kept}
    assert sum(map(int, re.findall(r"(\d+) cards? with", rows["weights"]))) == len(kept)
    said = re.search(r"([^;]*) \(cards\)", rows["licence"])
    assert {card.config.license for card in mine.values()} == (set(said[1].strip().split(", ")) if said else set())


@every_page
def test_it_is_compared_by_a_card_of_its_own_with_one_of_another_model(page: Path):
    entries = in_short(page)["compared"].split("; ")
    pairs = [re.findall(r"`([^`]+)` [\d.]+ %", entry) for entry in entries]
    if not any(result.accuracy for card in own(page).values() if (result := _result(card))):
        assert entries[0] == "not measured here"
        return
    for mine, *others in pairs:
        assert mine in own(page)
        assert not [other for other in others if other in own(page)]
    measured = {result.data.name for card in own(page).values() if (result := _result(card)) and result.accuracy}
    assert {found[1] for entry in entries if (found := re.match(r"\[([^\]]+)\]", entry))} == measured
