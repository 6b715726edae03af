"""The processes that torchrun started for one command: which one this is, and which one prints.

Only process 0 prints and writes. An error is printed once, by the first process that has one. Without torchrun, there is one process.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from glimpsezoo.errors import GlimpseZooError, counted, one_line

if TYPE_CHECKING:
    import torch

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun, and launchers like it, set
PATIENCE = timedelta(minutes=10)  # how long a process waits for the others
T = TypeVar("T")


class ProcessLostError(GlimpseZooError):
    """Another process that the command needs ended; this one cannot go on."""


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those of the command."""

    rank: int = 0
    """Number of this process, from 0."""
    world: int = 1
    """Number of processes."""
    local_rank: int = 0
    """Number of this process on its machine."""
    local_world: int = 1
    """Number of processes on this machine."""


def here() -> Ranks:
    """The place of this process, from the variables that torchrun sets. Raises `GlimpseZooError` for values that make no sense."""
    if any(name not in os.environ for name in NEEDED):
        return Ranks()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    texts = [os.environ.get(name, default) for name, default in zip(names, ("0", "1", "0", "1"), strict=True)]
    if not all(text.isdecimal() for text in texts) or int(texts[0]) >= int(texts[1]):
        got = ", ".join(f"{name}={text!r}" for name, text in zip(names, texts, strict=True))
        raise GlimpseZooError(f"expected the numbers of processes that torchrun sets, got {got}: start them by torchrun, or unset RANK")
    return Ranks(*map(int, texts))


def crowding() -> str:
    """A warning if the processes of this machine compute with more threads than it has cores; '' if they do not."""
    import torch

    processes, threads, cores = here().local_world, torch.get_num_threads(), usable_cores()
    if processes == 1 or processes * threads <= cores:
        return ""
    return (
        f"warning: {processes} processes with {counted(threads, 'thread')} each share {counted(cores, 'core')}, and wait for each other: "
        f"set OMP_NUM_THREADS={max(1, cores // processes)}"
    )


def usable_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def speaks() -> bool:
    """Whether this process prints and writes for all."""
    with suppress(GlimpseZooError):
        return here().rank == 0
    return True


def may_complain() -> bool:
    """Whether this process prints why the command ends: the first that asks, or process 0 before they have met, when all fail alike."""
    if have_met():
        with suppress(RuntimeError):  # the store is gone
            return store().add("complaints", 1) == 1
    return speaks()


def leave(status: int) -> NoReturn:
    """End this process at once, without waiting for its threads.

    They may wait for messages of a process that is gone. They would call into an interpreter that has ended, and abort the process.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it
            stream.flush()
    os._exit(status)


@cache
def store() -> Any:
    """The store in which all processes read and write. Raises `GlimpseZooError` if they do not find each other."""
    from torch.distributed.rendezvous import rendezvous

    with _met():
        return next(rendezvous("env://", timeout=PATIENCE))[0]


def have_met() -> bool:
    """Whether this process has joined the `store` of all."""
    return store.cache_info().currsize > 0


@contextmanager
def _met() -> Iterator[None]:
    """Turn the error of processes that do not find each other into one line."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise GlimpseZooError(
            f"expected {counted(here().world, 'process')} that find each other at {place}, got none ({one_line(error):.100}): start all of "
            "them by torchrun"
        ) from None


@contextmanager
def joined(device: "torch.device") -> Iterator[Ranks]:
    """Within, the processes form a group: NCCL among GPUs, if each process has one of its own, and gloo among CPUs.

    Raises `GlimpseZooError` if they do not find each other.
    """
    ranks = here()
    if ranks.world == 1:
        yield ranks
        return
    import torch
    import torch.distributed as dist

    own = device.type == "cuda" and ranks.local_world <= torch.cuda.device_count()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if own else "gloo"
    with _met():
        dist.init_process_group(backend, store=store(), rank=ranks.rank, world_size=ranks.world, timeout=PATIENCE)
    assert dist.group.WORLD is not None
    # Before torch 2.8, a group that ends waits for its threads and does not let them into Python, which one may need to drop a tensor.
    # Only what is in the group does: held here, it ends last.
    gloo = dist.group.WORLD._get_backend(torch.device("cpu"))
    yield ranks
    dist.destroy_process_group()  # after an error, the end of the process does that: others may be in the middle of something
    del gloo


@contextmanager
def lost() -> Iterator[None]:
    """Turn the error of a message between processes into one line: another process ended. Raises `GlimpseZooError`."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            f"expected {counted(here().world, 'process')} until the end, got one that ended earlier ({_why(error):.60}): what was kept is "
            "whole; repeat the command, which resumes"
        ) from error


def _why(error: Exception) -> str:
    """The message without the place in the source of gloo that begins it."""
    return re.sub(r"^\[[^]]*\]\s*", "", one_line(error))


def together(do: Callable[[], T]) -> T:
    """Call `do` in every process of the group. If it fails in one, all raise: that process its own error, the others the same message."""
    ranks = here()
    if ranks.world == 1:
        return do()
    import torch.distributed as dist

    found: list[T] = []
    own: Exception | None = None
    try:
        found.append(do())
    except Exception as error:
        own = error
    texts: list[str | None] = [None] * ranks.world
    with lost():
        dist.all_gather_object(texts, None if own is None else _line(own, ranks.rank))
    if own is not None:
        raise own
    if others := [text for text in texts if text is not None]:
        raise GlimpseZooError(others[0])
    return found[0]


def _line(error: Exception, rank: int) -> str:
    if isinstance(error, GlimpseZooError):
        return one_line(error)
    return f"process {rank} met an unexpected {type(error).__name__} ({one_line(error):.200}): repeat the command with --debug"
