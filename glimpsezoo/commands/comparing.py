"""`compare`: show earlier results side by side."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glimpsezoo.commands import names, options
from glimpsezoo.errors import GlimpseZooError

if TYPE_CHECKING:
    from rich.console import Console

    from glimpsezoo.reports.paper import Reproduction
    from glimpsezoo.workflows.comparing import Compared

FORMATS = ("table", "markdown", "csv", "json", "latex")


@click.command()
@click.argument("runs", nargs=-1, metavar="RUN...", shell_complete=names.runs)
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="Format of the output.")
@click.option("--paper", is_flag=True, help="Compare the zoo's cards with the printed tables of papers instead.")
@click.option("-o", "--output", metavar="FILE", help="With --paper: write Markdown to this file, and the plots to a folder next to it.")
@options.together(options.as_json, options.debug)
def compare(runs: tuple[str, ...], form: str, paper: bool, output: str | None, as_json: bool, debug: bool) -> None:
    """Show results side by side, with paired tests.

    A RUN is an output folder of 'run' (runs/ID, or the folder of one model in it), a result.json, or a measured card. Models that were
    measured on the same images are compared by paired tests. The table shows every step, the other formats the last one.

    \b
    Examples:
      glimpsezoo compare runs/7784dccdc0
      glimpsezoo compare mgnet.digits cnn4.digits --format markdown
      glimpsezoo compare runs/* --format csv > results.csv
      glimpsezoo compare --paper
      glimpsezoo compare --paper mgnet-2021 -o reproduction.md
      glimpsezoo compare --paper runs/train/mgnet.tmnist

    With --paper, a RUN is a paper of 'glimpsezoo list papers' (default: all papers), or a card that is not in the zoo: it replaces the
    zoo's card of the same name and seed, or counts as another seed of it.
    """
    if paper:
        _compare_papers(runs, "json" if as_json else form, output)
        return
    if output is not None:
        raise GlimpseZooError("-o expects --paper, got a comparison of runs: redirect the output instead (compare ... > FILE)")
    from glimpsezoo.zoo.result_folders import result_folders

    result_folders(runs)  # a typing error is answered before torch is loaded
    from glimpsezoo.workflows.comparing import presented, read_runs

    compared = read_runs(runs)
    for note in compared.notes:
        options.say(note)
    with presented():
        if as_json or form == "json":
            options.tell(_json(compared))
        elif form == "table":
            _print(compared)
        else:
            options.tell(_written(compared, form), nl=False)


def _written(compared: "Compared", form: str) -> str:
    """The table of results as Markdown, LaTeX or CSV."""
    from glimpsezoo import escaping
    from glimpsezoo.reports.paired import pair_texts
    from glimpsezoo.reports.seeds import seeds_table
    from glimpsezoo.reports.table import board, comma_separated, latex, markdown

    table, spread = board(compared.entries), seeds_table(compared.entries)
    pairs = pair_texts(compared.entries, compared.pairs, compared.recipes)
    if form == "csv":
        return comma_separated(table)
    if form == "latex":
        return latex(table, pairs) + ("" if spread is None else f"\n{latex(spread, [spread.caption])}")
    over_seeds = "" if spread is None else f"{spread.caption}\n\n{markdown(spread)}"
    said = "\n".join(f"- {escaping.markdown(text)}" for text in pairs)
    return "\n\n".join(filter(None, (markdown(table), over_seeds, said))) + "\n"


def _compare_papers(names: tuple[str, ...], form: str, output: str | None) -> None:
    """Print the tables of the papers, or write them to a file."""
    from glimpsezoo.zoo.early import check_papers

    check_papers(names)
    from glimpsezoo.reports.paper import as_json, comma_separated, markdown
    from glimpsezoo.workflows.reproducing import reproduce, write_reproduction

    if form == "latex" or (output is not None and form not in {"table", "markdown"}):
        raise GlimpseZooError(f"--paper writes tables, Markdown, CSV and JSON, files only in Markdown, got --format {form}: choose another")
    found = reproduce(names)
    if output is not None:
        for path in write_reproduction(found, Path(output)):
            options.say(f"wrote {path}")
    elif form == "table":
        _print_papers(found)
    else:
        options.tell({"json": as_json, "csv": comma_separated, "markdown": lambda each: markdown(each, "")}[form](found).rstrip("\n"))


def _print_papers(reproductions: "list[Reproduction]") -> None:
    from rich.table import Table
    from rich.text import Text

    from glimpsezoo.reports.paper import laid_out, missing, unknown_costs

    console = options.stdout()
    for each in reproductions:
        console.print(Text(f"{each.paper.description} ({each.paper.authors})", style="bold"))
        _print_claims(each, console)
        for table in each.tables:
            found = laid_out(table)
            narrow = [k for k, heading in enumerate(found.headings) if heading != "card"]  # wide, and in every other format
            shown = Table(title=found.caption, title_justify="left", title_style="", box=None, pad_edge=False, header_style="bold")
            for k in narrow:
                shown.add_column(found.headings[k], justify="left" if found.headings[k] in found.words else "right", overflow="fold")
            for row in found.rows:
                shown.add_row(*(Text(row[k].text) for k in narrow))
            console.print()
            console.print(shown)
            reasons = [*(f"not run: {reason}" for reason in missing(table)), *(f"no cost: {reason}" for reason in unknown_costs(table))]
            for line in [*reasons, *table.printed.notes]:
                console.print(Text(line, style="dim"))
        console.print()


def _print_claims(reproduction: "Reproduction", console: "Console") -> None:
    """Print each claim with its verdict, and the numbers of its test below."""
    from rich.text import Text

    for judged in reproduction.claims:
        console.print()
        console.print(Text(f"“{judged.claim.quote}” ({judged.claim.place})"))
        console.print(Text(f"  {judged.verdict()}", style="bold"))
        for line in (judged.numbers_text(), judged.remarks()):
            if line:
                console.print(Text(f"  {line}", style="dim"))


def _print(compared: "Compared") -> None:
    """Print one table per data set, as `run` does, then the paired tests."""
    from glimpsezoo.reports.paired import pair_texts, print_seeds
    from glimpsezoo.reports.table import print_results

    console = options.stdout()
    for data in dict.fromkeys(entry.data for entry in compared.entries):
        entries = [entry for entry in compared.entries if entry.data == data]
        print_results([entry.renamed for entry in entries], console)
        print_seeds(entries, console)
        pairs = [pair for pair in compared.pairs if {pair.a, pair.b} <= {entry.name for entry in entries}]
        for text in pair_texts(entries, pairs, compared.recipes):
            console.print(text, markup=False)


def _json(compared: "Compared") -> str:
    from glimpsezoo.reports.seeds import numbers_of, repeated

    seeds = [
        {
            "model": each.name,
            "training_seeds": each.training,
            "noise_seeds": each.noise,
            "numbers": {heading: spread.model_dump() for heading, spread in numbers_of(each).items()},
        }
        for each in repeated(compared.entries)
    ]
    content = {
        "results": [{"name": each.entry.name, **json.loads(each.entry.result.to_json())} for each in compared.measured],
        "seeds": seeds,
        "comparisons": [json.loads(comparison.to_json()) for comparison in compared.comparisons],
        "notes": list(compared.notes),
    }
    return json.dumps(content, indent=2)
