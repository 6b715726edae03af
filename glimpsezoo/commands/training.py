"""`train`: from a recipe to a card."""

from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from glimpsezoo.commands import options


@click.command()
@click.argument("model")
@options.together(options.data, options.data_dir, options.settings)
@click.option("--recipe", metavar="FILE", help="A recipe of your own instead of the plugin's.")
@options.together(
    options.device,
    click.option("--seed", default=None, type=click.IntRange(0), help="Instead of the recipe's."),
    options.workers,
    options.output,
    options.force,
    options.fresh,
    options.as_json,
    options.debug,
)
def train(model: str, **given: Any) -> None:
    """Train MODEL on --data by its plugin's recipe and write a card that 'run' accepts.

    Stopped at any time, the same command goes on from its checkpoint and ends with the same weights. MODEL may name a variant:
    MODEL.DATA.VARIANT. '--set train.epochs=3' changes the recipe.

    \b
    Examples:
      glimpsezoo train mgnet --data digits
      glimpsezoo train mgnet --data digits --set glimpses=4 -o my_card
    """
    from glimpsezoo.workflows.training import TrainingRequest, start_training

    request = TrainingRequest(
        model=model,
        data=given["data"],
        data_dir=given["data_dir"],
        sets=tuple(given["sets"]),
        recipe_file=given["recipe"],
        seed=given["seed"],
        device=options.pick_device(given["device"]),
        workers=given["workers"],
        output=Path(given["output"]) if given["output"] else None,
        force=given["force"],
        fresh=given["fresh"],
    )
    run = start_training(request)
    options.stderr.print(f"[bold]{run.name}[/]: {run.summary}")
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[losses]}"), console=options.stderr) as bar:
        task = bar.add_task("starting", total=None, losses="")
        calibration = ""
        for line in run.steps():
            if line.calibration is not None:
                calibration = f" calibration {100 * line.calibration:.1f} %"
            losses = " ".join(f"{name} {value:.3f}" for name, value in line.losses.items())
            bar.update(
                task, description=f"{line.phase} epoch {line.epoch}", total=line.total, completed=line.done, losses=losses + calibration
            )
    card = run.finish()
    if given["as_json"]:
        click.echo(card.config.model_dump_json(indent=2))
        return
    click.echo(f"{card.name} -> {card.folder}")
    click.echo(f"measure it: glimpsezoo run {card.folder} --data {given['data']}")
