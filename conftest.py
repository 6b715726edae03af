"""What every test of the repository gets, the core's and the plugins' alike.

Tensor signatures are checked (jaxtyping with beartype) in the core and the plugins, except where only benchmarks run: checking costs
time. Nothing reaches the network or the user's folders, and torch takes no more threads than its share. GLIMPSEZOO_SHORT shortens the
suite.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import beartype.typing  # noqa: F401 - CHECKER names it
import pytest
from jaxtyping import install_import_hook

ROOT = Path(__file__).parent
HOME = tempfile.mkdtemp(prefix="glimpsezoo-tests-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ |= {"GLIMPSEZOO_HOME": HOME, "HF_HOME": HOME, "TORCH_HOME": HOME, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
# A worker has the environment of the process that started it, with that one's threads.
os.environ["OMP_NUM_THREADS"] = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"

# jaxtyping decorates methods one by one, where beartype cannot know what Self is: it is left unchecked.
CHECKER = (
    "beartype.beartype(conf=beartype.BeartypeConf("
    "is_pep484_tower=True, hint_overrides=beartype.FrozenDict({beartype.typing.Self: object})))"
)


def _only_benchmarks(config: pytest.Config) -> bool:
    folders = [Path(config.invocation_params.dir, argument.partition("::")[0]) for argument in config.args]
    return all(folder.resolve().is_relative_to(ROOT / "benchmarks") for folder in folders)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Benchmarks have the machine to themselves."""
    return 0 if _only_benchmarks(config) else None


def pytest_configure(config: pytest.Config) -> None:
    if not _only_benchmarks(config) and "GLIMPSEZOO_SHORT" not in os.environ:  # what is checked does not depend on versions
        plugins = [package.name for package in ROOT.glob("plugins/*/glimpsezoo_*")]
        install_import_hook(["glimpsezoo", *plugins], CHECKER)


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
