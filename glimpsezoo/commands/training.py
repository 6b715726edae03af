"""`train`: from a recipe to a card."""

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from glimpsezoo.commands import options

if TYPE_CHECKING:
    from glimpsezoo.workflows.training import TrainingWork


@click.command()
@click.argument("model")
@click.option("--data", metavar="NAME", help="Data set ('glimpsezoo list data').  [default: digits, or what a recipe's name says]")
@options.data_dir
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A setting: KEY, MODEL.KEY, data.KEY or train.KEY.")
@click.option("--recipe", metavar="FILE", help="A recipe of your own, or the name of one for other data.")
@options.together(
    options.device,
    click.option("--seed", type=options.SEED, metavar="N", help="Instead of the recipe's."),
    options.workers,
    click.option("-o", "--output", metavar="DIR", help="Where the card goes.  [default: runs/train/MODEL.DATA]"),
    click.option("--force", is_flag=True, help="Train again where --output holds a finished card."),
    click.option("--fresh", is_flag=True, help="Start anew: forget the checkpoint of a training that was stopped."),
    options.as_json,
    options.debug,
)
def train(model: str, **given: Any) -> None:
    """Train MODEL on --data, and write a card that 'run' accepts.

    It follows the recipe of the model's plugin ('glimpsezoo list recipes'), which MODEL may name as a whole: MODEL.DATA.VARIANT.
    '--set train.KEY=VALUE' changes the recipe. Stopped at any time, the same command goes on from its last checkpoint and ends with
    the same weights.

    \b
    Examples:
      glimpsezoo train mgnet --data digits
      glimpsezoo train mgnet --data digits --set glimpses=4 --set train.epochs=20 -o my_card
    """
    from glimpsezoo.environment import keep_freed_memory
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
    keep_freed_memory()
    run = start_training(request)
    options.say(run.summary)
    for note in run.notes:
        options.say(note)
    _follow(run)
    card = run.finish()
    if given["as_json"]:
        click.echo(card.config.model_dump_json(indent=2))
        return
    click.echo(f"{card.name} -> {card.folder}")
    click.echo(f"measure it: {run.run_command(card)}")


def _follow(run: "TrainingWork") -> None:
    """Train, and show how it goes."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"), TimeRemainingColumn())
    # Closed at once when the command is stopped: that saves the checkpoint.
    with (
        _stop_after_a_step() as stopped,
        closing(run.steps()) as lines,
        Progress(*columns, TextColumn("{task.fields[losses]}"), console=options.stderr) as bar,
    ):
        task = bar.add_task("starting", total=None, losses="")
        calibration = ""
        for line in lines:
            if line.calibration is not None:
                calibration = f" calibration {100 * line.calibration:.1f} %"
            losses = " ".join(f"{name} {value:.3f}" for name, value in line.losses.items())
            phase = f"{line.phase} epoch {line.epoch}"
            bar.update(task, description=phase, total=line.total, completed=line.done, losses=losses + calibration)
            if stopped:
                raise KeyboardInterrupt


@contextmanager
def _stop_after_a_step() -> Iterator[list[int]]:
    """Ctrl-C waits for the step in hand, with which a checkpoint can be written; it then stands in the list. A second one does not wait."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
