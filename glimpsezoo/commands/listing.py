"""`list`, `show` and `plugins`: what is installed and available. None of them imports torch."""

import fnmatch
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from glimpsezoo.commands import options
from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.settings import settings_of
from glimpsezoo.specs import AttackSpec, CorruptionSpec, DatasetSpec, ExitRuleSpec, ImporterSpec, ModelSpec, PaperSpec, Spec, load_string
from glimpsezoo.zoo.cards import Card, card_paths, find_card
from glimpsezoo.zoo.headline import headline
from glimpsezoo.zoo.plugins import registry
from glimpsezoo.zoo.recipes import recipe_names, recipe_title

KINDS: dict[str, type[Spec]] = {
    "models": ModelSpec,
    "data": DatasetSpec,
    "corruptions": CorruptionSpec,
    "attacks": AttackSpec,
    "exit-rules": ExitRuleSpec,
    "importers": ImporterSpec,
    "papers": PaperSpec,
}
MOST_NAMED = 20  # classes that `show` names
ALL_KINDS = ("models", "cards", "data", "recipes", "corruptions", "attacks", "exit-rules", "importers", "papers")


@click.command("list")
@click.argument("kind", required=False)
@click.argument("pattern", default="*")
@options.as_json
@options.debug
def list_(kind: str | None, pattern: str, as_json: bool, debug: bool) -> None:
    """List models, cards, data, recipes, papers and more.

    KIND is one of models, cards, data, recipes, corruptions, attacks, exit-rules, importers and papers; without it, all are listed.
    PATTERN may have wildcards: *, ?, [abc].

    \b
    Examples:
      glimpsezoo list
      glimpsezoo list models 'mgnet*'
      glimpsezoo list data
    """
    if kind is not None and kind not in ALL_KINDS:
        raise GlimpseZooError(f"expected one of {', '.join(ALL_KINDS)}, got {kind!r}: {did_you_mean(kind, ALL_KINDS)}")
    every = {k: _rows(k) for k in ([kind] if kind else ALL_KINDS)}
    found = {k: [row for row in rows if fnmatch.fnmatchcase(row["name"], pattern)] for k, rows in every.items()}
    if pattern != "*" and not any(found.values()):
        known = [row["name"] for rows in every.values() for row in rows]
        raise GlimpseZooError(f"expected a pattern that matches a name, got {pattern!r}: {did_you_mean(pattern, known)}")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    console = options.stdout()
    if not any(found.values()):
        options.say(f"no {kind} yet" + (": train one ('glimpsezoo train mgnet --data digits')" if kind == "cards" else ""))
    for name, rows in found.items():
        if name == "recipes" and kind is None and pattern == "*":  # there are more recipes than anything else
            console.print(Text.assemble(("recipes", "bold"), f"\n{len(rows)}: see 'glimpsezoo list recipes'\n"))
        elif rows:
            console.print(_table(name, rows))
            console.print()


def _table(kind: str, rows: list[dict[str, str]]) -> Table:
    """One row per name. Recipes need no column for their plugin: their names begin with the model."""
    table = Table(title=kind, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="cyan")
    table.add_column()
    table.add_column(style="dim", no_wrap=True)
    for row in rows:
        table.add_row(Text(row["name"]), Text(row["description"]), "" if kind == "recipes" else row["from"])
    return table


def _rows(kind: str) -> list[dict[str, str]]:
    if kind == "cards":
        return [_card_row(name, folder) for name, folder in card_paths().items()]
    if kind == "recipes":
        models = registry().all(ModelSpec)
        return [
            {"name": name, "description": recipe_title(spec, name) or f"trains {spec.name}", "from": _from(spec)}
            for spec in models
            for name in recipe_names(spec)
        ]
    specs = registry().all(KINDS[kind])
    return [{"name": s.name + ("NAME" if s.prefix else ""), "description": s.description, "from": _from(s)} for s in specs]


def _from(spec: Spec) -> str:
    return spec.provenance.distribution if spec.provenance else ""


def _card_row(name: str, folder: Path) -> dict[str, str]:
    """A card as a row; a broken card is a row with its error."""
    try:
        config = Card.read(folder).config
    except GlimpseZooError as error:
        return {"name": name, "description": f"BROKEN: {error}", "from": ""}
    hub = f"weights on the Hub ({config.hub})" if config.hub else "no weights"
    weights = f"{config.weights.bytes / 1e6:.2f} MB" if config.weights else hub
    return {"name": name, "description": f"{config.model} trained on {config.data.name}, {weights}", "from": config.plugin}


@click.command()
@click.argument("name")
@options.together(options.data_dir, options.settings, options.as_json, options.debug)
def show(name: str, data_dir: str | None, sets: tuple[str, ...], as_json: bool, debug: bool) -> None:
    """Show the settings of a model, a data set, or a trained card.

    A folder or a data set of the Hub is opened: you see its classes, splits and columns as a run would read them, and the files that are
    left out.

    \b
    Examples:
      glimpsezoo show mgnet
      glimpsezoo show digits
      glimpsezoo show mgnet.digits
      glimpsezoo show folder:photos --set data.test=val
    """
    card = find_card(name)
    facts = _facts(name, data_dir, sets) if card is None else card.config.model_dump(mode="json")
    if (data_dir is not None or sets) and "data" not in facts:
        raise GlimpseZooError(f"--data-dir and --set expect a data set to show, got {name!r}: leave them out")
    if as_json:
        click.echo(json.dumps(facts, indent=2, default=str))
        return
    console = options.stdout()
    settings = facts.pop("settings", [])
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in (facts if card is None else _card_facts(card)).items():
        if value not in ("", {}):
            table.add_row(key, Text(_cell(value)))
    console.print(table)
    if settings:
        console.print()
        console.print(_settings_table(settings))


