"""Pages of the models, and of the cards."""

import inspect
import io
import shlex
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from generating.checkout import called, card_link, cards, cards_of, distribution, ours, page_of, plugins, spec_of
from generating.facts import in_short
from generating.markdown import code, joined, prose, settings_table, shown, slug, table
from glimpsezoo.files import file_name
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.text import macs_text, with_interval
from glimpsezoo.measures.threats import cell_of, masking_text
from glimpsezoo.reports.readme import card_text, run_command
from glimpsezoo.reports.table import print_results
from glimpsezoo.specs import DatasetSpec, ModelSpec, Spec, load_string
from glimpsezoo.workflows.tracing import TraceRequest, draw_traces
from glimpsezoo.zoo.cards import CURVE, Card
from glimpsezoo.zoo.plugins import registry
from glimpsezoo.zoo.recipes import recipe_names, recipe_title
from glimpsezoo.zoo.results import evidence

EMBEDDED = "digits"  # the data set that needs no network: pictures of its cards can be drawn anywhere
DRAWN = 57  # the test image of every picture: none is chosen by how well a model looks at it
RECIPES = "`glimpsezoo train` takes a recipe's name, or a model with `--data`."


def pages() -> dict[str, str]:
    """A page for every plugin, which is its README, for every model and for every card, by its path below docs/."""
    found = {"models/index.md": models_page()}
    found |= {f"plugins/{folder.name}.md": (folder / "README.md").read_text(encoding="utf-8") for folder in plugins()}
    found |= {f"models/{page_of(spec)}": model_page(spec) for spec in ours(ModelSpec)}
    return found | {f"cards/{called(card)}.md": card_page(card) for card in cards()}


def pictures() -> dict[str, str]:
    """Every card's training curve, and the looks of those that can be drawn here: SVG by its path below docs/."""
    curves = {f"cards/{curve_of(card)}": card.folder / CURVE for card in cards()}
    found = {path: file.read_text(encoding="utf-8") for path, file in curves.items() if file.is_file()}
    return found | {f"cards/{called(card)}.svg": picture(card) for card in cards() if drawable(card)}


def curve_of(card: Card) -> str:
    """The file with a card's training curve, beside its page."""
    return f"{called(card)}.{CURVE}"


def models_page() -> str:
    every = [(f"[`{s.title}`]({page_of(s)})", s.description, ", ".join(map(card_link, cards_of(s)))) for s in ours(ModelSpec)]
    headings = ("card", "data", "top-1 %", "corrupted %", "attack", "attacked %", "masking", "MACs/image")
    return joined(
        "# Models",
        "Every model of this checkout. A card is a trained one, with its evidence.",
        table(("model", "what it is", "cards"), every),
        "## What was measured",
        "At the last step, with 95 % intervals. A card's page has every step, the early exits and the commands; "
        "[what the numbers mean](../measuring.md) says how far they can be trusted, "
        "[reproduction](../REPRODUCTION.md) what the papers print.",
        table(headings, filter(None, map(measured, cards()))),
    )


def measured(card: Card) -> tuple[str, ...] | None:
    """A card in one row; None if it is not measured."""
    result = evidence(card)
    if result is None or result.accuracy is None:
        return None
    data, attack = card.config.data.name, next(iter(result.attacks), None)
    section = slug(registry().find(DatasetSpec, data).title)
    return (
        card_link(card),
        f"[{data}](../reference/data.md#{section})",
        with_interval(result.accuracy.top1),
        with_interval(result.corruptions.mean) if result.corruptions else "",
        attack.name if attack else "",
        cell_of(attack.full_name, "steps")(result, -1).text if attack else "",
        masking_text(result, attack) if attack else "",
        macs_text(result.accuracy.steps[-1].macs),
    )


def plugin_link(spec: Spec) -> str:
    return f"[{distribution(spec)}](../plugins/{distribution(spec)}.md)"


