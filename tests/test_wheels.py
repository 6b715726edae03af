"""Wheels of the core and of each plugin hold all that is theirs, cards included, and work without the checkout, together and alone."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable
from importlib.metadata import Distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from command_line import make_card
from installed_plugins import installed

from glimpsezoo.workflows.new_plugin import write_plugin
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.names import spec_of

ROOT = Path(__file__).parents[1]
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))
NAMES = ["glimpsezoo", *PLUGINS]
UNTRAINED = {  # what can be run of a plugin without a card for the digits
    "glimpsezoo-adaptivenn": ["adaptivenn"],
    "glimpsezoo-canvit": ["canvit"],
    "glimpsezoo-gfnet": ["gfnet", "--set", "backbone=test_resnet", "--set", "patch=32"],
    "glimpsezoo-ram": ["ram"],
    "glimpsezoo-timm": ["timm:resnet18"],
}
Install = Callable[..., Callable[..., Any]]
SHIPPED = [Card.read(path.parent) for path in sorted(ROOT.glob("zoo_cards/*/config.json"))]
WITHIN = {path.parts[-5]: path.parent.name for path in ROOT.glob("plugins/*/*/zoo_cards/*/config.json")}  # cards of the authors' weights


def module(name: str) -> str:
    """The package of a distribution."""
    return name.replace("-", "_")


def source(name: str) -> Path:
    """The folder of a distribution in the checkout."""
    return ROOT / "plugins" / name if name in PLUGINS else ROOT


def cards_of(name: str) -> list[Card]:
    """The cards of the models that a distribution registers."""
    specs = [(card, spec_of(card.config.model, None)) for card in SHIPPED]
    return [card for card, spec in specs if spec.provenance and spec.provenance.distribution == name]


def checkpoint(card: Card) -> dict[str, Any]:
    """What a result says of the card's weights."""
    found = card.checkpoint()
    assert found is not None
    return found.model_dump()


