"""`run`: measure models on data, and print one table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from glimpsezoo.commands import options

if TYPE_CHECKING:
    from glimpsezoo.workflows.measuring import RunWork
    from glimpsezoo.workflows.requests import RunRequest


@click.command()
@click.argument("models", nargs=-1, metavar="MODEL...")
@options.together(
    options.data,
    options.data_dir,
    click.option("--split", default="test", show_default=True, metavar="NAME", help="Which split is measured."),
    click.option("--limit", type=int, metavar="N", help="Measure a fixed stratified choice of N images."),
    click.option("--batch-size", default="auto", show_default=True, metavar="N", help="Images at a time; changes no result."),
    options.device,
    options.seed,
    options.workers,
    options.settings,
    click.option("--checkpoint", metavar="CARD", help="A card; 'none' measures untrained; 'timm' takes timm's own weights."),
    click.option(
        "--measure",
        metavar="LIST",
        help="accuracy, flops, anytime, corruptions, attacks, speed; a corruption (fog, fog:3) or an attack (pgd, pgd:4/255, or "
        "pgd:4/255:100 with so many steps); quick, robustness or full.  [default: all but speed]",
    ),
    click.option("--corrupted-dir", metavar="DIR", help="Published corrupted images: folders corruption/severity/class/image."),
    click.option(
        "--on-bad-image", type=click.Choice(["fail", "skip"]), default="fail", show_default=True, help="What an unreadable image does."
    ),
    options.output,
    options.force,
    options.fresh,
    click.option("--update-card", is_flag=True, help="Write the result into the card's folder too, as its evidence."),
    options.as_json,
    options.debug,
)
def run(models: tuple[str, ...], **given: Any) -> int:
    """Measure accuracy, cost and robustness of models on --data.

    Every number is there for every step, for early exits, under corruptions and under attacks. A MODEL is a card (mgnet.digits), a
    card's folder, or a plugin's model (mgnet), of which the card for --data is taken. A card is measured on the data that it was trained
    on, in their size and settings; cards of several data need --data. Accuracies have 95 % intervals; several models
    are compared image by image. Finished blocks of 1,000 images are kept: stopped at any time, the same command goes on from there.

    The table goes to standard output, the full results to runs/, or --output. Exit status: 0 done, 1 some blocks failed, 2 the
    command or its input is wrong.

    \b
    Examples:
      glimpsezoo run mgnet
      glimpsezoo run mgnet cnn4 --data digits --measure quick
      glimpsezoo run mgnet cnn4 ranzato pyramid-m3
      glimpsezoo run mgnet --measure accuracy,fog,pgd:4/255 --set pgd.steps=100
      glimpsezoo run mgnet --data imagenet100 --set backbone=resnet50 --checkpoint none --measure flops
    """
    from glimpsezoo.environment import keep_freed_memory
    from glimpsezoo.tables import comparison_json, print_comparison, print_results
    from glimpsezoo.workflows.running import prepare

    keep_freed_memory()
    work = prepare(_request(models, given))
    options.say(work.summary())
    before = [*work.warnings, *work.said]
    for note in before:
        options.say(note)
    _follow(work)
    outcome = work.finish()
    for note in (note for note in work.said if note not in before):
        options.say(note)
    options.say(outcome.summary)
    if given["as_json"]:
        click.echo(comparison_json(outcome.results, outcome.comparison))
    else:
        console = options.stdout()
        print_results(outcome.results, console)
        print_comparison(outcome.comparison, outcome.results, console)
    return 0 if all(result.run.status == "done" for result in outcome.results) else 1


def _request(models: tuple[str, ...], given: dict[str, Any]) -> "RunRequest":
    from glimpsezoo.workflows.requests import RunRequest

    return RunRequest(
        models=models,
        data=given["data"],
        data_dir=given["data_dir"],
        split=given["split"],
        limit=given["limit"],
        batch_size=given["batch_size"],
        device=options.pick_device(given["device"]),
        seed=given["seed"],
        workers=given["workers"],
        sets=tuple(given["sets"]),
        checkpoint=given["checkpoint"],
        measures=tuple(m.strip() for m in given["measure"].split(",")) if given["measure"] is not None else None,
        corrupted_dir=given["corrupted_dir"],
        on_bad_image=given["on_bad_image"],
        output=Path(given["output"]) if given["output"] else None,
        force=given["force"],
        fresh=given["fresh"],
        update_card=given["update_card"],
    )


def _follow(work: "RunWork") -> None:
    """Measure, and show what runs and how far it is."""
    columns = (
        BarColumn(20),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=options.stderr) as bar:
        task = bar.add_task("", total=work.expected_seconds or 1)
        work.measure(lambda label, seconds: bar.update(task, description=label, completed=seconds))
        bar.update(task, completed=work.expected_seconds or 1)
