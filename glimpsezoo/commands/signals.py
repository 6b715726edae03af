"""How a command is stopped: by SIGINT (Ctrl-C), SIGTERM (kill, a scheduler) or SIGHUP (the terminal closes), or a pipe that nobody reads.

The first signal raises `Stopped`, so that files are closed and a training writes its checkpoint; the command then ends in one line. A
second signal, while that is under way, says the line and ends the process at once, which loses nothing either: files are written
atomically. In a training the first signal waits for the step in hand, the second one raises, and the third one ends the process.

Signals that the process was started to ignore (nohup, a job in the background) stay ignored.
"""

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from glimpsezoo.errors import one_line

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))  # Windows has no SIGHUP
PIPE_CLOSED = 128 + 13  # what a shell says of a program that SIGPIPE ended
Handler = Callable[[int, FrameType | None], object] | int | None


class Stopped(BaseException):
    """A signal asks the command to end. It is not an `Exception`, so nothing takes it for an error of a unit.

    Nor is it a KeyboardInterrupt, which click answers itself.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def exit_status(stop: BaseException) -> int:
    """The exit status of a command stopped by a signal, as shells report it: 130, 143 or 129."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


@contextmanager
def raised(line: str) -> Iterator[None]:
    """Within, a signal raises `Stopped`, and a second one says `line`, if any, and ends the process.

    Afterwards, signals do what they did before.
    """
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            _handle(end)
            raise Stopped(number)
        if number == signal.SIGTERM:  # a process that this one forked: the others reach both, and this one ends it
            os._exit(128 + number)

    def end(number: int, frame: FrameType | None) -> NoReturn:
        try:
            os.write(2, f"glimpsezoo: {line}\n".encode() if line else b"")  # not by sys.stderr, which may be in the middle of a write
        finally:
            os._exit(128 + number)

    before = _handle(stop)
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def delayed(*, patient: bool = False) -> Iterator[list[int]]:
    """Within, the first signal is only noted, in the list that this yields, and raised at the end. A second one does what it did before.

    patient: a second one is noted, too. (torchrun passes on what its processes have got already, and ends them itself if they take long.)
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        if not patient:
            _restore(before)

    before = _handle(note)
    try:
        yield noted
    finally:
        if patient or not noted:
            _restore(before)
    if noted:
        raise Stopped(noted[0])


def pipe_closed() -> NoReturn:
    """What a command does when it finds that nobody reads its output any more."""
    raise Stopped(PIPE_CLOSED - 128)


@contextmanager
def closed_pipes_stop() -> Iterator[None]:
    """Within, writing to a closed pipe stops the command if the pipe is its output; click would end it on any closed connection."""
    try:
        yield
    except BrokenPipeError as error:
        if forget_closed_pipes():
            pipe_closed()
        raise ConnectionError(one_line(error)) from error


def end_at_once() -> None:
    """From now on, a signal ends the process without a word: for the time before and after a command."""
    _handle(lambda number, frame: os._exit(128 + number))


def forget_closed_pipes() -> bool:
    """Whether nobody reads standard output or standard error any more. What is still written there goes nowhere, without an error."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)  # which reports errors only
    closed = [stream for stream, _ in poll.poll(0)]
    for stream in closed:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream)
        os.close(nowhere)
    return bool(closed)


def _handle(handler: Handler) -> dict[int, Handler]:
    """Set the handler of all signals that are not ignored, and return those before. Only the main thread may; others change nothing."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    return before


def _restore(handlers: dict[int, Handler]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
