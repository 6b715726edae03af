"""`completion`: the script that lets a shell complete commands, options and names."""

import click

from glimpsezoo.commands import options

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@options.debug
@click.pass_context
def completion(context: click.Context, shell: str, debug: bool) -> None:
    """Print the script that lets SHELL complete names.

    Commands, options, models, cards, data, measures and recipes are completed as they are installed; nothing heavy is loaded for that.

    \b
    Examples:
      glimpsezoo completion bash > ~/.glimpsezoo-completion.bash
      glimpsezoo completion fish > ~/.config/fish/completions/glimpsezoo.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # click has all of `SHELLS`
    root = context.find_root()
    options.tell(kind(root.command, {}, "glimpsezoo", "_GLIMPSEZOO_COMPLETE").source())
