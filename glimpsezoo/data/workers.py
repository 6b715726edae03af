"""Loads a data set's items in processes of their own, and says in one line when one of those is killed."""

import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from glimpsezoo.errors import GlimpseZooError

T = TypeVar("T")

_END = object()
_KILLED = (
    "expected the processes that decode images to live, got one that was killed, perhaps because memory ran out: run again with fewer "
    "--workers (0 decodes in the process itself); what is finished is kept"
)


def or_error(make: Callable[[], T]) -> T | GlimpseZooError:
    """An item, or the error as a value: an error raised in a worker would arrive with the worker's traceback as its text."""
    try:
        return make()
    except GlimpseZooError as error:
        return error


def loaded(dataset: Dataset[T | GlimpseZooError], workers: int) -> Iterator[T]:
    """The items of a data set in order. Raises `GlimpseZooError` if an item is one, or if a worker was killed.

    workers: how many processes make them; 0 makes them here.
    """
    others, before = set(active_children()), _handler()
    # An item is a whole batch, so that a worker reads its rows in sequence. The loader's own generator leaves torch's state alone.
    own = torch.Generator()
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, collate_fn=_same, generator=own, worker_init_fn=_be_silent)
    items = iter(loader)
    started = set(active_children()) - others
    # torch now has a handler of SIGCHLD, which raises when a worker was killed: in the middle of any code, a lock's or a cleanup's too.
    _handle(before)
    while True:
        with _death_raises(started):
            item = _next(items, workers)
        if item is _END:
            return
        if isinstance(item, GlimpseZooError):
            raise item
        yield item


def _same(batch: Any) -> Any:
    return batch


def _be_silent(worker: int) -> None:
    """A worker prints no traceback when this process gives up the connection over which it takes an item. Its errors go another way."""
    sys.excepthook = lambda *_: None


def _next(items: Iterator[Any], workers: int) -> Any:
    try:
        return next(items, _END)
    except GlimpseZooError:
        raise
    except Exception as error:
        # A worker's death may first show by its connection: closed, refused or at its end. An error that a worker itself met says so.
        closed = workers > 0 and isinstance(error, OSError | EOFError) and "DataLoader worker" not in str(error)
        if closed or (isinstance(error, RuntimeError) and "DataLoader worker (pid" in str(error)):
            raise GlimpseZooError(_KILLED) from error
        raise


@contextmanager
def _death_raises(processes: Collection[BaseProcess]) -> Iterator[None]:
    """Within, the death of one of the processes raises: reading the pipe into which it was writing would never end."""

    def check(*_: Any) -> None:
        if any((process.exitcode or 0) < 0 for process in processes):
            _handle(before)
            raise GlimpseZooError(_KILLED)

    before = _handler()
    _handle(check)
    try:
        check()  # those that died before
        yield
    finally:
        _handle(before)


def _handler() -> Any:
    return signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None


def _handle(handler: Any) -> None:
    """Set the handler of SIGCHLD, which only the main thread may (and torch does), where there is one. Elsewhere torch looks every 5 s."""
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, handler)
