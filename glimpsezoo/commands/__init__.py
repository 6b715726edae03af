"""The command line. A command is imported when it is used, and imports what it needs when it runs, so that help and errors come at once."""

import atexit
import errno
import importlib
import logging
import os
import sys
import traceback
from contextlib import suppress
from typing import Any

import click

from glimpsezoo import escaping, ranks
from glimpsezoo.commands import signals
from glimpsezoo.errors import GlimpseZooError, check_unicode, did_you_mean, one_line, out_of_memory

_EXPECTED = (GlimpseZooError, click.ClickException)
_FULL = {errno.ENOSPC, errno.EDQUOT}
_KEPT = {  # by the commands that go on where they were stopped
    "run": "finished units are kept",
    "train": "the last checkpoint is kept",
    "pull": "what was downloaded is kept",
}
SPINS = "10000"  # looks of a thread that waits for others, before it sleeps: libgomp's 300,000 take whole cores from what it waits for
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

    def make_context(self, *given: Any, **more: Any) -> click.Context:
        with signals.closed_pipes_stop():  # under --help
            return super().make_context(*given, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with signals.closed_pipes_stop():
            status = super().invoke(ctx)
            click.echo(nl=False)  # flushes, or a closed pipe would be noticed at the end of the process, with a traceback
            return status

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not ctx.resilient_parsing and not args[0].startswith("-") and args[0] not in _COMMANDS:
            raise GlimpseZooError(f"expected a command, got {args[0]!r}: {did_you_mean(args[0], _COMMANDS)}")
        if args[:1] != ["predict"] and not ctx.resilient_parsing:  # others write their words: JSON, TOML
            for word in args:
                check_unicode(word)
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


def program() -> None:
    """The command line in a process of its own, whose start and end a signal interrupts without a traceback."""
    _open_streams()
    signals.end_at_once()
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read by OpenMP (libgomp) when torch is loaded
    status = 1  # of a failure of `main` itself
    # Called last, after what other modules register: taking the hundreds of thousands of objects of torch apart takes most of a second.
    atexit.register(lambda: ranks.leave(status))
    atexit.register(logging.shutdown)  # registered by `logging` itself before, and so after the end
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else status
        if status and (ranks.have_met() or end.__cause__):  # threads may wait for a lost process
            ranks.leave(status)
        raise


def main(args: list[str] | None = None) -> None:
    """Entry point. Exit status: 0 done; 1 some units failed; 2 the command or its input is wrong, with one line that says why.

    A command that is stopped says in one line what is kept and how to go on: 130 by Ctrl-C (SIGINT), 143 by SIGTERM, 129 by SIGHUP. If
    nobody reads its output any more (`| head`), it ends without a word: 141.

    An unexpected error is one line with exit status 1; --debug shows its traceback.
    """
    lost: ranks.ProcessLostError | None = None
    words = sys.argv[1:] if args is None else args
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # the one line reports the final error; retries are not printed
    logging.setLogRecordFactory(_harmless)
    with signals.raised(_stopped(words) if ranks.speaks() else ""):
        try:
            status = cli.main(args=args, prog_name="glimpsezoo", standalone_mode=False)
        except (signals.Stopped, KeyboardInterrupt, click.Abort) as stop:
            status = signals.exit_status(stop)
            signals.forget_closed_pipes()
            if status != signals.PIPE_CLOSED:
                with suppress(OSError):  # of a terminal that was closed
                    click.echo(nl=sys.stderr.isatty(), err=True)  # after '^C'
                    _complain(_stopped(words))
        except Exception as error:
            status, lost = 1, error if isinstance(error, ranks.ProcessLostError) else None
            with suppress(signals.Stopped), signals.delayed():  # torchrun ends this process while it says that another one died
                status = _failed(error, debug="--debug" in words)
    raise SystemExit(status if isinstance(status, int) else 0) from lost  # by which `program` knows that threads may wait


def _open_streams() -> None:
    """Open standard input, output and error on nothing where they were closed (`>&-`): the next file would take their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free, which is that of the stream
            os.set_inheritable(handle, True)
            setattr(sys, name, open(handle, mode, encoding="utf-8"))  # noqa: SIM115


def _harmless(*given: Any, **more: Any) -> logging.LogRecord:
    """A record of a log of any library, which may repeat what a server or a file says, escaped as everything on a terminal."""
    record = logging.LogRecord(*given, **more)
    with suppress(Exception):  # of a message that does not fit its arguments, which the handler reports
        record.msg, record.args = escaping.terminal(record.getMessage()), ()
    return record


def _failed(error: Exception, *, debug: bool) -> int:
    """Say why a command failed, and return the exit status."""
    signals.forget_closed_pipes()
    with suppress(OSError):  # of a full disk behind standard error, which leaves the exit status to tell
        if debug:
            click.echo(escaping.terminal("".join(traceback.format_exception(error))), err=True, nl=False)
        _complain(_line(error))
    return 2 if isinstance(error, _EXPECTED) or _refused_by_system(error) or out_of_memory(error) else 1


def _complain(text: str) -> None:
    """Print the line that ends a command. On a terminal it begins in red, unless NO_COLOR is set. Of several processes, one does."""
    if not ranks.may_complain():
        return
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    begin = click.style("glimpsezoo:", fg="red", bold=True)  # click leaves the colour out where there is no terminal
    click.echo(f"{begin} {escaping.line(text)}", err=True, color=False if plain else None)


def _stopped(words: list[str]) -> str:
    """What is kept of a command that was stopped, and what the same command will do."""
    kept = _KEPT.get(next((word for word in words if not word.startswith("-")), ""))
    if kept is None:
        return "stopped; nothing of it is kept: the same command starts over"
    if "--fresh" in words:
        return f"stopped; {kept}: the same command without --fresh resumes here, with --fresh it starts over"
    return f"stopped; {kept}: the same command resumes here"


def _refused_by_system(error: Exception) -> bool:
    """Whether the operating system refused to use a file, a folder or the disk."""
    return isinstance(error, OSError) and (error.filename is not None or error.errno in {*_FULL, errno.EROFS})


def _line(error: Exception) -> str:
    """The line that is printed for an error that ends a command."""
    if isinstance(error, click.UsageError):
        said = " ".join(error.format_message().split()).rstrip(".")
        if isinstance(error, click.NoSuchOption):
            said = f"expected an option, got {error.option_name!r}"
            if error.possibilities:
                said += f" (did you mean {' or '.join(map(repr, error.possibilities))}?)"
        return f"{said}: see '{error.ctx.command_path if error.ctx else 'glimpsezoo'} --help'"
    if isinstance(error, click.ClickException):
        return " ".join(error.format_message().split())
    if isinstance(error, GlimpseZooError):
        return one_line(error)
    if isinstance(error, OSError) and error.filename is None and error.errno in _FULL:  # most often of `> FILE`
        return f"expected room on the disk, got none left ({error.strerror}): make room there, or send the output elsewhere"
    if isinstance(error, OSError) and _refused_by_system(error):
        place = f" {str(error.filename)!r}" if error.filename else ""
        return f"expected a file or folder that can be used, got{place or ' one'} ({error.strerror}): check its path and permissions"
    if out_of_memory(error):
        return f"expected enough memory, got none left ({one_line(error):.120}): take a smaller batch or image, or close other programs"
    return f"unexpected {type(error).__name__} ({one_line(error):.200}): repeat the command with --debug for the traceback"
