"""How much faster two processes are than one: the same run by each engine, every time measured anew.

    python benchmarks/engines.py [MODEL ...] [--measure LIST] [--limit N]

The first use of the processes includes their start (`cold`): they load torch and the models. Units go to a temporary folder.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from glimpsezoo.evaluation.environment import keep_freed_memory
from glimpsezoo.evaluation.store import UnitStore
from glimpsezoo.measures.stopwatch import threads
from glimpsezoo.run.engines.base import ThisProcess
from glimpsezoo.run.engines.processes import Processes
from glimpsezoo.run.portions import Doer
from glimpsezoo.run.prepare import prepare
from glimpsezoo.run.request import RunRequest
from glimpsezoo.run.sharing import Sharing
from glimpsezoo.run.work import RunWork

CARDS = ("mgnet.digits", "cnn4.digits", "ranzato.digits", "pyramid-m3.digits")


def seconds(work: RunWork, folder: Path, processes: int = 0, cores: int = 1) -> float:
    """How long all portions of a prepared run take."""
    work.store = UnitStore(folder)
    sharing = Sharing(work.plan, work.request.config, work.store, work.stored)
    doer = Doer(work.plan, work.bench, work.request.config)
    began = time.perf_counter()
    with threads(cores):
        engine = Processes(doer, processes) if processes else ThisProcess(doer, sharing.keep, lambda *_: None)
        with engine:
            sharing.share(engine)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=CARDS)
    parser.add_argument("--measure", default="accuracy,corruptions")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--checkpoint")
    parser.add_argument("--data")
    given = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
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
            engine="threads",
        )
        work = prepare(request)
        work.get_ready()
        ways = {"one thread": (0, 1), "two threads": (0, 2), "two processes, cold": (2, 2), "two processes": (2, 2)}
        found = {}
        for name, (processes, cores) in ways.items():
            found[name] = seconds(work, Path(folder, name), processes, cores)
            print(f"{name:20} {found[name]:7.1f} s, {found['one thread'] / found[name]:.2f} times one thread", flush=True)


if __name__ == "__main__":
    main()
