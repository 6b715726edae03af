"""Imports point down the layers, plugins import only what the core exports, and nothing heavy is loaded before it is needed."""

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from importlinter import cli

import glimpsezoo

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchvision", "timm", "datasets", "sklearn", "pyarrow")
MOST = (*HEAVY, "numpy", "pydantic", "jaxtyping")
ALL = (*MOST, "rich", "pluggy")
PLUGIN_FILES = sorted(ROOT.glob("plugins/*/glimpsezoo_*/**/*.py"))


def test_imports_point_down(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(ROOT)
    status = cli.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert status == cli.EXIT_STATUS_SUCCESS, capfd.readouterr().out


def test_every_module_has_a_layer() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layered = {name.strip() for layer in contract["layers"] for name in layer.replace("|", ":").split(":")}
    modules = {f"glimpsezoo.{module.name}" for module in pkgutil.iter_modules(glimpsezoo.__path__)}
    assert modules - {"glimpsezoo.__main__"} == layered


@pytest.mark.parametrize("name", glimpsezoo.__all__)
def test_every_exported_name_is_there_and_shadows_no_module(name: str) -> None:
    value = getattr(glimpsezoo, name)
    assert f"glimpsezoo.{name}" not in sys.modules
    assert name in dir(glimpsezoo)
    assert value is getattr(importlib.import_module(value.__module__), name, value)


def test_type_checkers_see_the_names_that_are_exported() -> None:
    tree = ast.parse(Path(glimpsezoo.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = [(node.module, name.name) for node in guarded.body if isinstance(node, ast.ImportFrom) for name in node.names]
    exported = [(module, name) for group in glimpsezoo._EXPORTS.values() for module, names in group.items() for name in names]
    assert sorted(seen) == sorted(exported)
    assert len({name for _, name in exported}) == len(exported), "a name stands in one group"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'glimpsezoo' has no attribute 'nothing'"):
        _ = glimpsezoo.nothing


@pytest.mark.parametrize("path", PLUGIN_FILES, ids=lambda path: str(path.relative_to(ROOT / "plugins")))
def test_plugins_import_only_what_the_core_exports(path: Path) -> None:
    assert not [f"{name} in line {line}" for name, line in imports(path.read_text()) if not exported(name)]


def imports(code: str) -> list[tuple[str, int]]:
    """Everything of the core that some code imports, by its dotted name."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return [(name, line) for name, line in found if name.partition(".")[0] == "glimpsezoo"]


def exported(name: str) -> bool:
    return name == "glimpsezoo" or name.removeprefix("glimpsezoo.") in glimpsezoo.__all__


def command(words: str, status: int = 0) -> str:
    """Code that runs a command, which ends with this status."""
    return f"""
from glimpsezoo.commands import main
try:
    main({words.split()})
except SystemExit as end:
    assert end.code == {status}, end.code"""


REGISTRY = "from glimpsezoo.zoo.plugins import registry; assert not any(p.error for p in registry().plugins), registry().plugins"
LIGHT = {  # what is done -> the code, and what is not loaded by it
    "the package": ("import glimpsezoo", ALL),
    "help": (command("--help"), ALL),
    "a typing error": (command("lsit", 2), ALL),
    "help of train": (command("train --help"), ALL),
    "help of list": (command("list --help"), ALL),
    "help of run": (command("run --help"), MOST),  # it names the measures, also those of plugins
    "the version": (command("--version"), MOST),
    "the registry": (REGISTRY, MOST),
    "list models": (command("list models mgnet*"), MOST),
    "plugins": (command("plugins"), MOST),
    "list": (command("list"), (*HEAVY, "numpy")),  # pydantic checks cards
}


@pytest.mark.parametrize(("code", "heavy"), LIGHT.values(), ids=LIGHT)
def test_nothing_heavy_is_loaded_before_it_is_needed(code: str, heavy: tuple[str, ...]) -> None:
    assert loaded(code, heavy) == []


def test_a_run_loads_neither_torchs_compiler_nor_scipy(tmp_path: Path) -> None:
    """Each takes as long as torch itself."""
    run = command(f"run cnn4 --limit 2 --measure quick -o {tmp_path / 'run'}")
    assert loaded(run, ("torch._dynamo", "sympy", "scipy", "datasets")) == []


def loaded(code: str, modules: tuple[str, ...]) -> list[str]:
    """Those of the modules that some code imports."""
    script = f"{code}\nimport sys\nprint([name for name in {modules} if name in sys.modules], file=sys.stderr)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return ast.literal_eval(done.stderr.splitlines()[-1])
