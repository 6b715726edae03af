"""`list`, `show` and `plugins`: what is installed and available. None of them imports torch."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from glimpsezoo.commands import names, options

if TYPE_CHECKING:
    from rich.table import Table

MOST_NAMED = 20  # classes that `show` names


@click.command("list")
@click.argument("kind", required=False, shell_complete=names.kinds)
@click.argument("pattern", default="*", shell_complete=names.of_the_kind)
@options.together(options.quiet, options.as_json, options.debug)
def list_(kind: str | None, pattern: str, quiet: bool, as_json: bool, debug: bool) -> None:
    """List models, cards, data, recipes, papers and more.

    KIND is one of models, cards, data, recipes, corruptions, attacks, exit-rules, policies, importers, loggers and papers; without it,
    all are listed.
    PATTERN may have wildcards: *, ?, [abc]. A pattern alone is looked for in all kinds. In a pipe, only names are printed, one per line.

    \b
    Examples:
      glimpsezoo list
      glimpsezoo list models 'mgnet*'
      glimpsezoo list data
      glimpsezoo list cards 'mgnet*' | xargs glimpsezoo compare
    """
    from glimpsezoo.workflows.listing import rows_of

    if kind is not None and pattern == "*" and any(wildcard in kind for wildcard in "*?["):
        kind, pattern = None, kind
    found = rows_of(kind, pattern)
    if as_json:
        options.tell(json.dumps(found, indent=2))
        return
    if not any(found.values()):
        options.say(f"no {kind} yet" + (": train one ('glimpsezoo train mgnet --data digits')" if kind == "cards" else ""))
    if quiet or not options.on_terminal():
        options.print_names(row["name"] for rows in found.values() for row in rows)
        return
    from rich.text import Text

    console = options.stdout()
    for name, rows in found.items():
        if name == "recipes" and kind is None and pattern == "*":  # there are more recipes than anything else
            console.print(Text.assemble(("recipes", "bold"), f"\n{len(rows)}: see 'glimpsezoo list recipes'\n"))
        elif rows:
            console.print(_table(name, rows))
            console.print()


def _table(kind: str, rows: list[dict[str, str]]) -> "Table":
    """One row per name. Recipes need no column for their plugin: their names begin with the model."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=kind, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="cyan")
    table.add_column()
    table.add_column(style="dim", no_wrap=True)
    for row in rows:
        table.add_row(Text(row["name"]), Text(row["description"]), "" if kind == "recipes" else row["from"])
    return table


