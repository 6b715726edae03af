"""`import`: turn a released checkpoint into a card."""

from pathlib import Path
from typing import Any

import click

from glimpsezoo.commands import names, options


@click.command("import")
@click.argument("model", shell_complete=names.importers)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, metavar="CARD_DIR", help="Folder for the card.")
@click.option("--data", metavar="NAME", shell_complete=names.data, help="The data set that it was trained on; its class names are taken.")
@options.together(options.settings, options.force, options.debug)
def import_(model: str, checkpoint: Path, **given: Any) -> None:
    """Turn a released checkpoint of MODEL into a card. No code in the file is executed.

    \b
    Example:
      glimpsezoo import mgnet resnet18-4glimpse.ckpt -o cards/mgnet.imagenet100 --data imagenet100
    """
    from glimpsezoo.zoo.early import check_import

    check_import(model, given["data"], given["sets"])
    from glimpsezoo.reports.readme import run_command
    from glimpsezoo.workflows.importing import import_checkpoint

    card = import_checkpoint(model, checkpoint, Path(given["output"]), given["data"], tuple(given["sets"]), force=given["force"])
    options.tell(f"{card.name} -> {card.folder}")
    for note in card.config.trained["notes"]:
        options.say(note)
    options.tell(f"measure it: {run_command(card, str(card.folder))}")
