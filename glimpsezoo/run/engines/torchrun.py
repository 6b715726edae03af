"""The processes that `torchrun` started. Process 0 runs the command, and works too; the others work for it.

    torchrun --nproc-per-node 2 -m glimpsezoo run mgnet

Process 0 writes the plan and its portions into the store that torchrun keeps for its processes. Each process takes the next portion that
nobody has taken, and process 0 reads what came of it. If a process dies, torchrun ends them all, and the same command goes on.
"""

import pickle
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from functools import cache
from itertools import count

import torch
from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]: torch's documentation has them here
from torch.distributed.rendezvous import rendezvous

from glimpsezoo.ranks import here
from glimpsezoo.run.engines.base import Engine
from glimpsezoo.run.engines.shipping import packed
from glimpsezoo.run.portions import Doer, Outcome, Portion

CHUNK = 1 << 25  # bytes in a value of the store
PATIENCE = timedelta(minutes=10)  # until all processes have found each other
POLL = 0.02  # seconds between looks for a value; torchrun ends a process that waits for one that died
END = b""  # in the place of a plan or a portion
_plans = count()  # numbers of plans: a command may have several, one after the other


class Ranks(Engine):
    """All processes. This one works in a thread of its own."""

    def __init__(self, doer: Doer) -> None:
        self.slots = here().world
        self.store = PrefixStore(f"plan{next(_plans)}", _joined())
        self.flying: dict[int, Future[Outcome]] = {}
        self.sent = 0
        _put(self.store, "plan", packed(doer))
        threading.Thread(target=_work, args=(self.store, _on_own_device(doer)), daemon=True).start()

    def submit(self, portion: Portion, given: Outcome) -> Future[Outcome]:
        number, future = self.sent, Future[Outcome]()
        self.sent += 1
        _put(self.store, f"portion{number}", pickle.dumps((portion, given)))
        threading.Thread(target=_await, args=(self.store, number, future), daemon=True).start()
        return future

    def close(self, *, hurry: bool) -> None:
        for number in range(self.sent, self.sent + self.slots):
            _put(self.store, f"portion{number}", END)


def serve() -> None:
    """What the other processes do: portions of all plans of process 0, until it ends."""
    for number in count():
        store = PrefixStore(f"plan{number}", _joined())
        plan = _get(store, "plan")
        if plan == END:
            return
        _work(store, _on_own_device(pickle.loads(plan)))


def dismiss() -> None:
    """Let the other processes end, because process 0 has no other plan."""
    _put(PrefixStore(f"plan{next(_plans)}", _joined()), "plan", END)


def _work(store: Store, doer: Doer) -> None:
    """Take portions until there are no more."""
    while True:
        number = store.add("taken", 1) - 1
        message = _get(store, f"portion{number}")
        if message == END:
            return
        portion, given = pickle.loads(message)
        try:
            found: Outcome | Exception = doer.do(portion, given)
        except Exception as error:  # process 0 raises it
            found = error
        _put(store, f"outcome{number}", packed(found))


def _await(store: Store, number: int, future: Future[Outcome]) -> None:
    """Give the future what came of a portion."""
    found = pickle.loads(_get(store, f"outcome{number}"))
    if isinstance(found, Exception):
        future.set_exception(found)
    else:
        future.set_result(found)


def _put(store: Store, name: str, content: bytes) -> None:
    """Write a value of any size: first its chunks, then their number."""
    chunks = [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]
    for place, chunk in enumerate(chunks):
        store.set(f"{name}/{place}", chunk)  # pyright: ignore[reportArgumentType]: bytes are documented
    store.set(name, str(len(chunks)))


def _get(store: Store, name: str) -> bytes:
    """A value, as soon as it is there. `Store.wait` would lock out all other threads."""
    while not store.check([name]):
        time.sleep(POLL)
    return b"".join(store.get(f"{name}/{place}") for place in range(int(store.get(name))))


@cache
def _joined() -> Store:
    """The store of all processes."""
    store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
    return PrefixStore("engine", store)


def _on_own_device(doer: Doer) -> Doer:
    """The plan, for a GPU of this process's own if the processes use GPUs."""
    device = doer.config.device
    if device is None or device.type != "cuda":
        return doer
    device = torch.device("cuda", here().local_rank % torch.cuda.device_count())
    return replace(doer, config=replace(doer.config, device=device), bench=replace(doer.bench, device=device))