def _kind_and_name(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> tuple[str, str]:
    """What `show` shows: ('recipe', NAME), or ('', NAME) for anything else."""
    kind, named = (words[0], words[1:]) if words[:1] == ("recipe",) else ("", words)
    if len(named) != 1:
        raise click.UsageError(f"expected one name, or 'recipe' and the name of a recipe, got {' '.join(words)}", context)
    return kind, named[0]


@click.command()
@click.argument("named", nargs=-1, required=True, metavar="[recipe] NAME", callback=_kind_and_name, shell_complete=names.anything)
@options.together(
    options.data_dir,
    options.settings,
    click.option("-q", "--quiet", is_flag=True, help="Print only the names of the settings, one per line."),
    options.as_json,
    options.debug,
)
def show(named: tuple[str, str], data_dir: str | None, sets: tuple[str, ...], quiet: bool, as_json: bool, debug: bool) -> None:
    """Show a model, a data set, a trained card or a recipe.

    Of models and data sets you see the settings. A folder or a data set of the Hub is opened: you see its classes, splits and columns as a
    run would read them, and the files that are left out. The images of a folder are decoded, so that you see their sizes, and the bad ones.

    \b
    Examples:
      glimpsezoo show mgnet
      glimpsezoo show digits
      glimpsezoo show mgnet.digits
      glimpsezoo show folder:photos --set data.test=val
      glimpsezoo show recipe mgnet.digits > mine.toml
    """
    kind, name = named
    if kind == "recipe":
        _show_recipe(name, as_json)
        return
    from rich.table import Table
    from rich.text import Text

    from glimpsezoo.workflows.showing import card_facts, facts_of
    from glimpsezoo.zoo.cards import find_card

    card = find_card(name)
    facts = facts_of(name, data_dir, sets) if card is None else card.config.model_dump(mode="json")
    if as_json:
        options.tell(json.dumps(facts, indent=2, default=str))
        return
    settings, next_command = facts.pop("settings", []), facts.pop("next", "")
    if quiet:
        options.print_names(facts["config"] if card else [setting["key"] for setting in settings])
        return
    console = options.stdout()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in (facts if card is None else card_facts(card)).items():
        if value not in ("", {}, []):
            table.add_row(key, Text(_cell(value)))
    console.print(table)
    if settings:
        console.print()
        console.print(_settings_table(settings))
    if next_command:
        console.print(Text(f"\nnext: {next_command}"), soft_wrap=True)


def _show_recipe(name: str, as_json: bool) -> None:
    """Print the file of a recipe, with its comments, or its values as JSON."""
    from glimpsezoo.workflows.showing import recipe_file

    text, recipe = recipe_file(name)
    options.tell(recipe.model_dump_json(indent=2, exclude_unset=True) if as_json else text.rstrip("\n"))


def _cell(value: Any) -> str:
    """A fact as text: a long list of class names as its length and its first items."""
    from glimpsezoo.data.wordnet import titled

    if isinstance(value, list):
        return f"{len(value)}: {', '.join(map(titled, value[:MOST_NAMED]))}{', ...' if len(value) > MOST_NAMED else ''}"
    return _lines(value) if isinstance(value, dict) else str(value)


def _lines(values: Mapping[str, Any]) -> str:
    """One line per key, with nested settings as `--set` takes them."""
    from glimpsezoo.workflows.showing import assignments

    lines = [f"{key}: {assignments(value) if isinstance(value, dict) else value}" for key, value in values.items()]
    return "\n".join([*lines[:MOST_NAMED], *([f"and {len(lines) - MOST_NAMED} more: --json has all"] if len(lines) > MOST_NAMED else [])])


def _settings_table(settings: list[dict[str, Any]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("--set", "type", "default", "meaning"):
        table.add_column(heading, style="cyan" if heading == "--set" else "", no_wrap=heading == "--set")
    for row in settings:
        default = "required" if row["required"] else str(row["default"])
        table.add_row(row["key"], Text(str(row["type"])), Text(default), Text(row["meaning"]))
    return table


@click.command()
@options.together(options.quiet, options.as_json, options.debug)
def plugins(quiet: bool, as_json: bool, debug: bool) -> None:
    """Show the installed plugins and their errors.

    In a pipe, only names are printed, one per line; errors are on standard error.

    \b
    Example:
      glimpsezoo plugins
    """
    from glimpsezoo.zoo.plugins import registry

    rows = [
        {
            "plugin": p.provenance.plugin,
            "distribution": p.provenance.distribution,
            "version": p.provenance.version,
            "registers": [spec.name for spec in p.specs],
            "error": p.error,
            "unavailable": "; ".join(dict.fromkeys(spec.unavailable for spec in p.specs if spec.unavailable)) or None,
        }
        for p in registry().plugins
    ]
    clashes = registry().clashes()
    if as_json:
        options.tell(json.dumps({"plugins": rows, "clashes": clashes}, indent=2))
        return
    if quiet or not options.on_terminal():
        options.print_names(row["plugin"] for row in rows)
        problems = [f"broken: {row['plugin']}: {row['error']}" for row in rows if row["error"]]
        absent = [f"unavailable: {row['plugin']}: {row['unavailable']}" for row in rows if row["unavailable"]]
    else:
        options.stdout().print(_plugins_table(rows))
        problems = absent = []
    for line in absent:
        options.stderr().print(line, markup=False, soft_wrap=True)
    for line in [*problems, *(f"clash: {line}" for line in clashes)]:
        options.stderr().print(line, markup=False, style="red", soft_wrap=True)


def _plugins_table(rows: list[dict[str, Any]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("plugin", "from", "registers"):
        table.add_column(heading, style="cyan" if heading == "plugin" else "")
    for row in rows:
        what = Text(f"BROKEN: {row['error']}", style="red") if row["error"] else Text(", ".join(row["registers"]))
        if row["unavailable"]:
            what.append(f"\nUNAVAILABLE: {row['unavailable']}", style="yellow")
        table.add_row(row["plugin"], f"{row['distribution']} {row['version']}", what)
    return table
