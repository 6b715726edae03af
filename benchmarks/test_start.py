"""How long commands take that compute nothing: whole processes, against a Python that only imports what they cannot do without.

pytest benchmarks/test_start.py --benchmark-json out.json && python benchmarks/ratios.py out.json

Help needs click and nothing else that is not Python's own; what prints tables also needs rich. Compiled code is kept, as in an
installation, and the first process, which compiles, does not count.
"""

import os
import subprocess
import sys

import pytest

ROUNDS = 1 if "GLIMPSEZOO_SHORT" in os.environ else 40
FLOORS = {
    "click": ("-c", "import click"),
    "click, rich": ("-c", "import click, rich.console, rich.table"),
}
COMMANDS = ("--help", "lsit", "train --help", "run --help", "--version", "list models", "list")
PROCESSES = FLOORS | {words: ("-m", "glimpsezoo", *words.split()) for words in COMMANDS}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The variables of a process that finds compiled code."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("compiled"))}


@pytest.mark.benchmark(group="start")
@pytest.mark.parametrize("words", PROCESSES.values(), ids=PROCESSES)
def test_start(benchmark, environment, words):
    def start():
        return subprocess.run([sys.executable, *words], env=environment, capture_output=True, check=False).returncode

    assert benchmark.pedantic(start, rounds=ROUNDS, warmup_rounds=1) == (2 if "lsit" in words else 0)
