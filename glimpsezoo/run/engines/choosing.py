"""Which engine does a run: the one that the user named, or the one that is expected to be done first."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.evaluation.rows import StoredUnit
from glimpsezoo.ranks import crowding, here
from glimpsezoo.run.engines.base import Engine, ThisProcess, cores
from glimpsezoo.run.portions import Doer
from glimpsezoo.untrusted import is_number

AUTO, THREADS, PROCESSES, RAY, RANKS = "auto", "threads", "processes", "ray", "torchrun"
START = 10.0  # seconds until a worker process has loaded torch, and the models
CLEARLY = 0.9  # of one process's time: a smaller gain may be an error of measurement
WORTH = 30.0  # seconds of work from which on several processes are thought of


@dataclass(frozen=True)
class Choice:
    """An engine, and how many workers it has."""

    kind: str
    workers: int = 1
    said: str = ""
    """What the user is told about it."""


def chosen(text: str) -> Choice:
    """What `--engine` says. Raises `GlimpseZooError`."""
    kind, _, count = text.partition(":")
    if here().world > 1:
        if kind != AUTO:
            raise GlimpseZooError(f"expected the ranks of torchrun to share the work, got --engine {text} too: leave one of them out")
        return Choice(RANKS, here().world, crowding())
    if kind == PROCESSES and (count == "" or (is_number(count) and int(count) > 0)):
        return Choice(PROCESSES, int(count) if count else cores())
    if kind not in (AUTO, THREADS, RAY) or count:
        known = (AUTO, THREADS, f"{PROCESSES}:N", RAY)
        raise GlimpseZooError(f"--engine expects auto, threads, processes:N or ray, got {text!r}: {did_you_mean(text, known)}")
    return Choice(kind)


def reach(text: str, address: str | None, modules: Iterable[str]) -> None:
    """Connect to an engine's remote workers, if it has any, before anything is measured. modules: the packages that they need.

    Raises `GlimpseZooError` if nobody answers, or if a package is missing there.
    """
    if chosen(text).kind == RAY:
        from glimpsezoo.run.engines.ray import reach

        reach(address, modules)


def fastest(with_threads: Sequence[float], with_one: Callable[[], Sequence[float]]) -> Choice:
    """Processes, if they are expected to be done before this one with all its threads.

    with_threads: expected seconds of each portion that is left. with_one: the same with one thread, which takes a while to find out.
    """
    count = min(cores(), len(with_threads))
    if count < 2 or sum(with_threads) < WORTH:
        return Choice(THREADS)
    alone = with_one()
    together = START + max(sum(alone) / count, *alone)
    share = together / sum(with_threads)
    if share > CLEARLY:
        return Choice(THREADS)
    return Choice(PROCESSES, count, f"{count} processes with one thread each, because one process should take longer")


def engine(
    choice: Choice, doer: Doer, keep: Callable[[str, StoredUnit], None], on_images: Callable[[int, int], None], address: str | None = None
) -> Engine:
    """The engine of a choice. keep, on_images: as `Doer.do` takes them. address: of a Ray cluster."""
    if choice.kind == PROCESSES:
        from glimpsezoo.run.engines.processes import Processes

        return Processes(doer, choice.workers)
    if choice.kind == RAY:
        from glimpsezoo.run.engines.ray import Ray

        return Ray(doer, address)
    if choice.kind == RANKS:
        from glimpsezoo.run.engines.torchrun import Torchrun

        return Torchrun(doer)
    return ThisProcess(doer, keep, on_images)
