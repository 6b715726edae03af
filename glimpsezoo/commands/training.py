"""`train`: train a card by a recipe."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glimpsezoo import ranks
from glimpsezoo.commands import forecasting, names, options, progress, signals
from glimpsezoo.errors import GlimpseZooError, one_line

if TYPE_CHECKING:
    from glimpsezoo.training.request import TrainingRequest
    from glimpsezoo.training.work import TrainingWork
    from glimpsezoo.zoo.cards import Card

LARGEST_SEED, MOST_SEEDS = 2**32 - 1, 1_000  # of --seeds


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
    click.option("--seeds", metavar="A..B", help="Train a card for each of these seeds: a range (0..4), or a list (0,3,7)."),
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
def train(model: str, **given: Any) -> int:
    """Train MODEL on --data, and write a card for 'run'.

    The training follows a recipe of the model's plugin ('glimpsezoo list recipes'). If none is for the data, a generic one is made for
    them. MODEL may also be the full name of a recipe, MODEL.DATA.VARIANT. In a recipe of several training phases, --epochs and --lr keep
    their proportions; '--set train.KEY=VALUE' sets a key in every phase. If the training is stopped, the same command resumes from the
    last checkpoint and ends with the same weights.

    --seeds trains the cards DIR.seed-N one after the other. A finished card is kept, and a failed training does not stop the others.

    \b
    Examples:
      glimpsezoo train mgnet --data digits
      glimpsezoo train mgnet --data digits --set glimpses=4 --epochs 20 -o my_card
      glimpsezoo train mgnet --data digits --log tensorboard
      glimpsezoo train mgnet --data digits --seeds 0..4
      torchrun --nproc-per-node 2 -m glimpsezoo train mgnet --data digits
      glimpsezoo train mgnet --data folder:photos
      glimpsezoo train mgnet --data folder:photos --print-recipe > mine.toml
    """
    from glimpsezoo.training.target import check_names

    seeds = None if given["seeds"] is None else parse_seeds(given["seeds"])
    if seeds and given["seed"] is not None:
        raise GlimpseZooError("expected either --seed or --seeds, got both: leave one out")
    check_names(model, given["data"], given["recipe"], given["sets"], given["loggers"])
    from glimpsezoo.evaluation.environment import keep_freed_memory
    from glimpsezoo.training.prepare import printed_recipe

    request = _request(model, given)
    if given["print_recipe"]:
        if ranks.speaks():
            options.tell(printed_recipe(request))
        return 0
    keep_freed_memory()
    requests = [request] if seeds is None else [replace(request, seed=seed, one_of_seeds=True) for seed in seeds]
    if given["dry_run"]:
        for each in requests if ranks.speaks() else ():
            _forecast(each, as_json=given["as_json"])
        return 0
    return _train_all(requests, as_json=given["as_json"])


def _train_all(requests: Sequence["TrainingRequest"], *, as_json: bool) -> int:
    """Train, and tell of every card and how it is measured. Returns the exit status."""
    done = []
    with ranks.joined(requests[0].device):
        for work, card in _each(requests):
            done.append((work, card))
            if not as_json:
                options.tell(f"{card.name} -> {card.folder}")
    if ranks.speaks() and as_json:
        configs = [card.config.model_dump(mode="json") for _, card in done]
        options.tell(json.dumps(configs if requests[0].one_of_seeds else configs[0], indent=2))
    elif done:
        options.tell(f"measure {'it' if len(done) == 1 else 'them'}: {done[0][0].run_command(*(card for _, card in done))}")
    return int(len(done) < len(requests) and ranks.speaks())


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds of a range (both ends are in it), a list, or a list of ranges, in this order. Raises `GlimpseZooError`.

    >>> parse_seeds("0..2,7")
    (0, 1, 2, 7)
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,10})(?:\.\.([0-9]{1,10}))?\s*", part)
        if match is None:
            raise GlimpseZooError(f"--seeds expects a range or a list of numbers, as 0..4 or 0,3,7, got {text!r}: correct it")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last > LARGEST_SEED:
            raise GlimpseZooError(f"--seeds expects ranges that rise, from 0 to {LARGEST_SEED}, got {part.strip()!r}: correct it")
        if len(found) + last - first >= MOST_SEEDS:
            raise GlimpseZooError(f"--seeds expects at most {MOST_SEEDS:,} seeds, got more in {text!r}: name fewer")
        found += range(first, last + 1)
    twice = [seed for seed in found if found.count(seed) > 1]
    if twice:
        raise GlimpseZooError(f"--seeds expects every seed once, got {twice[0]} twice in {text!r}: name it once")
    return tuple(found)


def _each(requests: Sequence["TrainingRequest"]) -> Iterator[tuple["TrainingWork", "Card"]]:
    """Do the trainings one after the other. Of several, an error ends its own only. Yields those that are done, in the first process."""
    for request in requests:
        try:
            work = _train(request)
            if ranks.speaks():
                yield work, work.finished or work.finish()
        except ranks.ProcessLostError:
            raise
        except Exception as error:
            if not request.one_of_seeds:
                raise
            signals.forget_closed_pipes()
            options.say(f"seed {request.seed} failed: {one_line(error)}")


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
    if work.job.share.told(bool(work.finished)):
        options.say(f"{work.target.card} with seed {request.seed} is finished")
        return work
    options.say(f"seed {request.seed}: {work.summary}" if request.one_of_seeds else work.summary)
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
