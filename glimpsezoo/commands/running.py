"""`run`: measure models on data, and print one table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from glimpsezoo.commands import options

if TYPE_CHECKING:
    from glimpsezoo.workflows.running import RunWork


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
    click.option("--measure", default="accuracy,flops", show_default=True, metavar="LIST", help="What to measure."),
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
    """Measure MODEL... on --data: accuracy and cost at every step.

    A MODEL is a card (mgnet.digits), a card's folder, or a plugin's model (mgnet), of which the card for --data is taken. Accuracies
    have 95 % intervals; several models are compared image by image. Finished blocks of 1,000 images are kept: stopped at any time, the
    same command goes on from there.

    The table goes to standard output, the full results to runs/, or --output. Exit status: 0 done, 1 some blocks failed, 2 the
    command or its input is wrong.

    \b
    Examples:
      glimpsezoo run mgnet
      glimpsezoo run mgnet cnn4 --data digits
      glimpsezoo run mgnet --data imagenet100 --set backbone=resnet50 --checkpoint none --measure flops
    """
    from glimpsezoo.reports import comparison_json, print_comparison, print_results
    from glimpsezoo.workflows.running import RunRequest, prepare

    request = RunRequest(
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
        measures=tuple(m.strip() for m in given["measure"].split(",")),
        on_bad_image=given["on_bad_image"],
        output=Path(given["output"]) if given["output"] else None,
        force=given["force"],
        fresh=given["fresh"],
        update_card=given["update_card"],
    )
    work = prepare(request)
    options.say(work.summary())
    _follow(work)
    outcome = work.finish()
    options.say(outcome.summary)
    if given["as_json"]:
        click.echo(comparison_json(outcome.results, outcome.comparison))
    else:
        console = options.stdout()
        print_results(outcome.results, console)
        print_comparison(outcome.comparison, outcome.results, console)
    return 0 if all(result.run.status == "done" for result in outcome.results) else 1


def _follow(work: "RunWork") -> None:
    """Measure, and show how far it is."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=options.stderr) as bar:
        for index, name in enumerate(work.names):
            task = bar.add_task(name, total=work.images)
            work.measure(index, lambda done, task=task: bar.update(task, completed=done))
            bar.update(task, completed=work.images)
