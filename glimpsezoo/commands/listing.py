"""`list`, `show` and `plugins`: what is there. None of them imports torch."""

import fnmatch
import json
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from glimpsezoo.cards import Card, all_cards, find_card
from glimpsezoo.commands import options
from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.plugins import registry
from glimpsezoo.recipes import recipe_names
from glimpsezoo.specs import DatasetSpec, ExitRuleSpec, ImporterSpec, ModelSpec, Spec, load_string

KINDS: dict[str, type[Spec]] = {"models": ModelSpec, "data": DatasetSpec, "exit-rules": ExitRuleSpec, "importers": ImporterSpec}
ALL_KINDS = ("models", "cards", "data", "recipes", "exit-rules", "importers")


@click.command("list")
@click.argument("kind", required=False)
@click.argument("pattern", default="*")
@options.as_json
@options.debug
def list_(kind: str | None, pattern: str, as_json: bool, debug: bool) -> None:
    """List models, cards, data, recipes, exit-rules or importers; wildcards allowed.

    \b
    Examples:
      glimpsezoo list
      glimpsezoo list models 'mgnet*'
      glimpsezoo list data
    """
    if kind is not None and kind not in ALL_KINDS:
        raise GlimpseZooError(f"expected one of {', '.join(ALL_KINDS)}, got {kind!r}: {did_you_mean(kind, ALL_KINDS)}")
    found = {k: [row for row in _rows(k) if fnmatch.fnmatchcase(row["name"], pattern)] for k in ([kind] if kind else ALL_KINDS)}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    console = options.stdout()
    if not any(found.values()):
        raise GlimpseZooError(f"nothing matches {pattern!r}: {did_you_mean(pattern, [r['name'] for k in found for r in _rows(k)])}")
    for name, rows in found.items():
        if rows:
            table = Table(title=name, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
            table.add_column(no_wrap=True, style="cyan")
            table.add_column()
            table.add_column(style="dim", no_wrap=True)
            for row in rows:
                table.add_row(row["name"], Text(row["description"]), row["from"])
            console.print(table)
            console.print()


def _rows(kind: str) -> list[dict[str, str]]:
    if kind == "cards":
        return [{"name": c.name, "description": _trained_on(c), "from": c.config.plugin} for c in all_cards()]
    if kind == "recipes":
        models = registry().all(ModelSpec)
        return [{"name": n, "description": f"trains {spec.name}", "from": _from(spec)} for spec in models for n in recipe_names(spec)]
    specs = registry().all(KINDS[kind])
    return [{"name": s.name + ("NAME" if s.prefix else ""), "description": s.description, "from": _from(s)} for s in specs]


def _from(spec: Spec) -> str:
    return spec.provenance.distribution if spec.provenance else ""


def _trained_on(card: Card) -> str:
    size = f", {card.config.weights.bytes / 1e6:.2f} MB" if card.config.weights else ", weights on the Hub"
    return f"{card.config.model} trained on {card.config.data['name']}{size}"


@click.command()
@click.argument("name")
@options.as_json
@options.debug
def show(name: str, as_json: bool, debug: bool) -> None:
    """Show a model's settings, a data set's card or a trained card.

    \b
    Examples:
      glimpsezoo show mgnet
      glimpsezoo show digits
      glimpsezoo show mgnet.digits
    """
    facts = _facts(name)
    if as_json:
        click.echo(json.dumps(facts, indent=2, default=str))
        return
    console = options.stdout()
    for key, value in facts.items():
        if key == "settings":
            console.print(_settings_table(value))
        elif isinstance(value, dict):
            console.print(Text(f"{key}: " + ", ".join(f"{k}={v}" for k, v in value.items())))
        elif value not in (None, "", ()):
            console.print(Text(f"{key}: {value}"))


def _facts(name: str) -> dict[str, Any]:
    card = find_card(name)
    if card:
        return card.config.model_dump(mode="json")
    specs: list[Spec] = [*registry().all(ModelSpec), *registry().all(DatasetSpec)]
    kind = next((type(s) for s in specs if s.name == name or (s.prefix and name.startswith(s.name))), None)
    if kind is None:
        known = [s.name for s in specs] + [c.name for c in all_cards()]
        raise GlimpseZooError(f"expected a model, a data set or a card, got {name!r}: {did_you_mean(name, known)}")
    return _model_facts(registry().find(ModelSpec, name)) if kind is ModelSpec else _data_facts(registry().find(DatasetSpec, name))


def _model_facts(spec: ModelSpec) -> dict[str, Any]:
    return {
        "model": spec.name,
        "description": spec.description,
        "paper": spec.paper,
        "from": str(spec.provenance),
        "recipes": ", ".join(recipe_names(spec)),
        "defaults": {data: dict(values) for data, values in spec.defaults.items()},
        "settings": _settings(spec.config),
    }


def _data_facts(spec: DatasetSpec) -> dict[str, Any]:
    task = spec.task
    return {
        "data": spec.name,
        "description": spec.description,
        "from": str(spec.provenance),
        "licence": spec.licence,
        "homepage": spec.homepage,
        "image size": f"{task.image_size[0]} x {task.image_size[1]}, {task.channels} channel(s)" if task else "as opened",
        "classes": len(task.classes) if task else "as opened",
        "splits": dict(spec.splits),
        "transform": spec.transform,
        "calibration": spec.calibration,
        "settings": _settings(spec.config),
    }


def _settings(config: str) -> list[dict[str, Any]]:
    schema = load_string(config).model_json_schema()
    described = []
    for key, value in schema.get("properties", {}).items():
        kind = value.get("type") or " or ".join(str(option.get("type", "?")) for option in value.get("anyOf", []))
        kind = "|".join(map(str, value["enum"])) if "enum" in value else kind
        described.append({"key": key, "type": kind, "default": value.get("default"), "meaning": value.get("description", "")})
    return described


def _settings_table(settings: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("--set", "type", "default", "meaning"):
        table.add_column(heading, style="cyan" if heading == "--set" else "", no_wrap=heading == "--set")
    for row in settings:
        table.add_row(row["key"], Text(str(row["type"])), Text(str(row["default"])), Text(row["meaning"]))
    return table


@click.command()
@options.as_json
@options.debug
def plugins(as_json: bool, debug: bool) -> None:
    """Show the installed plugins, what each registers, and what is wrong with one.

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
