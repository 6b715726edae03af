"""`new-plugin`: a package to start from."""

import shlex
from pathlib import Path

import click

from glimpsezoo.commands import options


@click.command("new-plugin")
@click.argument("name")
@click.option("-o", "--output", metavar="DIR", help="Where it goes.  [default: a folder of its name]")
@click.option("--force", is_flag=True, help="Into a folder that is there, over files of the same names.")
@options.debug
def new_plugin(name: str, output: str | None, force: bool, debug: bool) -> None:
    """Write a new plugin with a tiny model that works.

    NAME is the package's; the model's is the same without 'glimpsezoo-'. docs/plugins.md goes through the files.

    \b
    Examples:
      glimpsezoo new-plugin glimpsezoo-spot
      glimpsezoo new-plugin spot -o plugins/spot
    """
    from glimpsezoo.workflows.new_plugin import write_plugin

    names, folder, files = write_plugin(name, Path(output) if output else None, force=force)
    for file in files:
        click.echo(f"{folder / file}")
    place = shlex.quote(str(folder))
    local = place if folder.is_absolute() or place.startswith(".") else f"./{place}"
    options.say(f"install it: pip install -e {local}; then try: pytest {local}, glimpsezoo check {names.model}")
