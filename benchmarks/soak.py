"""Whether memory, open files and disk grow while two processes measure for long on one store.

    python benchmarks/soak.py --seconds 1800 -o runs/soak

Each process repeats the same runs, with the seeds 0 to 9 in turn and every second time with --fresh, so that units are measured, awaited,
reused and replaced all the time. What follows `--` replaces the command: {seed} and {fresh} stand for a seed and for --fresh or nothing.
The first fifth of the time, and every run with its first --fresh, is for warming up. Exit status 1 if anything grows after that.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

WORDS = [
    "run",
    "cnn4",
    "mgnet",
    "--limit",
    "200",
    "--measure",
    "quick",
    "--seed",
    "{seed}",
    "{fresh}",
    "--store",
    "units",
    "-o",
    "out-{seed}",
]
SEEDS = 10
WARMING = 0.2  # share of the time
MOST = 1.05  # what memory may grow by: allocators keep what they will use again


@dataclass(frozen=True)
class Seen:
    """One look at a process and at the disk."""

    seconds: float
    """Since the beginning."""
    process: int
    """Its number, from 0."""
    runs: int
    """How many it has finished."""
    memory: float
    """Resident, in MB."""
    open_files: int
    threads: int
    files: int
    """Files that lie in the folder of all processes."""
    disk: float
    """Their size, in MB."""
    left: int
    """Those of them that are claims or half-written: of runs under way."""


def looked(began: float, process: int, runs: int) -> Seen:
    """A look at this process, whose working directory is the folder of all."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    sizes = {}
    for path in Path().rglob("*"):
        with contextlib.suppress(OSError):  # it was deleted meanwhile
            if path.is_file():
                sizes[path] = path.stat().st_size
    left = [path for path in sizes if path.suffix == ".part" or path.parent.name == "claims"]
    return Seen(
        seconds=round(time.monotonic() - began, 1),
        process=process,
        runs=runs,
        memory=int(status["VmRSS"].split()[0]) / 1024,
        open_files=len(os.listdir("/proc/self/fd")),
        threads=threading.active_count(),
        files=len(sizes),
        disk=sum(sizes.values()) / 1e6,
        left=len(left),
    )


def work(process: int, seconds: float, words: list[str]) -> None:
    """Measure until the time is over, and print a line of JSON after every run."""
    from glimpsezoo.commands import cli

    began, runs, told = time.monotonic(), 0, sys.stdout
    while time.monotonic() - began < seconds:
        fresh = "--fresh" if runs // SEEDS % 2 else ""
        texts = [word.format(seed=runs % SEEDS, fresh=fresh) for word in words]
        sys.argv = ["glimpsezoo", *filter(None, texts)]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            status = cli.main(sys.argv[1:], standalone_mode=False)
        if status:
            raise SystemExit(f"{' '.join(sys.argv)} ended with {status}: {said.getvalue()}")
        runs += 1
        print(json.dumps(asdict(looked(began, process, runs))), file=told, flush=True)


def growth(seen: list[Seen], seconds: float) -> dict[str, tuple[float, float]]:
    """The median of each figure in the first and in the last third of the time after warming up."""
    after = [each for each in seen if each.seconds >= WARMING * seconds and each.runs > 2 * SEEDS] or seen[-1:]
    third = max(1, len(after) // 3)
    parts = after[:third], after[-third:]
    names = ("memory", "open_files", "threads", "files", "disk")
    return {
        name: (statistics.median(getattr(e, name) for e in parts[0]), statistics.median(getattr(e, name) for e in parts[1]))
        for name in names
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/soak"))
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", default=WORDS, metavar="-- WORD")
    given = parser.parse_args()
    if given.process is not None:
        work(given.process, given.seconds, given.words)
        return 0
    given.output.mkdir(parents=True, exist_ok=True)
    again = [sys.executable, os.path.abspath(__file__), "--seconds", str(given.seconds)]
    logs = [given.output.resolve() / f"process-{k}.jsonl" for k in range(given.processes)]
    folder = given.output / "here"
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(log.open("w")) for log in logs]
        started = [
            subprocess.Popen([*again, "--process", str(k), "--", *given.words], cwd=folder, stdout=file) for k, file in enumerate(files)
        ]
        statuses = [each.wait() for each in started]
    seen = [[Seen(**json.loads(line)) for line in log.read_text().splitlines()] for log in logs]
    grown = False
    for k, looks in enumerate(seen):
        found = growth(looks, given.seconds)
        grown |= any(after > (MOST if name == "memory" else 1.0) * before for name, (before, after) in found.items() if name != "disk")
        figures = ", ".join(f"{name} {before:,.1f} -> {after:,.1f}" for name, (before, after) in found.items())
        print(f"process {k}: {looks[-1].runs} runs; {figures}")
    left = [path for path in folder.rglob("*") if path.suffix == ".part" or path.parent.name == "claims"]
    print(f"left behind: {len(left)} claims and half-written files")
    return int(any(statuses) or grown or bool(left))


if __name__ == "__main__":
    sys.exit(main())
