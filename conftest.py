"""What every test of the repository gets, the core's and the plugins' alike.

Tensor signatures are checked (jaxtyping with beartype) in the core and the plugins, in the first calls of every test, except where only
benchmarks run: checking costs time. Nothing reaches the network or the user's folders, and torch takes no more threads than its share.
GLIMPSEZOO_SHORT shortens the suite.
"""

import atexit
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from inspect import isclass
from pathlib import Path
from typing import Any, get_args

import beartype.typing  # noqa: F401 - CHECKER names it
import jaxtyping
import pytest

ROOT = Path(__file__).parent
HOME = tempfile.mkdtemp(prefix="glimpsezoo-tests-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ |= {"GLIMPSEZOO_HOME": HOME, "HF_HOME": HOME, "TORCH_HOME": HOME, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
# A worker has the environment of the process that started it, with that one's threads.
os.environ["OMP_NUM_THREADS"] = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"

# jaxtyping decorates methods one by one, where beartype cannot know what Self is: it is left unchecked.
CHECKER = (
    "beartype.beartype(conf=beartype.BeartypeConf("
    "is_pep484_tower=True, violation_type=TypeError, hint_overrides=beartype.FrozenDict({beartype.typing.Self: object})))"
)
CHECKED = 20  # calls of a function in a test: what a loop does after that, it has done before
JAXTYPED = jaxtyping.jaxtyped
calls: Counter[Callable[..., Any]] = Counter()  # in the current test


def _checked(*, typechecker: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that checks the functions and dataclasses that speak of tensors."""

    def decorate(thing: Any) -> Any:
        if not any(_of_tensors(hint, thing) for hint in thing.__annotations__.values()):
            return thing
        if isclass(thing):
            if is_dataclass(thing) and "__init__" in vars(thing):
                thing.__init__ = decorate(thing.__init__)
            return thing
        checked = JAXTYPED(typechecker(thing), typechecker=None)  # looks at every value once; by itself, jaxtyping does so twice

        @wraps(thing)
        def call(*values: Any, **named: Any) -> Any:
            calls[thing] += 1
            unchecked = calls[thing] > CHECKED or jaxtyping.config.jaxtyping_disable
            return (thing if unchecked else checked)(*values, **named)

        return call

    return decorate


def _of_tensors(hint: Any, thing: Any) -> bool:
    """Whether an annotation of a class or function has a tensor in it, be it text or known by another name."""
    if isinstance(hint, str):
        names = vars(sys.modules[thing.__module__])
        return any(_of_tensors(names[word], thing) for word in re.findall(r"\w+", hint) if word in names)
    if isclass(hint) and (issubclass(hint, jaxtyping.AbstractArray) or (hint.__module__, hint.__name__) == ("torch", "Tensor")):
        return True
    return any(_of_tensors(inner, thing) for inner in get_args(hint))


def _only_benchmarks(config: pytest.Config) -> bool:
    folders = [Path(config.invocation_params.dir, argument.partition("::")[0]) for argument in config.args]
    return all(folder.resolve().is_relative_to(ROOT / "benchmarks") for folder in folders)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Benchmarks have the machine to themselves."""
    return 0 if _only_benchmarks(config) else None


def pytest_configure(config: pytest.Config) -> None:
    if not _only_benchmarks(config) and "GLIMPSEZOO_SHORT" not in os.environ:  # what is checked does not depend on versions
        plugins = [package.name for package in ROOT.glob("plugins/*/glimpsezoo_*")]
        jaxtyping.jaxtyped = _checked  # with which the hook decorates all classes and functions
        jaxtyping.install_import_hook(["glimpsezoo", *plugins], CHECKER)


def pytest_runtest_setup() -> None:
    calls.clear()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests may take their time.

    With GLIMPSEZOO_SHORT set, every test runs once, with the first of its parameters: this is how other versions are tried.
    Tests of the repository (its wheels, pages, evidence and killed processes) are left out: they do not depend on versions.
    """
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(0))
    if "GLIMPSEZOO_SHORT" not in os.environ or _only_benchmarks(config):
        return
    deselected = [item for item in items if item.get_closest_marker("repository")]
    items[:] = [item for item in items if item not in deselected]
    first = {item.nodeid.partition("[")[0]: item for item in reversed(items)}
    deselected += [item for item in items if item is not first[item.nodeid.partition("[")[0]]]
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if item is first[item.nodeid.partition("[")[0]]]
