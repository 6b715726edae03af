"""`report`: one page with all measurements."""

from pathlib import Path

import click

from glimpsezoo.commands import names, options


@click.command()
@click.argument("runs", nargs=-1, metavar="RUN...", shell_complete=names.cards)
@click.option("-o", "--output", default="report.html", show_default=True, metavar="FILE", help="File for the page.")
@click.option(
    "--traces",
    default=4,
    show_default=True,
    type=click.IntRange(0, 20),
    metavar="N",
    help="Images per model whose glimpses are shown: in turn right early, right late, wrong, and flipped by a corruption.",
)
@options.together(options.data_dir, options.force, options.debug)
def report(runs: tuple[str, ...], output: str, traces: int, data_dir: str | None, force: bool, debug: bool) -> None:
    """Write one web page about one or more runs.

    The page has a leaderboard that can be sorted and filtered, accuracy against cost with early exits, robustness against eps, corruptions,
    attacks with the verdict on whether they can be believed, glimpses on a few images, training curves, and the commands that reproduce
    everything. A RUN is an output folder of 'run', a result.json, or a measured card.

    \b
    Examples:
      glimpsezoo report runs/7784dccdc0
      glimpsezoo report mgnet.digits cnn4.digits pyramid-m3.digits -o digits.html
    """
    from glimpsezoo.errors import counted
    from glimpsezoo.zoo.result_folders import result_folders

    result_folders(runs)  # a typing error is answered before torch is loaded
    from glimpsezoo.workflows.reporting import report as write

    path = Path(output)
    reported = write(runs, path, traces=traces, data_dir=data_dir, force=force)
    for note in reported.notes:
        options.say(note)
    options.tell(f"{counted(len(reported.entries), 'model')} in {path} ({path.stat().st_size / 1e6:.2f} MB)")
