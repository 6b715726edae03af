"""The processes that `torchrun` started. Process 0 runs the command, and works too; the others work for it.

    torchrun --nproc-per-node 2 -m glimpsezoo run mgnet

Process 0 writes the plan and its portions into the store that torchrun keeps for its processes. Each process takes the next portion that
nobody has taken, and process 0 reads what came of it. If a process dies, torchrun ends them all, and the same command goes on.
"""

import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]: torch's documentation has them here

from glimpsezoo.ranks import ProcessLostError, here, lost, store
from glimpsezoo.run.engines.base import Engine
from glimpsezoo.run.engines.shipping import packed, packed_outcome, settle
from glimpsezoo.run.portions import Doer, Outcome, Portion

CHUNK = 1 << 22  # bytes in a value of the store, which refuses more than 8 MiB
POLL = 0.02  # seconds between looks for a value; torchrun ends a process that waits for one that died
END = b""  # in the place of a plan or a portion
_plans = count()  # numbers of plans: a command may have several, one after the other


class Torchrun(Engine):
    """All processes of torchrun. This one works too, in a thread of its own."""

    def __init__(self, doer: Doer) -> None:
        self.slots = here().world
        self.place = _next_plan()
        self.threads: list[threading.Thread] = []
        self.sent = 0
        with lost():
            _put(self.place, "plan", packed(doer))
        self._start(_work_beside, self.place, _on_own_device(doer))

    def submit(self, portion: Portion, given: Outcome) -> Future[Outcome]:
        number, future = self.sent, Future[Outcome]()
        self.sent += 1
        with lost():
            _put(self.place, f"portion{number}", pickle.dumps((portion, given)))
        self._start(_await, self.place, number, future)
        return future

    def _start(self, work: Callable[..., None], *given: Any) -> None:
        self.threads = [thread for thread in self.threads if thread.is_alive()]
        self.threads.append(threading.Thread(target=work, args=given, daemon=True))
        self.threads[-1].start()

    def close(self, *, hurry: bool) -> None:
        """hurry: threads that are at work go on; the process ends without them (`ranks.leave`)."""
        with suppress(RuntimeError):  # the store is gone
            for number in range(self.sent, self.sent + self.slots):
                _put(self.place, f"portion{number}", END)
        for thread in () if hurry else self.threads:
            thread.join()


def serve() -> None:
    """The main loop of the other processes: work on the plans of process 0 until it dismisses them."""
    while True:
        place = _next_plan()
        with lost():
            plan = _get(place, "plan")
            if place.add("read", 1) == here().world - 1:  # nobody else needs it
                _drop(place, "plan")
        if plan == END:
            return
        _work(place, _on_own_device(pickle.loads(plan)))


def dismiss() -> None:
    """Let the other processes end, because process 0 has no other plan."""
    with suppress(RuntimeError):  # the store is gone, and so are they
        _put(_next_plan(), "plan", END)


def _next_plan() -> Store:
    """Where the next plan is written."""
    return PrefixStore(f"engine/plan{next(_plans)}", store())


def _work(place: Store, doer: Doer) -> None:
    """Take portions until there are no more."""
    while True:
        with lost():
            number = place.add("taken", 1) - 1
            message = _get(place, f"portion{number}")
            _drop(place, f"portion{number}")
        if message == END:
            return
        portion, given = pickle.loads(message)
        try:
            found = packed_outcome(doer.do(portion, given))
        except Exception as error:  # process 0 raises it
            found = packed_outcome(error)
        with lost():
            _put(place, f"outcome{number}", found)


def _work_beside(place: Store, doer: Doer) -> None:
    with suppress(ProcessLostError):  # who awaits an outcome says so
        _work(place, doer)


def _await(place: Store, number: int, future: Future[Outcome]) -> None:
    """Give the future what came of a portion."""
    try:
        with lost():
            message = _get(place, f"outcome{number}")
            _drop(place, f"outcome{number}")
    except ProcessLostError as error:
        future.set_exception(error)
        return
    settle(future, message)


def _put(place: Store, name: str, content: bytes) -> None:
    """Write a value of any size: first its chunks, then their number."""
    chunks = [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]
    for number, chunk in enumerate(chunks):
        place.set(f"{name}/{number}", chunk)  # pyright: ignore[reportArgumentType]: bytes are documented
    place.set(name, str(len(chunks)))


def _get(place: Store, name: str) -> bytes:
    """A value, as soon as it is there. `Store.wait` would lock out all other threads."""
    while not place.check([name]):
        time.sleep(POLL)
    return b"".join(place.get(f"{name}/{number}") for number in range(int(place.get(name))))


def _drop(place: Store, name: str) -> None:
    """Forget a value that everybody who needs it has, so that a command of many plans needs the memory of one."""
    for number in range(int(place.get(name))):
        place.delete_key(f"{name}/{number}")


def _on_own_device(doer: Doer) -> Doer:
    """The plan, for a GPU of this process's own if the processes use GPUs."""
    device = doer.config.device
    if device is None or device.type != "cuda":
        return doer
    device = torch.device("cuda", here().local_rank % torch.cuda.device_count())
    return replace(doer, config=replace(doer.config, device=device), bench=replace(doer.bench, device=device))
