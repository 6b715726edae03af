"""Several processes on this machine (loky). Each gets the whole plan once, with its models and data, and then portions by number."""

import os
import pickle
import signal
import threading
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import torch
from loky.backend.context import get_context
from loky.process_executor import ProcessPoolExecutor

from glimpsezoo.run.engines.base import Engine, WorkerDiedError
from glimpsezoo.run.engines.shipping import packed
from glimpsezoo.run.portions import Doer, Outcome, Portion

_doer: list[Doer] = []  # in a worker: the plan that it works on


class Processes(Engine):
    """`count` worker processes. If one dies, all are replaced, and the portions that they had are begun again."""

    def __init__(self, doer: Doer, count: int) -> None:
        self.count, self.payload, self.slots = count, packed(doer), count
        self.threads = max(1, torch.get_num_threads() // count)
        self.pool = self._pool()

    def _pool(self) -> ProcessPoolExecutor:
        variables = {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        given = (self.payload, self.threads)
        return ProcessPoolExecutor(self.count, context=get_context("loky"), initializer=_begin, initargs=given, env=variables)

    def submit(self, portion: Portion, given: Outcome) -> Future[Outcome]:
        try:
            return _translated(self.pool.submit(_do, portion, given))
        except BrokenProcessPool:
            self.pool.shutdown(wait=False, kill_workers=True)
            self.pool = self._pool()
            return _translated(self.pool.submit(_do, portion, given))

    def close(self, *, hurry: bool) -> None:
        self.pool.shutdown(wait=not hurry, kill_workers=hurry)


def _translated(future: "Future[Outcome]") -> "Future[Outcome]":
    """The future of a portion, with our error for a worker that died."""
    ours: Future[Outcome] = Future()

    def finish(theirs: "Future[Outcome]") -> None:
        error = theirs.exception()
        if isinstance(error, BrokenProcessPool):
            ours.set_exception(WorkerDiedError("a worker process ended"))
        elif error is not None:
            ours.set_exception(error)
        else:
            ours.set_result(theirs.result())

    future.add_done_callback(finish)
    return ours


def _begin(payload: bytes, threads: int) -> None:
    """Prepare a worker: the process that started it answers signals, and it does not outlive that process."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(threads)
    _doer[:] = [pickle.loads(payload)]


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _do(portion: Portion, given: Outcome) -> Outcome:
    return _doer[0].do(portion, given)