def model_page(spec: ModelSpec) -> str:
    facts = [("paper", spec.paper or "none"), ("plugin", plugin_link(spec)), ("class", f"`{spec.model}`")]
    defaults = [
        (f"`{data}`", ", ".join(f"`{key}={shown(value)}`" for key, value in values.items())) for data, values in spec.defaults.items()
    ]
    recipes = [(f"`{name}`", recipe_title(spec, name)) for name in recipe_names(spec)]
    return joined(
        f"# {spec.title}",
        spec.description,
        table(("", ""), facts),
        in_short(spec),
        *(looks(card, "../cards/") for card in cards_of(spec) if called(card) == f"{spec.name}.{EMBEDDED}"),
        "## Numbers",
        compared_on(spec),
        *(numbers(spec) or [without_numbers(spec)]),
        "## What it computes",
        prose(inspect.getdoc(inspect.getmodule(load_string(spec.model))) or ""),
        "## Settings",
        settings_table(spec.config),
        *(["On these data sets the defaults are others:", table(("data", "defaults"), defaults)] if defaults else []),
        *(["## Recipes", RECIPES, table(("recipe", "what it trains"), recipes)] if recipes else []),
    )


def compared_on(spec: ModelSpec) -> str:
    """Links to the pages of the data sets that its cards were measured on."""
    results = [result for card in cards_of(spec) if (result := evidence(card)) and result.accuracy]
    names = sorted({result.data.name for result in results})
    return f"Beside all other cards: {', '.join(f'[{name}](../comparisons/{file_name(name)}.md)' for name in names)}." if names else ""


def without_numbers(spec: ModelSpec) -> str:
    if not cards_of(spec):
        return "No card of it is in this checkout: train one by a recipe, or measure it untrained with `--checkpoint none`."
    return f"Not measured here. What the authors report: {', '.join(map(card_link, cards_of(spec)))}."


def numbers(spec: ModelSpec) -> list[str]:
    """What `run` prints of each measured card of a model, from its evidence. Other seeds of a card have only pages of their own."""
    found = [(card, result) for card in cards_of(spec) if called(card) == card.name and (result := evidence(card))]
    return [
        joined(f"### {card.name}", code(run_command(card, card.name)), code(printed(result), "text"), f"All of it: {card_link(card)}.")
        for card, result in found
    ]


def printed(result: Result) -> str:
    console = Console(file=(file := io.StringIO()), width=100, highlight=False, color_system=None)
    print_results([result], console)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def card_page(card: Card) -> str:
    """The card's README without the Hub's metadata, with a picture."""
    text = card_text(card, evidence(card)).split("---\n", 2)[2].replace(f"]({CURVE})", f"]({curve_of(card)})")
    text = text.replace(f"# {card.name}\n", f"# {called(card)}\n", 1)
    model = f"`{card.config.model}`"
    before, heading, after = text.replace(model, f"[{model}](../models/{page_of(spec_of(card))})", 1).partition("## How it was made")
    return joined(before, looks(card, ""), heading + after)


def looks(card: Card, folder: str) -> str:
    """The picture of a card that can be drawn, as a section."""
    if not drawable(card):
        return ""
    words = f"Where {card.name} looks on image {DRAWN} of the test split, and what it says after each look"
    sets = [word for setting in data_settings(card) for word in ("--set", setting)]
    command = ["glimpsezoo", "trace", card.name, "--data", EMBEDDED, "--index", str(DRAWN), *sets, "-o", "looks.svg"]
    return joined("## Where it looks", f"![{words}]({folder}{called(card)}.svg)", code(shlex.join(command)))


def drawable(card: Card) -> bool:
    return card.config.data.name == EMBEDDED and card.has_file


def data_settings(card: Card) -> tuple[str, ...]:
    return tuple(f"data.{key}={value}" for key, value in card.config.data.settings.items())


def picture(card: Card) -> str:
    """What `glimpsezoo trace` draws of a card."""
    with tempfile.TemporaryDirectory() as folder:
        path, sets = Path(folder) / "looks.svg", data_settings(card)
        draw_traces(
            TraceRequest(model=str(card.folder), device=torch.device("cpu"), data=EMBEDDED, indices=(DRAWN,), sets=sets, output=path)
        )
        return path.read_text(encoding="utf-8")
