"""`pull` and `push`: copy cards from the Hub and to it."""

from pathlib import Path

import click

from glimpsezoo.commands import names, options


@click.command()
@click.argument("card", metavar="hf-hub:OWNER/NAME[@REVISION]")
@click.option("-o", "--output", metavar="CARD_DIR", help="Folder for the card.  [default: cards/ in your ~/.glimpsezoo]")
@options.together(options.force, options.as_json, options.debug)
def pull(card: str, output: str | None, force: bool, as_json: bool, debug: bool) -> None:
    """Copy a trained card from the Hub, to run it by name.

    No code from the Hub is executed; the model comes from an installed plugin. If the command is stopped, the same command resumes.
    'run', 'show' and 'train' also take hf-hub:OWNER/NAME without a copy.

    \b
    Examples:
      glimpsezoo pull hf-hub:me/mgnet.digits
      glimpsezoo pull hf-hub:me/mgnet.digits@v1 -o cards/mgnet.digits
    """
    from glimpsezoo.zoo.hub import Repository

    Repository.parse(card)
    from glimpsezoo.reports.readme import run_command
    from glimpsezoo.workflows.sharing import missing_plugin, pull_card

    copied = pull_card(card, Path(output) if output else None, force=force)
    if as_json:
        options.tell(copied.config.to_json().decode(), nl=False)
        return
    options.tell(f"{copied.name} -> {copied.folder} ({copied.origin})")
    if missing := missing_plugin(copied):
        options.say(missing)
    options.tell(f"measure it: {run_command(copied, str(copied.folder) if output else copied.name)}")


@click.command()
@click.argument("card", shell_complete=names.cards)
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Create a private repository.")
@click.option("--force", is_flag=True, help="Replace the card in the repository; the Hub keeps the old commit.")
@options.debug
def push(card: str, repository: str, private: bool, force: bool, debug: bool) -> None:
    """Publish CARD, a name or a folder, as OWNER/NAME on the Hub.

    First, the weights are checked against the model and the hash of the card. README.md is generated from result.json.

    \b
    Examples:
      glimpsezoo push mgnet.digits me/mgnet.digits
      glimpsezoo push runs/train/mgnet.digits me/mgnet.digits --private
    """
    from glimpsezoo.zoo.early import known_card

    known_card(card)
    from glimpsezoo.reports.readme import run_command
    from glimpsezoo.workflows.sharing import push_card

    published, address = push_card(card, repository, private=private, force=force)
    options.tell(f"{published.name} -> {address}")
    options.tell(f"measure it: {run_command(published, f'hf-hub:{published.config.hub}')}")
