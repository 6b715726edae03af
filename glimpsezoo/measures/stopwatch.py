"""How long a piece of work takes, and how much memory, on a number of threads."""

import ctypes
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """torch with this many threads; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of `work`. An accelerator, which runs calls asynchronously, is synchronised before and after it."""
    _synchronise(device)
    began = time.perf_counter()
    work()
    _synchronise(device)
    return time.perf_counter() - began


def _synchronise(device: torch.device) -> None:
    """Wait until an accelerator has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that `work` takes at its peak, beyond what is held before: see `SpeedBatch.peak_memory`. None where nothing can tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu" or (before := _reset_resident()) is None:
        return None
    work()
    after = _most_resident()
    return None if after is None else max(0, after - before)


def _reset_resident() -> int | None:
    """Reset the process's high-water mark of resident memory. Returns what is resident now, in bytes; None if it cannot be reset."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # memory of freed tensors, which the C library keeps, would be used again unseen
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return _most_resident()
    return None


def _most_resident() -> int | None:
    """The high-water mark, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