def build(project: Path, into: Path, kind: str = "wheel", *, umask: int = -1, **environment: str) -> Path:
    """What pip builds of a project, by hatchling's own hooks: a wheel, an sdist, or the wheel of an editable install."""
    script = f"import sys, hatchling.build as backend; print(backend.build_{kind}(sys.argv[1]))"
    into.mkdir(parents=True, exist_ok=True)
    around: dict[str, Any] = {"cwd": project, "umask": umask, "env": {**os.environ, **environment}}
    done = subprocess.run([sys.executable, "-c", script, into], **around, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return into / done.stdout.splitlines()[-1]


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def files(folder: Path) -> dict[str, bytes]:
    """The files below a folder, without what Python compiled."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    return {name: build(source(name), folder) for name in NAMES}


# What is in them


@pytest.mark.parametrize("name", NAMES)
def test_a_wheel_is_the_package_its_license_and_the_cards_of_its_models(wheels: dict[str, Path], name: str):
    package = module(name)
    expected = {f"{package}/{path}": content for path, content in files(source(name) / package).items()}
    for card in cards_of(name):
        expected |= {f"{package}/zoo_cards/{card.name}/{path}": content for path, content in files(card.folder).items()}
    assert f"{package}/py.typed" in expected
    expected[f"{package}-0.1.0.dist-info/licenses/LICENSE"] = (ROOT / "LICENSE").read_bytes()

    found = contents(wheels[name])
    written = {f"{package}-0.1.0.dist-info/{file}" for file in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")}
    assert set(found) - written == set(expected)
    assert {path: found[path] for path in expected} == expected


def test_every_card_of_the_checkout_is_in_a_wheel():
    assert sorted(card.name for name in PLUGINS for card in cards_of(name)) == [card.name for card in SHIPPED]


@pytest.mark.parametrize("name", NAMES)
def test_an_sdist_gives_the_same_wheel(wheels: dict[str, Path], tmp_path: Path, name: str):
    with tarfile.open(build(source(name), tmp_path, "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    again = build(tmp_path / f"{module(name)}-0.1.0", tmp_path / "again")
    assert contents(again) == contents(wheels[name])


@pytest.mark.parametrize("name", ["glimpsezoo", "glimpsezoo-mgnet"])
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_is_built_is_the_same_to_the_bit_on_another_day_in_another_place(tmp_path: Path, name: str, kind: str):
    copied = tmp_path / "elsewhere"
    ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", "runs")
    shutil.copytree(ROOT, copied, ignore=ignored, symlinks=True)
    for path in copied.rglob("*"):
        os.utime(path, (10**9, 10**9))
        path.chmod(0o700 if path.is_dir() else 0o600)
    here = build(source(name), tmp_path / "here", kind, umask=0o022)
    there = build(copied / source(name).relative_to(ROOT), tmp_path / "there", kind, umask=0o077, TZ="Asia/Tokyo", PYTHONHASHSEED="7")
    assert here.read_bytes() == there.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_building_runs_no_code_but_hatch_s_and_the_copy_of_cards(name: str):
    project = tomllib.loads((source(name) / "pyproject.toml").read_text())
    hooks = project["tool"].get("hatch", {}).get("build", {}).get("hooks", {})
    assert project["build-system"] == {"requires": ["hatchling"], "build-backend": "hatchling.build"}
    assert set(hooks) <= {"custom"}
    assert not list(source(name).glob("setup.*"))


@pytest.mark.parametrize("name", NAMES)
def test_every_dependency_has_a_floor_and_an_upper_bound_only_with_its_reason(name: str):
    """A reason is a comment in the line."""
    text = (source(name) / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    wanted = [*project["dependencies"], *(each for extra in project.get("optional-dependencies", {}).values() for each in extra)]
    for each in wanted:
        if not each.startswith("glimpsezoo"):
            assert ">=" in each, f"{name} takes any version of {each}"
        if "<" in each or "==" in each:
            assert re.search(rf'"{re.escape(each)}".*# .+', text), f"{name} bounds {each} without a reason"


@pytest.mark.slow
def test_no_dependency_has_a_known_vulnerability(tmp_path: Path):
    """The command for releases (CONTRIBUTING.md), with --strict: a package that could not be looked up has not been audited."""
    venv.create(tmp_path / "venv", with_pip=True)
    pip = tmp_path / "venv" / "bin" / "pip"
    if subprocess.run([pip, "install", "-q", "pip-audit"], capture_output=True, check=False).returncode:
        pytest.skip("pip-audit cannot be installed here")
    frozen = subprocess.run([sys.executable, "-m", "pip", "freeze", "--exclude-editable"], capture_output=True, text=True, check=True)
    (tmp_path / "all.txt").write_text("".join(f"{line}\n" for line in frozen.stdout.splitlines() if "@" not in line))
    audit = [tmp_path / "venv" / "bin" / "pip-audit", "--strict", "--no-deps", "--disable-pip", "-r", tmp_path / "all.txt"]
    done = subprocess.run(audit, capture_output=True, text=True, check=False)
    if done.returncode and not re.search(r"Found \d+ known vulnerabilit", done.stderr):
        pytest.skip("the database of vulnerabilities cannot be reached here")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", PLUGINS)
def test_an_editable_install_copies_no_card(tmp_path: Path, name: str):
    found = contents(build(source(name), tmp_path, "editable"))
    assert not [path for path in found if "zoo_cards" in path]
    assert str(source(name)) in found[f"_editable_impl_{module(name)}.pth"].decode()


@pytest.mark.parametrize("name", PLUGINS)
def test_plugins_are_built_by_the_same_rule(name: str):
    assert (source(name) / "hatch_build.py").read_text() == (source(PLUGINS[0]) / "hatch_build.py").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_what_a_distribution_imports_it_depends_on(wheels: dict[str, Path], tmp_path: Path, name: str):
    with zipfile.ZipFile(wheels[name]) as archive:
        archive.extractall(tmp_path)
    info = Distribution.at(tmp_path / f"{module(name)}-0.1.0.dist-info")
    declared = {module(re.split(r"[^\w.-]", line, maxsplit=1)[0]).lower() for line in info.requires or []}
    owners = packages_distributions()
    for path in tmp_path.glob(f"{module(name)}/**/*.py"):
        for imported in imports(path) - {module(name), *sys.stdlib_module_names}:
            providers = {module(owner).lower() for owner in owners.get(imported, [imported])}
            assert providers & declared, f"{path.name} imports {imported} of {providers}, {name} depends on {declared}"


def imports(path: Path) -> set[str]:
    """The top-level names that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    parts = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in whole | parts}


# Installed


