"""`train`: train a card by a recipe."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glimpsezoo import ranks
from glimpsezoo.commands import forecasting, names, options, progress, signals

if TYPE_CHECKING:
    from glimpsezoo.training.request import TrainingRequest
    from glimpsezoo.training.work import TrainingWork


@click.command()
@click.argument("model", shell_complete=names.models_and_recipes)
@click.option(
    "--data",
    metavar="NAME",
    shell_complete=names.data,
    help="Data set ('glimpsezoo list data').  [default: digits, or the data in the recipe's name]",
)
@options.data_dir
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A setting: KEY, MODEL.KEY, data.KEY or train.KEY.")
@click.option("--recipe", metavar="FILE", shell_complete=names.recipes, help="Your own recipe, or the name of a recipe for other data.")
@click.option("--print-recipe", is_flag=True, help="Print the recipe that would be used, as TOML for --recipe, and train nothing.")
@options.together(
    click.option("--epochs", type=click.IntRange(1), metavar="N", help="Epochs of all training phases together."),
    click.option("--lr", type=click.FloatRange(0, min_open=True), metavar="LR", help="Largest learning rate of the training."),
    click.option("--batch-size", type=click.IntRange(2), metavar="N", help="Images per optimiser step."),
    options.device,
    click.option("--seed", type=options.SEED, metavar="N", help="Replaces the seed of the recipe."),
    options.workers,
    click.option(
        "--log",
        "loggers",
        multiple=True,
        metavar="NAME",
        shell_complete=names.loggers,
        help="Tell a logger of every epoch, too: tensorboard, wandb or trackio, if its package is installed.",
    ),
    click.option("-o", "--output", metavar="DIR", help="Folder for the card.  [default: runs/train/MODEL.DATA]"),
    click.option("--force", is_flag=True, help="Train again if --output contains a finished card."),
    click.option("--fresh", is_flag=True, help="Start over: ignore the checkpoint of a stopped training."),
    forecasting.dry_run,
    options.as_json,
    options.debug,
)
def train(model: str, **given: Any) -> None:
    """Train MODEL on --data, and write a card for 'run'.

    The training follows a recipe of the model's plugin ('glimpsezoo list recipes'). If none is for the data, a generic one is made for
    them. MODEL may also be the full name of a recipe, MODEL.DATA.VARIANT. In a recipe of several training phases, --epochs and --lr keep
    their proportions; '--set train.KEY=VALUE' sets a key in every phase. If the training is stopped, the same command resumes from the
    last checkpoint and ends with the same weights.

    \b
    Examples:
      glimpsezoo train mgnet --data digits
      glimpsezoo train mgnet --data digits --set glimpses=4 --epochs 20 -o my_card
      glimpsezoo train mgnet --data digits --log tensorboard
      glimpsezoo train mgnet --data folder:photos
      glimpsezoo train mgnet --data folder:photos --print-recipe > mine.toml
    """
    from glimpsezoo.training.target import check_names

    check_names(model, given["data"], given["recipe"], given["sets"], given["loggers"])
    from glimpsezoo.evaluation.environment import keep_freed_memory
    from glimpsezoo.training.prepare import printed_recipe

    request = _request(model, given)
    if given["print_recipe"]:
        if ranks.speaks():
            options.tell(printed_recipe(request))
        return
    keep_freed_memory()
    if given["dry_run"]:
        if ranks.speaks():
            _forecast(request, as_json=given["as_json"])
        return
    with ranks.joined(request.device):
        work = _train(request)
        if not ranks.speaks():
            return
        card = work.finish()
    if given["as_json"]:
        options.tell(card.config.model_dump_json(indent=2))
        return
    options.tell(f"{card.name} -> {card.folder}")
    options.tell(f"measure it: {work.run_command(card)}")


def _request(model: str, given: dict[str, Any]) -> "TrainingRequest":
    from glimpsezoo.training.request import TrainingRequest

    return TrainingRequest(
        model=model,
        data=given["data"],
        data_dir=given["data_dir"],
        sets=tuple(given["sets"]),
        recipe_file=given["recipe"],
        epochs=given["epochs"],
        lr=given["lr"],
        batch_size=given["batch_size"],
        seed=given["seed"],
        device=options.pick_device(given["device"]),
        workers=given["workers"],
        output=Path(given["output"]) if given["output"] else None,
        force=given["force"],
        fresh=given["fresh"],
        dry_run=given["dry_run"],
        loggers=given["loggers"],
    )


def _forecast(request: "TrainingRequest", *, as_json: bool) -> None:
    from glimpsezoo.training.forecast import forecast
    from glimpsezoo.training.prepare import prepare_training

    forecasting.print_training(forecast(prepare_training(request), fresh=request.fresh), as_json=as_json)


def _train(request: "TrainingRequest") -> "TrainingWork":
    """Train, on all processes, and show the progress."""
    from glimpsezoo.training.prepare import prepare_training

    work = ranks.together(lambda: prepare_training(request))
    options.say(work.summary)
    for note in work.notes:
        options.say(note)
    several = work.job.share.world > 1
    # A checkpoint can only be written between steps, so a signal waits for the end of a step; `closing` then saves at once. Several
    # processes stop after the same step.
    with (
        signals.delayed(patient=several) as stopped,
        closing(work.steps(lambda: bool(stopped))) as lines,
        progress.training_progress() as show,
    ):
        for line in lines:
            show(line)
            if line.stops or (stopped and not several):
                break
    return work
