"""The command line. Importing it loads neither torch nor timm nor datasets: each command imports what it needs when it runs."""

import errno
import os
import sys
import traceback

import click

from glimpsezoo.errors import GlimpseZooError, did_you_mean, one_line
from glimpsezoo.plugins import version_of

_FORESEEN = (GlimpseZooError, click.ClickException)
_RESUMED = ("run", "train", "pull")  # what keeps what it has finished


class _Group(click.Group):
    """Commands in the order of a user's work; an unknown one names the nearest."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise GlimpseZooError(f"expected a command, got {args[0]!r}: {did_you_mean(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version_of(None), prog_name="glimpsezoo")
@click.pass_context
def cli(context: click.Context) -> None:
    """A zoo and benchmark harness for glimpse models.

    \b
    Example:
      glimpsezoo run mgnet cnn4 --data digits
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _add_commands() -> None:
    from glimpsezoo.commands import checking, comparing, importing, listing, new_plugin, reporting, running, sharing, tracing, training

    for command in (running.run, training.train, listing.list_, listing.show, listing.plugins):
        cli.add_command(command)
    for command in (tracing.trace, comparing.compare, reporting.report):
        cli.add_command(command)
    for command in (sharing.pull, sharing.push, importing.import_):
        cli.add_command(command)
    for command in (checking.check, new_plugin.new_plugin):
        cli.add_command(command)


_add_commands()


def main(args: list[str] | None = None) -> None:
    """Entry point. Exit status: 0 done; 1 some units failed; 2 the command or its input is wrong, said in one line; 130 stopped.

    What nobody foresaw is one line with exit status 1, too: --debug shows its traceback.
    """
    words = sys.argv[1:] if args is None else args
    debug = "--debug" in words
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # what fails for good is said in the one line, its retries are not
    try:
        status = cli.main(args=args, prog_name="glimpsezoo", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        click.echo(f"glimpsezoo: {_stopped(words)}", err=True)
        sys.exit(130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        click.echo(f"glimpsezoo: {_line(error)}", err=True)
        sys.exit(2 if isinstance(error, _FORESEEN) or _refused(error) else 1)
    sys.exit(status if isinstance(status, int) else 0)


def _stopped(words: list[str]) -> str:
    """What happens next to a command that was stopped."""
    if next((word for word in words if not word.startswith("-")), None) not in _RESUMED:
        return "stopped; the same command begins anew"
    if "--fresh" in words:
        return "stopped; the same command without --fresh goes on from here, with it everything begins anew"
    return "stopped; the same command goes on from here"


def _refused(error: Exception) -> bool:
    """Whether it is the system's answer about a file, a folder or the disk."""
    return isinstance(error, OSError) and (error.filename is not None or error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EROFS})


def _line(error: Exception) -> str:
    """The one line for an error that ends a command."""
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "glimpsezoo"
        return f"{' '.join(error.format_message().split()).rstrip('.')}: see '{command} --help'"
    if isinstance(error, click.ClickException):
        return " ".join(error.format_message().split())
    if isinstance(error, GlimpseZooError):
        return one_line(error)
    if isinstance(error, OSError) and _refused(error):
        place = f" {str(error.filename)!r}" if error.filename else ""
        return f"expected a file or folder that can be used, got{place or ' one'} ({error.strerror}): see what it is, and who may use it"
    return f"unexpected {type(error).__name__} ({one_line(error):.200}): the same command with --debug shows where"
