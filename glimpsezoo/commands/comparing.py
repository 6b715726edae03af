"""`compare`: results that were measured earlier, side by side."""

import json
from typing import TYPE_CHECKING

import click

from glimpsezoo.commands import options

if TYPE_CHECKING:
    from glimpsezoo.workflows.comparing import Compared

FORMATS = ("table", "markdown", "csv", "json", "latex")


@click.command()
@click.argument("runs", nargs=-1, metavar="RUN...")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="How it is written.")
@options.together(options.as_json, options.debug)
def compare(runs: tuple[str, ...], form: str, as_json: bool, debug: bool) -> None:
    """Show results side by side, with paired tests.

    A RUN is a folder of 'run' (runs/ID, or one model's in it), a result.json, or a measured card. Models that were measured on the same
    images are tested against each other image by image. The table has every step, the other formats the last one.

    \b
    Examples:
      glimpsezoo compare runs/7784dccdc0
      glimpsezoo compare mgnet.digits cnn4.digits --format markdown
      glimpsezoo compare runs/* --format csv > results.csv
    """
    from glimpsezoo.pages.formats import comma_separated, latex, markdown
    from glimpsezoo.workflows.comparing import read_runs

    compared = read_runs(runs)
    for note in compared.notes:
        options.say(note)
    if as_json or form == "json":
        click.echo(_json(compared))
    elif form == "table":
        _print(compared)
    else:
        writers = {"markdown": markdown, "latex": latex, "csv": lambda entries, pairs: comma_separated(entries)}
        click.echo(writers[form](compared.entries, compared.pairs), nl=False)


def _print(compared: "Compared") -> None:
    """A table for each data set, as `run` prints it, then the pairs."""
    from glimpsezoo.pages.board import UNCHECKED, verdict
    from glimpsezoo.pages.formats import pair_texts
    from glimpsezoo.tables import print_results

    console = options.stdout()
    for data in dict.fromkeys(entry.data for entry in compared.entries):
        entries = [entry for entry in compared.entries if entry.data == data]
        print_results([entry.renamed for entry in entries], console)
        unchecked = [entry.name for entry in entries if verdict(entry) == UNCHECKED]
        if unchecked:
            console.print(f"masking: {UNCHECKED} for {', '.join(unchecked)}", markup=False, style="dim")
        for text in pair_texts(entries, [pair for pair in compared.pairs if {pair.a, pair.b} <= {entry.name for entry in entries}]):
            console.print(text, markup=False)


def _json(compared: "Compared") -> str:
    content = {
        "results": [{"name": each.entry.name, **json.loads(each.entry.result.to_json())} for each in compared.measured],
        "comparisons": [json.loads(comparison.to_json()) for comparison in compared.comparisons],
        "notes": list(compared.notes),
    }
    return json.dumps(content, indent=2)
