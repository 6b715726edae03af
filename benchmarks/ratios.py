"""Print ratios of the shortest rounds in a pytest-benchmark JSON file: python benchmarks/ratios.py out.json"""

import json
import sys
from pathlib import Path

# (text, numerator, denominator): the last two are names of benchmarks.
RATIOS = [
    ("harness / bare loop, mgnet", "test_harness[mgnet]", "test_bare_loop[mgnet]"),
    ("harness / bare loop, cnn4", "test_harness[cnn4]", "test_bare_loop[cnn4]"),
    ("counted / uncounted, mgnet", "test_cost_counting[mgnet-counted]", "test_cost_counting[mgnet-uncounted]"),
    ("counted / uncounted, cnn4", "test_cost_counting[cnn4-counted]", "test_cost_counting[cnn4-uncounted]"),
    ("compacted / in the batch, exit at 90 %", "test_confidence_exit[compacted]", "test_confidence_exit[in-the-batch]"),
    ("mgnet / cnn4, batch 1", "test_model[mgnet-1]", "test_model[cnn4-1]"),
    ("mgnet / cnn4, batch 64", "test_model[mgnet-64]", "test_model[cnn4-64]"),
    ("glimpsezoo --help / import click", "test_start[--help]", "test_start[click]"),
    ("glimpsezoo --help / import click, rich", "test_start[--help]", "test_start[click, rich]"),
    ("glimpsezoo lsit (an error) / import click", "test_start[lsit]", "test_start[click]"),
    ("glimpsezoo train --help / import click", "test_start[train --help]", "test_start[click]"),
    ("glimpsezoo run --help / import click", "test_start[run --help]", "test_start[click]"),
    ("glimpsezoo --version / import click", "test_start[--version]", "test_start[click]"),
    ("glimpsezoo list models / import click, rich", "test_start[list models]", "test_start[click, rich]"),
    ("glimpsezoo list / import click, rich", "test_start[list]", "test_start[click, rich]"),
]


def main(path: str) -> None:
    shortest = {b["name"]: b["stats"]["min"] for b in json.loads(Path(path).read_text())["benchmarks"]}
    print("| time of | ratio | ms | against ms |\n| --- | --- | --- | --- |")
    for what, a, b in RATIOS:
        if a in shortest and b in shortest:
            print(f"| {what} | {shortest[a] / shortest[b]:.2f} | {1e3 * shortest[a]:.1f} | {1e3 * shortest[b]:.1f} |")


if __name__ == "__main__":
    main(sys.argv[1])
