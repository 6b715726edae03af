"""The folder of a training: its lock, its checkpoint and its log."""

import contextlib
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from glimpsezoo.errors import GlimpseZooError, why_not
from glimpsezoo.files import is_full, no_link, sweep, write_whole
from glimpsezoo.training.job import TrainingJob, job_digest
from glimpsezoo.zoo.cards import LOG

CHECKPOINT, LOCK = "checkpoint.pt", ".training.lock"
MARK = b"glimpsezoo checkpoint, sha256 "  # begins the first line, which the hash of all that follows ends


@contextlib.contextmanager
def locked(folder: Path, *, waits: bool = False) -> Iterator[None]:
    """Lock the folder against other commands that write a card, and remove what a killed one left half-written.

    waits: until another command is done with the folder; else, that raises `GlimpseZooError` at once.
    """
    with _written(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=-1 if waits else 0)
        except Timeout:
            raise GlimpseZooError(f"another command writes to {str(folder)!r}: choose another --output") from None
        sweep(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the next training can use a file that is left over
            (folder / LOCK).unlink(missing_ok=True)  # before the release: afterwards it may be another process's lock
        lock.release()


def sweep_lock(folder: Path) -> None:
    """Remove the lock that a killed command left, from a folder that the command will not write to."""
    if (folder / LOCK).exists():
        with locked(folder):
            pass


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Turn an `OSError` into one line about the folder. Raises `GlimpseZooError`."""
    try:
        yield
    except OSError as error:
        why, room = why_not(error), "free some space and " if is_full(error) else ""
        raise GlimpseZooError(
            f"expected an output folder that can be written, got {str(folder)!r} ({why}): {room}repeat the command when it can be, which "
            "resumes from its last checkpoint; or choose another --output"
        ) from None


def write_checkpoint(job: TrainingJob, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint of the job atomically. Raises `GlimpseZooError` if the folder cannot be written."""
    content = io.BytesIO()  # given a path, torch raises a RuntimeError, not an OSError, if the disk is full
    torch.save({"job": job_digest(job), **state}, content)
    found = content.getvalue()
    with _written(job.folder):
        write_whole(job.folder / CHECKPOINT, MARK + hashlib.sha256(found).hexdigest().encode() + b"\n" + found)


def load_checkpoint(job: TrainingJob) -> dict[str, Any] | None:
    """What an interrupted training of this job saved in its folder; None if there is no checkpoint.

    Raises `GlimpseZooError` for a damaged checkpoint, and for one of another job.
    """
    path = job.folder / CHECKPOINT
    if not path.exists():
        return None
    first, _, content = path.read_bytes().partition(b"\n")
    if first != MARK + hashlib.sha256(content).hexdigest().encode():
        raise GlimpseZooError(
            f"expected a whole checkpoint in {path.parent.name}, got a damaged one (another sha256) or one of an older version: "
            "start over with --fresh"
        )
    state = torch.load(io.BytesIO(content), map_location=job.device, weights_only=True)
    digest = state["job"]
    if digest != job_digest(job) and not (state["phase"] or state["step"]):
        return None  # of a training that was stopped before its first step: nothing is lost
    if digest != job_digest(job):
        raise GlimpseZooError(f"{path.parent.name} holds the checkpoint of another training: choose another --output, or --fresh")
    return state


def append_to_log(folder: Path, line: Mapping[str, Any]) -> None:
    """Add a line to the log of the training. Raises `GlimpseZooError` if it cannot be written."""
    with _written(folder), open(folder / LOG, "a", encoding="utf-8", opener=no_link) as log:
        log.write(json.dumps(line) + "\n")


def write_log(folder: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replace the log of the training. Raises `GlimpseZooError` if it cannot be written."""
    with _written(folder):
        write_whole(folder / LOG, "".join(json.dumps(line) + "\n" for line in lines).encode())


def remove_log(folder: Path) -> None:
    """Remove the log of a training that is finished, or that died before its first checkpoint."""
    with _written(folder):
        (folder / LOG).unlink(missing_ok=True)
