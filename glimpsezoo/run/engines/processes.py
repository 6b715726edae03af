"""Several processes on this machine (loky). Each reads the plan once, with its models and data, and is then given portions of it."""

import atexit
import gc
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from loky.backend import resource_tracker
from loky.backend.context import get_context
from loky.process_executor import ProcessPoolExecutor

from glimpsezoo import ranks
from glimpsezoo.errors import GlimpseZooError, why_not
from glimpsezoo.evaluation.environment import keep_freed_memory
from glimpsezoo.run.engines.base import Engine, WorkerDiedError
from glimpsezoo.run.engines.shipping import packed, packed_outcome, settle
from glimpsezoo.run.portions import Doer, Outcome, Portion

_pools: dict[int, ProcessPoolExecutor] = {}
"""By number of processes: those that were started. They serve the next plan, too."""
_ANY_MEMORY = "1e18"  # bytes: a worker keeps freed memory, which loky takes for a leak where psutil is installed
_plan: dict[str, Doer] = {}  # in a worker: the plan that it works on, by its file


class Processes(Engine):
    """`count` worker processes. If one dies, all are replaced, and what they had is begun again."""

    def __init__(self, doer: Doer, count: int) -> None:
        self.slots = count
        content = packed(doer)
        self.folder = tempfile.TemporaryDirectory()
        resource_tracker.register(self.folder.name, "folder")  # a process of loky's deletes it if this one is killed
        self.plan = Path(self.folder.name, "plan")
        try:
            self.plan.write_bytes(content)
        except OSError as error:
            self._clean_up()
            raise GlimpseZooError(
                f"expected room for models in {tempfile.gettempdir()!r}, got none ({why_not(error)}): make some, or set TMPDIR to a folder"
            ) from None

    def submit(self, portion: Portion, given: Outcome) -> Future[Outcome]:
        try:
            return _translated(self._pool().submit(_do, str(self.plan), portion, given))
        except BrokenProcessPool:
            self._end()
            return _translated(self._pool().submit(_do, str(self.plan), portion, given))

    def _pool(self) -> ProcessPoolExecutor:
        if self.slots not in _pools:
            threads = max(1, torch.get_num_threads() // self.slots)
            env = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "LOKY_MAX_MEMORY_LEAK_SIZE": _ANY_MEMORY}
            context = get_context("loky")
            _pools[self.slots] = ProcessPoolExecutor(
                self.slots, context=context, initializer=_begin, initargs=(threads, os.getpid()), env=env
            )
        return _pools[self.slots]

    def _end(self) -> None:
        if pool := _pools.pop(self.slots, None):
            pool.shutdown(wait=False, kill_workers=True)

    def close(self, *, hurry: bool) -> None:
        if hurry:
            self._end()
        self._clean_up()

    def _clean_up(self) -> None:
        if Path(self.folder.name).exists():  # not a second time
            self.folder.cleanup()
            resource_tracker.unregister(self.folder.name, "folder")


def _translated(future: "Future[bytes]") -> "Future[Outcome]":
    """The future of a portion, with our error for a worker that died."""
    ours: Future[Outcome] = Future()

    def finish(theirs: "Future[bytes]") -> None:
        error = theirs.exception()
        if isinstance(error, BrokenProcessPool):
            ours.set_exception(WorkerDiedError("a worker process ended"))
        elif error is not None:
            ours.set_exception(error)
        else:
            settle(ours, theirs.result())

    future.add_done_callback(finish)
    return ours


def _begin(threads: int, parent: int) -> None:
    """Prepare a worker: the process that started it answers signals, and it does not outlive that process."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    multiprocessing.set_start_method(None, force=True)  # the system's own; loky's, set here, cannot start processes that decode
    torch.set_num_threads(threads)
    keep_freed_memory()
    atexit.register(ranks.leave, 0)  # without taking torch apart, for which the process that started it would wait


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _do(plan: str, portion: Portion, given: Outcome) -> bytes:
    if plan not in _plan:
        _plan.clear()
        _plan[plan] = pickle.loads(Path(plan).read_bytes())
        gc.freeze()  # loky collects garbage every second, and would look at all objects of torch each time: a fifth of the second
    try:
        return packed_outcome(_plan[plan].do(portion, given))
    except Exception as error:  # the process that asked raises it
        return packed_outcome(error)