def _cell(value: Any) -> str:
    """A fact as text: a long list as its length and its first items."""
    if isinstance(value, list):
        return f"{len(value)}: {', '.join(value[:MOST_NAMED])}{', ...' if len(value) > MOST_NAMED else ''}"
    return _lines(value) if isinstance(value, dict) else str(value)


def _lines(values: Mapping[str, Any]) -> str:
    """One line per key, with nested settings as `--set` takes them."""
    return "\n".join(f"{key}: {_assignments(value) if isinstance(value, dict) else value}" for key, value in values.items())


def _assignments(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}" for key, value in settings.items())


def _card_facts(card: Card) -> dict[str, Any]:
    """The facts of a card that people look for; --json prints the whole config.json."""
    config, found = card.config, headline(card)
    return {
        "card": config.name,
        "folder": card.folder,
        "model": f"{config.model} ({config.plugin})",
        "settings": _assignments(config.config),
        "data": f"{config.data.name} {_assignments(config.data.settings)}".rstrip(),
        "classes": len(config.task.classes),
        "top-1": (found.measured if found else "") or "not measured yet",
        "MACs": found.cost if found else "",
        "sha256": config.weights.sha256 if config.weights else "",
        "made by": config.trained.get("command", ""),
    }


def _facts(name: str, data_dir: str | None, sets: tuple[str, ...]) -> dict[str, Any]:
    specs: list[Spec] = [*registry().all(ModelSpec), *registry().all(DatasetSpec)]
    kind = next((type(s) for s in specs if s.name == name or (s.prefix and name.startswith(s.name))), None)
    if kind is None:
        known = [*(s.name for s in specs), *card_paths()]
        raise GlimpseZooError(f"expected a model, a data set or a card, got {name!r}: {did_you_mean(name, known)}")
    if kind is ModelSpec:
        return _model_facts(name, registry().find(ModelSpec, name))
    spec = registry().find(DatasetSpec, name)
    facts = _data_facts(name, spec)
    if name == spec.name and (spec.prefix or not (data_dir or sets)):
        return facts
    from glimpsezoo.workflows.describing import describe_data

    settings = {key: facts.pop(key) for key in ("about the settings", "settings")}
    return {**facts, **describe_data(name, data_dir, sets), **settings}


def _model_facts(name: str, spec: ModelSpec) -> dict[str, Any]:
    return {
        "model": name,
        "description": spec.description,
        "paper": spec.paper,
        "from": str(spec.provenance),
        "recipes": ", ".join(recipe_names(spec)),
        "defaults": {data: dict(values) for data, values in spec.defaults.items()},
        **_settings(spec.config),
    }


def _data_facts(name: str, spec: DatasetSpec) -> dict[str, Any]:
    task = spec.task
    return {
        "data": name,
        "description": spec.description,
        "from": str(spec.provenance),
        "license": spec.license,
        "homepage": spec.homepage,
        "image size": f"{task.image_size[0]} x {task.image_size[1]}, {task.channels} channel(s)" if task else "as opened",
        "classes": len(task.classes) if task else "as opened",
        "splits": dict(spec.splits),
        "transform": spec.transform,
        "calibration": spec.calibration,
        **_settings(spec.config),
    }


def _settings(config: str) -> dict[str, Any]:
    """The settings, and the description of their class."""
    about, settings = settings_of(load_string(config))
    return {"about the settings": about, "settings": [setting._asdict() for setting in settings]}


def _settings_table(settings: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("--set", "type", "default", "meaning"):
        table.add_column(heading, style="cyan" if heading == "--set" else "", no_wrap=heading == "--set")
    for row in settings:
        default = "required" if row["required"] else str(row["default"])
        table.add_row(row["key"], Text(str(row["type"])), Text(default), Text(row["meaning"]))
    return table


@click.command()
@options.as_json
@options.debug
def plugins(as_json: bool, debug: bool) -> None:
    """Show the installed plugins and their errors.

    \b
    Example:
      glimpsezoo plugins
    """
    rows = [
        {
            "plugin": p.provenance.plugin,
            "distribution": p.provenance.distribution,
            "version": p.provenance.version,
            "registers": [spec.name for spec in p.specs],
            "error": p.error,
        }
        for p in registry().plugins
    ]
    clashes = registry().clashes()
    if as_json:
        click.echo(json.dumps({"plugins": rows, "clashes": clashes}, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("plugin", "from", "registers"):
        table.add_column(heading, style="cyan" if heading == "plugin" else "")
    for row in rows:
        what = Text(f"BROKEN: {row['error']}", style="red") if row["error"] else Text(", ".join(row["registers"]))
        table.add_row(row["plugin"], f"{row['distribution']} {row['version']}", what)
    options.stdout().print(table)
    for line in clashes:
        options.stderr.print(Text(f"clash: {line}", style="red"))
