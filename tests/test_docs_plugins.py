"""docs/plugins.md against the template: the code is what `new-plugin` writes, the table lists the suite's rules, the commands run."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Answer, ask, lonely
from installed_plugins import installed

from glimpsezoo.testing.suite import RULES
from glimpsezoo.workflows.new_plugin import PluginNames, plugin_files

TEXT = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")
NAME = "glimpsezoo-spot"
FILES = plugin_files(PluginNames.of(NAME))
EXPLAINED = [path for path in FILES if path != "README.md" and not path.endswith("__init__.py")]
COMMANDS = [line for block in re.findall(r"^```console\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE) for line in block.splitlines()]


def code_of(path: str) -> list[str]:
    """The lines of the blocks that name a file, in the page's order, without blank lines."""
    blocks = re.findall(rf"^```(?:python|toml)\n# {re.escape(path)}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("path", EXPLAINED)
def test_the_page_s_code_is_the_template_s(path: str) -> None:
    assert code_of(path) == [line for line in FILES[path].splitlines() if line.strip()]


def test_every_block_of_code_names_a_file_of_the_template() -> None:
    named = re.findall(r"^```(?:python|toml)\n# (\S+)\n", TEXT, re.MULTILINE)
    assert len(named) == len(re.findall(r"^```(?:python|toml)$", TEXT, re.MULTILINE))
    assert set(named) == set(EXPLAINED)


def test_the_model_takes_less_than_65_lines() -> None:
    assert len(FILES["glimpsezoo_spot/model.py"].splitlines()) < 65


def test_the_table_has_every_rule_with_its_sentence() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", TEXT, re.MULTILINE)
    assert rows == [(name, (rule.__doc__ or "").splitlines()[0]) for name, rule in RULES.items()]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], Answer]:
    """Runs a command of the page, with less training and fewer images."""
    lonely(monkeypatch, tmp_path)
    shorter = {"train": ["--set", "train.epochs=1"], "run": ["--limit", "50"]}

    def say(line: str) -> Answer:
        words = shlex.split(line)[1:]
        return ask(capsys, *words, *shorter.get(words[0], []))

    return say


def test_the_page_s_commands_run_in_its_order(run: Callable[[str], Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [line for line in COMMANDS if line.startswith("glimpsezoo ")]
    assert [line for line in COMMANDS if line not in ours] == [f"pip install -e './{NAME}[test]'", f"pytest ./{NAME}"]
    assert [line.split()[1] for line in ours] == ["new-plugin", "check", "check", "show", "train", "run"]
    assert run(ours[0]).status == 0
    with installed(tmp_path / NAME, monkeypatch):
        for line in ours[1:]:
            answer = run(line)
            assert answer.status == 0, answer.err
