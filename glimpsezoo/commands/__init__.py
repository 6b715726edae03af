"""The command line. Importing it loads neither torch nor timm nor datasets; each command imports what it needs when it runs."""

import errno
import os
import sys
import traceback

import click

from glimpsezoo.errors import GlimpseZooError, did_you_mean, one_line
from glimpsezoo.zoo.plugins import version_of

_EXPECTED = (GlimpseZooError, click.ClickException)
_RESUMABLE = ("run", "train", "pull")  # commands that keep their finished work


class _Group(click.Group):
    """Lists commands in the order in which users need them; an unknown command names the nearest."""

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
    """Entry point. Exit status: 0 done; 1 some units failed; 2 the command or its input is wrong, with one line that says why; 130 stopped.

    An unexpected error is one line with exit status 1; --debug shows its traceback.
    """
    words = sys.argv[1:] if args is None else args
    debug = "--debug" in words
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # the one line reports the final error; retries are not printed
    try:
        status = cli.main(args=args, prog_name="glimpsezoo", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        click.echo(f"glimpsezoo: {_stopped(words)}", err=True)
        sys.exit(130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        click.echo(f"glimpsezoo: {_line(error)}", err=True)
        sys.exit(2 if isinstance(error, _EXPECTED) or _refused_by_system(error) else 1)
    sys.exit(status if isinstance(status, int) else 0)


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
