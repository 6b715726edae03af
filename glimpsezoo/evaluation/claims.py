"""Claims: which process measures a unit, said by a small file, because locks of the OS do not hold on many network folders.

A claim is a file that only one process can create. It names its process, and while the process lives, a number in it changes. A claim is
over if its process has ended on this machine, or if a watcher has seen no change for a while by its own clock, so that clocks need not
agree. A claim that is over is not overwritten: its successor is the file with the next number, which again only one process can create.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.places import Place
from glimpsezoo.processes import is_gone, machine
from glimpsezoo.untrusted import json_values

FOLDER = "claims"
BEAT = 5.0  # seconds between changes of the number in a claim
EXPIRY = 60.0  # seconds without a change after which a claim is over


@dataclass
class _OwnClaim:
    """A claim of this process."""

    place: Place
    name: str
    older: tuple[str, ...]
    """Claims that were over when this one was made."""
    token: str
    beats: int = 0

    def content(self) -> bytes:
        owner = {"machine": machine(), "process": os.getpid(), "token": self.token, "beat": f"{self.beats:012}"}
        return json.dumps(owner).encode()

    def beat(self) -> None:
        """Show that this process lives. If that fails, another process may measure the same unit too, which only wastes time."""
        before = self.content()
        self.beats += 1
        with suppress(GlimpseZooError):
            self.place.renew(self.name, before, self.content())

    def release(self) -> None:
        with suppress(GlimpseZooError):  # it will be over soon
            for name in (*self.older, self.name):  # in this order: whoever looks meanwhile still finds one
                self.place.delete(name)


class _Heart:
    """One thread for all claims of this process."""

    def __init__(self) -> None:
        self._held: dict[str, _OwnClaim] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, claim: _OwnClaim) -> None:
        with self._changed:
            self._held[claim.token] = claim
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="claims", daemon=True)
                self._thread.start()

    def drop(self, claim: _OwnClaim) -> None:
        with self._changed:
            self._held.pop(claim.token, None)
            self._changed.notify()

    def _beat(self) -> None:
        next_time = time.monotonic() + BEAT
        while True:
            with self._changed:
                if not self._held:
                    self._thread = None
                    return
                self._changed.wait(max(0.0, next_time - time.monotonic()))
                due = list(self._held.values()) if time.monotonic() >= next_time else []
            for claim in due:
                claim.beat()
            if due:
                next_time = time.monotonic() + BEAT


_heart = _Heart()


def _in_child() -> None:
    """A forked process has neither the thread nor the claims of its parent."""
    global _heart  # noqa: PLW0603
    _heart = _Heart()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class Claims:
    """The claims in a place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._watched: dict[str, tuple[bytes, float]] = {}

    @contextmanager
    def claim(self, unit_id: str) -> Iterator[bool]:
        """Whether this process holds the claim now; false while another process holds it."""
        held = self._take(unit_id)
        if held is None:
            yield False
            return
        _heart.add(held)
        try:
            yield True
        finally:
            _heart.drop(held)
            held.release()

    def _take(self, unit_id: str) -> _OwnClaim | None:
        older = self._of(unit_id)
        last = self._read(older[-1]) if older else b""
        if older and not self._is_over(older[-1], last):
            return None
        number = int(older[-1].rpartition(".")[2]) + 1 if older else 0
        held = _OwnClaim(self.place, f"{FOLDER}/{unit_id}.{number}", older, uuid.uuid4().hex)
        if not self.place.create(held.name, held.content()):
            return None
        if older and (self._of(unit_id) != (*older, held.name) or self._read(older[-1]) != last):
            self.place.delete(held.name)  # its owner, or a quicker successor, was at work meanwhile
            return None
        self._watched.pop(held.name, None)
        for name in older:
            self._watched.pop(name, None)
        return held

    def _of(self, unit_id: str) -> tuple[str, ...]:
        """All claims on a unit, the valid one last."""
        found = [name.rpartition(".") for name in self.place.names(FOLDER)]
        numbers = sorted(int(number) for unit, _, number in found if unit == unit_id and number.isdecimal())
        return tuple(f"{FOLDER}/{unit_id}.{number}" for number in numbers)

    def _read(self, name: str) -> bytes:
        return self.place.read(name) or b""

    def _is_over(self, name: str, content: bytes) -> bool:
        """Whether the owner of a claim is gone."""
        try:
            owner = json_values(content)
            if is_gone(str(owner["machine"]), int(owner["process"])):
                return True
        except (ValueError, KeyError, TypeError):
            pass  # it is being written, or was never finished: only the clock tells
        before, since = self._watched.get(name, (None, 0.0))
        if before == content:
            return time.monotonic() - since > EXPIRY
        self._watched[name] = (content, time.monotonic())
        return False

    def sweep(self) -> None:
        """Take and release every claim that is over: those of ended processes of this machine, and those watched since an earlier call."""
        for unit_id in {unit for unit, _, number in (name.rpartition(".") for name in self.place.names(FOLDER)) if number.isdecimal()}:
            if held := self._take(unit_id):
                held.release()
