"""Print the ratios of medians in a pytest-benchmark JSON file: python benchmarks/ratios.py out.json"""

import json
import sys
from pathlib import Path
from typing import Any

# (the benchmark, [(the time above, the time below), ...]): contenders of `side_by_side`, or benchmarks of their own.
SIDE_BY_SIDE = [
    (
        "test_resnet",
        [
            ("ResNet-18", "MGNet"),
            ("ResNet-18", "MGNet compiled"),
            ("ResNet-18", "MGNet with simulated exits"),
            ("ResNet-18 within inference", "MGNet"),
            ("ResNet-18 compiled", "MGNet compiled"),
            ("MGNet eager", "MGNet"),
            ("MGNet", "MGNet compiled"),
            ("ResNet-18 within inference", "ResNet-18"),
        ],
    ),
    ("test_loop", [("plain loop", "MGNet"), ("plain loop", "MGNet compiled")]),
    (
        "test_export",
        [("eager", "ONNX"), ("eager with exits", "ONNX with exits"), ("eager with exits", "ONNX step by step")],
    ),
    ("test_harness", [("harness", "bare loop")]),
    ("test_cost_counting", [("counted", "uncounted")]),
]
FLOORS = {
    "--help": ("click", "click, rich"),
    "lsit": ("click",),
    "train --help": ("click",),
    "run --help": ("click",),
    "--version": ("click",),
    "list models": ("click, rich",),
    "list": ("click, rich",),
}


def main(path: str) -> None:
    found = {each["name"]: each for each in json.loads(Path(path).read_text())["benchmarks"]}
    print("| time of | ratio | ms | against ms |\n| --- | ---: | ---: | ---: |")
    for name, each in found.items():
        kind, _, case = name.partition("[")
        for pairs in (pairs for benchmark, pairs in SIDE_BY_SIDE if benchmark == kind):
            seconds = each["extra_info"]["seconds"]
            for above, below in pairs:
                if above in seconds and below in seconds:
                    print_ratio(f"{above} / {below}, {case.rstrip(']')}", seconds[above], seconds[below])
    for words, floors in FLOORS.items():
        for floor in floors:
            if f"test_start[{words}]" in found:
                above, below = (found[f"test_start[{each}]"]["stats"]["median"] for each in (words, floor))
                print_ratio(f"glimpsezoo {words} / import {floor}", above, below)
    if exits := {name: each for name, each in found.items() if name.startswith("test_exits[")}:
        print("\n| early exits | batch | ms without | in the batch | leaving | joined | share, leaving | share, joined | free of cost |")
        print("| --- " + "| ---: " * 8 + "|")
        for name, each in exits.items():
            case = name.removeprefix("test_exits").strip("[]")
            steps = found.get(f"test_steps[{case}]")
            print_exits(*case.rsplit("-", 1), each["extra_info"], steps and steps["extra_info"])
    if looks := {name: each for name, each in found.items() if name.startswith("test_few_images[")}:
        sizes = next(iter(looks.values()))["extra_info"]["seconds"]
        print(f"\n| ms for a batch of | {' | '.join(sizes)} |\n| --- {'| ---: ' * len(sizes)}|")
        for name, each in looks.items():
            ms = " | ".join(f"{1e3 * seconds:.2f}" for seconds in each["extra_info"]["seconds"].values())
            print(f"| {name.removeprefix('test_few_images[').removesuffix(']')} | {ms} |")


def print_ratio(what: str, above: float, below: float) -> None:
    print(f"| {what} | {above / below:.2f} | {1e3 * above:.2f} | {1e3 * below:.2f} |")


def print_exits(card: str, batch: str, info: dict[str, Any], steps: dict[str, Any] | None) -> None:
    """A row: times per batch, and the gains in time as shares of the gain in MACs; the last one if leaving and joining took no time."""
    ms = {name: 1e3 * seconds / info["batches"] for name, seconds in info["seconds"].items()}
    macs = info["macs"]["without"] / info["macs"]["with"]
    shares: list[float | None] = [ms["without"] / ms[way] / macs if way in ms else None for way in ("with", "joined")]
    if steps:
        until = [0.0, *steps["seconds"].values()]
        free = sum((now - before) * taken for before, now, taken in zip(until[:-1], until[1:], steps["taken"], strict=True))
        shares.append(until[-1] / free / macs)
    cells = [ms.get(name) for name in ("without", "in the batch", "with", "joined")] + shares + [None] * (3 - len(shares))
    print(f"| {card} | {batch} | {' | '.join('' if each is None else f'{each:.2f}' for each in cells)} |")


if __name__ == "__main__":
    main(sys.argv[1])