# Every case (a folder with installed packages, and commands) in a process of its own, forked because importing torch takes longer than all
# of them. It is torch that they share: nothing of this project is known where this starts.
EACH_ALONE = """
import contextlib, importlib.util, io, json, os, sys
import timm, torch

assert importlib.util.find_spec("glimpsezoo") is None

def ask(words):
    from glimpsezoo.commands import main
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([*words, "--json"])
        except SystemExit as end:
            if end.code:
                return {"error": err.getvalue()}
    return json.loads(out.getvalue())

for site, *commands in json.loads(sys.argv[1]):
    if not os.fork():
        sys.path.insert(0, site)
        print(json.dumps([ask(words) for words in commands]), file=open(f"{site}.answers", "w"), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def alone(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What `plugins`, `list cards` and a run answer where the core and one plugin are installed (as pip does it: unpacked), by plugin."""
    folder = tmp_path_factory.mktemp("alone")
    cases = []
    for name in PLUGINS:
        for wheel in (wheels["glimpsezoo"], wheels[name]):
            shutil.unpack_archive(wheel, folder / name, "zip")
        embedded = [card.name for card in cards_of(name) if card.config.data.name == "digits"]
        models = embedded or [*UNTRAINED[name], "--checkpoint", "none", "--data", "digits"]
        cases.append([str(folder / name), ["plugins"], ["list", "cards"], ["run", *models, "--measure", "quick", "--limit", "20"]])
    venv.create(folder / "venv", symlinks=True)
    link_packages(Path(sysconfig.get_path("purelib", "venv", {"base": str(folder / "venv")})))
    (folder / "empty").mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"GLIMPSEZOO_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    python = [folder / "venv" / "bin" / "python", "-c", EACH_ALONE, json.dumps(cases)]
    done = subprocess.run(python, cwd=folder / "empty", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = [(name, folder / f"{name}.answers") for name in PLUGINS]
    return {name: json.loads(path.read_text()) if path.is_file() else [done.stderr] for name, path in answers}


@pytest.fixture
def install(wheels: dict[str, Path], tmp_path: Path) -> Install:
    """Installs distributions, or wheels, where this environment's packages are, but nothing of the checkout.

    What it gives runs `glimpsezoo` there, in an empty folder, with an empty user's folder, and gives what that prints as JSON.
    """
    here = tmp_path / "empty"
    here.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"GLIMPSEZOO_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def make(*names: str | Path) -> Callable[..., Any]:
        venv.create(tmp_path / "venv", symlinks=True)
        link_packages(Path(sysconfig.get_path("purelib", "venv", {"base": str(tmp_path / "venv")})))
        scripts = tmp_path / "venv" / "bin"
        places = ("--no-index", "--find-links", wheels["glimpsezoo"].parent)  # what else they need is there, or pip says so
        run(scripts / "python", "-m", "pip", "install", "-q", "--no-compile", *places, *names)
        return lambda *words: json.loads(run(scripts / "glimpsezoo", *words, "--json"))

    return make


def link_packages(site: Path) -> None:
    """Let an environment have what this one has, less what is of the checkout."""
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "glimpsezoo" not in entry.name and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)


@pytest.mark.repository
def test_the_main_job_runs_without_the_checkout(install: Install):
    say = install(*PLUGINS)
    assert {row["name"] for row in say("list", "cards")["cards"]} == {*(card.name for card in SHIPPED), *WITHIN.values()}
    (result,) = say("run", "mgnet", "--measure", "quick", "--limit", "100")["results"]
    (card,) = (card for card in SHIPPED if card.name == "mgnet.digits")
    assert result["model"]["checkpoint"] == checkpoint(card)
    assert result["accuracy"]["top1"]["value"] > 0.95
    assert result["environment"]["commit"] is None  # a checkout's sources have one


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.repository
def test_a_plugin_works_alone(alone: dict[str, list[Any]], name: str):
    assert len(alone[name]) == 3, alone[name]
    listed, cards, ran = alone[name]
    plugins = listed["plugins"]
    assert [(plugin["distribution"], plugin["error"]) for plugin in plugins] == [("glimpsezoo", None), (name, None)]
    within = {card for plugin, card in WITHIN.items() if plugin == name}
    assert {row["name"] for row in cards["cards"]} == {*(card.name for card in cards_of(name)), *within}
    if plugins[1]["unavailable"]:
        return  # what it needs is not for this version of Python
    assert {result["model"]["plugin"] for result in ran["results"]} == {name}, ran


@pytest.mark.repository
def test_anybody_s_plugin_ships_cards_in_its_package(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, project, _ = write_plugin("glimpsezoo-spot", tmp_path / "spot")
    with monkeypatch.context() as patch, installed(project, patch):
        card = make_card(project / "glimpsezoo_spot" / "zoo_cards" / "spot.digits", "spot", steps=2)
    say = install(build(project, tmp_path / "built"))
    (result,) = say("run", "spot", "--measure", "quick", "--limit", "20")["results"]
    assert result["model"]["checkpoint"] == checkpoint(card)
