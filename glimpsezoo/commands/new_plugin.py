"""`new-plugin`: write a package to start from."""

import shlex
from pathlib import Path

import click

from glimpsezoo.commands import options


@click.command("new-plugin")
@click.argument("name")
@click.option("-o", "--output", metavar="DIR", help="Folder for the plugin.  [default: the name]")
@click.option("--force", is_flag=True, help="Write into an existing folder, over files of the same names.")
@options.debug
def new_plugin(name: str, output: str | None, force: bool, debug: bool) -> None:
    """Write a new plugin with a tiny working model.

    NAME is the name of the package; the model's name is NAME without 'glimpsezoo-'. docs/plugins.md explains the files.

    \b
    Examples:
      glimpsezoo new-plugin glimpsezoo-spot
      glimpsezoo new-plugin spot -o plugins/spot
    """
    from glimpsezoo.workflows.new_plugin import write_plugin

    names, folder, files = write_plugin(name, Path(output) if output else None, force=force)
    for file in files:
        options.tell(f"{folder / file}")
    place = shlex.quote(str(folder))
    local = place if folder.is_absolute() or place.startswith(".") else f"./{place}"
    options.say(f"install it: pip install -e {local}; then try: pytest {local}, glimpsezoo check {names.model}")
