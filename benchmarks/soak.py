"""Whether memory, open files, threads, processes and disk grow while commands are repeated for long.

    python benchmarks/soak.py --seconds 1800 -o runs/soak
    python benchmarks/soak.py --seconds 1800 -o runs/soak-engine --processes 1 --engine processes:2

Each process repeats the same round in itself: it measures a grid of two models on the store that all share, writes the report, and trains
for a few steps. Rounds have the seeds 0 to 9 in turn, and every second ten of them --fresh, so that units are measured, awaited, reused and
replaced all the time. What follows `--` replaces the commands of a round by one: {seed}, {process} and {engine} stand for what they say,
{fresh} for --fresh or nothing. The first fifth of the time, and every round with its first --fresh, is for warming up. Exit status 1 if
anything grows after that, or if anything is left behind.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

GRID = """
models = ["cnn4", "mgnet"]
data = ["digits"]
limit = 200
measure = "quick"
"""
ROUND = """
run --grid grid.toml --seed {seed} {fresh} --engine {engine} --store units -o out-{seed}
report out-{seed} --traces 1 --force -o report-{process}.html
train cnn4 --data digits --set train.steps=3 --force --fresh -o trained-{process}
"""
SEEDS = 10
WARMING = 0.2  # share of the time
MOST = {"memory": 1.05, "workers_memory": 1.05}  # what it may grow by: allocators keep what they will use again
SHOWN = 12  # looks at each process that are printed
UNFINISHED = (".part", ".lock")


@dataclass(frozen=True)
class Seen:
    """One look at a process and at the disk, between two rounds."""

    seconds: float
    """Since the beginning."""
    rounds: int
    """How many it has finished."""
    memory: float
    """Resident, in MB."""
    open_files: int
    threads: int
    """Of the operating system."""
    workers: int
    """Processes that it has started and that still run."""
    workers_memory: float
    """Theirs, in MB."""
    temporary: int
    """Files and folders in its folder for temporary files."""
    files: int
    """Files that lie in the folder of all processes, without what belongs to rounds under way: claims, half-written files, and the cards
    of other processes, which train them again and again."""
    disk: float
    """Their size, in MB."""


def status(process: str) -> dict[str, str]:
    """What the kernel says of a process; empty if it has ended."""
    try:
        lines = Path("/proc", process, "status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def megabytes(of: dict[str, str]) -> float:
    return int(of.get("VmRSS", "0").split()[0]) / 1024


def unfinished(path: Path) -> bool:
    """Whether a file is of a round under way: a claim, a lock, or half-written."""
    return path.suffix in UNFINISHED or path.parent.name == "claims"


def looked(process: int, began: float, rounds: int) -> Seen:
    """A look at this process, whose working directory is the folder of all."""
    own, sizes = status("self"), {}
    workers = [found for name in os.listdir("/proc") if name.isdigit() and (found := status(name)).get("PPid") == own["Pid"]]
    for path in Path().rglob("*"):
        with contextlib.suppress(OSError):  # it was deleted meanwhile
            others = path.parts[0].startswith("trained-") and path.parts[0] != f"trained-{process}"
            if path.is_file() and not unfinished(path) and not others:
                sizes[path] = path.stat().st_size
    return Seen(
        seconds=round(time.monotonic() - began, 1),
        rounds=rounds,
        memory=megabytes(own),
        open_files=len(os.listdir("/proc/self/fd")),
        threads=int(own["Threads"]),
        workers=len(workers),
        workers_memory=sum(map(megabytes, workers)),
        temporary=len(list(Path(tempfile.gettempdir()).rglob("*"))),
        files=len(sizes),
        disk=sum(sizes.values()) / 1e6,
    )


def work(process: int, seconds: float, engine: str, commands: Sequence[Sequence[str]]) -> None:
    """Repeat the round until the time is over, and print a line of JSON after each."""
    from glimpsezoo.commands import cli

    began, rounds, told = time.monotonic(), 0, sys.stdout
    while time.monotonic() - began < seconds:
        given = {"seed": rounds % SEEDS, "process": process, "engine": engine, "fresh": "--fresh" if rounds // SEEDS % 2 else ""}
        for words in commands:
            sys.argv = ["glimpsezoo", *filter(None, (word.format(**given) for word in words))]
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
                ended = cli.main(sys.argv[1:], standalone_mode=False)
            if ended:
                raise SystemExit(f"{' '.join(sys.argv)} ended with {ended}: {said.getvalue()}")
        rounds += 1
        print(json.dumps(asdict(looked(process, began, rounds))), file=told, flush=True)


def growth(seen: list[Seen], seconds: float) -> dict[str, tuple[float, float]]:
    """The median of each figure in the first and in the last third of the time after warming up."""
    after = [each for each in seen if each.seconds >= WARMING * seconds and each.rounds > 2 * SEEDS] or seen[-1:]
    third = max(1, len(after) // 3)
    parts = after[:third], after[-third:]

    def median(name: str, looks: Iterable[Seen]) -> float:
        return statistics.median(getattr(look, name) for look in looks)

    return {each.name: (median(each.name, parts[0]), median(each.name, parts[1])) for each in fields(Seen)[2:]}


def table(seen: list[Seen]) -> str:
    """Some of the looks, evenly spread."""
    count = min(SHOWN, len(seen))
    rows = [asdict(seen[(k + 1) * len(seen) // count - 1]) for k in range(count)]
    lines = [list(rows[0]), *([f"{value:,.1f}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows)]
    return "\n".join("  ".join(text.rjust(len(head)) for text, head in zip(line, lines[0], strict=True)) for line in lines)


def verdict(process: int, seen: list[Seen], seconds: float) -> bool:
    """Print what became of a process; returns whether anything grows."""
    if not seen:
        print(f"process {process}: no round was finished")
        return True
    found = growth(seen, seconds)
    grown = [name for name, (before, after) in found.items() if name != "disk" and after > MOST.get(name, 1.0) * before]
    print(f"process {process}, {seen[-1].rounds} rounds:")
    print(table(seen))
    print("median, first third -> last: " + ", ".join(f"{name} {before:,.1f} -> {after:,.1f}" for name, (before, after) in found.items()))
    print(f"grows: {', '.join(grown)}" if grown else "nothing grows")
    return bool(grown)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--engine", default="threads")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/soak"))
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", metavar="-- WORD")
    given = parser.parse_args()
    if given.process is not None:
        work(
            given.process,
            given.seconds,
            given.engine,
            [given.words] if given.words else [line.split() for line in ROUND.split("\n") if line],
        )
        return 0
    again = [sys.executable, os.path.abspath(__file__), "--seconds", str(given.seconds), "--engine", given.engine]
    folder, started, logs = given.output / "here", [], []
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "grid.toml").write_text(GRID)
    env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(given.output.resolve() / "torch")}  # by default a folder for temporary files
    for k in range(given.processes):
        place = given.output.resolve() / f"temporary-{k}"
        place.mkdir(exist_ok=True)
        logs.append(given.output / f"process-{k}.jsonl")
        with logs[-1].open("w") as log:
            words = [*again, "--process", str(k), "--", *given.words]
            started.append(subprocess.Popen(words, cwd=folder, stdout=log, env=env | {"TMPDIR": str(place)}))
    ended = [each.wait() for each in started]
    grown = [verdict(k, [Seen(**json.loads(line)) for line in log.read_text().splitlines()], given.seconds) for k, log in enumerate(logs)]
    left = [*filter(unfinished, folder.rglob("*")), *given.output.glob("temporary-*/*")]
    print(f"left behind: {len(left)} claims, locks, half-written and temporary files")
    return int(any(ended) or any(grown) or bool(left))


if __name__ == "__main__":
    sys.exit(main())
