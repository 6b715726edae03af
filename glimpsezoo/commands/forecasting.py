"""What `--dry-run` prints: the plan of a run or of a training."""

import json
from typing import TYPE_CHECKING

import click

from glimpsezoo.commands import options
from glimpsezoo.commands.progress import duration
from glimpsezoo.errors import counted

if TYPE_CHECKING:
    from glimpsezoo.run.forecast import Forecast
    from glimpsezoo.training.forecast import TrainingForecast

dry_run = click.option("--dry-run", is_flag=True, help="Print the plan, what is done already and the time; start and write nothing.")


def print_run(plan: "Forecast", *, as_json: bool) -> None:
    """The plan of a run: a line for each measure of each model."""
    if as_json:
        options.tell(json.dumps(plan.to_json(), indent=2))
        return
    for note in plan.notes:
        options.say(note)
    options.tell(f"would measure {plan.subject}")
    rows = [(share.model, share.measure, f"{share.units:,}", f"{share.stored:,}", time_text(share.seconds)) for share in plan.plan]
    print_table(("model", "measure", "units", "stored", "time"), rows, words=("model", "measure"))
    if plan.units == plan.stored:
        time = "none"
    elif plan.seconds is None:
        unknown = dict.fromkeys(share.model for share in plan.plan if share.seconds is None)
        time = f"unknown, because no unit of {' and '.join(unknown)} has been measured on this device"
    else:
        time = f"about {time_text(plan.seconds)}, by the units that are stored"
    options.tell(f"{counted(plan.units, 'unit')}, {plan.stored:,} stored; time: {time}")
    options.tell(f"results would be in {plan.folder}; nothing was started")


def print_training(plan: "TrainingForecast", *, as_json: bool) -> None:
    """The plan of a training: a line for each training phase."""
    if as_json:
        options.tell(json.dumps(plan.to_json(), indent=2))
        return
    for note in plan.notes:
        options.say(note)
    if not plan.phases:
        options.tell(f"would train nothing: {plan.card} has the weights of {plan.recipe['start']} under other settings")
        options.tell(f"the card would be in {plan.folder}; nothing was started")
        return
    options.tell(f"would train {plan.card}: {plan.images:,} training images, batches of {plan.recipe['batch_size']}")
    phases = zip(plan.phases, plan.recipe["phase"], strict=True)
    rows = [
        (each.name, f"{each.epochs:,}", f"{each.steps:,}", f"{each.done:,}", f"{recipe['optimiser']}, lr {recipe['lr']:g}")
        for each, recipe in phases
    ]
    print_table(("phase", "epochs", "steps", "done", "optimiser"), rows, words=("phase", "optimiser"))
    time = (
        "unknown, because no step is done yet" if plan.seconds is None else f"about {time_text(plan.seconds)}, by the steps that are done"
    )
    resumed = f"{plan.done:,} done: it would resume from its checkpoint" if plan.done else "none done"
    options.tell(f"{counted(plan.steps, 'step')}, {resumed}; time: {time}")
    options.tell(f"the card would be in {plan.folder}; nothing was started")


def print_table(headings: tuple[str, ...], rows: list[tuple[str, ...]], words: tuple[str, ...]) -> None:
    """Print rows of texts. words: headings of columns without numbers."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in words else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    if rows:
        options.stdout().print(table)


def time_text(seconds: float | None) -> str:
    """An expected time as text; it may be unknown."""
    return "unknown" if seconds is None else duration(seconds)
