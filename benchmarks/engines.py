"""How much faster two workers are than one: the same run by each engine, every time measured anew.

    python benchmarks/engines.py [MODEL ...] [--measure LIST] [--limit N]

The first use of workers includes their start (`cold`): they load torch and the models. Units go to a temporary folder. Ray is left out
if it is not installed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

from glimpsezoo.evaluation.environment import keep_freed_memory
from glimpsezoo.evaluation.store import UnitStore
from glimpsezoo.measures.stopwatch import threads
from glimpsezoo.ranks import here
from glimpsezoo.run.engines.base import Engine, ThisProcess
from glimpsezoo.run.engines.processes import Processes
from glimpsezoo.run.engines.ray import Ray
from glimpsezoo.run.engines.torchrun import Torchrun, dismiss, serve
from glimpsezoo.run.portions import Doer
from glimpsezoo.run.prepare import prepare
from glimpsezoo.run.request import RunRequest
from glimpsezoo.run.scheduling import Scheduler
from glimpsezoo.run.work import RunWork

CARDS = ("mgnet.digits", "cnn4.digits", "ranzato.digits", "pyramid-m3.digits")
WORKERS = 2
MakeEngine = Callable[[Doer, Scheduler], Engine]


def alone(doer: Doer, scheduler: Scheduler) -> Engine:
    return ThisProcess(doer, scheduler.keep, lambda *_: None)


def seconds(work: RunWork, make: MakeEngine, cores: int = WORKERS) -> float:
    """How long all portions of a prepared run take, the start of an engine included."""
    assert work.bench is not None
    with tempfile.TemporaryDirectory() as folder:
        work.store = UnitStore(folder)
        scheduler = Scheduler(work.plan, work.request.config, work.store, work.stored)
        doer = Doer(work.plan, work.bench, work.request.config)
        began = time.perf_counter()
        with threads(cores), make(doer, scheduler) as engine:
            scheduler.run(engine)
        return time.perf_counter() - began


def prepared(given: argparse.Namespace, folder: str) -> RunWork:
    request = RunRequest(
        models=tuple(given.models),
        data=given.data,
        device=torch.device("cpu"),
        limit=given.limit,
        measures=tuple(given.measure.split(",")),
        checkpoint=given.checkpoint,
        fresh=True,
        output=Path(folder, "out"),
        store=str(Path(folder, "units")),
        engine="auto" if here().world > 1 else "threads",
    )
    work = prepare(request)
    work.get_ready()
    return work


def by_torchrun() -> list[float]:
    """Seconds with the start of torchrun, and without: this program, as the processes of torchrun."""
    began = time.time()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(WORKERS), __file__, *sys.argv[1:]]
    each = os.environ | {"OMP_NUM_THREADS": "1"}  # what torchrun sets by itself, where nothing else is set
    said = subprocess.run(command, env=each, stdout=subprocess.PIPE, text=True, check=True).stdout
    started, cold, warm = json.loads(said.splitlines()[-1])
    return [started - began + cold, warm]


def as_rank(given: argparse.Namespace, started: float) -> None:
    """A process of torchrun: the first says when it began, and how long the portions took, twice."""
    if here().rank > 0:
        serve()
        return
    with tempfile.TemporaryDirectory() as folder:
        work = prepared(given, folder)
        took = [seconds(work, lambda doer, _: Torchrun(doer), cores=1) for _ in range(2)]
    dismiss()
    print(json.dumps([started, *took]))


def ways(work: RunWork) -> Iterator[tuple[str, float]]:
    """Each engine, and its seconds."""
    yield "one thread", seconds(work, alone, cores=1)
    yield "two threads", seconds(work, alone)
    yield from zip(("torchrun, cold", "torchrun"), by_torchrun(), strict=True)
    for when in (", cold", ""):
        yield f"two processes{when}", seconds(work, lambda doer, _: Processes(doer, WORKERS))
    for when in (", cold", "") if find_spec("ray") else ():
        yield f"local Ray{when}", seconds(work, lambda doer, _: Ray(doer, None))


def main() -> None:
    started = time.time()
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=CARDS)
    parser.add_argument("--measure", default="accuracy,corruptions")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--checkpoint")
    parser.add_argument("--data")
    given = parser.parse_args()
    keep_freed_memory()
    if here().world > 1:
        as_rank(given, started)
        return
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, float] = {}
        for name, took in ways(prepared(given, folder)):
            found[name] = took
            print(f"{name:20} {took:7.1f} s, {found['one thread'] / took:.2f} times one thread", flush=True)


if __name__ == "__main__":
    main()
