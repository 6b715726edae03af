"""What the benchmarks share: fixed threads, and contenders that take turns on inputs that are not the same in every round."""

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from contenders import SHORT

from glimpsezoo.evaluation.environment import keep_freed_memory

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))


@pytest.fixture(autouse=True, scope="session")
def settings() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def side_by_side(benchmark: Any) -> Callable[..., None]:
    """`side_by_side(contenders, inputs, rounds, turn=1)`: in every round, each contender takes the next `turn` inputs.

    Load that comes and goes meets them alike, and each is the first of a round equally often. One pass over all inputs is not counted.
    Where a call takes milliseconds, a turn has many, because the first of them finds the caches full of another contender's weights.
    pytest-benchmark's times are those of whole rounds; the seconds of each contender per input are in `extra_info`.
    """

    def run(contenders: Mapping[str, Callable[[Any], Any]], inputs: Sequence[Any], rounds: int, turn: int = 1) -> None:
        for each in inputs[:1] if SHORT else inputs:
            for contender in contenders.values():
                contender(each)
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        order, following = itertools.cycle(range(len(contenders))), itertools.cycle(inputs)

        def one_round(given: list[Any], first: int) -> None:
            names = list(contenders)
            for name in names[first:] + names[:first]:
                start = time.perf_counter()
                for each in given:
                    contenders[name](each)
                seconds[name].append((time.perf_counter() - start) / len(given))

        def setup() -> tuple[tuple[list[Any], int], dict[str, Any]]:
            return ([next(following) for _ in range(1 if SHORT else turn)], next(order)), {}

        benchmark.pedantic(one_round, setup=setup, rounds=1 if SHORT else rounds)
        benchmark.extra_info["seconds"] = {name: statistics.median(times) for name, times in seconds.items()}

    return run
