"""The interface of engines: they are given portions and return their outcomes."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import Self

import torch

from glimpsezoo.evaluation.reading import Reader
from glimpsezoo.evaluation.rows import StoredUnit
from glimpsezoo.run.portions import Doer, Outcome, Portion


class WorkerDiedError(Exception):
    """A worker ended before its portion was done; the portion can be given to another."""


class Engine(ABC):
    """Works on portions, up to `slots` at once. As a context manager, it ends its workers on exit."""

    slots: int = 1

    @abstractmethod
    def submit(self, portion: Portion, given: Outcome) -> Future[Outcome]:
        """Begin a portion. given: what is known of it already.

        The future raises `WorkerDiedError` if the worker died, `GlimpseZooError` as `Doer.do` does, and any other error of the engine.
        """

    @abstractmethod
    def close(self, *, hurry: bool) -> None:
        """End all workers. hurry: also those that are at work."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(hurry=kind is not None)


class ThisProcess(Engine):
    """One portion after another, in this process."""

    def __init__(self, doer: Doer, keep: Callable[[str, StoredUnit], None], on_images: Callable[[int, int], None]) -> None:
        self.doer = replace(doer, reader=Reader(ahead=True))  # it gets the portions in order
        self.keep, self.on_images = keep, on_images

    def submit(self, portion: Portion, given: Outcome) -> Future[Outcome]:
        done: Future[Outcome] = Future()
        found = self.doer.do(portion, given, keep=self.keep, on_images=self.on_images)
        found.notes.clear()  # they are in this process's bench already
        done.set_result(found)
        return done

    def close(self, *, hurry: bool) -> None:
        """End the processes that decode images."""
        self.doer.reader.close()


def cores() -> int:
    """How many cores are meant for this process: as many as torch uses threads (OMP_NUM_THREADS, the cores that it may run on)."""
    return torch.get_num_threads()
