"""What a model's page says in short: what it sees, what that costs, its weights and their licences, a command, and how it compares.

All but what a glimpse model sees and what its authors released is taken from the code, the cards and their evidence. Those rows are prose:
they stand in the table without headings in the README of the plugin. A row of one of its models alone has its name in brackets:
"sees (`ram`)".
"""

import shlex
import tomllib
from collections.abc import Iterable
from functools import cache
from itertools import takewhile

from generating.checkout import ROOT, called, card_link, cards_of, distribution, ours, spec_of
from generating.comparisons import Group, groups, link_to
from generating.markdown import joined, row_text, slug, table
from glimpsezoo import FeedForward, create_model
from glimpsezoo.measures.costs import cost_text, step_costs
from glimpsezoo.measures.flops import flops_of
from glimpsezoo.measures.text import macs_text, percent
from glimpsezoo.reports.readme import run_command
from glimpsezoo.specs import ImporterSpec, ModelSpec, PaperSpec, load_string
from glimpsezoo.zoo.cards import Card

EXAMPLE = "resnet18"  # of the names that a model with a prefix takes
COUNTED = "imagenet"  # the data for which models without a measured card were made: the cost of these is counted on noise of its size


def in_short(spec: ModelSpec) -> str:
    """The section of a model's page."""
    rows = [
        ("sees", "the whole image, in its only look" if feed_forward(spec) else told(spec, "sees")),
        ("its only look costs" if feed_forward(spec) else "the first look costs", costs(spec)),
        ("weights", weights(spec)),
        ("licence", licence(spec)),
        ("try it", f"`{command(spec)}`"),
        ("compared", compared(spec)),
    ]
    if not feed_forward(spec):
        rows.append(("published", told(spec, "published")))
    head, line, *_ = table(("", ""), [("", "")]).splitlines()
    return joined("## In short", "\n".join([head, line, *(row_text(row) for row in rows if row[1])]))


def feed_forward(spec: ModelSpec) -> bool:
    return issubclass(load_string(spec.model), FeedForward)


@cache
def prose_rows(plugin: str) -> dict[str, str]:
    """The rows of the table without headings in the README of a plugin, by their first cell."""
    text = (ROOT / "plugins" / plugin / "README.md").read_text(encoding="utf-8").partition("\n| | |\n| --- | --- |\n")[2]
    rows = [line.strip("| ").split(" | ", 1) for line in takewhile(lambda line: line.startswith("|"), text.splitlines())]
    return {heading: said.replace("(#", f"(../plugins/{plugin}.md#") for heading, said in rows}


def told(spec: ModelSpec, heading: str) -> str:
    """What the README of the plugin says of this model, or else of all its models; '' if it says nothing."""
    rows = prose_rows(distribution(spec))
    return rows.get(f"{heading} (`{spec.name}`)", rows.get(heading, ""))


def measured(spec: ModelSpec) -> list[tuple[Group, list[int]]]:
    """Each group of cards with some of this model, and the places of these, the most accurate first. Other seeds of a card are left out."""
    every = [group for several in groups().values() for group in several]
    places = [(group, [k for k, card in enumerate(group.cards) if spec_of(card) is spec and called(card) == card.name]) for group in every]
    return [(group, own) for group, own in places if own]


def costs(spec: ModelSpec) -> str:
    """MACs of the first step, of those of the whole run: of the card with the most looks on each data set, as the authors count, or
    counted here without weights."""
    if found := measured(spec):
        return "; ".join(map(cost_of_most_looks, found))
    for card in cards_of(spec):
        if (published := card.config.published()) and published.macs:
            return f"{card.config.data.name}: {macs_text(published.macs[0])} MACs, as the authors count ({card_link(card)})"
    first = flops_of(create_model(example(spec), data=COUNTED), images=1).steps[0]
    return f"{COUNTED}: {macs_text(first.macs)} MACs (`{example(spec)}`, untrained)"


def cost_of_most_looks(found: tuple[Group, list[int]]) -> str:
    group, own = found
    place = max(own, key=lambda k: len(step_costs(group.entries[k].result)))
    result = group.entries[place].result
    steps = [cost_text(result, macs) for macs in step_costs(result)]
    whole = f" of {steps[-1]}" if len(steps) > 1 else ""
    return f"{group.name}: {steps[0]}{whole} MACs ({card_link(group.cards[place])})"


def example(spec: ModelSpec) -> str:
    return spec.name + (EXAMPLE if spec.prefix else "")


def counting(spec: ModelSpec) -> str:
    return shlex.join(["glimpsezoo", "run", example(spec), "--data", COUNTED, "--checkpoint", "none", "--measure", "flops"])


def weights(spec: ModelSpec) -> str:
    """Its cards, and what others released."""
    released = [card for card in cards_of(spec) if card.config.released]
    here = [card for card in cards_of(spec) if card.has_file]
    away = [card for card in cards_of(spec) if card not in [*released, *here]]
    parts = [
        *(f"{card_link(card)}, the authors' own, from the Hub" for card in released),
        *([f"{several(here)} with weights ({data_of(here)})"] if here else []),
        *([f"{several(away)} with evidence alone, to be trained by recipe ({data_of(away)})"] if away else []),
    ]
    imported = [told(spec, "released weights")] if importers(spec) else []
    return "; ".join([*(parts or ["no card"]), *imported]) if parts or imported else "none"


def several(found: list[Card]) -> str:
    return "1 card" if len(found) == 1 else f"{len(found)} cards"


def data_of(found: Iterable[Card]) -> str:
    return ", ".join(sorted({card.config.data.name for card in found}))


def importers(spec: ModelSpec) -> list[ImporterSpec]:
    """The importer of weights of others into this model, which has its name."""
    return [each for each in ours(ImporterSpec) if each.name == spec.name]


def licence(spec: ModelSpec) -> str:
    """That of the code and those of the cards. What others released has its own, which the row of the weights says."""
    project = tomllib.loads((ROOT / "plugins" / distribution(spec) / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = sorted({card.config.license for card in cards_of(spec)})
    return "; ".join([f"{project['license']} (code)", *([f"{', '.join(found)} (cards)"] if found else [])])


def command(spec: ModelSpec) -> str:
    """A command that runs as it stands: it measures a card, trains one, or counts what the untrained model costs."""
    ready = [card for card in cards_of(spec) if card.has_file or card.origin]
    if ready:
        return run_command(ready[0], called(ready[0]))
    if cards_of(spec):
        return shlex.join(["glimpsezoo", "train", cards_of(spec)[0].name])
    return counting(spec)


def compared(spec: ModelSpec) -> str:
    """Its most accurate card on each data set, beside the most accurate one of another model there."""
    found = []
    for group, (place, *_) in measured(spec):
        other = next((k for k, card in enumerate(group.cards) if spec_of(card) is not spec and called(card) == card.name), None)
        beside = f", {accuracy(group, other)}" if other is not None else ", the only model measured there"
        found.append(f"{link_to(group.data)}{group.name.removeprefix(group.data)}: {accuracy(group, place)}{beside}")
    papers = [each for each in ours(PaperSpec) if each.url in spec.paper]
    printed = [f"[what the paper prints](../REPRODUCTION.md#{slug(each.description)})" for each in papers]
    return "; ".join(found or ["not measured here", *printed])


def accuracy(group: Group, place: int) -> str:
    result = group.entries[place].result
    return f"`{called(group.cards[place])}` {percent(result.accuracy.top1)} % at {cost_text(result, step_costs(result)[-1])} MACs"
