"""Print ratios of the medians in a pytest-benchmark JSON file: python benchmarks/ratios.py out.json"""

import json
import sys
from pathlib import Path
from typing import Any

# (text, numerator, denominator): the last two are names of benchmarks.
RATIOS = [
    ("plain ResNet-18 / MGNet, batch 64", "test_plain[64]", "test_rollout[mgnet-64]"),
    ("plain ResNet-18 / MGNet, batch 1", "test_plain[1]", "test_rollout[mgnet-1]"),
    ("plain ResNet-18 / MGNet with simulated exits, batch 1", "test_plain[1]", "test_simulated_exits"),
    ("ResNet-18 prepared by `inference` / MGNet, batch 64", "test_rollout[timm-64]", "test_rollout[mgnet-64]"),
    ("ResNet-18 prepared by `inference` / MGNet, batch 1", "test_rollout[timm-1]", "test_rollout[mgnet-1]"),
    ("MGNet without / with `inference`, batch 64", "test_rollout[mgnet-eager-64]", "test_rollout[mgnet-64]"),
    ("MGNet without / with `inference`, batch 1", "test_rollout[mgnet-eager-1]", "test_rollout[mgnet-1]"),
    ("`timm:resnet18` through the loop / the bare net, batch 1", "test_rollout[timm-1]", "test_plain[1]"),
    ("plain loop / MGNet cnn4, batch 1", "test_loop[cnn4-plain-1]", "test_loop[cnn4-rollout-1]"),
    ("plain loop / MGNet cnn4, batch 64", "test_loop[cnn4-plain-64]", "test_loop[cnn4-rollout-64]"),
    ("plain loop / MGNet ResNet-18, batch 1", "test_loop[resnet18-plain-1]", "test_loop[resnet18-rollout-1]"),
    ("plain loop / MGNet ResNet-18, batch 64", "test_loop[resnet18-plain-64]", "test_loop[resnet18-rollout-64]"),
    ("plain ResNet-18 / MGNet compiled, batch 64", "test_plain[64]", "test_rollout[mgnet-compiled-64]"),
    ("plain ResNet-18 / MGNet compiled, batch 1", "test_plain[1]", "test_rollout[mgnet-compiled-1]"),
    ("ResNet-18 compiled / MGNet compiled, batch 64", "test_rollout[timm-compiled-64]", "test_rollout[mgnet-compiled-64]"),
    ("ResNet-18 compiled / MGNet compiled, batch 1", "test_rollout[timm-compiled-1]", "test_rollout[mgnet-compiled-1]"),
    ("plain loop / MGNet cnn4 compiled, batch 1", "test_loop[cnn4-plain-1]", "test_loop[cnn4-compiled-1]"),
    ("plain loop / MGNet cnn4 compiled, batch 64", "test_loop[cnn4-plain-64]", "test_loop[cnn4-compiled-64]"),
    ("plain loop / MGNet ResNet-18 compiled, batch 1", "test_loop[resnet18-plain-1]", "test_loop[resnet18-compiled-1]"),
    ("plain loop / MGNet ResNet-18 compiled, batch 64", "test_loop[resnet18-plain-64]", "test_loop[resnet18-compiled-64]"),
    ("harness / bare loop, mgnet.digits", "test_harness[mgnet]", "test_bare_loop[mgnet]"),
    ("harness / bare loop, cnn4.digits", "test_harness[cnn4]", "test_bare_loop[cnn4]"),
    ("counted / uncounted, mgnet.digits", "test_cost_counting[mgnet-counted]", "test_cost_counting[mgnet-uncounted]"),
    ("counted / uncounted, cnn4.digits", "test_cost_counting[cnn4-counted]", "test_cost_counting[cnn4-uncounted]"),
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
    found = {each["name"]: each for each in json.loads(Path(path).read_text())["benchmarks"]}
    print("| time of | ratio | ms | against ms |\n| --- | ---: | ---: | ---: |")
    for what, a, b in RATIOS:
        if a in found and b in found:
            print(f"| {what} | {median(found[a]) / median(found[b]):.2f} | {1e3 * median(found[a]):.2f} | {1e3 * median(found[b]):.2f} |")
    if exits := [name for name in found if name.startswith("test_exits[") and "-exits-in-" not in name and "-exits-" in name]:
        print("\n| early exits | batch | ms without | ms with | in the batch | gain in time | in MACs | share |")
        print("| --- " + "| ---: " * 7 + "|")
        for name in exits:
            print_exits(found, name)


def print_exits(found: dict[str, dict[str, Any]], name: str) -> None:
    """A row: the gain in time by early exits, beside that in MACs, and the share of the one in the other."""
    all_steps, kept = found[name.replace("-exits-", "-all-steps-")], found[name.replace("-exits-", "-exits-in-the-batch-")]
    exits = found[name]
    card, _, batch = name.removeprefix("test_exits[").removesuffix("]").rsplit("-", 2)
    ms = [1e3 * median(each) / each["extra_info"]["batches"] for each in (all_steps, exits, kept)]
    time, macs = ms[0] / ms[1], all_steps["extra_info"]["macs"] / exits["extra_info"]["macs"]
    print(f"| {card} | {batch} | {ms[0]:.2f} | {ms[1]:.2f} | {ms[2]:.2f} | {time:.2f} | {macs:.2f} | {time / macs:.2f} |")


def median(benchmark: dict[str, Any]) -> float:
    """In seconds."""
    return benchmark["stats"]["median"]


if __name__ == "__main__":
    main(sys.argv[1])
