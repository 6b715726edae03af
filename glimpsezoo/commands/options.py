"""Options that mean the same in every command."""

from collections.abc import Callable
from typing import Any

import click
from rich.console import Console

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

stderr = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """A line on standard error, as it is: long ones are not broken, and brackets are no markup."""
    stderr.print(text, markup=False, soft_wrap=True)


def stdout() -> Console:
    """Where results go. A pipe gets 100 columns, so that tables read the same in a file."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=100)


SEED = click.IntRange(0, 2**32 - 1)
data = click.option(
    "--data", metavar="NAME", help="Data set ('glimpsezoo list data').  [default: the card's own; digits for a model without a card]"
)
data_dir = click.option("--data-dir", metavar="DIR", help="Read the data from this folder, laid out as on the Hub.")
settings = click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A setting: KEY, MODEL.KEY or data.KEY.")
device = click.option("--device", default="auto", show_default=True, metavar="NAME", help="cpu, cuda, mps, or auto.")
seed = click.option("--seed", default=0, show_default=True, type=SEED, metavar="N", help="Decides every random number.")
workers = click.option("--workers", default=0, show_default=True, type=click.IntRange(0), metavar="N", help="Processes that decode images.")
output = click.option("-o", "--output", metavar="DIR", help="Where the results go.  [default: a folder of its own in runs/]")
force = click.option("--force", is_flag=True, help="Overwrite what --output holds.")
fresh = click.option("--fresh", is_flag=True, help="Start anew: reuse nothing that an earlier run finished.")
as_json = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator, listed in this order by --help."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def pick_device(name: str) -> Any:
    """A torch device, checked to be there. Raises `GlimpseZooError`."""
    import torch

    from glimpsezoo.errors import GlimpseZooError, one_line

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except Exception as error:  # torch raises many kinds for devices that are not there
        raise GlimpseZooError(
            f"--device expects one that this machine has (cpu, cuda, mps), got {name!r}: {one_line(error):.120}"
        ) from None
    return device
