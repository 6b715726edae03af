"""docs/baselines.md: the baseline of the page is short, and works as it stands once its package is installed."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import RECIPE, Answer
from installed_plugins import installed

TEXT = (Path(__file__).parents[1] / "docs" / "baselines.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE))
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^glimpsezoo .*\bplain\b.*$", TEXT, re.MULTILINE)]
PROJECT = """
[project]
name = "glimpsezoo-plain"
version = "1.0"

[project.entry-points.glimpsezoo]
plain = "glimpsezoo_plain.plugin"
"""


def test_the_model_takes_about_15_lines() -> None:
    assert set(FILES) == {"glimpsezoo_plain/model.py", "glimpsezoo_plain/plugin.py"}
    assert len([line for line in FILES["glimpsezoo_plain/model.py"].splitlines() if line]) <= 12
    assert all(len(line) <= 100 for line in FILES["glimpsezoo_plain/plugin.py"].splitlines())


def test_the_baseline_of_the_page_is_checked_measured_and_trained(
    say: Callable[..., Answer], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = here / "plain"
    (folder / "glimpsezoo_plain").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT)
    for path, code in FILES.items():
        (folder / path).write_text(code)
    (here / "short.toml").write_text(RECIPE)
    with installed(folder, monkeypatch):
        assert [words[0] for words in COMMANDS] == ["check", "run"]
        for words in COMMANDS:
            assert say(*words).status == 0
        assert say("train", "plain", "--data", "digits", "--recipe", "short.toml", "-o", "plain.digits").status == 0
        assert say("run", "./plain.digits", "--limit", "20", "--json").json["results"][0]["accuracy"]["top1"]["n"] == 20
    lines = [json.loads(line) for line in (here / "plain.digits" / "training.jsonl").read_text().splitlines()]
    first, last = (line["losses"]["cross_entropy"] for line in lines)
    assert last < first
