"""What the benchmarks share: fixed threads, and inputs that are not the same in every round."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from glimpsezoo.core.protocol import Computing, GlimpseModel
from glimpsezoo.evaluation.environment import keep_freed_memory

SHORT = "GLIMPSEZOO_SHORT" in os.environ
THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))


@pytest.fixture(autouse=True, scope="session")
def settings() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def compiled() -> Callable[[GlimpseModel[Any]], GlimpseModel[Any]]:
    """Makes a model compile its phases, as `--compile` does. That takes a minute, so the short form leaves it out."""

    def compiled(model: GlimpseModel[Any]) -> GlimpseModel[Any]:
        if SHORT:
            pytest.skip("compiling takes a minute")
        model.computing = Computing(compiled=True)
        return model

    return compiled


@pytest.fixture
def timed(benchmark: Any) -> Callable[..., Any]:
    """`timed(function, inputs, rounds)`: each round calls the function with the next input; one pass over all inputs is not counted."""

    def run(function: Callable[[Any], Any], inputs: Sequence[Any], rounds: int) -> Any:
        if SHORT:
            return benchmark.pedantic(function, args=(inputs[0],), rounds=1)
        for each in inputs:
            function(each)
        following = itertools.cycle(inputs)
        return benchmark.pedantic(function, setup=lambda: ((next(following),), {}), rounds=rounds)

    return run
