"""README.md is true: its tables are what the commands print, its commands exist, its Python runs."""

import io
import re
import shlex
from pathlib import Path

import pytest
import torch
from command_line import COMMANDS
from rich.console import Console
from row_files import read_rows

from glimpsezoo.measures.pairs import Comparison, every_pair
from glimpsezoo.measures.result import Result
from glimpsezoo.reports.paired import print_comparison
from glimpsezoo.reports.table import print_results
from glimpsezoo.zoo.results import read_result

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def printed(*names: str) -> str:
    """What `glimpsezoo run` prints of these cards, from their evidence."""
    folders = [ROOT / "zoo_cards" / f"{name}.digits" for name in names]
    results = [_of_these(names, read_result((folder / "result.json").read_bytes())) for folder in folders]
    console = Console(file=io.StringIO(), width=100, highlight=False, color_system=None)
    print_results(results, console)
    if len(names) > 1:
        units = {result.model.name: read_rows(folder / "rows.parquet") for result, folder in zip(results, folders, strict=True)}
        rows = {name: unit.rows for name, unit in units.items() if unit is not None}
        print_comparison(Comparison(run="readme", data="digits", pairs=every_pair(rows)), results, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _of_these(names: tuple[str, ...], result: Result) -> Result:
    """Without what is relative to a baseline that such a run does not have: the cards were measured together."""
    equal = result.anytime.equal_accuracy if result.anytime else None
    if equal is None or equal.baseline.partition(".")[0] in names:
        return result
    assert result.anytime is not None
    return result.model_copy(update={"anytime": result.anytime.model_copy(update={"equal_accuracy": None})})


def plain(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


@pytest.mark.parametrize("names", [("mgnet",), ("mgnet", "cnn4", "ranzato", "pyramid-m3")], ids=" ".join)
def test_the_tables_are_what_the_command_prints(names: tuple[str, ...]):
    block = re.search(rf"<!-- run {' '.join(names)} -->\n```\n(.*?)```", README, re.DOTALL)
    assert block
    assert plain(block[1]) == plain(printed(*names))


def test_the_commands_of_the_readme_exist_with_their_options():
    lines = re.findall(r"^(?:.*&& )?glimpsezoo (.*?)(?:\s+#.*)?$", README, re.MULTILINE)
    assert len(lines) >= 8
    for line in lines:
        name, *words = shlex.split(line)
        command = COMMANDS[name]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, line


def test_the_python_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    torch.manual_seed(0)
    exec(compile(snippet, "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert "Window(" in said
    assert "tensor(" in said
    assert "grad_fn" not in said


def test_the_links_of_the_pages_lead_somewhere():
    for page in [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{page.name}: {target}"
