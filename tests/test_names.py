"""Every name in the code is defined. The linter's own check is off, because it takes the shapes of jaxtyping for names."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.repository

ROOT = Path(__file__).parent.parent
FOLDERS = ("glimpsezoo", "plugins", "tests", "benchmarks", "docs")


def undefined(*places: Path) -> list[str]:
    """Names that are used and not defined, outside of texts: 'FILE:LINE: NAME'."""
    words = ["ruff", "check", "--isolated", "--no-cache", "--select", "F821", "--target-version", "py311", "--output-format", "json"]
    found = subprocess.run([sys.executable, "-m", *words, *map(str, places)], capture_output=True, text=True, check=False)
    assert found.returncode in (0, 1), found.stderr
    return [
        f"{Path(each['filename']).name}:{each['location']['row']}: {each['message']}"
        for each in json.loads(found.stdout)
        if not _in_text(Path(each["filename"]), each["location"]["row"], each["location"]["column"] - 1)
    ]


def _in_text(file: Path, row: int, column: int) -> bool:
    """Whether a place is inside of a text, as a shape is."""
    texts = [
        node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return any((node.lineno, node.col_offset) <= (row, column) < (node.end_lineno or 0, node.end_col_offset or 0) for node in texts)


def test_every_name_is_defined() -> None:
    assert undefined(*(ROOT / folder for folder in FOLDERS)) == []


def test_a_name_that_is_lost_is_found(tmp_path: Path) -> None:
    (tmp_path / "lost.py").write_text('from jaxtyping import Float\n\ndef f(x: Float["B C"]) -> None:\n    lost(x)\n')
    assert undefined(tmp_path) == ["lost.py:4: Undefined name `lost`"]
