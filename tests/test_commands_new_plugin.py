"""`new-plugin`: it writes a plugin that works, and overwrites nothing."""

import ast
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Answer, tree
from installed_plugins import installed, register

from glimpsezoo.specs import ModelSpec
from glimpsezoo.workflows.new_plugin import PluginNames, plugin_files
from glimpsezoo.zoo.plugins import registry
from glimpsezoo.zoo.recipes import find_recipe

ROOT = Path(__file__).parents[1]
Ask = Callable[..., Answer]


def clean(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": "", **more}


@pytest.mark.repository
def test_what_it_writes_passes_its_own_tests(say: Ask, tmp_path: Path):
    """Two plugins beside each other, one with a name that is no name of a module."""
    folders = [tmp_path / "here" / name for name in ("glimpsezoo-spot", "my_two-looks2")]
    for folder in folders:
        answer = say("new-plugin", folder.name, "-o", f"here/{folder.name}")
        assert answer.status == 0
        assert {tmp_path / line for line in answer.out.splitlines()} == {path for path in folder.rglob("*") if path.is_file()}
        register(folder)
    environment = clean(PYTHONPATH=os.pathsep.join(map(str, [*folders, ROOT])))
    tests = [f"{folder.name}/tests" for folder in folders]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-rA", *tests]
    done = subprocess.run(command, cwd=tmp_path / "here", capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in (tmp_path / "here").glob("*/tests/test_*.py"):
        assert f"{path.name}::" in done.stdout


def test_it_registers_a_model_with_a_recipe(say: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert say("new-plugin", "glimpsezoo-spot").status == 0
    with installed(tmp_path / "glimpsezoo-spot", monkeypatch):
        spec = registry().find(ModelSpec, "spot")
        assert spec.provenance is not None
        assert (spec.provenance.distribution, spec.provenance.version) == ("glimpsezoo-spot", "0.1.0")
        assert find_recipe(spec, "spot.digits").phase[0].epochs == 60
        assert say("new-plugin", "glimpsezoo-spot", "-o", "again").status == 0  # its own name does not clash
        assert say("new-plugin", "spot").status == 2
    assert "spot" not in [spec.name for spec in registry().all(ModelSpec)]


def test_no_placeholder_is_left(say: Ask, tmp_path: Path):
    say("new-plugin", "glimpsezoo-spot")
    for path in (tmp_path / "glimpsezoo-spot").rglob("*"):
        assert "_module_" not in path.name
        assert "_model_" not in path.name
        assert path.is_dir() or "${" not in path.read_text()


def test_a_folder_that_is_there_is_left_alone_without_force(say: Ask, tmp_path: Path):
    (tmp_path / "spot").mkdir()
    (tmp_path / "spot" / "pyproject.toml").write_text("mine")
    (tmp_path / "spot" / "notes").write_text("mine")
    before = tree(tmp_path)
    answer = say("new-plugin", "spot")
    assert (answer.status, tree(tmp_path)) == (2, before)
    assert "got 'spot'" in answer.err
    assert {"--output,", "--force"} <= set(answer.err.split())
    assert say("new-plugin", "spot", "--force").status == 0
    assert 'name = "spot"' in (tmp_path / "spot" / "pyproject.toml").read_text()
    assert (tmp_path / "spot" / "notes").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Spot", "package name"),
        ("two--looks", "package name"),
        ("2looks", "package name"),
        ("../spot", "package name"),
        ("spot\n", "package name"),
        ("", "package name"),
        ("json", "got 'json': try 'glimpsezoo-json'"),
        ("class", "got 'class': try 'glimpsezoo-class'"),
        ("glimpsezoo", "got 'glimpsezoo': try 'glimpsezoo-glimpsezoo'"),
        ("torch", "got 'torch': try 'glimpsezoo-torch'"),
        ("tests", "got 'tests': try 'glimpsezoo-tests'"),
        ("mgnet", "got 'mgnet', which glimpsezoo-mgnet "),
    ],
)
def test_what_is_no_name_is_one_line_and_writes_nothing(say: Ask, tmp_path: Path, name: str, why: str):
    before = tree(tmp_path)
    answer = say("new-plugin", name)
    assert (answer.status, answer.out, tree(tmp_path)) == (2, "", before)
    assert why in answer.err
    assert answer.err.count("\n") == 1


def test_a_file_in_the_way_is_one_line(say: Ask, tmp_path: Path):
    (tmp_path / "file").write_text("")
    answer = say("new-plugin", "spot", "-o", "file/spot")
    assert answer.status == 2
    assert "can be written" in answer.err


@pytest.mark.parametrize(
    ("name", "title"), [("2looks", "Model2looks"), ("noise", "NoiseModel"), ("none", "NoneModel"), ("two-looks", "TwoLooks")]
)
def test_a_class_s_name_is_one_that_nothing_else_has(name: str, title: str):
    names = PluginNames.of(f"glimpsezoo-{name}")
    assert names.title == title
    for path, text in plugin_files(names).items():
        if path.endswith("model.py"):
            classes = [node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
            imported = [
                alias.asname or alias.name for node in ast.parse(text).body if isinstance(node, ast.ImportFrom) for alias in node.names
            ]
            assert title in classes
            assert len({*classes, *imported}) == len(classes) + len(imported)


@pytest.mark.slow
def test_it_is_installed_by_pip_and_works_there(say: Ask, tmp_path: Path):
    say("new-plugin", "glimpsezoo-spot")
    venv.create(tmp_path / "venv", system_site_packages=True, with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    # The packages of this environment: a venv that is made inside another one does not see them.
    ours = [path for path in sys.path if path.endswith("site-packages")]
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True, check=True
    )
    Path(packages.stdout.strip(), "ours.pth").write_text("\n".join([*ours, str(ROOT)]))
    environment = {key: value for key, value in clean().items() if key != "PYTHONPATH"}
    install = [python, "-m", "pip", "install", "--no-deps", "-q", "./glimpsezoo-spot"]
    steps = [install, [python, "-m", "glimpsezoo", "check", "spot"], [python, "-m", "pytest", "-q", "glimpsezoo-spot/tests"]]
    for step in steps:
        done = subprocess.run(step, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
