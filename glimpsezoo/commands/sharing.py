"""`pull` and `push`: cards from the Hub, and to it."""

from pathlib import Path

import click

from glimpsezoo.commands import options


@click.command()
@click.argument("card", metavar="hf-hub:OWNER/NAME[@REVISION]")
@click.option("-o", "--output", metavar="CARD_DIR", help="Where the card goes.  [default: cards/ in your ~/.glimpsezoo]")
@options.together(options.force, options.as_json, options.debug)
def pull(card: str, output: str | None, force: bool, as_json: bool, debug: bool) -> None:
    """Copy a trained card from the Hub, to measure it by its name.

    Nothing that comes with it is executed; its model is that of an installed plugin. Stopped at any time, the same command goes on
    from there. 'run', 'show' and 'train' take hf-hub:OWNER/NAME themselves, without a copy.

    \b
    Examples:
      glimpsezoo pull hf-hub:me/mgnet.digits
      glimpsezoo pull hf-hub:me/mgnet.digits@v1 -o cards/mgnet.digits
    """
    from glimpsezoo.reports import run_command
    from glimpsezoo.workflows.sharing import missing_plugin
    from glimpsezoo.workflows.sharing import pull as copy

    copied = copy(card, Path(output) if output else None, force=force)
    if as_json:
        click.echo(copied.config.to_json().decode(), nl=False)
        return
    click.echo(f"{copied.name} -> {copied.folder} ({copied.origin})")
    if missing := missing_plugin(copied):
        options.say(missing)
    click.echo(f"measure it: {run_command(copied, str(copied.folder) if output else copied.name)}")


@click.command()
@click.argument("card")
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Make it a private repository.")
@click.option("--force", is_flag=True, help="Publish into a repository that holds a card; the Hub keeps the old commit.")
@options.debug
def push(card: str, repository: str, private: bool, force: bool, debug: bool) -> None:
    """Publish CARD, a name or a folder, as OWNER/NAME on the Hub.

    The weights are checked against the card's model and hash first, and README.md is made from its result.json.

    \b
    Examples:
      glimpsezoo push mgnet.digits me/mgnet.digits
      glimpsezoo push runs/train/mgnet.digits me/mgnet.digits --private
    """
    from glimpsezoo.reports import run_command
    from glimpsezoo.workflows.sharing import push as publish

    published, address = publish(card, repository, private=private, force=force)
    click.echo(f"{published.name} -> {address}")
    click.echo(f"measure it: {run_command(published, f'hf-hub:{published.config.hub}')}")
