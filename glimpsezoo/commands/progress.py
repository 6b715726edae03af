"""How far a run or a training is: a bar on a terminal, and lines where standard error is a file or a pipe."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from glimpsezoo import ranks
from glimpsezoo.commands import options

if TYPE_CHECKING:
    from glimpsezoo.run.work import OnProgress, RunWork
    from glimpsezoo.training.loop import Progress

MINUTE = 60.0  # seconds between two lines of a run
Show = Callable[["Progress"], None]


def follow_run(work: "Callable[[OnProgress], None]", *, transient: bool = False) -> None:
    """Do the work of a run, and show what runs and how far it is. transient: a bar is removed at the end."""
    if sys.stderr.isatty():
        _run_bar(work, transient=transient)
    else:
        work(RunLines().show)


def follow_work(work: "RunWork", before: Callable[[], None] = lambda: None) -> None:
    """Prepare a run and measure it, and show how far it is. before: called in between."""
    if work.calibration is None and not work.request.compile:
        work.get_ready()
    else:
        follow_run(work.get_ready, transient=True)
    before()
    follow_run(work.measure)


class RunLines:
    """A line per minute: how much of the work is done, what runs, and the time that is left."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.began = self.said = clock()

    def show(self, label: str, seconds: float, whole: float) -> None:
        """seconds, whole: expected seconds until now, and in all."""
        now = self.clock()
        if now - self.said < MINUTE:
            return
        self.said = now
        share = min(1.0, seconds / whole) if whole else 0.0
        left = f", about {duration((now - self.began) / share * (1 - share))} left" if share else ""
        options.say(f"{share:.0%} after {duration(now - self.began)}{left}: {label}")


def _run_bar(work: "Callable[[OnProgress], None]", *, transient: bool) -> None:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        BarColumn(20),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=options.stderr(), transient=transient) as bar:
        task = bar.add_task("", total=1)
        work(lambda label, seconds, whole: bar.update(task, description=label, completed=seconds, total=whole or 1))
        bar.update(task, completed=bar.tasks[0].total)


@contextmanager
def training_progress() -> Iterator[Show]:
    """Yields what shows the progress of a training after each of its steps, in the first of several processes."""
    if not ranks.speaks():
        yield lambda line: None
        return
    if not sys.stderr.isatty():
        yield training_line
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:3.0f}%"), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[losses]}", markup=False), console=options.stderr()) as bar:
        task, calibration = bar.add_task("starting", total=None, losses=""), ""

        def show(line: "Progress") -> None:
            nonlocal calibration
            calibration = _calibration(line) or calibration
            description = f"{line.phase} epoch {line.epoch}"
            bar.update(task, description=description, total=line.total, completed=line.done, losses=_losses(line) + calibration)

        yield show


def training_line(line: "Progress") -> None:
    """Say at the end of an epoch how the training goes."""
    if line.ends_epoch:
        left = line.seconds / line.done * (line.total - line.done)
        told = f"{line.phase} epoch {line.epoch} of {line.epochs}: {_losses(line)}{_calibration(line)}"
        options.say(f"{told}, {line.done / line.total:.0%} done, about {duration(left)} left")


def _losses(line: "Progress") -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in line.losses.items())


def _calibration(line: "Progress") -> str:
    return "" if line.calibration is None else f" calibration {100 * line.calibration:.1f} %"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best.

    >>> duration(0.2), duration(90), duration(1000), duration(40_000)
    ('1 s', '90 s', '17 min', '11 h')
    """
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{-(-seconds // 1):.0f} s"
