"""The command line. A command is imported when it is used, and imports what it needs when it runs, so that help and errors come at once."""

import errno
import importlib
import os
import sys
import traceback

import click

from glimpsezoo.errors import GlimpseZooError, did_you_mean, one_line

_EXPECTED = (GlimpseZooError, click.ClickException)
_RESUMABLE = ("run", "train", "pull")  # commands that keep their finished work
_COMMANDS = {  # in the order in which users need them: where each one is, and the first sentence of its help, which a test compares
    "run": ("running:run", "Measure accuracy, cost and robustness of models on --data."),
    "train": ("training:train", "Train MODEL on --data, and write a card for 'run'."),
    "list": ("listing:list_", "List models, cards, data, recipes, papers and more."),
    "show": ("listing:show", "Show a model, a data set, a trained card or a recipe."),
    "plugins": ("listing:plugins", "Show the installed plugins and their errors."),
    "predict": ("predicting:predict", "Say what MODEL sees in image FILES, and where it looked."),
    "trace": ("tracing:trace", "Draw where MODEL looks, and what it predicts after each step."),
    "compare": ("comparing:compare", "Show results side by side, with paired tests."),
    "report": ("reporting:report", "Write one web page about one or more runs."),
    "pull": ("sharing:pull", "Copy a trained card from the Hub, to run it by name."),
    "push": ("sharing:push", "Publish CARD, a name or a folder, as OWNER/NAME on the Hub."),
    "export": ("exporting:export", "Write MODEL as an ONNX graph or a torch.export program."),
    "import": ("importing:import_", "Turn a released checkpoint of MODEL into a card."),
    "check": ("checking:check", "Check that a model or a card conforms to the protocol."),
    "doctor": ("doctoring:doctor", "Say what is installed and what works, for bug reports."),
    "completion": ("completing:completion", "Print the script that lets SHELL complete names."),
    "new-plugin": ("new_plugin:new_plugin", "Write a new plugin with a tiny working model."),
}


class _Group(click.Group):
    """Imports only the command that is used; an unknown command names the nearest."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        return getattr(importlib.import_module(f"glimpsezoo.commands.{module}"), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not ctx.resilient_parsing and not args[0].startswith("-") and args[0] not in _COMMANDS:
            raise GlimpseZooError(f"expected a command, got {args[0]!r}: {did_you_mean(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)


def _show_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from glimpsezoo.zoo.plugins import version_of

        click.echo(f"glimpsezoo, version {version_of(None)}")
        context.exit()


@click.group(cls=_Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version and exit.")
@click.pass_context
def cli(context: click.Context) -> None:
    """A zoo and benchmark harness for glimpse models.

    \b
    Example:
      glimpsezoo run mgnet cnn4 --data digits
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(args: list[str] | None = None) -> None:
    """Entry point. Exit status: 0 done; 1 some units failed; 2 the command or its input is wrong, with one line that says why; 130 stopped.

    An unexpected error is one line with exit status 1; --debug shows its traceback.
    """
    words = sys.argv[1:] if args is None else args
    debug = "--debug" in words
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # the one line reports the final error; retries are not printed
    try:
        status = cli.main(args=args, prog_name="glimpsezoo", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        _complain(_stopped(words))
        sys.exit(130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        _complain(_line(error))
        sys.exit(2 if isinstance(error, _EXPECTED) or _refused_by_system(error) else 1)
    sys.exit(status if isinstance(status, int) else 0)


def _complain(text: str) -> None:
    """Print the line that ends a command. On a terminal it begins in red, unless NO_COLOR is set."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    begin = click.style("glimpsezoo:", fg="red", bold=True)  # click leaves the colour out where there is no terminal
    click.echo(f"{begin} {text}", err=True, color=False if plain else None)


def _stopped(words: list[str]) -> str:
    """What the same command will do after it was stopped."""
    if next((word for word in words if not word.startswith("-")), None) not in _RESUMABLE:
        return "stopped; the same command starts over"
    if "--fresh" in words:
        return "stopped; the same command without --fresh resumes here, with --fresh it starts over"
    return "stopped; the same command resumes here"


def _refused_by_system(error: Exception) -> bool:
    """Whether the operating system refused to use a file, a folder or the disk."""
    return isinstance(error, OSError) and (error.filename is not None or error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS})


def _line(error: Exception) -> str:
    """The line that is printed for an error that ends a command."""
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "glimpsezoo"
        return f"{' '.join(error.format_message().split()).rstrip('.')}: see '{command} --help'"
    if isinstance(error, click.ClickException):
        return " ".join(error.format_message().split())
    if isinstance(error, GlimpseZooError):
        return one_line(error)
    if isinstance(error, OSError) and _refused_by_system(error):
        place = f" {str(error.filename)!r}" if error.filename else ""
        return f"expected a file or folder that can be used, got{place or ' one'} ({error.strerror}): check its path and permissions"
    return f"unexpected {type(error).__name__} ({one_line(error):.200}): repeat the command with --debug for the traceback"
